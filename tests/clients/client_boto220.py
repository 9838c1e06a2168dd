"""boto 2.20.0 on Python 2.7: EC2 requests with signature version 2, S3 with its own."""

import sys

assert sys.version_info[0] == 2, "boto 2.20 needs Python 2"

import boto2_work

boto2_work.run("2.20.0", "QuerySignatureV2AuthHandler", "HmacAuthV1Handler")
