"""zeep: every operation of every version with a WSDL, on a cloud that is simulated.

Each answer is compared with the schema that the version's WSDL has, by zeep and by the schema's own rules.  What the
WSDL has and nothing here calls is a mistake of this list.

Beside what zeep_work.py lists: CUMULET_TEST_PRODUCT, the code of a product that the user's account sells, and
CUMULET_TEST_OTHER_ACCESS_KEY and CUMULET_TEST_OTHER_SECRET_KEY, a user of another account.
"""

import base64
import concurrent.futures

import zeep_work
from zeep_work import code_of, items, only, part

import common
from common import BUCKET, holds, refused, same

import boto3  # noqa: E402  (reads the environment when imported)

VERSIONS = (
    "2006-06-26 2006-10-01 2007-01-03 2007-01-19 2007-03-01 2007-08-29 2008-02-01 2008-05-05 2008-08-08 2008-12-01 "
    "2009-03-01 2009-04-04 2009-07-15 2009-08-15 2009-10-31 2009-11-30 2010-06-15 2010-08-31 2010-11-15 2011-01-01 "
    "2011-02-28 2011-05-15 2011-07-15 2011-11-01 2011-12-01 2011-12-15 2012-03-01 2012-04-01 2012-05-01 2012-05-15 "
    "2012-06-01 2012-06-15 2012-07-20 2012-08-15 2012-10-01 2012-11-15 2012-12-01 2013-02-01 2013-06-15 2013-07-15 "
    "2013-08-15"
).split()
# What else shows things of the caller's, and how all of them are asked for.
LISTS = {
    "DescribeAccountAttributes": {},
    "DescribeNetworkInterfaces": {},
    "DescribeSubnets": {},
    "DescribeVolumes": {"volumeSet": {}},
}
PRODUCT = common.setting("PRODUCT")
s3 = boto3.client(
    "s3",
    endpoint_url=common.ENDPOINT,
    region_name=common.REGION,
    aws_access_key_id=common.ACCESS_KEY,
    aws_secret_access_key=common.SECRET_KEY,
)
OTHER = boto3.client(
    "sts",
    endpoint_url=common.ENDPOINT,
    region_name=common.REGION,
    aws_access_key_id=common.setting("OTHER_ACCESS_KEY"),
    aws_secret_access_key=common.setting("OTHER_SECRET_KEY"),
)


def one(name, value):
    """A list of one item with one element."""
    return {"item": [{name: value}]}


class Tour:
    """All that can be done in one version."""

    def __init__(self, version, location):
        self.version = version
        self.location = location
        self.client = zeep_work.connect(version)
        self.service = self.client.service
        binding = self.service._binding
        self.operations = set(binding._operations)
        self.name = "%s-%s" % (BUCKET, version)

    def has(self, operation):
        return operation in self.operations

    def run(self):
        for step in (self.keys, self.images, self.attributes, self.tags, self.places, self.networks, self.groups, self.instances, self.leave):
            step()
        missed = self.operations - set(self.client.checked.seen)
        same("what the WSDL of %s has and was not called" % self.version, sorted(missed), [])

    def keys(self):
        service = self.service
        made = service.CreateKeyPair(keyName=self.name)
        holds("the key is private", made.keyMaterial.startswith("-----BEGIN RSA PRIVATE KEY-----"))
        shown = only(part(service.DescribeKeyPairs(keySet=one("keyName", self.name)), "keySet"))
        same("the fingerprint", shown.keyFingerprint, made.keyFingerprint)
        refused("the same key", "InvalidKeyPair.Duplicate", lambda: service.CreateKeyPair(keyName=self.name), code_of)
        if self.has("ImportKeyPair"):
            other = self.name + "-own"
            public = base64.b64encode(PUBLIC_KEY).decode("ascii")
            same("the name", service.ImportKeyPair(keyName=other, publicKeyMaterial=public).keyName, other)
            filters = {"item": [{"name": "key-name", "valueSet": one("value", other)}]}
            found = part(service.DescribeKeyPairs(keySet={}, filterSet=filters), "keySet")
            same("the key by a filter", only(found).keyName, other)
            service.DeleteKeyPair(keyName=other)

    def register(self, name):
        later = {"name": "%s %s" % (name, self.name), "description": "a tour"} if self.version >= "2009-10-31" else {}
        return part(self.service.RegisterImage(imageLocation=self.location, **later), "imageId")

    def images(self):
        service = self.service
        self.image = self.register("zeep")
        asked = {"imagesSet": one("imageId", self.image)}
        if self.version == "2006-10-01":
            # For one version these were not optional.
            asked.update(executableBySet={}, ownersSet={})
        shown = only(part(service.DescribeImages(**asked), "imagesSet"))
        same("the image's location", shown.imageLocation, self.location)
        if self.version >= "2006-10-01":
            asked = {"imagesSet": {}, "executableBySet": {}, "ownersSet": one("owner", "self")}
            found = [it.imageId for it in items(part(service.DescribeImages(**asked), "imagesSet"))]
            holds("the image is the caller's", self.image in found)

    def attributes(self):
        if not self.has("ModifyImageAttribute"):
            return
        service = self.service
        chosen = zeep_work.chosen(self.client, self.version)
        other = OTHER.get_caller_identity()["Account"]
        everybody = {"item": [{"group": "all"}, {"userId": other}]}
        service.ModifyImageAttribute(imageId=self.image, launchPermission={"add": everybody})

        def permissions():
            answer = service.DescribeImageAttribute(imageId=self.image, launchPermission=chosen)
            return {(it.group, it.userId) for it in items(answer.launchPermission)}

        same("who may launch the image", permissions(), {("all", None), (None, other)})
        service.ModifyImageAttribute(imageId=self.image, launchPermission={"remove": one("group", "all")})
        same("who may then", permissions(), {(None, other)})
        service.ResetImageAttribute(imageId=self.image, launchPermission=chosen)
        same("who may at last", permissions(), set())
        if self.version >= "2007-03-01":
            service.ModifyImageAttribute(imageId=self.image, productCodes=one("productCode", PRODUCT))
            answer = service.DescribeImageAttribute(imageId=self.image, productCodes=chosen)
            same("the code", only(answer.productCodes).productCode, PRODUCT)
            shown = only(part(service.DescribeImages(imagesSet=one("imageId", self.image)), "imagesSet"))
            same("the code", only(shown.productCodes).productCode, PRODUCT)
        if self.version >= "2009-10-31":
            service.ModifyImageAttribute(imageId=self.image, description={"value": "changed"})
            answer = service.DescribeImageAttribute(imageId=self.image, description=chosen)
            same("the description", answer.description.value, "changed")

    def tags(self):
        if not self.has("CreateTags"):
            return
        service, resources = self.service, one("resourceId", self.image)
        service.CreateTags(resourcesSet=resources, tagSet={"item": [{"key": "colour", "value": "blue"}]})
        filters = {"item": [{"name": "resource-id", "valueSet": one("value", self.image)}]}
        tag = only(service.DescribeTags(filterSet=filters).tagSet)
        same("the tag", (tag.resourceType, tag.key, tag.value), ("image", "colour", "blue"))
        shown = only(service.DescribeImages(imagesSet=one("imageId", self.image)).imagesSet)
        same("the image's tag", only(shown.tagSet).value, "blue")
        service.DeleteTags(resourcesSet=resources, tagSet={"item": [{"key": "colour"}]})
        same("the tags that are left", items(service.DescribeTags(filterSet=filters).tagSet), [])

    def networks(self):
        service = self.service
        if self.has("DescribeVpcs"):
            vpc = only(part(service.DescribeVpcs(), "vpcSet")).vpcId
        if self.has("DescribeVpcAttribute"):
            chosen = zeep_work.chosen(self.client, self.version)
            names = service.DescribeVpcAttribute(vpcId=vpc, enableDnsSupport=chosen)
            same("whether names are answered for", names.enableDnsSupport.value, True)
        if self.has("DescribeAddresses"):
            lists = {"publicIpsSet": {}}
            if self.version >= "2011-01-01":
                lists["allocationIdsSet"] = {}
            same("the addresses", items(part(service.DescribeAddresses(**lists), "addressesSet")), [])

    def groups(self):
        if not self.has("CreateSecurityGroup"):
            return
        service, group = self.service, self.name
        service.CreateSecurityGroup(groupName=group, groupDescription="a tour")
        shown = part(service.DescribeSecurityGroups(securityGroupSet=one("groupName", group)), "securityGroupInfo")
        same("the description", only(shown).groupDescription, "a tour")
        owner = only(shown).ownerId
        port = {"ipProtocol": "tcp", "fromPort": 22, "toPort": 23, "groups": {}, "ipRanges": one("cidrIp", "10.0.0.0/8")}
        members = {"item": [{"userId": owner, "groupName": group}]}
        friends = {"ipProtocol": "tcp", "fromPort": 1, "toPort": 65535, "groups": members, "ipRanges": {}}
        whose = {"groupName": group} if self.version >= "2011-01-01" else {"userId": owner, "groupName": group}
        rules = {"item": [port, friends]}
        service.AuthorizeSecurityGroupIngress(ipPermissions=rules, **whose)
        shown = part(service.DescribeSecurityGroups(securityGroupSet=one("groupName", group)), "securityGroupInfo")
        found = items(only(shown).ipPermissions)
        same("the ports", sorted((it.fromPort, it.toPort) for it in found), [(1, 65535), (22, 23)])
        service.RevokeSecurityGroupIngress(ipPermissions=rules, **whose)
        shown = part(service.DescribeSecurityGroups(securityGroupSet=one("groupName", group)), "securityGroupInfo")
        same("the rules that are left", items(only(shown).ipPermissions), [])
        service.DeleteSecurityGroup(groupName=group)

    def places(self):
        service = self.service
        if self.has("DescribeAvailabilityZones"):
            self.zone = only(part(service.DescribeAvailabilityZones(availabilityZoneSet={}), "availabilityZoneInfo")).zoneName
        if self.has("DescribeRegions"):
            region = only(part(service.DescribeRegions(regionSet={}), "regionInfo"))
            same("the endpoint", region.regionEndpoint, "%s:%d" % (common.HOST, common.PORT))

    def launch(self):
        data = {"data": base64.b64encode(b"hello").decode("ascii"), "version": "1.0", "encoding": "base64"}
        later = {"userData": data} if self.version >= "2006-10-01" else {}
        groups = {"groupSet": one("groupId", "default")}
        if self.version >= "2011-01-01":
            groups = {"groupSet": one("groupName", "default")}
        if self.version <= "2007-03-01":
            # A launch was a list of images then.
            item = {"imageId": self.image, "minCount": 1, "maxCount": 1, "keyName": self.name}
            return self.service.RunInstances(instancesSet={"item": [item, item]}, **groups, **later)
        if self.version >= "2008-02-01":
            later["placement"] = {"availabilityZone": self.zone}
        if self.version >= "2009-04-04":
            later["monitoring"] = {"enabled": False}
        if self.version >= "2010-08-31":
            later["clientToken"] = "token-" + self.name
        one_image = {"imageId": self.image, "minCount": 1, "maxCount": 2, "keyName": self.name}
        return self.service.RunInstances(instanceType="m1.small", **one_image, **groups, **later)

    def instances(self):
        service = self.service
        run = self.launch()
        ids = [it.instanceId for it in items(run.instancesSet)]
        same("how many were launched", len(ids), 2)
        for item in items(run.groupSet):
            name = item.groupName if self.version >= "2011-01-01" else item.groupId
            same("the group", name, "default")
        wanted = {"item": [{"instanceId": it} for it in ids]}

        def states():
            shown = only(part(service.DescribeInstances(instancesSet=wanted), "reservationSet"))
            same("the reservation", shown.reservationId, run.reservationId)
            return {it.instanceState.name for it in items(shown.instancesSet)}

        common.wait_until("running", lambda: states() == {"running"})
        service.DescribeInstances(instancesSet={})
        if self.has("DescribeInstanceStatus"):
            service.DescribeInstanceStatus(instancesSet=wanted)
        if self.has("GetConsoleOutput"):
            output = base64.b64decode(service.GetConsoleOutput(instanceId=ids[0]).output)
            holds("the console says what it is", b"no machine was started" in output)
        if self.has("ConfirmProductInstance"):
            confirmed = service.ConfirmProductInstance(productCode=PRODUCT, instanceId=ids[0])
            holds("the instance has the code", getattr(confirmed, "return"))
        if self.has("DescribeInstanceAttribute"):
            chosen = zeep_work.chosen(self.client, self.version)
            kind = service.DescribeInstanceAttribute(instanceId=ids[0], instanceType=chosen)
            same("the type", kind.instanceType.value, "m1.small")
        for operation in LISTS:
            if self.has(operation):
                getattr(service, operation)(**LISTS[operation])
        if self.has("RebootInstances"):
            service.RebootInstances(instancesSet=one("instanceId", ids[0]))
        ended = items(part(service.TerminateInstances(instancesSet=wanted), "instancesSet"))
        same("what is terminated", [it.instanceId for it in ended], ids)
        common.wait_until("terminated", lambda: states() == {"terminated"})

    def leave(self):
        self.service.DeregisterImage(imageId=self.image)
        self.service.DeleteKeyPair(keyName=self.name)


PUBLIC_KEY = (
    b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDcWp9bmDsROdam4vdzzk/WnW46SGlcrVY00/XchtnF94oLOfwS0D0boIPlFsg4"
    b"p5a8z6g/B7P4yHm9avpsn77hPoABb/1IlvjvS6xwQzyGNJvhv7SmZdJ8gtXRPowCSnMHvEJ7LdFXQL/fzo0TCQGG9oXj5E85spXf"
    b"sFWx6CkPUEtKF9yJaxjRK4SRqv+0NluGYD83UvJyOwzX9284tZhnYLDRHXjnzxTME/ke5sS6zGfOhXB4HdixDAMqOcoX3usTnH8c"
    b"9/oLyio0KlXtwqqPYwJ9JjQTYB8HSEgSqrxC7oOBMcEiHKtLkn2ZRiq6FAaFa518uPwJ8HwCyRZDPAkf"
)


def upload():
    s3.create_bucket(Bucket=BUCKET)
    manifest, files = common.bundle_files()
    for name, path in files:
        s3.upload_file(path, BUCKET, name)
    return "%s/%s" % (BUCKET, manifest)


def tour_every_version(location):
    """Most of a tour is waiting for instances: several versions wait at the same time."""
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        tours = {version: pool.submit(lambda it: Tour(it, location).run(), version) for version in VERSIONS}
    for version, tour in tours.items():
        common.say(version)
        tour.result()


common.main(upload, tour_every_version)
