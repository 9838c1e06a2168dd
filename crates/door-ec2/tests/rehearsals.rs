//! `DryRun`: everything is checked as for the deed, and nothing is done.

mod common;

use common::{Client, Cloud};
use cumulet_domain::instances::InstanceState;

const NEW: &str = "2016-11-15";
const MATERIAL: &str = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUFBQkFnTUVCUVlIQ0FrS0N3d05EZzhRRVJJVEZCVVdGeGdaR2hzY0hSNGY=";

/// What a client sees of all that it could change.
async fn seen(client: &Client) -> Vec<String> {
    let mut all = vec![];
    for action in [
        "DescribeImages",
        "DescribeInstances",
        "DescribeKeyPairs",
        "DescribeSecurityGroups",
        "DescribeTags",
    ] {
        all.push(client.ask(action, NEW, &[]).await.ok().text);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_done_is_said_and_not_done() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = cloud.image(client.account, "an-image", false).await;
    let image = image.to_string();
    cloud.upload_bundle("bundle", &[], false);
    let image_id = ("ImageId", image.as_str());
    let run = [image_id, ("MinCount", "1"), ("MaxCount", "1")];
    let launched = client.ask("RunInstances", NEW, &run).await.ok();
    let instance = launched.value("instanceId").unwrap();
    cloud
        .wait_for(instance.parse().unwrap(), InstanceState::Running)
        .await;
    let key = ("KeyName", "kept");
    client.ask("CreateKeyPair", NEW, &[key]).await.ok();
    let group = ("GroupName", "kept");
    let description = ("GroupDescription", "of the test");
    let made = [group, description];
    client.ask("CreateSecurityGroup", NEW, &made).await.ok();
    let rule = |port| {
        vec![
            group,
            ("IpProtocol", "tcp"),
            ("FromPort", port),
            ("ToPort", port),
            ("CidrIp", "0.0.0.0/0"),
        ]
    };
    let authorize = "AuthorizeSecurityGroupIngress";
    client.ask(authorize, NEW, &rule("22")).await.ok();
    let tag = [("ResourceId.1", instance.as_str()), ("Tag.1.Key", "a")];
    client.ask("CreateTags", NEW, &tag).await.ok();

    let one = ("InstanceId.1", instance.as_str());
    let run = run.to_vec();
    let with = |base: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| {
        [base, more].concat()
    };
    let public = ("LaunchPermission.Add.1.Group", "all");
    let attribute = ("Attribute", "launchPermission");
    let deeds = [
        (
            "RegisterImage",
            vec![("ImageLocation", "bucket/bundle.manifest.xml")],
        ),
        ("DeregisterImage", vec![image_id]),
        ("ModifyImageAttribute", vec![image_id, public]),
        ("ResetImageAttribute", vec![image_id, attribute]),
        ("RunInstances", run.clone()),
        ("RebootInstances", vec![one]),
        ("TerminateInstances", vec![one]),
        ("CreateKeyPair", vec![("KeyName", "new")]),
        (
            "ImportKeyPair",
            vec![("KeyName", "new"), ("PublicKeyMaterial", MATERIAL)],
        ),
        ("DeleteKeyPair", vec![key]),
        (
            "CreateSecurityGroup",
            vec![("GroupName", "new"), description],
        ),
        (authorize, rule("80")),
        ("RevokeSecurityGroupIngress", rule("22")),
        ("DeleteSecurityGroup", vec![group]),
        (
            "CreateTags",
            vec![("ResourceId.1", instance.as_str()), ("Tag.1.Key", "b")],
        ),
        ("DeleteTags", tag.to_vec()),
    ];
    // What the deed itself would answer, wherever what is asked about is not as the request has it.
    let refusals = [
        (
            "RegisterImage",
            vec![("ImageLocation", "bucket/none.manifest.xml")],
            "InvalidManifest",
        ),
        (
            "DeregisterImage",
            vec![("ImageId", "ami-00000000")],
            "InvalidAMIID.NotFound",
        ),
        (
            "RunInstances",
            with(
                &[("ImageId", "ami-00000000")],
                &[("MinCount", "1"), ("MaxCount", "1")],
            ),
            "InvalidAMIID.NotFound",
        ),
        ("CreateKeyPair", vec![key], "InvalidKeyPair.Duplicate"),
        (
            "CreateSecurityGroup",
            made.to_vec(),
            "InvalidGroup.Duplicate",
        ),
        (
            "DeleteSecurityGroup",
            vec![("GroupName", "none")],
            "InvalidGroup.NotFound",
        ),
        (authorize, rule("22"), "InvalidPermission.Duplicate"),
        (
            "RevokeSecurityGroupIngress",
            rule("443"),
            "InvalidPermission.NotFound",
        ),
        (
            "TerminateInstances",
            vec![("InstanceId.1", "i-00000000")],
            "InvalidInstanceID.NotFound",
        ),
    ];
    let launches = [
        (("KeyName", "none"), "InvalidKeyPair.NotFound"),
        (("SecurityGroup.1", "none"), "InvalidGroup.NotFound"),
        (("InstanceType", "t9.huge"), "InvalidParameterValue"),
    ];
    let before = seen(&client).await;
    let dry = ("DryRun", "true");
    for (action, mut pairs) in deeds {
        pairs.push(dry);
        let reply = client.ask(action, NEW, &pairs).await;
        assert_eq!(reply.code(412), "DryRunOperation", "{action}");
    }
    let launches = launches.map(|(more, code)| {
        let mut pairs = run.clone();
        pairs.push(more);
        ("RunInstances", pairs, code)
    });
    for (action, mut pairs, code) in refusals.into_iter().chain(launches) {
        pairs.push(dry);
        let reply = client.ask(action, NEW, &pairs).await;
        assert_eq!(reply.code(400), code, "{action} {pairs:?}");
    }
    // Who may not is told so.
    let stranger = cloud.stranger().await;
    for (action, mut pairs) in [
        ("RunInstances", run.clone()),
        ("DeregisterImage", vec![image_id]),
        ("ModifyImageAttribute", vec![image_id, public]),
    ] {
        let deed = stranger.ask(action, NEW, &pairs).await;
        pairs.push(dry);
        let rehearsed = stranger.ask(action, NEW, &pairs).await;
        assert_eq!(rehearsed.text, deed.text, "{action}");
        assert_eq!(rehearsed.code(401), "AuthFailure", "{action}");
    }
    assert_eq!(seen(&client).await, before);
    cloud.stop().await;
}
