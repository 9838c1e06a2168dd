"""The aws command line (version 1): the same work as boto3's script, by commands a user would type."""

import json
import os
import re
import subprocess
import sys
import tempfile

import common
from common import BUCKET, holds, refused, same

common.isolate()
os.environ.update(
    AWS_ENDPOINT_URL=common.ENDPOINT,
    AWS_DEFAULT_REGION=common.REGION,
    AWS_ACCESS_KEY_ID=common.ACCESS_KEY,
    AWS_SECRET_ACCESS_KEY=common.SECRET_KEY,
    AWS_DEFAULT_OUTPUT="json",
)
# The command installed beside this Python.
AWS = os.path.join(os.path.dirname(sys.executable), "aws")
WORK = tempfile.TemporaryDirectory()


class CommandError(Exception):
    pass


def aws(*words):
    done = subprocess.run([sys.executable, AWS, *words], capture_output=True, check=False)
    if done.returncode != 0:
        raise CommandError("aws %s: %s" % (" ".join(words), done.stderr.decode("utf-8", "replace").strip()))
    text = done.stdout.decode("utf-8", "replace")
    return json.loads(text) if text.strip().startswith(("{", "[")) else text


def code_of(error):
    found = re.search(r"\((\S+)\) when calling", str(error)) if isinstance(error, CommandError) else None
    return found and found.group(1)


def file_of(name, data):
    path = os.path.join(WORK.name, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def who_am_i():
    same("the length of the account", len(aws("sts", "get-caller-identity")["Account"]), 12)


def make_key_pairs(*_):
    for kind, first in (("rsa", "ssh-rsa"), ("ed25519", "ssh-ed25519")):
        name = "awscli-%s-%s" % (kind, BUCKET)
        made = aws("ec2", "create-key-pair", "--key-name", name, "--key-type", kind)
        key = file_of(kind, made["KeyMaterial"].encode())
        os.chmod(key, 0o600)
        # What OpenSSH reads in the private half is the public one that instances get.
        read = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, check=True).stdout.decode().split()
        pair = aws("ec2", "describe-key-pairs", "--key-names", name, "--include-public-key")["KeyPairs"][0]
        same("the kind", pair["KeyType"], kind)
        same("the public key", pair["PublicKey"].split()[:2], [first, read[1]])
        same("the fingerprint", pair["KeyFingerprint"], made["KeyFingerprint"])
        aws("ec2", "delete-key-pair", "--key-name", name)


def make_a_bucket(*_):
    aws("s3", "mb", "s3://" + BUCKET)
    holds("the bucket is listed", BUCKET in aws("s3", "ls"))


def put_list_head_get(*_):
    data = common.sample(50000, "awscli")
    path = file_of("small", data)
    aws("s3", "cp", path, "s3://%s/folder/small" % BUCKET, "--content-type", "text/x-sample", "--metadata", "colour=blue")
    aws("s3", "cp", path, "s3://%s/a name with spaces" % BUCKET)
    holds("the folder is listed", "PRE folder/" in aws("s3", "ls", "s3://%s/" % BUCKET))
    listed = aws("s3api", "list-objects-v2", "--bucket", BUCKET)
    same("the keys", [it["Key"] for it in listed["Contents"]], ["a name with spaces", "folder/small"])
    head = aws("s3api", "head-object", "--bucket", BUCKET, "--key", "folder/small")
    same("length", head["ContentLength"], len(data))
    same("type", head["ContentType"], "text/x-sample")
    same("metadata", head["Metadata"], {"colour": "blue"})
    back = os.path.join(WORK.name, "back")
    aws("s3", "cp", "s3://%s/a name with spaces" % BUCKET, back)
    same("the object", common.read_file(back), data)
    aws("s3api", "get-object", "--bucket", BUCKET, "--key", "folder/small", "--range", "bytes=10-19", back)
    same("the range", common.read_file(back), data[10:20])


def upload_in_parts(*_):
    data = common.sample(common.LARGE_BYTES, "awscli parts")
    aws("s3", "cp", file_of("large", data), "s3://%s/large" % BUCKET)
    back = os.path.join(WORK.name, "back")
    aws("s3", "cp", "s3://%s/large" % BUCKET, back)
    same("the large object", common.read_file(back), data)


def delete_objects(*_):
    aws("s3", "rm", "s3://%s/large" % BUCKET)
    refused(
        "a deleted object",
        ("404", "NoSuchKey"),
        lambda: aws("s3api", "head-object", "--bucket", BUCKET, "--key", "large"),
        code_of,
    )
    aws("s3", "rm", "--recursive", "s3://%s/" % BUCKET)
    same("what is left", aws("s3", "ls", "s3://%s/" % BUCKET).strip(), "")


def upload_and_register(*_):
    manifest, _files = common.bundle_files()
    aws("s3", "cp", "--recursive", common.BUNDLE, "s3://%s/" % BUCKET)
    location = "%s/%s" % (BUCKET, manifest)
    image = aws("ec2", "register-image", "--name", "awscli " + BUCKET, "--image-location", location)["ImageId"]
    shown = aws("ec2", "describe-images", "--image-ids", image)["Images"]
    same("the image's location", [it["ImageLocation"] for it in shown], [location])
    return image


def share_the_image(*carried):
    image = carried[-1]

    def permissions():
        shown = aws("ec2", "describe-image-attribute", "--image-id", image, "--attribute", "launchPermission")
        return shown["LaunchPermissions"]

    def modify(*changes):
        aws("ec2", "modify-image-attribute", "--image-id", image, *changes)

    modify("--launch-permission", "Add=[{UserId=495219933132},{Group=all}]")
    same("the permissions", permissions(), [{"Group": "all"}, {"UserId": "495219933132"}])
    modify("--attribute", "launchPermission", "--operation-type", "remove", "--user-groups", "all")
    same("the permissions", permissions(), [{"UserId": "495219933132"}])
    aws("ec2", "reset-image-attribute", "--image-id", image, "--attribute", "launchPermission")
    same("the permissions", permissions(), [])
    return image


def write_on(instance, nonce):
    filters = ["--filters", "Name=tag:run,Values=" + nonce[:-1] + "?"]
    shown = aws("ec2", "describe-instances", *filters)["Reservations"]
    same("what the tag finds", [it["InstanceId"] for one in shown for it in one["Instances"]], [instance])
    aws("ec2", "create-tags", "--resources", instance, "--tags", "Key=Name,Value=new", "Key=empty,Value=")
    aws("ec2", "delete-tags", "--resources", instance, "--tags", "Key=run")
    lines = aws("ec2", "describe-tags", "--filters", "Name=resource-id,Values=" + instance)["Tags"]
    same("its tags", [(it["Key"], it["Value"]) for it in lines], [("Name", "new"), ("empty", "")])


def run_until_proof(*carried):
    image, nonce = carried[-1], common.fresh_nonce()
    size = ["--instance-type", common.INSTANCE_TYPE] if common.INSTANCE_TYPE else []
    tags = "ResourceType=instance,Tags=[{Key=Name,Value=awscli},{Key=run,Value=%s}]" % nonce
    asked = ["--image-id", image, "--user-data", nonce, "--tag-specifications", tags]
    run = aws("ec2", "run-instances", *asked, *size)
    instance = run["Instances"][0]["InstanceId"]
    same("the first state", run["Instances"][0]["State"]["Name"], "pending")

    def state():
        shown = aws("ec2", "describe-instances", "--instance-ids", instance)
        return shown["Reservations"][0]["Instances"][0]["State"]["Name"]

    def is_running():
        now = state()
        holds("it is pending or running and not " + now, now in ("pending", "running"))
        return now == "running"

    common.wait_until("running", is_running)
    common.wait_for_proof(
        lambda: aws("ec2", "get-console-output", "--instance-id", instance).get("Output", ""),
        nonce,
        instance,
        state,
    )
    write_on(instance, nonce)
    return instance


def terminate(*carried):
    instance = carried[-1]
    ended = aws("ec2", "terminate-instances", "--instance-ids", instance)["TerminatingInstances"]
    same("the previous state", ended[0]["PreviousState"]["Name"], "running")

    def is_terminated():
        shown = aws("ec2", "describe-instances", "--instance-ids", instance)
        return shown["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"

    common.wait_until("terminated", is_terminated)


def deregister(*carried):
    image = carried[-3]
    aws("ec2", "deregister-image", "--image-id", image)
    refused(
        "a launch of an image that is deregistered",
        ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
        lambda: aws("ec2", "run-instances", "--image-id", image),
        code_of,
    )


def remove_the_bucket(*_):
    aws("s3", "rb", "--force", "s3://" + BUCKET)
    holds("the bucket is gone", BUCKET not in aws("s3", "ls"))


common.main(
    who_am_i,
    make_key_pairs,
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
