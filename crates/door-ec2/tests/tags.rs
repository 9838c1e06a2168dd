//! CreateTags, DeleteTags, DescribeTags, tags of what requests make, and filters by tags.

mod common;

use common::{Client, Cloud, Reply};
use cumulet_domain::instances::InstanceState;

const NEW: &str = "2016-11-15";
/// The first version with tags, and one of the SOAP binding's last.
const FIRST: &str = "2010-08-31";
const LAST_SOAP: &str = "2013-08-15";

struct World {
    cloud: Cloud,
    client: Client,
    image: String,
}

async fn world() -> World {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = cloud.image(client.account, "an-image", true).await;
    World {
        cloud,
        client,
        image: image.to_string(),
    }
}

impl World {
    async fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> Reply {
        self.client.ask(action, NEW, parameters).await
    }

    /// Instances of one launch, with parameters beside the usual.
    async fn run(&self, count: &str, more: &[(&str, &str)]) -> Reply {
        let usual = [
            ("ImageId", self.image.as_str()),
            ("MinCount", count),
            ("MaxCount", count),
        ];
        self.ask("RunInstances", &[&usual, more].concat()).await
    }

    /// `resource type key=value` of each line.
    async fn tags(&self, filters: &[(&str, &str)]) -> Vec<String> {
        lines(&self.ask("DescribeTags", filters).await.ok())
    }

    /// The ids that a describing operation answers with these filters.
    async fn chosen(&self, action: &str, id: &str, filters: &[(&str, &str)]) -> Vec<String> {
        self.ask(action, filters).await.ok().values(id)
    }
}

fn lines(reply: &Reply) -> Vec<String> {
    let of = |name: &str| reply.values(&format!("tagSet/item/{name}"));
    let (ids, kinds) = (of("resourceId"), of("resourceType"));
    let (keys, values) = (of("key"), of("value"));
    let rows = ids.iter().zip(kinds).zip(keys).zip(values);
    rows.map(|(((id, kind), key), value)| format!("{id} {kind} {key}={value}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_written_shown_and_taken_away() {
    let world = world().await;
    let id = world.run("1", &[]).await.ok().value("instanceId").unwrap();
    let image = world.image.clone();
    let create = [
        ("ResourceId.1", image.as_str()),
        ("ResourceId.2", id.as_str()),
        ("Tag.1.Key", "webserver"),
        ("Tag.2.Key", "stack"),
        ("Tag.2.Value", "Production"),
    ];
    let reply = world.client.ask("CreateTags", FIRST, &create).await.ok();
    assert_eq!(
        reply.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <CreateTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/2010-08-31/\">\
             <requestId>{}</requestId><return>true</return></CreateTagsResponse>",
            common::REQUEST_ID
        )
    );
    let shown = world.client.ask("DescribeTags", FIRST, &[]).await.ok();
    let expected = [
        format!("{image} image stack=Production"),
        format!("{image} image webserver="),
        format!("{id} instance stack=Production"),
        format!("{id} instance webserver="),
    ];
    assert_eq!(lines(&shown), expected);
    // With a value only that value goes; an empty value is one; without a value any goes.
    let delete = |key: &'static str, value: Option<&'static str>| {
        let mut pairs = vec![("ResourceId.1", id.clone()), ("Tag.1.Key", key.to_owned())];
        pairs.extend(value.map(|value| ("Tag.1.Value", value.to_owned())));
        let client = world.client.clone();
        async move {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
            client.ask("DeleteTags", NEW, &pairs).await.ok()
        }
    };
    delete("stack", Some("")).await;
    delete("webserver", Some("other")).await;
    assert_eq!(world.tags(&[]).await, expected);
    delete("webserver", Some("")).await;
    delete("stack", None).await;
    delete("never", None).await;
    assert_eq!(world.tags(&[]).await, expected[..2]);
    // No key takes all.
    world
        .ask("DeleteTags", &[("ResourceId.1", &image)])
        .await
        .ok();
    assert_eq!(world.tags(&[]).await, Vec::<String>::new());
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_written_over_soap() {
    let world = world().await;
    let image = world.image.clone();
    let resources =
        format!("<resourcesSet><item><resourceId>{image}</resourceId></item></resourcesSet>");
    let item =
        |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
    for version in [FIRST, LAST_SOAP] {
        let soap = |operation: &'static str, inside: String| {
            let client = world.client.clone();
            async move {
                let reply = client.soap(operation, version, &inside).await;
                assert_eq!(reply.status, 200, "{}", reply.text);
                reply
            }
        };
        let tags = format!("<tagSet>{}{}</tagSet>", item("a", "1"), item("b", ""));
        let made = soap("CreateTags", format!("{resources}{tags}")).await;
        assert!(made.text.contains(&format!(
            "<CreateTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/{version}/\"><requestId>"
        )));
        assert!(
            made.text
                .contains("<return>true</return></CreateTagsResponse>")
        );
        let filter = "<filterSet><item><name>key</name><valueSet><item><value>a</value></item></valueSet></item></filterSet>";
        let found = soap("DescribeTags", filter.to_owned()).await;
        let row = format!(
            "<tagSet><item><resourceId>{image}</resourceId><resourceType>image</resourceType><key>a</key><value>1</value></item></tagSet>"
        );
        assert!(found.text.contains(&row), "{}", found.text);
        let shown = soap("DescribeImages", String::new()).await;
        let tag = "<tagSet><item><key>a</key><value>1</value></item><item><key>b</key><value/></item></tagSet>";
        assert!(shown.text.contains(tag), "{}", shown.text);
        let key = "<tagSet><item><key>a</key></item></tagSet>";
        soap("DeleteTags", format!("{resources}{key}")).await;
        let empty = "<tagSet><item><key>b</key><value></value></item></tagSet>";
        soap("DeleteTags", format!("{resources}{empty}")).await;
        assert_eq!(world.tags(&[]).await, Vec::<String>::new());
    }
    // Refusals are faults with the same codes.
    let nobody =
        "<resourcesSet><item><resourceId>i-0123456789abcdef0</resourceId></item></resourcesSet>";
    let tags = format!("<tagSet>{}</tagSet>", item("a", "1"));
    let fault = world
        .client
        .soap("CreateTags", FIRST, &format!("{nobody}{tags}"))
        .await;
    assert_eq!(fault.status, 500);
    assert!(fault.text.contains("Client.InvalidInstanceID.NotFound"));
    // Before the version that brought them they do not exist.
    let early = world.client.ask("DescribeTags", "2010-06-15", &[]).await;
    assert_eq!(early.code(400), "InvalidAction");
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_written_on_at_once() {
    let world = world().await;
    let run = world
        .run(
            "2",
            &[
                ("TagSpecification.1.ResourceType", "instance"),
                ("TagSpecification.1.Tag.1.Key", "Name"),
                ("TagSpecification.1.Tag.1.Value", "web"),
                ("TagSpecification.2.ResourceType", "volume"),
                ("TagSpecification.2.Tag.1.Key", "Name"),
                ("TagSpecification.2.Tag.1.Value", "disk"),
                ("ClientToken", "once"),
            ],
        )
        .await
        .ok();
    assert_eq!(run.values("tagSet/item/value"), ["web", "web"]);
    let key = world
        .ask(
            "CreateKeyPair",
            &[
                ("KeyName", "key"),
                ("TagSpecification.1.ResourceType", "key-pair"),
                ("TagSpecification.1.Tag.1.Key", "Name"),
                ("TagSpecification.1.Tag.1.Value", "mine"),
            ],
        )
        .await
        .ok();
    assert_eq!(key.values("tagSet/item/value"), ["mine"]);
    world.cloud.upload_bundle("bundle", &[], false);
    let registered = world
        .ask(
            "RegisterImage",
            &[
                ("ImageLocation", "bucket/bundle.manifest.xml"),
                ("TagSpecification.1.ResourceType", "image"),
                ("TagSpecification.1.Tag.1.Key", "Name"),
            ],
        )
        .await
        .ok();
    let image = registered.value("imageId").unwrap();
    assert_eq!(world.tags(&[]).await.len(), 6);

    // Deleting a key pair and making it again gives one without the old one's tags.
    world.ask("DeleteKeyPair", &[("KeyName", "key")]).await.ok();
    let shown = world.ask("DescribeKeyPairs", &[]).await.ok();
    assert_eq!(shown.values("keyName").len(), 0);
    assert_eq!(world.tags(&[]).await.len(), 5);
    let only = [
        ("Filter.1.Name", "resource-type"),
        ("Filter.1.Value.1", "image"),
    ];
    assert_eq!(world.tags(&only).await, [format!("{image} image Name=")]);

    // What an instance had goes with it; its own tags stay while it is shown.
    let ids = run.values("instanceId");
    world
        .ask("TerminateInstances", &[("InstanceId.1", &ids[0])])
        .await
        .ok();
    let id = ids[0].parse().unwrap();
    world.cloud.wait_for(id, InstanceState::Terminated).await;
    let volume = ids[0].replacen("i-", "vol-", 1);
    let left = world.tags(&[]).await;
    assert!(left.iter().any(|line| line.starts_with(&ids[0])));
    assert!(!left.iter().any(|line| line.starts_with(&volume)));
    let gone = [("ResourceId.1", volume.as_str()), ("Tag.1.Key", "a")];
    let refused = world.ask("CreateTags", &gone).await;
    assert_eq!(refused.code(400), "InvalidVolume.NotFound");
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_by_tags() {
    let world = world().await;
    let ids = world.run("3", &[]).await.ok().values("instanceId");
    for (id, key, value) in [
        (&ids[0], "Name", "web-1"),
        (&ids[1], "Name", "web-2"),
        (&ids[1], "env", "test"),
        (&ids[2], "env", ""),
        (&world.image, "Name", "image"),
    ] {
        let pairs = [
            ("ResourceId.1", id.as_str()),
            ("Tag.1.Key", key),
            ("Tag.1.Value", value),
        ];
        world.ask("CreateTags", &pairs).await.ok();
    }
    let filter = |name: &'static str, value: &'static str| {
        vec![("Filter.1.Name", name), ("Filter.1.Value.1", value)]
    };
    let mut ordered = ids.clone();
    ordered.sort();
    for (name, value, expected) in [
        ("tag:Name", "web-*", vec![&ids[0], &ids[1]]),
        ("tag:Name", "web-?", vec![&ids[0], &ids[1]]),
        ("tag:Name", "web-2", vec![&ids[1]]),
        ("tag:name", "*", vec![]),
        ("tag:env", "", vec![&ids[2]]),
        ("tag:env", "*", vec![&ids[1], &ids[2]]),
        ("tag-key", "env", vec![&ids[1], &ids[2]]),
        ("tag-key", "N*", vec![&ids[0], &ids[1]]),
        ("tag-value", "test", vec![&ids[1]]),
    ] {
        let mut found = world
            .chosen("DescribeInstances", "instanceId", &filter(name, value))
            .await;
        found.sort();
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(found, expected, "{name} {value}");
    }
    let images = |name, value| {
        world.chosen("DescribeImages", "imageId", {
            Box::leak(filter(name, value).into_boxed_slice())
        })
    };
    assert_eq!(images("tag:Name", "ima*").await.len(), 1);
    assert_eq!(images("tag-key", "env").await.len(), 0);
    // A public image is shown to others without its owner's notes.
    let stranger = world.cloud.stranger().await;
    let seen = stranger.ask("DescribeImages", NEW, &[]).await.ok();
    assert_eq!(seen.value("imageId"), Some(world.image.clone()));
    assert_eq!(seen.values("tagSet/item").len(), 0);

    // DescribeTags has filters of its own.
    for (name, value, count) in [
        ("key", "Name", 3),
        ("value", "web-*", 2),
        ("resource-type", "instance", 4),
        ("tag:env", "test", 1),
        ("tag:env", "*", 2),
    ] {
        assert_eq!(
            world.tags(&filter(name, value)).await.len(),
            count,
            "{name}"
        );
    }
    let of_one = [
        ("Filter.1.Name", "resource-id"),
        ("Filter.1.Value.1", ids[1].as_str()),
        ("Filter.2.Name", "key"),
        ("Filter.2.Value.1", "env"),
    ];
    assert_eq!(
        world.tags(&of_one).await,
        [format!("{} instance env=test", ids[1])]
    );
    let unknown = world.ask("DescribeTags", &filter("tag-key", "a")).await;
    assert_eq!(unknown.code(400), "InvalidParameterValue");
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_tags_follow_each_other() {
    let world = world().await;
    // As long as keys may be: a page's token holds the last one.
    let key = |n: usize| format!("key {n:02}{}", "語".repeat(122));
    let mut pairs = vec![("ResourceId.1".to_owned(), world.image.clone())];
    pairs.extend((1..=12).map(|n| (format!("Tag.{n}.Key"), key(n))));
    let create: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    world.ask("CreateTags", &create).await.ok();
    let mut keys = vec![];
    let mut token = None::<String>;
    loop {
        let mut page = vec![("MaxResults", "5")];
        page.extend(token.as_ref().map(|token| ("NextToken", token.as_str())));
        let reply = world.ask("DescribeTags", &page).await.ok();
        let found = reply.values("tagSet/item/key");
        assert!(found.len() <= 5);
        keys.extend(found);
        token = reply.value("nextToken");
        if token.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (1..=12).map(key).collect();
    assert_eq!(keys, expected);
    let refused = world.ask("DescribeTags", &[("MaxResults", "4")]).await;
    assert_eq!(refused.code(400), "InvalidParameterValue");
    world.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name() {
    let world = world().await;
    let image = world.image.clone();
    let long_key = "k".repeat(129);
    let long_value = "v".repeat(257);
    let on = |id: &'static str| vec![("ResourceId.1", id), ("Tag.1.Key", "a")];
    let own = |more: &[(&'static str, &str)]| {
        let mut pairs = vec![("ResourceId.1".to_owned(), image.clone())];
        pairs.extend(more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        pairs
    };
    let client = &world.client;
    let code = |action: &'static str, pairs: Vec<(String, String)>| async move {
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        client.ask(action, NEW, &pairs).await.code(400)
    };
    let texts = |pairs: Vec<(&str, &str)>| -> Vec<(String, String)> {
        let own = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    };
    for (id, expected) in [
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("i-xyz", "InvalidInstanceID.Malformed"),
        ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
        ("key-0123456789abcdef0", "InvalidKeyPair.NotFound"),
        ("sg-0123456789abcdef0", "InvalidGroup.NotFound"),
        ("vol-0123456789abcdef0", "InvalidVolume.NotFound"),
        ("vpc-0123456789abcdef0", "InvalidVpcID.NotFound"),
        ("subnet-0123456789abcdef0", "InvalidSubnetID.NotFound"),
        (
            "eni-0123456789abcdef0",
            "InvalidNetworkInterfaceID.NotFound",
        ),
        ("snap-0123456789abcdef0", "InvalidID"),
        ("nonsense", "InvalidID"),
    ] {
        for action in ["CreateTags", "DeleteTags"] {
            assert_eq!(code(action, texts(on(id))).await, expected, "{action} {id}");
        }
    }
    for (pairs, expected) in [
        (own(&[]), "MissingParameter"),
        (own(&[("Tag.1.Value", "v")]), "MissingParameter"),
        (own(&[("Tag.1.Key", "")]), "InvalidParameterValue"),
        (own(&[("Tag.1.Key", &long_key)]), "InvalidParameterValue"),
        (
            own(&[("Tag.1.Key", "a"), ("Tag.1.Value", &long_value)]),
            "InvalidParameterValue",
        ),
        (own(&[("Tag.1.Key", "aws:x")]), "InvalidParameterValue"),
        (
            own(&[("Tag.1.Key", "a"), ("Tag.2.Key", "a")]),
            "InvalidParameterValue",
        ),
        (
            own(&[("Tag.1.Key", "a"), ("DryRun", "maybe")]),
            "InvalidParameterValue",
        ),
        (texts(vec![("Tag.1.Key", "a")]), "MissingParameter"),
    ] {
        assert_eq!(
            code("CreateTags", pairs.clone()).await,
            expected,
            "{pairs:?}"
        );
    }
    let reserved = own(&[("Tag.1.Key", "aws:x")]);
    assert_eq!(code("DeleteTags", reserved).await, "InvalidParameterValue");
    let full: Vec<(String, String)> = own(&[])
        .into_iter()
        .chain((1..=51).map(|n| (format!("Tag.{n}.Key"), format!("k{n}"))))
        .collect();
    assert_eq!(code("CreateTags", full.clone()).await, "TagLimitExceeded");
    let fits: Vec<(&str, &str)> = full[..51]
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    client.ask("CreateTags", NEW, &fits).await.ok();
    let one_more = own(&[("Tag.1.Key", "one more")]);
    assert_eq!(code("CreateTags", one_more).await, "TagLimitExceeded");

    // What is somebody else's.
    let stranger = world.cloud.stranger().await;
    let pairs = [("ResourceId.1", image.as_str()), ("Tag.1.Key", "a")];
    let refused = stranger.ask("CreateTags", NEW, &pairs).await;
    assert_eq!(refused.code(401), "AuthFailure");
    let nothing = stranger.ask("DescribeTags", NEW, &[]).await.ok();
    assert_eq!(lines(&nothing), Vec::<String>::new());

    // What a request makes.
    for (kind, more, expected) in [
        (
            "key-pair",
            vec![("TagSpecification.1.Tag.1.Key", "a")],
            "InvalidParameterValue",
        ),
        ("instance", vec![], "InvalidParameterValue"),
        (
            "instance",
            vec![
                ("TagSpecification.1.Tag.1.Key", "a"),
                ("TagSpecification.2.ResourceType", "instance"),
                ("TagSpecification.2.Tag.1.Key", "b"),
            ],
            "InvalidParameterValue",
        ),
        (
            "instance",
            vec![("TagSpecification.1.Tag.1.Key", "aws:a")],
            "InvalidParameterValue",
        ),
    ] {
        let mut pairs = vec![("TagSpecification.1.ResourceType", kind)];
        pairs.extend(more);
        let refused = world.run("1", &pairs).await;
        assert_eq!(refused.code(400), expected, "{pairs:?}");
    }
    let dry = world
        .ask(
            "CreateTags",
            &[
                ("ResourceId.1", &image),
                ("Tag.1.Key", "a"),
                ("DryRun", "true"),
            ],
        )
        .await;
    // A rehearsal says what the deed would: the image has as many as it may.
    assert_eq!(dry.code(400), "TagLimitExceeded");
    world.cloud.stop().await;
}
