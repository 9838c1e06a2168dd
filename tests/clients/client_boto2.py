"""boto 2.49: EC2 requests with signature version 4, S3 with version 2."""

import warnings

# It is older than the Python that runs it.
warnings.simplefilter("ignore")

import boto2_work  # noqa: E402

boto2_work.run("2.49.0", "HmacAuthV4Handler", "HmacAuthV1Handler")
