"""zeep: an image from upload to a terminated instance by SOAP, in the classic version and in the last one.

The objects go by boto3, since EC2's SOAP binding has none.
"""

import base64

import zeep_work
from zeep_work import code_of, items, only, part

import common
from common import BUCKET, holds, refused, same

import boto3  # noqa: E402  (reads the environment when imported)

s3 = boto3.client(
    "s3",
    endpoint_url=common.ENDPOINT,
    region_name=common.REGION,
    aws_access_key_id=common.ACCESS_KEY,
    aws_secret_access_key=common.SECRET_KEY,
)


class Classic:
    """2007-03-01: a launch is a list of images, and an instance has no type."""

    version = "2007-03-01"
    sha256 = False

    def launch(self, service, image, data, key):
        return service.RunInstances(
            instancesSet={"item": [{"imageId": image, "minCount": 1, "maxCount": 1, "keyName": key}]},
            groupSet={},
            userData=data,
        )

    def register(self, service, location):
        return part(service.RegisterImage(imageLocation=location), "imageId")

    def ended(self, item):
        return item.shutdownState


class Last:
    """2013-08-15: the last version with the binding."""

    version = "2013-08-15"
    sha256 = True

    def launch(self, service, image, data, key):
        size = common.INSTANCE_TYPE or "m1.small"
        return service.RunInstances(
            imageId=image, minCount=1, maxCount=1, keyName=key, groupSet={}, userData=data, instanceType=size
        )

    def register(self, service, location):
        return part(service.RegisterImage(imageLocation=location, name="zeep %s" % BUCKET), "imageId")

    def ended(self, item):
        return item.currentState


class Job:
    """What one version has done so far."""

    def __init__(self, way):
        self.way = way
        self.client = zeep_work.connect(way.version, way.sha256)
        self.service = self.client.service
        self.key = "zeep-%s-%s" % (BUCKET, way.version)

    def describe(self):
        answer = self.service.DescribeInstances(instancesSet={"item": [{"instanceId": self.instance}]})
        reservation = only(part(answer, "reservationSet"))
        same("the reservation", reservation.reservationId, self.reservation)
        return only(reservation.instancesSet)

    def state(self):
        return self.describe().instanceState.name

    def output(self):
        """zeep has no text for an element that is empty, as a console is at first."""
        return base64.b64decode(self.service.GetConsoleOutput(instanceId=self.instance).output or "")


def upload():
    s3.create_bucket(Bucket=BUCKET)
    manifest, files = common.bundle_files()
    for name, path in files:
        s3.upload_file(path, BUCKET, name)
    return "%s/%s" % (BUCKET, manifest)


def generate_both(_):
    return [Job(Classic()), Job(Last())]


def register_and_launch(location, jobs):
    for job in jobs:
        job.image = job.way.register(job.service, location)
        shown = only(part(job.service.DescribeImages(imagesSet={"item": [{"imageId": job.image}]}), "imagesSet"))
        same("the image's location", shown.imageLocation, location)
        same("the image's state", shown.imageState, "available")
        made = job.service.CreateKeyPair(keyName=job.key)
        holds("the key is private", made.keyMaterial.startswith("-----BEGIN RSA PRIVATE KEY-----"))
        job.nonce = common.fresh_nonce()
        encoded = base64.b64encode(job.nonce.encode("ascii")).decode("ascii")
        data = {"data": encoded, "version": "1.0", "encoding": "base64"}
        run = job.way.launch(job.service, job.image, data, job.key)
        job.reservation, launched = run.reservationId, only(run.instancesSet)
        job.instance = launched.instanceId
        same("the first state", (launched.instanceState.code, launched.instanceState.name), (0, "pending"))
        same("the name of the key", launched.keyName, job.key)


def run_until_proof(_, jobs, *__):
    for job in jobs:

        def is_running():
            now = job.state()
            holds("it is pending or running and not " + now, now in ("pending", "running"))
            return now == "running"

        common.wait_until("running", is_running)
        holds("it has a name", job.describe().dnsName)
        common.wait_for_proof(job.output, job.nonce, job.instance, job.state)


def terminate(_, jobs, *__):
    for job in jobs:
        holds("it is told to reboot", job.service.RebootInstances(instancesSet={"item": [{"instanceId": job.instance}]}))
        wanted = {"item": [{"instanceId": job.instance}]}
        ended = only(part(job.service.TerminateInstances(instancesSet=wanted), "instancesSet"))
        same("what is terminated", ended.instanceId, job.instance)
        same("the previous state", ended.previousState.name, "running")
        same("the state", job.way.ended(ended).name, "shutting-down")
    for job in jobs:
        common.wait_until("terminated", lambda: job.state() == "terminated")


def deregister(_, jobs, *__):
    for job in jobs:
        job.service.DeleteKeyPair(keyName=job.key)
        names = [it.keyName for it in items(part(job.service.DescribeKeyPairs(keySet={}), "keySet"))]
        holds("the key is gone from %s" % names, job.key not in names)
        job.service.DeregisterImage(imageId=job.image)
        refused(
            "a launch of an image that is deregistered",
            ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
            lambda: job.way.launch(job.service, job.image, None, None),
            code_of,
        )


def remove_the_bucket(*_):
    for name, _path in common.bundle_files()[1]:
        s3.delete_object(Bucket=BUCKET, Key=name)
    s3.delete_bucket(Bucket=BUCKET)


common.main(
    upload,
    generate_both,
    register_and_launch,
    run_until_proof,
    terminate,
    deregister,
    remove_the_bucket,
)
