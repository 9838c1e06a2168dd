"""boto 2.49: the object store in depth, by version 2 signatures, at its own address and at that of an older cloud."""

import hashlib
import io
import os
import sys
import urllib.request
import uuid
import warnings

# It is older than the Python that runs it.
warnings.simplefilter("ignore")

import common  # noqa: E402

common.isolate()

import boto  # noqa: E402
from boto.exception import S3ResponseError  # noqa: E402
from boto.s3.connection import OrdinaryCallingFormat, S3Connection  # noqa: E402


def work(path):
    s3 = S3Connection(
        common.ACCESS_KEY,
        common.SECRET_KEY,
        is_secure=False,
        host=common.HOST,
        port=common.PORT,
        path=path or "/",
        calling_format=OrdinaryCallingFormat(),
    )
    name = "boto2-" + uuid.uuid4().hex[:12]
    bucket = s3.create_bucket(name)
    assert name in [found.name for found in s3.get_all_buckets()]
    assert bucket.get_location() == ""
    body = os.urandom(1024 * 1024)
    key = bucket.new_key("dir/a b+c&d")
    key.set_metadata("color", "blue")
    key.set_contents_from_string(body, policy="aws-exec-read")
    assert key.etag.strip('"') == hashlib.md5(body).hexdigest()
    found = bucket.get_key("dir/a b+c&d")
    assert found.size == len(body) and found.get_metadata("color") == "blue"
    assert found.get_contents_as_string() == body
    grants = found.get_acl().acl.grants
    assert len(grants) == 2, grants
    found.set_acl("public-read")
    plain = f"{common.ENDPOINT}{path}/{name}/dir/a%20b%2Bc%26d"
    assert urllib.request.urlopen(plain).read() == body
    found.set_acl("private")
    # A key object with metadata would put these into the URL, which is not S3's way.
    signed = bucket.get_key(found.name, validate=False).generate_url(60)
    assert urllib.request.urlopen(signed).read() == body
    found.copy(name, "copy")
    assert bucket.get_key("copy").get_contents_as_string() == body
    assert bucket.get_key("none") is None
    for number in range(5):
        bucket.new_key(f"many/{number}").set_contents_from_string("x")
    assert [key.name for key in bucket.list(prefix="many/")] == [f"many/{n}" for n in range(5)]
    assert [entry.name for entry in bucket.list(delimiter="/")] == ["copy", "dir/", "many/"]
    page = bucket.get_all_keys(max_keys=2, prefix="many/")
    assert page.is_truncated and len(page) == 2
    upload = bucket.initiate_multipart_upload("big")
    pieces = [os.urandom(5 * 1024 * 1024), b"end"]
    for number, piece in enumerate(pieces, 1):
        upload.upload_part_from_file(io.BytesIO(piece), number)
    assert [part.size for part in upload] == [5 * 1024 * 1024, 3]
    upload.complete_upload()
    assert bucket.get_key("big").get_contents_as_string() == b"".join(pieces)
    try:
        s3.delete_bucket(name)
        raise AssertionError("a full bucket was deleted")
    except S3ResponseError as error:
        assert error.status == 409 and error.error_code == "BucketNotEmpty", error
    try:
        key.set_contents_from_string(body, md5=("0" * 32, "AAAAAAAAAAAAAAAAAAAAAA=="))
        raise AssertionError("a wrong digest was taken")
    except S3ResponseError as error:
        assert error.error_code == "BadDigest", error
    bucket.delete_keys([key.name for key in bucket.list()])
    assert list(bucket.list()) == []
    s3.delete_bucket(name)
    common.say("all of it works with boto %s at %s" % (boto.__version__, path or "/"))


def main():
    for path in ("", "/services/Walrus", "/services/objectstorage"):
        work(path)


if __name__ == "__main__":
    sys.exit(main())
