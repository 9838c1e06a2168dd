//! How each operation is asked, so that it answers all that it ever answers.

use std::collections::BTreeSet;

use cumulet_domain::VpcId;

use super::World;
use super::common::{self, Client};

pub(super) async fn run(client: &Client, version: &str, image: &str) -> common::Reply {
    client
        .ask("RunInstances", version, &launch_of(image))
        .await
        .ok()
}

fn launch_of(image: &str) -> [(&'static str, &str); 4] {
    [
        ("ImageId", image),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("KeyName", "key"),
    ]
}

/// What writes a tag on what is made.
fn tagged(kind: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("TagSpecification.1.ResourceType", kind),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", "made"),
    ]
}

impl World {
    /// All paths that the operation answers in this version, asked in every way that adds some.
    pub(super) async fn paths(&self, operation: &str, version: &str) -> BTreeSet<String> {
        let ask = |parameters: Vec<(&'static str, String)>| async move {
            let parameters: Vec<(&str, &str)> = parameters
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            self.client.ask(operation, version, &parameters).await.ok()
        };
        let text = str::to_owned;
        let mut paths = BTreeSet::new();
        match operation {
            "RunInstances" => {
                let reply = if version == "2016-11-15" {
                    let request = [&tagged("instance")[..], &launch_of(&self.image)].concat();
                    self.client
                        .ask("RunInstances", version, &request)
                        .await
                        .ok()
                } else {
                    run(&self.client, version, &self.image).await
                };
                paths.extend(reply.paths());
                let id = reply.value("instanceId").expect("an id");
                let ids = [("InstanceId.1", id.as_str())];
                self.client
                    .ask("TerminateInstances", "2007-03-01", &ids)
                    .await
                    .ok();
            }
            "TerminateInstances" => {
                let reply = run(&self.client, version, &self.image).await;
                let id = reply.value("instanceId").expect("an id");
                paths.extend(ask(vec![("InstanceId.1", id)]).await.paths());
            }
            "RebootInstances" | "GetConsoleOutput" => {
                paths.extend(
                    ask(vec![("InstanceId.1", self.running.clone())])
                        .await
                        .paths(),
                );
            }
            "ConfirmProductInstance" => {
                let instance = ("InstanceId", self.running.clone());
                let code = ("ProductCode", text("774F4FF8"));
                paths.extend(ask(vec![code, instance]).await.paths());
            }
            "RegisterImage" => {
                let location = ("ImageLocation", text("bucket/good.manifest.xml"));
                paths.extend(ask(vec![location]).await.paths());
            }
            "DeregisterImage" => {
                let location = [("ImageLocation", "bucket/good.manifest.xml")];
                let reply = self
                    .client
                    .ask("RegisterImage", version, &location)
                    .await
                    .ok();
                let id = reply.value("imageId").expect("an id");
                paths.extend(ask(vec![("ImageId", id)]).await.paths());
            }
            "ModifyImageAttribute" | "ResetImageAttribute" => {
                let mut pairs = vec![
                    ("ImageId", self.image.clone()),
                    ("Attribute", text("launchPermission")),
                ];
                if operation == "ModifyImageAttribute" {
                    pairs.push(("OperationType", text("add")));
                    pairs.push(("UserId.1", text("495219933132")));
                }
                paths.extend(ask(pairs).await.paths());
            }
            "DescribeImageAttribute" => {
                let granted = [
                    ("ImageId", self.image.as_str()),
                    ("Attribute", "launchPermission"),
                    ("OperationType", "add"),
                    ("UserId.1", "495219933132"),
                    ("UserGroup.1", "all"),
                ];
                self.client
                    .ask("ModifyImageAttribute", "2007-03-01", &granted)
                    .await
                    .ok();
                for (name, first) in [
                    ("launchPermission", "2006-10-01"),
                    ("productCodes", "2007-03-01"),
                    ("kernel", "2008-02-01"),
                    ("ramdisk", "2008-02-01"),
                    ("blockDeviceMapping", "2008-02-01"),
                    ("description", "2009-10-31"),
                    ("sriovNetSupport", "2013-10-15"),
                    ("bootMode", "2016-11-15"),
                    ("tpmSupport", "2016-11-15"),
                    ("uefiData", "2016-11-15"),
                    ("imdsSupport", "2016-11-15"),
                    ("deregistrationProtection", "2016-11-15"),
                ] {
                    if version >= first {
                        let pairs =
                            vec![("ImageId", self.image.clone()), ("Attribute", text(name))];
                        paths.extend(ask(pairs).await.paths());
                    }
                }
            }
            "CreateKeyPair" => {
                let name = format!("key of {version}");
                let mut request = vec![("KeyName", name)];
                if version == "2016-11-15" {
                    request.extend(tagged("key-pair").map(|(name, value)| (name, text(value))));
                }
                paths.extend(ask(request).await.paths());
            }
            "ImportKeyPair" => {
                let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
                let material = cumulet_wire::base64::encode(key.as_bytes());
                let name = format!("imported in {version}");
                let mut request = vec![("KeyName", name), ("PublicKeyMaterial", material)];
                if version == "2016-11-15" {
                    request.extend(tagged("key-pair").map(|(name, value)| (name, text(value))));
                }
                paths.extend(ask(request).await.paths());
            }
            "DeleteKeyPair" => {
                paths.extend(ask(vec![("KeyName", text("nobody's"))]).await.paths());
            }
            "DescribeKeyPairs" => {
                paths.extend(ask(vec![]).await.paths());
                if version == "2016-11-15" {
                    let public = ("IncludePublicKey", text("true"));
                    paths.extend(ask(vec![public]).await.paths());
                }
            }
            "DescribeImages" => {
                paths.extend(ask(vec![]).await.paths());
                if version == "2016-11-15" {
                    paths.extend(ask(vec![("MaxResults", text("1"))]).await.paths());
                }
            }
            "CreateSecurityGroup" => {
                let name = ("GroupName", format!("group of {version}"));
                let description = ("GroupDescription", text("of a version"));
                let mut request = vec![name, description];
                if version == "2016-11-15" {
                    let tags = tagged("security-group");
                    request.extend(tags.map(|(name, value)| (name, text(value))));
                }
                paths.extend(ask(request).await.paths());
            }
            "AuthorizeSecurityGroupIngress" => {
                paths.extend(ask(super::groups::rule_in(version)).await.paths());
                super::groups::change_rules(&self.client, "RevokeSecurityGroupIngress", version)
                    .await;
            }
            "RevokeSecurityGroupIngress" => {
                super::groups::change_rules(&self.client, "AuthorizeSecurityGroupIngress", version)
                    .await;
                paths.extend(ask(super::groups::rule_in(version)).await.paths());
            }
            "DeleteSecurityGroup" => {
                let name = format!("group to delete of {version}");
                let group = [("GroupName", name.as_str()), ("GroupDescription", "d")];
                self.client
                    .ask("CreateSecurityGroup", version, &group)
                    .await
                    .ok();
                paths.extend(ask(vec![("GroupName", name)]).await.paths());
            }
            "DescribeSecurityGroups" => {
                paths.extend(ask(vec![]).await.paths());
                if version == "2016-11-15" {
                    paths.extend(ask(vec![("MaxResults", text("5"))]).await.paths());
                }
            }
            "DescribeInstances" | "DescribeInstanceStatus" => {
                paths.extend(ask(vec![]).await.paths());
                if operation == "DescribeInstanceStatus" || version >= "2013-10-15" {
                    paths.extend(ask(vec![("MaxResults", text("5"))]).await.paths());
                }
            }
            "CreateTags" | "DeleteTags" => {
                let id = ("ResourceId.1", self.running.clone());
                let key = ("Tag.1.Key", format!("of {version}"));
                paths.extend(ask(vec![id, key]).await.paths());
            }
            "DescribeTags" => {
                paths.extend(ask(vec![]).await.paths());
                if version >= "2013-10-15" {
                    paths.extend(ask(vec![("MaxResults", text("5"))]).await.paths());
                }
            }
            _ => {
                let vpc = VpcId::of(self.client.account);
                let requests = super::described::requests(operation, version, &self.running, vpc);
                for request in requests {
                    paths.extend(ask(request).await.paths());
                }
            }
        }
        paths
    }
}
