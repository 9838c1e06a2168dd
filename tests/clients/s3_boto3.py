"""boto3: what the object store does, in depth, with refusals.

Beside the variables of common.py it takes CUMULET_TEST_OTHER_ACCESS_KEY and
CUMULET_TEST_OTHER_SECRET_KEY, the key of a user of a second account.  Every
bucket that it makes it deletes again.
"""

import base64
import hashlib
import io
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

import common

common.isolate()

import boto3  # noqa: E402  (reads the environment when imported)
import botocore  # noqa: E402
from boto3.s3.transfer import TransferConfig  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

URL = common.ENDPOINT
OTHER_KEY = common.setting("OTHER_ACCESS_KEY")
OTHER_SECRET = common.setting("OTHER_SECRET_KEY")
PARTS = 5 * 1024 * 1024


def client(key=None, secret=None, **config):
    settings = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1}}
    settings.update(config)
    return boto3.client(
        "s3",
        endpoint_url=URL,
        region_name="us-east-1",
        aws_access_key_id=key or common.ACCESS_KEY,
        aws_secret_access_key=secret or common.SECRET_KEY,
        config=Config(**settings),
    )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}: {error}"
        return error.response
    raise AssertionError(f"{code} was expected")


def buckets(s3, name):
    s3.create_bucket(Bucket=name)
    s3.create_bucket(Bucket=name)  # us-east-1 says yes twice
    assert name in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"
    for bad in ["Bad_Name", "ab", "192.168.1.1", "services", "image"]:
        try:
            refused("InvalidBucketName", s3.create_bucket, Bucket=bad)
        except botocore.exceptions.ParamValidationError:
            pass
    refused("NoSuchBucket", s3.list_objects_v2, Bucket=name + "-none")
    refused("404", s3.head_bucket, Bucket=name + "-none")
    refused("NoSuchBucket", s3.delete_bucket, Bucket=name + "-none")
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    refused("NotImplemented", s3.get_bucket_tagging, Bucket=name)
    refused("NotImplemented", s3.put_object_tagging, Bucket=name, Key="k", Tagging={"TagSet": []})


def objects(s3, name):
    body = os.urandom(3 * 1024 * 1024 + 17)
    put = s3.put_object(
        Bucket=name,
        Key="dir/ä +&<x>.bin",
        Body=body,
        ContentType="text/x-test",
        CacheControl="no-cache",
        ContentDisposition="attachment",
        ContentEncoding="gzip",
        Metadata={"color": "blue", "Size": "4"},
    )
    etag = '"%s"' % hashlib.md5(body).hexdigest()
    assert put["ETag"] == etag
    got = s3.get_object(Bucket=name, Key="dir/ä +&<x>.bin", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert got["ETag"] == etag and got["ContentType"] == "text/x-test"
    assert got["Metadata"] == {"color": "blue", "size": "4"}
    assert got["CacheControl"] == "no-cache" and got["ContentEncoding"] == "gzip"
    assert got["ContentDisposition"] == "attachment" and got["ContentLength"] == len(body)
    head = s3.head_object(Bucket=name, Key="dir/ä +&<x>.bin")
    assert head["ContentLength"] == len(body) and head["ETag"] == etag

    def ranged(text):
        found = s3.get_object(Bucket=name, Key="dir/ä +&<x>.bin", Range=text)
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        return found["Body"].read()

    assert ranged("bytes=10-19") == body[10:20]
    assert ranged("bytes=-7") == body[-7:]
    assert ranged("bytes=3145728-") == body[3145728:]
    refused("InvalidRange", s3.get_object, Bucket=name, Key="dir/ä +&<x>.bin", Range="bytes=99999999-")
    refused("304", s3.get_object, Bucket=name, Key="dir/ä +&<x>.bin", IfNoneMatch=etag)
    refused("PreconditionFailed", s3.get_object, Bucket=name, Key="dir/ä +&<x>.bin", IfMatch='"0"')
    refused("NoSuchKey", s3.get_object, Bucket=name, Key="none")
    refused("404", s3.head_object, Bucket=name, Key="none")
    refused("PreconditionFailed", s3.put_object, Bucket=name, Key="dir/ä +&<x>.bin", Body=b"", IfNoneMatch="*")
    refused("KeyTooLongError", s3.put_object, Bucket=name, Key="k" * 1025, Body=b"")
    refused("NotImplemented", s3.put_object, Bucket=name, Key="k", Body=b"", ServerSideEncryption="AES256")
    refused("MetadataTooLarge", s3.put_object, Bucket=name, Key="k", Body=b"", Metadata={"a": "b" * 3000})
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=name)
    s3.put_object(Bucket=name, Key="empty", Body=b"")
    assert s3.get_object(Bucket=name, Key="empty")["Body"].read() == b""
    s3.delete_object(Bucket=name, Key="empty")
    s3.delete_object(Bucket=name, Key="empty")
    copied = s3.copy_object(Bucket=name, Key="copy", CopySource={"Bucket": name, "Key": "dir/ä +&<x>.bin"})
    assert copied["CopyObjectResult"]["ETag"] == etag
    assert s3.head_object(Bucket=name, Key="copy")["Metadata"]["color"] == "blue"
    s3.copy_object(
        Bucket=name,
        Key="copy",
        CopySource={"Bucket": name, "Key": "copy"},
        MetadataDirective="REPLACE",
        Metadata={"color": "red"},
    )
    assert s3.head_object(Bucket=name, Key="copy")["Metadata"] == {"color": "red"}
    assert s3.get_object(Bucket=name, Key="copy")["Body"].read() == body
    refused("InvalidRequest", s3.copy_object, Bucket=name, Key="copy", CopySource={"Bucket": name, "Key": "copy"})


def odd_keys(s3, name):
    keys = ["/lead", "a//b", "..", "../x", "a/./b", "q?r=1#f", "100%25", "~t!*'()", "tail/", "\u65e5\u672c \U0001f600", " s "]
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=name, Key=key)["Body"].read() == key.encode(), key
    found = [entry["Key"] for entry in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert set(keys) <= set(found), found
    s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key} for key in keys]})


def checksums(s3, name):
    body = b"the quick brown fox" * 100
    for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]:
        try:
            s3.put_object(Bucket=name, Key="sum", Body=body, ChecksumAlgorithm=algorithm)
        except botocore.exceptions.MissingDependencyException:
            continue  # needs the C library of checksums
        got = s3.head_object(Bucket=name, Key="sum", ChecksumMode="ENABLED")
        assert "Checksum" + algorithm in got, got
        # As a stream: a trailer behind aws-chunked.
        s3.put_object(Bucket=name, Key="sum", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
        assert s3.get_object(Bucket=name, Key="sum")["Body"].read() == body
    wrong = base64.b64encode(b"0000").decode()
    refused("BadDigest", s3.put_object, Bucket=name, Key="bad", Body=body, ChecksumCRC32=wrong)
    wrong = base64.b64encode(b"0" * 32).decode()
    refused("BadDigest", s3.put_object, Bucket=name, Key="bad", Body=body, ChecksumSHA256=wrong)
    wrong = base64.b64encode(b"0" * 16).decode()
    refused("BadDigest", s3.put_object, Bucket=name, Key="bad", Body=body, ContentMD5=wrong)
    refused("InvalidDigest", s3.put_object, Bucket=name, Key="bad", Body=body, ContentMD5="x")
    refused("404", s3.head_object, Bucket=name, Key="bad")


def multipart(s3, name):
    body = os.urandom(2 * PARTS + 1000)
    config = TransferConfig(multipart_threshold=PARTS, multipart_chunksize=PARTS)
    s3.upload_fileobj(io.BytesIO(body), name, "big", Config=config)
    assert s3.head_object(Bucket=name, Key="big")["ETag"].endswith('-3"')
    into = io.BytesIO()
    s3.download_fileobj(name, "big", into, Config=config)
    assert into.getvalue() == body
    s3.copy({"Bucket": name, "Key": "big"}, name, "big2", Config=config)
    assert s3.get_object(Bucket=name, Key="big2")["Body"].read() == body

    for algorithm, kind in [("SHA256", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC32", "COMPOSITE")]:
        upload = s3.create_multipart_upload(
            Bucket=name, Key="sum", ChecksumAlgorithm=algorithm, ChecksumType=kind
        )["UploadId"]
        at = {"Bucket": name, "Key": "sum", "UploadId": upload}
        parts = []
        for number in (1, 2):
            piece = body[(number - 1) * PARTS : number * PARTS]
            part = s3.upload_part(**at, PartNumber=number, Body=piece, ChecksumAlgorithm=algorithm)
            parts.append(
                {"PartNumber": number, "ETag": part["ETag"], "Checksum" + algorithm: part["Checksum" + algorithm]}
            )
        listed = s3.list_parts(**at)["Parts"]
        assert [part["Size"] for part in listed] == [PARTS, PARTS]
        assert upload in [found["UploadId"] for found in s3.list_multipart_uploads(Bucket=name)["Uploads"]]
        s3.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
        assert s3.get_object(Bucket=name, Key="sum")["Body"].read() == body[: 2 * PARTS]
        refused("NoSuchUpload", s3.list_parts, **at)

    upload = s3.create_multipart_upload(Bucket=name, Key="bad")["UploadId"]
    at = {"Bucket": name, "Key": "bad", "UploadId": upload}
    tags = [s3.upload_part(**at, PartNumber=number, Body=b"small")["ETag"] for number in (1, 2)]
    listed = [{"PartNumber": number, "ETag": tag} for number, tag in zip((1, 2), tags)]
    refused("EntityTooSmall", s3.complete_multipart_upload, **at, MultipartUpload={"Parts": listed})
    refused("InvalidPartOrder", s3.complete_multipart_upload, **at, MultipartUpload={"Parts": listed[::-1]})
    refused(
        "InvalidPart",
        s3.complete_multipart_upload,
        **at,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"%s"' % ("0" * 32)}]},
    )
    s3.abort_multipart_upload(**at)
    refused("NoSuchUpload", s3.upload_part, **at, PartNumber=1, Body=b"x")


def listings(s3, name):
    keys = ["a/1", "a/2", "a/b/3", "b", "c d+e", "é/1", "z&<>\"'"]
    for key in keys:
        s3.put_object(Bucket=name, Key="list/" + key, Body=b"x")
    expected = sorted(("list/" + key for key in keys), key=lambda key: key.encode())
    for operation in ("list_objects", "list_objects_v2"):
        for size in (1, 2, 3, 1000):
            pages = s3.get_paginator(operation).paginate(
                Bucket=name, Prefix="list/", PaginationConfig={"PageSize": size}
            )
            found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            assert found == expected, found
            pages = s3.get_paginator(operation).paginate(
                Bucket=name, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": size}
            )
            shown = []
            for page in pages:
                shown += [entry["Key"] for entry in page.get("Contents", [])]
                shown += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            wanted = ["list/a/", "list/b", "list/c d+e", "list/z&<>\"'", "list/é/"]
            assert sorted(shown) == sorted(wanted), shown
    after = s3.list_objects_v2(Bucket=name, Prefix="list/", StartAfter="list/a/b/3")
    assert after["Contents"][0]["Key"] == "list/b"
    answer = s3.delete_objects(
        Bucket=name, Delete={"Objects": [{"Key": key} for key in expected + ["list/none"]]}
    )
    assert len(answer["Deleted"]) == len(expected) + 1
    assert "Contents" not in s3.list_objects_v2(Bucket=name, Prefix="list/")


def access(s3, name):
    s3.put_object(Bucket=name, Key="private", Body=b"secret")
    s3.put_object(Bucket=name, Key="public", Body=b"open", ACL="public-read")
    url = f"{URL}/{name}/public"
    assert urllib.request.urlopen(url).read() == b"open"
    try:
        urllib.request.urlopen(f"{URL}/{name}/private")
        raise AssertionError("a private object was read")
    except urllib.error.HTTPError as error:
        assert error.code == 403
        document = error.read().decode()
        for part in ("<Code>AccessDenied</Code>", "<RequestId>", "<HostId>"):
            assert part in document, document
    for arguments in ({}, {"ExpiresIn": 60}):
        url = s3.generate_presigned_url("get_object", {"Bucket": name, "Key": "private"}, **arguments)
        assert urllib.request.urlopen(url).read() == b"secret"
    url = s3.generate_presigned_url("put_object", {"Bucket": name, "Key": "presigned"}, ExpiresIn=60)
    request = urllib.request.Request(url, data=b"by url", method="PUT", headers={"Content-Type": ""})
    urllib.request.urlopen(request)
    assert s3.get_object(Bucket=name, Key="presigned")["Body"].read() == b"by url"
    try:
        newer = client(signature_version="s3v4")
        url = newer.generate_presigned_url("get_object", {"Bucket": name, "Key": "private"}, ExpiresIn=60)
        assert urllib.request.urlopen(url).read() == b"secret"
        url = newer.generate_presigned_url("get_object", {"Bucket": name, "Key": "private"}, ExpiresIn=604801)
        urllib.request.urlopen(url)
        raise AssertionError("a presigned request of eight days was taken")
    except urllib.error.HTTPError as error:
        assert error.code == 400, error.code

    post = s3.generate_presigned_post(name, "posted")
    boundary = uuid.uuid4().hex
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in post["fields"].items()
    )
    form = fields + f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nby form\r\n--{boundary}--\r\n'
    request = urllib.request.Request(
        post["url"], data=form.encode(), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    urllib.request.urlopen(request)
    assert s3.get_object(Bucket=name, Key="posted")["Body"].read() == b"by form"

    for acl, count in [("private", 1), ("public-read", 2), ("aws-exec-read", 2), ("public-read-write", 3)]:
        s3.put_object_acl(Bucket=name, Key="private", ACL=acl)
        found = s3.get_object_acl(Bucket=name, Key="private")
        assert len(found["Grants"]) == count
        policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
        s3.put_object_acl(Bucket=name, Key="private", AccessControlPolicy=policy)
        assert s3.get_object_acl(Bucket=name, Key="private")["Grants"] == found["Grants"]
    s3.put_object_acl(Bucket=name, Key="private", ACL="private")
    s3.put_bucket_acl(Bucket=name, ACL="public-read")
    assert len(s3.get_bucket_acl(Bucket=name)["Grants"]) == 2
    s3.put_bucket_acl(Bucket=name, ACL="private")

    wrong = client(secret="wrong")
    refused("SignatureDoesNotMatch", wrong.list_buckets)
    refused("SignatureDoesNotMatch", wrong.put_object, Bucket=name, Key="k", Body=b"x" * 300000)
    unknown = client(key="AKIDNOBODYHERE")
    refused("InvalidAccessKeyId", unknown.list_buckets)
    elsewhere = boto3.client("s3", endpoint_url=URL, region_name="eu-west-1",
                             aws_access_key_id=common.ACCESS_KEY,
                             aws_secret_access_key=common.SECRET_KEY,
                             config=Config(s3={"addressing_style": "path"}))
    # boto3 reads the region out of the refusal and asks again.
    elsewhere.list_objects_v2(Bucket=name)

    old = client(signature_version="s3")
    old.put_object(Bucket=name, Key="v2", Body=b"old signature")
    assert old.get_object(Bucket=name, Key="v2")["Body"].read() == b"old signature"
    url = old.generate_presigned_url("get_object", {"Bucket": name, "Key": "v2"})
    assert urllib.request.urlopen(url).read() == b"old signature"

    other = client(OTHER_KEY, OTHER_SECRET)
    refused("BucketAlreadyExists", other.create_bucket, Bucket=name)
    refused("AccessDenied", other.list_objects_v2, Bucket=name)
    refused("AccessDenied", other.get_object, Bucket=name, Key="private")
    refused("AccessDenied", other.put_object, Bucket=name, Key="k", Body=b"x" * 2000000)
    refused("AccessDenied", other.delete_object, Bucket=name, Key="private")
    refused("AccessDenied", other.delete_bucket, Bucket=name)
    refused("403", other.head_bucket, Bucket=name)
    refused("AccessDenied", other.get_object, Bucket=name, Key="none")
    assert other.get_object(Bucket=name, Key="public")["Body"].read() == b"open"
    refused("AccessDenied", s3.list_objects_v2, Bucket=name, ExpectedBucketOwner="111111111111")


def sharing(s3, name):
    """Grants by account, in headers and in a policy."""
    other = client(OTHER_KEY, OTHER_SECRET)
    friend = other.list_buckets()["Owner"]["ID"]
    s3.put_object(Bucket=name, Key="shared", Body=b"for a friend", GrantRead=f'id="{friend}"')
    assert other.get_object(Bucket=name, Key="shared")["Body"].read() == b"for a friend"
    refused("AccessDenied", other.get_object_acl, Bucket=name, Key="shared")
    shown = s3.get_object_acl(Bucket=name, Key="shared")["Grants"]
    assert [(grant["Grantee"]["ID"], grant["Permission"]) for grant in shown] == [(friend, "READ")], shown
    owner = s3.get_object_acl(Bucket=name, Key="shared")["Owner"]
    grants = [{"Grantee": {"Type": "CanonicalUser", "ID": friend}, "Permission": "READ_ACP"}]
    policy = {"Owner": owner, "Grants": grants}
    s3.put_object_acl(Bucket=name, Key="shared", AccessControlPolicy=policy)
    refused("AccessDenied", other.get_object, Bucket=name, Key="shared")
    assert other.get_object_acl(Bucket=name, Key="shared")["Grants"][0]["Permission"] == "READ_ACP"
    s3.put_bucket_acl(Bucket=name, GrantWrite=f"id={friend}")
    other.put_object(Bucket=name, Key="theirs", Body=b"x")
    refused("AccessDenied", other.list_objects_v2, Bucket=name)
    s3.put_bucket_acl(Bucket=name, ACL="private")
    refused("AccessDenied", other.put_object, Bucket=name, Key="theirs", Body=b"y")


def details(s3, name):
    """Parts by number, conditions, and headers that the client asks for."""
    upload = s3.create_multipart_upload(Bucket=name, Key="numbered")["UploadId"]
    at = {"Bucket": name, "Key": "numbered", "UploadId": upload}
    first = s3.upload_part(**at, PartNumber=1, Body=b"1" * PARTS)["ETag"]
    source = {"Bucket": name, "Key": "public"}
    second = s3.upload_part_copy(**at, PartNumber=2, CopySource=source, CopySourceRange="bytes=1-3")
    parts = [first, second["CopyPartResult"]["ETag"]]
    listed = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(parts, 1)]
    s3.complete_multipart_upload(**at, MultipartUpload={"Parts": listed})
    part = s3.get_object(Bucket=name, Key="numbered", PartNumber=2)
    assert part["Body"].read() == b"pen" and part["PartsCount"] == 2
    head = s3.head_object(Bucket=name, Key="numbered", PartNumber=1)
    assert head["ContentLength"] == PARTS and head["PartsCount"] == 2
    modified = head["LastModified"]
    refused("304", s3.get_object, Bucket=name, Key="public", IfModifiedSince=time.time())
    refused("PreconditionFailed", s3.get_object, Bucket=name, Key="public", IfUnmodifiedSince=1)
    s3.get_object(Bucket=name, Key="numbered", IfUnmodifiedSince=modified)
    asked = s3.get_object(Bucket=name, Key="public", ResponseContentType="text/x-asked")
    assert asked["ContentType"] == "text/x-asked"


def main():
    s3 = client()
    name = "boto3-" + uuid.uuid4().hex[:12]
    buckets(s3, name)
    for part in (objects, odd_keys, checksums, multipart, listings, access, sharing, details):
        part(s3, name)
        common.say(part.__name__ + " ok")
    while True:
        keys = [{"Key": entry["Key"]} for entry in s3.list_objects_v2(Bucket=name).get("Contents", [])]
        if not keys:
            break
        s3.delete_objects(Bucket=name, Delete={"Objects": keys})
    s3.delete_bucket(Bucket=name)
    refused("NoSuchBucket", s3.list_objects_v2, Bucket=name)
    common.say("all of it works with botocore " + botocore.__version__)


if __name__ == "__main__":
    sys.exit(main())
