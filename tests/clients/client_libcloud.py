"""Apache Libcloud: an image from upload to a destroyed node, by its drivers for EC2 and for S3.

It reads the answers itself, without a model, and asks for the Elastic IP addresses with every list of nodes.
"""

import common
from common import BUCKET, holds, refused, same

common.isolate()

from libcloud.common.exceptions import BaseHTTPError  # noqa: E402
from libcloud.compute.types import KeyPairDoesNotExistError, NodeState  # noqa: E402
from libcloud.compute.types import Provider as Computes  # noqa: E402
from libcloud.compute.providers import get_driver as compute_of  # noqa: E402
from libcloud.storage.types import Provider as Stores  # noqa: E402
from libcloud.storage.providers import get_driver as store_of  # noqa: E402

WHERE = dict(host=common.HOST, port=common.PORT, secure=False, region=common.REGION)
s3 = store_of(Stores.S3)(common.ACCESS_KEY, common.SECRET_KEY, **WHERE)
ec2 = compute_of(Computes.EC2)(common.ACCESS_KEY, common.SECRET_KEY, **WHERE)
# What is called by this name is this run's.
NAME = "libcloud " + BUCKET


def code_of(error):
    return str(error).split(":")[0] if isinstance(error, BaseHTTPError) else None


def upload_and_register():
    manifest, files = common.bundle_files()
    bucket = s3.create_container(BUCKET)
    for name, path in files:
        bucket.upload_object(path, name)
    same("the objects", sorted(it.name for it in bucket.list_objects()), sorted(name for name, _ in files))
    image = ec2.ex_register_image(NAME, description="of libcloud", image_location="%s/%s" % (BUCKET, manifest))
    found = ec2.list_images(ex_owner="self", ex_filters={"name": NAME})
    same("the images of the name", [it.id for it in found], [image.id])
    same("its description", ec2.get_image(image.id).extra["description"], "of libcloud")
    return image


def share_the_image(image):
    holds("it is shared", ec2.ex_modify_image_attribute(image, {"LaunchPermission.Add.1.Group": "all"}))
    same("who sees it", ec2.get_image(image.id).extra["is_public"], "true")
    holds("it is not", ec2.ex_modify_image_attribute(image, {"LaunchPermission.Remove.1.Group": "all"}))
    same("who sees it then", ec2.get_image(image.id).extra["is_public"], "false")


def make_a_key_pair(*_):
    pair = ec2.create_key_pair(NAME)
    holds("the key is private", pair.private_key.startswith("-----BEGIN RSA PRIVATE KEY-----"))
    same("the fingerprint", ec2.get_key_pair(NAME).fingerprint, pair.fingerprint)
    return pair


def make_a_group(*_):
    group = ec2.ex_create_security_group(NAME, "of libcloud")["group_id"]
    if not common.IS_SIMULATED:
        # Rules are not carried out yet, and refused.
        return group
    holds("a rule", ec2.ex_authorize_security_group(NAME, 22, 22, "0.0.0.0/0", "tcp"))
    holds("by id", ec2.ex_authorize_security_group_ingress(group, 80, 81, cidr_ips=["10.0.0.0/8"]))
    holds("taken back", ec2.ex_revoke_security_group_ingress(group, 80, 81, cidr_ips=["10.0.0.0/8"]))
    rules = ec2.ex_get_security_groups(group_ids=[group])[0].ingress_rules
    same("the rules", [(it["from_port"], it["cidr_ips"]) for it in rules], [("22", ["0.0.0.0/0"])])
    return group


def run_until_proof(image, _, pair, group):
    nonce = common.fresh_nonce()
    size = next(it for it in ec2.list_sizes() if it.id == (common.INSTANCE_TYPE or "m1.small"))
    node = ec2.create_node(
        name=NAME,
        image=image,
        size=size,
        location=ec2.list_locations()[0],
        ex_keyname=pair.name,
        ex_subnet=ec2.ex_list_subnets()[0],
        ex_security_group_ids=[group],
        ex_userdata=nonce,
        ex_metadata={"run": nonce},
        ex_clienttoken=nonce,
    )
    # There are no public addresses, for which it would wait if it were not told otherwise.
    [(running, addresses)] = ec2.wait_until_running([node], 0.3, common.PATIENCE, ssh_interface="private_ips")
    same("its addresses", addresses, node.private_ips)
    same("its groups", running.extra["groups"], [{"group_id": group, "group_name": NAME}])

    def state():
        found = ec2.list_nodes(ex_filters={"tag:run": nonce})
        same("what the tag finds", [it.id for it in found], [node.id])
        return found[0].state

    common.wait_for_proof(lambda: ec2.ex_get_console_output(node)["output"] or "", nonce, node.id, state)
    same("its tags", ec2.ex_describe_tags(node), {"Name": NAME, "run": nonce})
    holds("a tag", ec2.ex_create_tags(node, {"more": "1"}))
    holds("none again", ec2.ex_delete_tags(node, {"more": "1"}))
    same("its tags then", ec2.ex_get_metadata_for_node(node), {"Name": NAME, "run": nonce})
    same("its disk", len(ec2.list_volumes(node=node)), 1)
    return node


def destroy(*carried):
    node = carried[-1]
    refused("a group in use", "InvalidGroup.InUse", lambda: ec2.ex_delete_security_group(NAME), code_of)
    holds("it is destroyed", ec2.destroy_node(node))
    common.wait_until(
        "terminated", lambda: ec2.list_nodes(ex_node_ids=[node.id])[0].state == NodeState.TERMINATED
    )


def leave(image, _, pair, *__):
    holds("the group is deleted", ec2.ex_delete_security_group(NAME))
    holds("the key pair is deleted", ec2.delete_key_pair(pair))
    try:
        ec2.get_key_pair(NAME)
        raise common.Mismatch("the key pair is still there")
    except KeyPairDoesNotExistError:
        pass
    holds("the image is deleted", ec2.delete_image(image))
    bucket = s3.get_container(BUCKET)
    for found in bucket.list_objects():
        holds("an object is deleted", found.delete())
    holds("the bucket is deleted", bucket.delete())


common.main(
    upload_and_register,
    share_the_image,
    make_a_key_pair,
    make_a_group,
    run_until_proof,
    destroy,
    leave,
)
