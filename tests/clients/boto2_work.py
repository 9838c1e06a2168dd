# -*- coding: utf-8 -*-
"""The work of both old botos: complete bucket work, and an image from upload to a terminated instance.

Runs on Python 2.7 and 3.  Only region, host, port, plain HTTP and the path calling format are set.
"""

import common
from common import BUCKET, holds, refused, same

common.isolate()

import boto  # noqa: E402  (reads its configuration when imported)
from boto.ec2.regioninfo import RegionInfo  # noqa: E402
from boto.exception import BotoServerError  # noqa: E402
from boto.s3.connection import OrdinaryCallingFormat  # noqa: E402

NAMES = [u"plain.txt", u"folder/one", u"folder/two", u"a name with spaces & größe"]


def code_of(error):
    return error.error_code or str(error.status) if isinstance(error, BotoServerError) else None


def connect_s3():
    return boto.connect_s3(
        common.ACCESS_KEY,
        common.SECRET_KEY,
        host=common.HOST,
        port=common.PORT,
        is_secure=False,
        calling_format=OrdinaryCallingFormat(),
    )


def connect_ec2():
    return boto.connect_ec2(
        common.ACCESS_KEY,
        common.SECRET_KEY,
        region=RegionInfo(name=common.REGION, endpoint=common.HOST),
        port=common.PORT,
        is_secure=False,
        path="/",
    )


def run(version, ec2_signer, s3_signer):
    """Does all of it; the version and the signature classes are those that the caller expects."""
    s3, ec2 = connect_s3(), connect_ec2()

    def the_right_boto():
        same("the version of boto", boto.__version__, version)
        same("how EC2 requests are signed", type(ec2._auth_handler).__name__, ec2_signer)
        same("how S3 requests are signed", type(s3._auth_handler).__name__, s3_signer)

    def make_a_bucket(*_):
        s3.create_bucket(BUCKET)
        holds("the bucket is listed", BUCKET in [it.name for it in s3.get_all_buckets()])
        bucket = s3.get_bucket(BUCKET)
        same("the location", bucket.get_location(), "")
        return bucket

    def put_list_head_get(_, bucket):
        data = common.sample(100000, "boto2")
        for name in NAMES:
            key = bucket.new_key(name)
            key.set_metadata("colour", "blue")
            key.set_contents_from_string(data, headers={"Content-Type": "text/x-sample"})
            same("the ETag", key.etag, '"%s"' % common.md5_hex(data))
        same("the keys", [it.name for it in bucket.list()], sorted(NAMES))
        same("the folders", [it.name for it in bucket.list(delimiter="/") if it.name.endswith("/")], ["folder/"])
        same("one by one", [it.name for it in bucket.get_all_keys(max_keys=1)], sorted(NAMES)[:1])
        found = bucket.get_key(NAMES[3])
        same("length", found.size, len(data))
        same("type", found.content_type, "text/x-sample")
        same("metadata", found.get_metadata("colour"), "blue")
        same("the object", found.get_contents_as_string(), data)
        part = bucket.get_key(NAMES[0]).get_contents_as_string(headers={"Range": "bytes=100-299"})
        same("the range", part, data[100:300])

    def upload_in_parts(_, bucket, *__):
        upload = bucket.initiate_multipart_upload("large")
        first, second = common.sample(5 * 1024 * 1024, "first"), common.sample(1000, "second")
        for number, data in enumerate([first, second], 1):
            part = common_file(data)
            upload.upload_part_from_file(part, number)
        upload.complete_upload()
        same("the large object", bucket.get_key("large").get_contents_as_string(), first + second)

    def delete_objects(_, bucket, *__):
        bucket.delete_key(NAMES[0])
        same("a deleted object", bucket.get_key(NAMES[0]), None)
        refused("a full bucket's end", "BucketNotEmpty", lambda: s3.delete_bucket(BUCKET), code_of)
        deleted = bucket.delete_keys(NAMES[1:] + [u"large"])
        same("errors", deleted.errors, [])
        same("what is left", list(bucket.list()), [])

    def upload_and_register(_, bucket, *__):
        manifest, files = common.bundle_files()
        for name, path in files:
            bucket.new_key(name).set_contents_from_filename(path)
        location = "%s/%s" % (BUCKET, manifest)
        image = ec2.register_image(name="boto %s %s" % (version, BUCKET), image_location=location)
        shown = ec2.get_all_images(image_ids=[image])
        same("the image's location", [it.location for it in shown], [location])
        return image

    def share_the_image(*carried):
        image = carried[-1]

        def permissions():
            return ec2.get_image_attribute(image).attrs

        someone = "495219933132"
        holds("adding is true", ec2.modify_image_attribute(image, user_ids=[someone], groups=["all"]))
        same("the permissions", permissions(), {"groups": ["all"], "user_ids": [someone]})
        holds("removing is true", ec2.modify_image_attribute(image, operation="remove", groups=["all"]))
        same("the permissions", permissions(), {"user_ids": [someone]})
        refused(
            "an account that cannot be",
            "InvalidAMIAttributeItemValue",
            lambda: ec2.modify_image_attribute(image, user_ids=["1"]),
            code_of,
        )
        holds("resetting is true", ec2.reset_image_attribute(image))
        same("the permissions", permissions(), {})
        return image

    def run_until_proof(*carried):
        image, nonce = carried[-1], common.fresh_nonce()
        size = {"instance_type": common.INSTANCE_TYPE} if common.INSTANCE_TYPE else {}
        reservation = ec2.run_instances(image, user_data=nonce, **size)
        same("how many were launched", len(reservation.instances), 1)
        instance = reservation.instances[0]
        same("the first state", (instance.state, instance.state_code), ("pending", 0))

        def state():
            found = ec2.get_all_instances(instance_ids=[instance.id])
            same("the reservation", [it.id for it in found], [reservation.id])
            return found[0].instances[0].state

        def is_running():
            now = state()
            holds("it is pending or running and not " + now, now in ("pending", "running"))
            return now == "running"

        common.wait_until("running", is_running)
        instance.update()
        holds("it has a private address", instance.private_ip_address.count(".") == 3)
        common.wait_for_proof(lambda: ec2.get_console_output(instance.id).output, nonce, instance.id, state)
        return instance.id

    def terminate(*carried):
        instance = carried[-1]
        ended = ec2.terminate_instances([instance])
        same("what is terminated", [it.id for it in ended], [instance])

        def is_terminated():
            return ec2.get_all_instances(instance_ids=[instance])[0].instances[0].state == "terminated"

        common.wait_until("terminated", is_terminated)

    def deregister(*carried):
        image = carried[-3]
        holds("the answer is true", ec2.deregister_image(image))
        refused(
            "a launch of an image that is deregistered",
            ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
            lambda: ec2.run_instances(image),
            code_of,
        )

    def remove_the_bucket(_, bucket, *__):
        for name, _path in common.bundle_files()[1]:
            bucket.delete_key(name)
        s3.delete_bucket(BUCKET)
        same("a bucket that is gone", s3.lookup(BUCKET), None)

    common.main(
        the_right_boto,
        make_a_bucket,
        put_list_head_get,
        upload_in_parts,
        delete_objects,
        upload_and_register,
        share_the_image,
        run_until_proof,
        terminate,
        deregister,
        remove_the_bucket,
    )


def common_file(data):
    """A file in memory that both Pythons' boto can send."""
    import io

    return io.BytesIO(data)
