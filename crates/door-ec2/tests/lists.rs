//! Filters and pages.

mod common;

use common::{Client, Cloud};
use cumulet_domain::InstanceId;
use cumulet_domain::instances::InstanceState;

const NEW: &str = "2016-11-15";

async fn with_instances(counts: &[u32]) -> (Cloud, Client, Vec<String>) {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = cloud
        .image(client.account, "an-image", false)
        .await
        .to_string();
    let mut ids = vec![];
    for count in counts {
        let count = count.to_string();
        let request = [
            ("ImageId", image.as_str()),
            ("MinCount", count.as_str()),
            ("MaxCount", count.as_str()),
        ];
        let reply = client.ask("RunInstances", NEW, &request).await.ok();
        ids.extend(reply.values("instanceId"));
    }
    for id in &ids {
        let id: InstanceId = id.parse().expect("an id");
        cloud.wait_for(id, InstanceState::Running).await;
    }
    (cloud, client, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_twice_is_answered_once() {
    let (cloud, client, ids) = with_instances(&[2]).await;
    let twice = [
        ("InstanceId.1", ids[1].as_str()),
        ("InstanceId.2", &ids[0]),
        ("InstanceId.3", &ids[1]),
    ];
    for action in [
        "DescribeInstances",
        "DescribeInstanceStatus",
        "DescribeInstanceCreditSpecifications",
        "TerminateInstances",
    ] {
        let reply = client.ask(action, NEW, &twice).await.ok();
        let named = reply.values("instanceId");
        let named = named.iter().filter(|id| ids.contains(id));
        assert_eq!(named.count(), 2, "{}", reply.text);
    }
    let missing = [
        ("InstanceId.1", "i-12345678"),
        ("InstanceId.2", "i-12345678"),
    ];
    for action in ["DescribeInstances", "RebootInstances", "TerminateInstances"] {
        let refused = client.ask(action, NEW, &missing).await;
        assert_eq!(refused.code(400), "InvalidInstanceID.NotFound");
        let told = "The instance ID 'i-12345678' does not exist";
        assert!(refused.text.contains(told), "{}", refused.text);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_ids_is_not_paged() {
    let (cloud, client, ids) = with_instances(&[1]).await;
    let digits = ids[0].strip_prefix("i-").expect("an instance");
    let (volume, port) = (format!("vol-{digits}"), format!("eni-{digits}"));
    let image = client.ask("DescribeImages", NEW, &[]).await.ok();
    let image = image.value("imageId").expect("an image");
    for (action, list, id, after) in [
        (
            "DescribeInstances",
            "InstanceId",
            ids[0].as_str(),
            "r-00000000",
        ),
        (
            "DescribeInstanceStatus",
            "InstanceId",
            &ids[0],
            "i-00000000",
        ),
        (
            "DescribeInstanceCreditSpecifications",
            "InstanceId",
            &ids[0],
            "i-00000000",
        ),
        ("DescribeVolumes", "VolumeId", &volume, "vol-00000000"),
        (
            "DescribeNetworkInterfaces",
            "NetworkInterfaceId",
            &port,
            "eni-00000000",
        ),
        (
            "DescribeSecurityGroups",
            "GroupName",
            "default",
            "sg-00000000",
        ),
        ("DescribeImages", "ImageId", &image, "ami-00000000"),
        ("DescribeInstanceTypes", "InstanceType", "m1.small", "a"),
    ] {
        let token = cumulet_wire::base64::encode(format!("1 {action} {after}").as_bytes());
        let list = format!("{list}.1");
        client.ask(action, NEW, &[(&list, id)]).await.ok();
        client.ask(action, NEW, &[("NextToken", &token)]).await.ok();
        for (name, value, told) in [
            ("MaxResults", "5", "maxResults"),
            ("NextToken", &token, "nextToken"),
        ] {
            let both = client.ask(action, NEW, &[(&list, id), (name, value)]).await;
            assert_eq!(both.code(400), "InvalidParameterCombination", "{action}");
            assert!(both.text.contains(told), "{}", both.text);
        }
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose() {
    let (cloud, client, ids) = with_instances(&[1, 2]).await;
    client
        .ask("TerminateInstances", NEW, &[("InstanceId.1", &ids[0])])
        .await
        .ok();
    let id: InstanceId = ids[0].parse().expect("an id");
    cloud.wait_for(id, InstanceState::Terminated).await;
    let chosen = |filters: Vec<(&'static str, &'static str)>| {
        let client = client.clone();
        async move {
            let mut pairs = vec![];
            let names: Vec<(String, String)> = (1..=filters.len())
                .map(|n| (format!("Filter.{n}.Name"), format!("Filter.{n}.Value.1")))
                .collect();
            for ((name, value), (name_key, value_key)) in filters.iter().zip(&names) {
                pairs.push((name_key.as_str(), *name));
                pairs.push((value_key.as_str(), *value));
            }
            let reply = client.ask("DescribeInstances", NEW, &pairs).await.ok();
            reply.values("instanceId").len()
        }
    };
    assert_eq!(chosen(vec![("instance-state-name", "running")]).await, 2);
    assert_eq!(chosen(vec![("instance-state-name", "term*")]).await, 1);
    assert_eq!(
        chosen(vec![
            ("instance-state-name", "running"),
            ("launch-index", "1")
        ])
        .await,
        1
    );
    assert_eq!(chosen(vec![("instance-type", "m1.small")]).await, 3);
    assert_eq!(chosen(vec![("tag:Name", "*")]).await, 0);
    let images = client
        .ask(
            "DescribeImages",
            NEW,
            &[("Filter.1.Name", "name"), ("Filter.1.Value.1", "an-*")],
        )
        .await
        .ok();
    assert_eq!(images.values("name"), ["an-image"]);
    let statuses = client
        .ask(
            "DescribeInstanceStatus",
            NEW,
            &[
                ("IncludeAllInstances", "true"),
                ("Filter.1.Name", "instance-state-code"),
                ("Filter.1.Value.1", "48"),
            ],
        )
        .await
        .ok();
    assert_eq!(statuses.values("instanceId"), [ids[0].clone()]);
    for (name, value, count) in [
        ("availability-zone", "us-east-1a", 2),
        ("availability-zone-id", "us-east-1-az1", 2),
        ("availability-zone-id", "us-east-1a", 0),
        ("operator.managed", "false", 2),
        ("event.code", "*", 0),
    ] {
        let filter = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
        let reply = client.ask("DescribeInstanceStatus", NEW, &filter).await;
        assert_eq!(reply.ok().values("instanceId").len(), count, "{name}");
    }
    let filter = [("Filter.1.Name", "event.x"), ("Filter.1.Value.1", "*")];
    let refused = client.ask("DescribeInstanceStatus", NEW, &filter).await;
    assert_eq!(refused.code(400), "InvalidParameterValue");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_everything_once() {
    let (cloud, client, mut ids) = with_instances(&[3, 3, 1, 7, 2, 1]).await;
    let mut seen = vec![];
    let mut token: Option<String> = None;
    let mut pages = 0;
    loop {
        let mut pairs = vec![("MaxResults", "5")];
        if let Some(token) = &token {
            pairs.push(("NextToken", token));
        }
        let reply = client.ask("DescribeInstances", NEW, &pairs).await.ok();
        pages += 1;
        seen.extend(reply.values("instanceId"));
        token = reply.value("nextToken");
        if token.is_none() {
            break;
        }
    }
    assert!(pages >= 3, "{pages}");
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    let mut statuses = vec![];
    let mut token: Option<String> = None;
    loop {
        let mut pairs = vec![("MaxResults", "5")];
        if let Some(token) = &token {
            pairs.push(("NextToken", token));
        }
        let reply = client.ask("DescribeInstanceStatus", NEW, &pairs).await.ok();
        assert!(reply.values("instanceId").len() <= 5);
        statuses.extend(reply.values("instanceId"));
        token = reply.value("nextToken");
        if token.is_none() {
            break;
        }
    }
    statuses.sort();
    assert_eq!(statuses, ids);
    let both = client
        .ask(
            "DescribeInstances",
            NEW,
            &[("MaxResults", "5"), ("InstanceId.1", &ids[0])],
        )
        .await;
    assert_eq!(both.code(400), "InvalidParameterCombination");
    cloud.stop().await;
}

/// A single value under the name of its list, as old clients sent it; version 1 would sign it like
/// other requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_one_needs_no_number() {
    let (cloud, client, ids) = with_instances(&[1, 1]).await;
    for version in ["2007-03-01", NEW] {
        let reply = client
            .ask("DescribeInstances", version, &[("InstanceId", &ids[1])])
            .await
            .ok();
        assert_eq!(reply.values("instanceId"), [ids[1].as_str()], "{version}");
    }
    let both = [("InstanceId.7", ids[0].as_str()), ("InstanceId", &ids[1])];
    let reply = client.ask("DescribeInstances", NEW, &both).await.ok();
    assert_eq!(reply.values("instanceId").len(), 2);
    let reply = client
        .ask("DescribeInstances", NEW, &[("Instance", &ids[1])])
        .await;
    assert_eq!(reply.code(400), "UnknownParameter");
    let query = format!(
        "Action=DescribeInstances&Version=2007-03-01&InstanceId={}",
        ids[1]
    );
    let reply = cloud.old_client().await.get_v1(&query).await;
    assert_eq!(reply.code(401), "AuthFailure");
    assert!(reply.text.contains("1, 2, 3"), "{}", reply.text);
    cloud.stop().await;
}
