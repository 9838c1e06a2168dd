"""boto3: complete bucket work, and an image from upload to a terminated instance."""

import base64
import tempfile

import common
from common import BUCKET, holds, refused, same

common.isolate()

import boto3  # noqa: E402  (reads the environment when imported)
from botocore.exceptions import ClientError  # noqa: E402

SETTINGS = dict(
    endpoint_url=common.ENDPOINT,
    region_name=common.REGION,
    aws_access_key_id=common.ACCESS_KEY,
    aws_secret_access_key=common.SECRET_KEY,
)
s3 = boto3.client("s3", **SETTINGS)
ec2 = boto3.client("ec2", **SETTINGS)
sts = boto3.client("sts", **SETTINGS)

NAMES = ["plain.txt", "folder/one", "folder/two", "a name with spaces & größe+%.bin"]


def code_of(error):
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else None


def who_am_i():
    me = sts.get_caller_identity()
    same("the length of the account", len(me["Account"]), 12)
    return me["Account"]


def make_a_bucket(account):
    s3.create_bucket(Bucket=BUCKET)
    holds("the bucket is listed", BUCKET in [it["Name"] for it in s3.list_buckets()["Buckets"]])
    s3.head_bucket(Bucket=BUCKET)
    same("the location", s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"], None)


def put_list_head_get(*_):
    data = common.sample(100000, "boto3")
    for name in NAMES:
        answer = s3.put_object(
            Bucket=BUCKET, Key=name, Body=data, ContentType="text/x-sample", Metadata={"colour": "blue"}
        )
        same("the ETag of " + name, answer["ETag"], '"%s"' % common.md5_hex(data))
    listed = s3.list_objects_v2(Bucket=BUCKET)
    same("the keys", [it["Key"] for it in listed["Contents"]], sorted(NAMES))
    same("the sizes", {it["Size"] for it in listed["Contents"]}, {len(data)})
    folded = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
    same("the folders", [it["Prefix"] for it in folded["CommonPrefixes"]], ["folder/"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 1})
    same("the keys by pages", [it["Key"] for page in pages for it in page["Contents"]], sorted(NAMES))
    head = s3.head_object(Bucket=BUCKET, Key=NAMES[3])
    same("length", head["ContentLength"], len(data))
    same("type", head["ContentType"], "text/x-sample")
    same("metadata", head["Metadata"], {"colour": "blue"})
    same("the object", s3.get_object(Bucket=BUCKET, Key=NAMES[3])["Body"].read(), data)
    part = s3.get_object(Bucket=BUCKET, Key=NAMES[0], Range="bytes=100-299")
    same("the range", part["Body"].read(), data[100:300])
    same("its header", part["ContentRange"], "bytes 100-299/%d" % len(data))
    wrong = base64.b64encode(bytes(16)).decode()
    refused(
        "a body with a wrong digest",
        "BadDigest",
        lambda: s3.put_object(Bucket=BUCKET, Key="never", Body=b"x", ContentMD5=wrong),
        code_of,
    )


def upload_in_parts(*_):
    data = common.sample(common.LARGE_BYTES, "parts")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        s3.upload_file(file.name, BUCKET, "large")
    same("the large object", s3.get_object(Bucket=BUCKET, Key="large")["Body"].read(), data)
    holds("it was sent in parts", s3.head_object(Bucket=BUCKET, Key="large")["ETag"].endswith('-2"'))


def delete_objects(*_):
    s3.delete_object(Bucket=BUCKET, Key=NAMES[0])
    refused("a deleted object", ("404", "NoSuchKey"), lambda: s3.head_object(Bucket=BUCKET, Key=NAMES[0]), code_of)
    refused("a full bucket's end", "BucketNotEmpty", lambda: s3.delete_bucket(Bucket=BUCKET), code_of)
    rest = [{"Key": name} for name in NAMES[1:] + ["large"]]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": rest})
    same("errors", answer.get("Errors", []), [])
    same("what is left", s3.list_objects_v2(Bucket=BUCKET)["KeyCount"], 0)


def upload_and_register(*_):
    manifest, files = common.bundle_files()
    for name, path in files:
        s3.upload_file(path, BUCKET, name)
    location = "%s/%s" % (BUCKET, manifest)
    image = ec2.register_image(Name="boto3 %s" % BUCKET, ImageLocation=location)["ImageId"]
    shown = ec2.describe_images(ImageIds=[image])["Images"]
    same("the image's location", [it["ImageLocation"] for it in shown], [location])
    same("the image's state", shown[0]["State"], "available")
    return image


def share_the_image(*carried):
    image = carried[-1]

    def attribute(name, member):
        return ec2.describe_image_attribute(ImageId=image, Attribute=name)[member]

    def permissions():
        return attribute("launchPermission", "LaunchPermissions")

    someone, other = {"UserId": "495219933132"}, {"UserId": "254933287430"}
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}, someone]})
    same("the permissions", permissions(), [{"Group": "all"}, someone])
    ec2.modify_image_attribute(
        ImageId=image, Attribute="launchPermission", OperationType="add", UserIds=[other["UserId"]]
    )
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [{"Group": "all"}]})
    same("the permissions", permissions(), [other, someone])
    mine = ec2.describe_images(Owners=["self"], ExecutableUsers=[other["UserId"]])["Images"]
    holds("the image is listed for whom it is shared with", image in [it["ImageId"] for it in mine])
    ec2.modify_image_attribute(ImageId=image, Description={"Value": "shared"})
    same("the description", attribute("description", "Description"), {"Value": "shared"})
    same("the kernel", attribute("kernel", "KernelId"), {})
    same("the product codes", attribute("productCodes", "ProductCodes"), [])
    refused(
        "an account that cannot be",
        "InvalidAMIAttributeItemValue",
        lambda: ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "1"}]}),
        code_of,
    )
    ec2.reset_image_attribute(ImageId=image, Attribute="launchPermission")
    same("the permissions", permissions(), [])
    return image


def tags_of(nonce):
    return [{"Key": "Name", "Value": "boto3"}, {"Key": "run", "Value": nonce}]


def in_order(tags):
    return sorted(tags, key=lambda tag: tag["Key"])


def write_on(instance, nonce):
    """As a tool does that keeps what it finds equal to what it was told."""
    of_run = [{"Name": "tag:run", "Values": [nonce]}]

    def found():
        pages = ec2.get_paginator("describe_instances").paginate(Filters=of_run)
        return [it for page in pages for one in page["Reservations"] for it in one["Instances"]]

    same("what the tag finds", [it["InstanceId"] for it in found()], [instance])
    now = found()[0]
    same("its tags", in_order(now["Tags"]), in_order(tags_of(nonce)))
    (port,) = now["NetworkInterfaces"]
    same("the network", (port["VpcId"], port["SubnetId"]), (now["VpcId"], now["SubnetId"]))
    same("the address", port["PrivateIpAddress"], now["PrivateIpAddress"])
    same("the port's status", port["Attachment"]["Status"], "attached")
    for word in ("EbsOptimized", "SourceDestCheck"):
        same(word, now[word], word == "SourceDestCheck")
    pages = ec2.get_paginator("describe_tags").paginate(Filters=of_run, PaginationConfig={"PageSize": 5})
    lines = [(it["ResourceType"], it["Key"]) for page in pages for it in page["Tags"]]
    same("the tags with the value", sorted(lines), [("instance", "run"), ("volume", "run")])
    ec2.create_tags(Resources=[instance, port["NetworkInterfaceId"]], Tags=[{"Key": "Name", "Value": "new"}])
    ec2.delete_tags(Resources=[instance], Tags=[{"Key": "run", "Value": "other"}])
    same("what the tag finds", [it["InstanceId"] for it in found()], [instance])
    ec2.delete_tags(Resources=[instance], Tags=[{"Key": "run"}])
    same("what the tag finds", found(), [])
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    same("its tags", shown["Tags"], [{"Key": "Name", "Value": "new"}])
    refused(
        "a tag on what is not there",
        "InvalidInstanceID.NotFound",
        lambda: ec2.create_tags(Resources=["i-0123456789abcdef0"], Tags=[{"Key": "a", "Value": ""}]),
        code_of,
    )
    refused(
        "a key that is reserved",
        "InvalidParameterValue",
        lambda: ec2.create_tags(Resources=[instance], Tags=[{"Key": "aws:x", "Value": ""}]),
        code_of,
    )


def look_around(instance):
    """What tools read before and after a launch, by their own pages and waiters."""

    def pages(name, member, **given):
        return [it for page in ec2.get_paginator(name).paginate(**given) for it in page[member]]

    now = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    (vpc,) = pages("describe_vpcs", "Vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])
    same("the network", vpc["VpcId"], now["VpcId"])
    (subnet,) = pages("describe_subnets", "Subnets", Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])
    same("the subnet", subnet["SubnetId"], now["SubnetId"])
    same("its zone", subnet["AvailabilityZone"], now["Placement"]["AvailabilityZone"])
    of_instance = [{"Name": "attachment.instance-id", "Values": [instance]}]
    (port,) = pages("describe_network_interfaces", "NetworkInterfaces", Filters=of_instance)
    same("the port", port["NetworkInterfaceId"], now["NetworkInterfaces"][0]["NetworkInterfaceId"])
    same("its address", port["PrivateIpAddress"], now["PrivateIpAddress"])
    same("its groups", port["Groups"], now["SecurityGroups"])
    (disk,) = pages("describe_volumes", "Volumes", Filters=of_instance)
    ec2.get_waiter("volume_in_use").wait(
        VolumeIds=[disk["VolumeId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 5}
    )
    (mapping,) = now["BlockDeviceMappings"]
    same("the disk", mapping["Ebs"]["VolumeId"], disk["VolumeId"])
    same("its device", mapping["DeviceName"], disk["Attachments"][0]["Device"])
    (kind,) = ec2.describe_instance_types(InstanceTypes=[now["InstanceType"]])["InstanceTypes"]
    same("the type", kind["InstanceType"], now["InstanceType"])
    offered = pages("describe_instance_type_offerings", "InstanceTypeOfferings", LocationType="availability-zone")
    holds("the type is offered", now["InstanceType"] in [it["InstanceType"] for it in offered])
    same("the locations", {it["Location"] for it in offered}, {subnet["AvailabilityZone"]})
    known = pages("describe_instance_types", "InstanceTypes", PaginationConfig={"PageSize": 5})
    same("the types", sorted(it["InstanceType"] for it in known), sorted(it["InstanceType"] for it in offered))
    attributes = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    same("the default network", attributes[0]["AttributeValues"], [{"AttributeValue": vpc["VpcId"]}])

    def attribute(name, member):
        return ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)[member]

    same("the attribute", attribute("instanceType", "InstanceType"), {"Value": now["InstanceType"]})
    same("the attribute", attribute("disableApiTermination", "DisableApiTermination"), {"Value": False})
    same("the groups", attribute("groupSet", "Groups"), now["SecurityGroups"])
    refused(
        "a type that is not there",
        "InvalidInstanceType",
        lambda: ec2.describe_instance_types(InstanceTypes=["x9.huge"]),
        code_of,
    )


def guard_with_rules(*carried):
    name = "web-" + BUCKET
    group = ec2.create_security_group(GroupName=name, Description="Web")["GroupId"]
    refused(
        "the same name again",
        "InvalidGroup.Duplicate",
        lambda: ec2.create_security_group(GroupName=name, Description="Web"),
        code_of,
    )
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}

    def rules():
        (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        return [(it["IpProtocol"], it["FromPort"], it["ToPort"]) for it in shown["IpPermissions"]]

    def authorize():
        return ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

    same("a new group's rules", rules(), [])
    if common.IS_SIMULATED:
        authorize()
        same("the rules", rules(), [("tcp", 80, 80)])
        refused("the same rule again", "InvalidPermission.Duplicate", authorize, code_of)
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    else:
        refused("a rule that no kernel enforces yet", "UnsupportedOperation", authorize, code_of)
    same("the rules", rules(), [])
    ec2.delete_security_group(GroupId=group)
    refused(
        "a group that is gone",
        "InvalidGroup.NotFound",
        lambda: ec2.describe_security_groups(GroupIds=[group]),
        code_of,
    )
    return carried[-1]


def run_until_proof(*carried):
    image, nonce = carried[-1], common.fresh_nonce()
    size = {"InstanceType": common.INSTANCE_TYPE} if common.INSTANCE_TYPE else {}
    tags = [{"ResourceType": kind, "Tags": tags_of(nonce)} for kind in ("instance", "volume")]
    run = ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, UserData=nonce, TagSpecifications=tags, **size
    )
    same("how many were launched", len(run["Instances"]), 1)
    launched = run["Instances"][0]
    instance = launched["InstanceId"]
    same("the first state", launched["State"], {"Code": 0, "Name": "pending"})

    def describe():
        reservations = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        same("the reservation", [it["ReservationId"] for it in reservations], [run["ReservationId"]])
        return reservations[0]["Instances"][0]

    ec2.get_waiter("instance_running").wait(
        InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": common.PATIENCE}
    )
    now = describe()
    same("the state", now["State"], {"Code": 16, "Name": "running"})
    same("the image", now["ImageId"], image)
    holds("it has a private address", now["PrivateIpAddress"].count(".") == 3)
    common.wait_for_proof(
        lambda: ec2.get_console_output(InstanceId=instance).get("Output", ""),
        nonce,
        instance,
        lambda: describe()["State"]["Name"],
    )
    status = ec2.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
    same("the system's status", status[0]["SystemStatus"]["Status"], "ok")
    write_on(instance, nonce)
    look_around(instance)
    return instance


def terminate(*carried):
    instance = carried[-1]
    ended = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    same("the previous state", ended[0]["PreviousState"]["Name"], "running")
    ec2.get_waiter("instance_terminated").wait(
        InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": common.PATIENCE}
    )
    ec2.terminate_instances(InstanceIds=[instance])
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    same("the state", shown["State"], {"Code": 48, "Name": "terminated"})


def deregister(*carried):
    image = carried[-3]
    ec2.deregister_image(ImageId=image)
    refused(
        "a launch of an image that is deregistered",
        ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
        lambda: ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1),
        code_of,
    )


def remove_the_bucket(*_):
    for name, _path in common.bundle_files()[1]:
        s3.delete_object(Bucket=BUCKET, Key=name)
    s3.delete_bucket(Bucket=BUCKET)
    refused("a bucket that is gone", ("404", "NoSuchBucket"), lambda: s3.head_bucket(Bucket=BUCKET), code_of)


common.main(
    who_am_i,
    make_a_bucket,
    put_list_head_get,
    upload_in_parts,
    delete_objects,
    upload_and_register,
    share_the_image,
    guard_with_rules,
    run_until_proof,
    terminate,
    deregister,
    remove_the_bucket,
)
