//! What RunInstances does with counts, several images and user data, in the versions that say it each their own way.

mod common;

use common::{Client, Cloud, Reply, Setup};
use cumulet_domain::{InstanceId, ReservationId};

const OLD: &str = "2007-03-01";
const NEW: &str = "2016-11-15";

/// Memory of an instance of the type that 2007 had, in MiB.
const SMALL_MIB: u64 = 1740;

async fn image(cloud: &Cloud, client: &Client, name: &str) -> String {
    cloud.upload_bundle(name, &[], false);
    let location = format!("bucket/{name}.manifest.xml");
    let reply = client
        .ask("RegisterImage", OLD, &[("ImageLocation", &location)])
        .await
        .ok();
    let id = reply.value("imageId").expect("an id");
    cloud.wait_for_image(id.parse().expect("an id")).await;
    id
}

/// An item of `instancesSet`.
fn item(image: &str, min: &str, max: &str) -> String {
    format!(
        "<item><imageId>{image}</imageId><minCount>{min}</minCount><maxCount>{max}</maxCount></item>"
    )
}

async fn run(client: &Client, items: &str) -> Reply {
    let inside = format!("<instancesSet>{items}</instancesSet><groupSet></groupSet>");
    client.soap("RunInstances", OLD, &inside).await
}

/// What was launched: images and indexes, in the answer's order.
fn launched(reply: &Reply) -> Vec<(String, String)> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let indexes = reply.values("amiLaunchIndex");
    reply.values("imageId").into_iter().zip(indexes).collect()
}

fn counts(reply: &Reply, images: [&str; 2]) -> [usize; 2] {
    let launched = launched(reply);
    images.map(|image| launched.iter().filter(|(it, _)| it == image).count())
}

/// Code of a fault, which must be one.
fn fault(reply: &Reply) -> String {
    assert_eq!(reply.status, 500, "{}", reply.text);
    reply.value("faultcode").expect("a fault")
}

fn room_for(instances: u64) -> Setup {
    Setup {
        memory_mib: SMALL_MIB * instances,
        ..Setup::default()
    }
}

/// Reference 6.7: A 5 to 10, B 20 to 40; there is room for 30, and then for fewer than 25.
#[tokio::test(flavor = "multi_thread")]
async fn the_guides_example_of_two_images_comes_out() {
    let cloud = Cloud::start_as(room_for(30)).await;
    let client = cloud.client();
    let (a, b) = (
        image(&cloud, &client, "a").await,
        image(&cloud, &client, "b").await,
    );
    let items = format!("{}{}", item(&a, "5", "10"), item(&b, "20", "40"));
    let reply = run(&client, &items).await;
    assert_eq!(counts(&reply, [&a, &b]), [8, 22]);
    // One reservation; indexes of each image from 0 on, in the order of the request.
    assert_eq!(reply.values("reservationId").len(), 1);
    let indexes = |count: usize| (0..count).map(|it| it.to_string());
    let wanted: Vec<(String, String)> = indexes(8)
        .map(|index| (a.clone(), index))
        .chain(indexes(22).map(|index| (b.clone(), index)))
        .collect();
    assert_eq!(launched(&reply), wanted);
    let ids = reply.values("instanceId");
    assert_eq!(
        ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
        30
    );
    cloud.stop().await;

    let cloud = Cloud::start_as(room_for(24)).await;
    let client = cloud.client();
    let (a, b) = (
        image(&cloud, &client, "a").await,
        image(&cloud, &client, "b").await,
    );
    let items = format!("{}{}", item(&a, "5", "10"), item(&b, "20", "40"));
    let refused = run(&client, &items).await;
    assert_eq!(fault(&refused), "Server.InsufficientInstanceCapacity");
    let state = cloud.engine.snapshot();
    assert!(state.instances.is_empty() && state.reservations.is_empty());
    assert_eq!(state.host_usage.memory_mib, 0);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_limit_cuts_the_maximum_and_refuses_the_minimum() {
    let setup = Setup {
        instances_per_account: 6,
        ..Setup::default()
    };
    let cloud = Cloud::start_as(setup).await;
    let client = cloud.client();
    let (a, b) = (
        image(&cloud, &client, "a").await,
        image(&cloud, &client, "b").await,
    );
    let much = format!("{}{}", item(&a, "4", "9"), item(&b, "3", "3"));
    assert_eq!(
        fault(&run(&client, &much).await),
        "Client.InstanceLimitExceeded"
    );
    let modest = format!("{}{}", item(&a, "1", "9"), item(&b, "1", "9"));
    assert_eq!(counts(&run(&client, &modest).await, [&a, &b]), [3, 3]);
    let one_more = item(&a, "1", "1");
    assert_eq!(
        fault(&run(&client, &one_more).await),
        "Client.InstanceLimitExceeded"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_image_has_its_own_key_and_all_share_the_rest() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let (a, b) = (
        image(&cloud, &client, "a").await,
        image(&cloud, &client, "b").await,
    );
    for name in ["one", "two"] {
        let named = [("KeyName", name)];
        client.ask("CreateKeyPair", OLD, &named).await.ok();
    }
    let with_key = |image: &str, key: &str| {
        let key = format!("<keyName>{key}</keyName></item>");
        item(image, "1", "1").replace("</item>", &key)
    };
    let data = "<userData encoding=\"base64\" version=\"1.0\"><data>aGVs\n bG8=</data></userData>";
    let items = format!(
        "{}{}{}{}",
        with_key(&a, "one"),
        item(&b, "1", "1"),
        with_key(&b, "two"),
        item(&a, "2", "2"),
    );
    let inside = format!("<instancesSet>{items}</instancesSet><groupSet></groupSet>{data}");
    let reply = client.soap("RunInstances", OLD, &inside).await;
    // An image that is named twice goes on counting.
    let indexes: Vec<(String, String)> = [(&a, "0"), (&b, "0"), (&b, "1"), (&a, "1"), (&a, "2")]
        .map(|(image, index)| (image.clone(), index.to_owned()))
        .into();
    assert_eq!(launched(&reply), indexes);
    let state = cloud.engine.snapshot();
    let keys: Vec<Option<String>> = reply
        .values("instanceId")
        .iter()
        .map(|id| {
            let instance = &state.instances[&id.parse::<InstanceId>().expect("an id")];
            instance.key.as_ref().map(|key| key.name.clone())
        })
        .collect();
    let wanted = [Some("one"), None, Some("two"), None, None];
    assert_eq!(keys, wanted.map(|key| key.map(str::to_owned)));
    let reservation = reply.value("reservationId").expect("an id");
    let reservation: ReservationId = reservation.parse().expect("an id");
    assert_eq!(state.user_data[&reservation].as_ref(), b"hello");

    // One bad item is enough for nothing to start.
    let before = cloud.engine.snapshot().instances.len();
    let unknown_key = format!("{}{}", item(&a, "1", "1"), with_key(&b, "three"));
    let refused = run(&client, &unknown_key).await;
    assert_eq!(fault(&refused), "Client.InvalidKeyPair.NotFound");
    let gone = client.ask("DeregisterImage", OLD, &[("ImageId", &b)]).await;
    gone.ok();
    let unavailable = format!("{}{}", item(&a, "1", "1"), item(&b, "1", "1"));
    let refused = run(&client, &unavailable).await;
    assert_eq!(fault(&refused), "Client.InvalidAMIID.Unavailable");
    assert_eq!(cloud.engine.snapshot().instances.len(), before);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_say_nothing_or_too_much_are_refused_in_both_bindings() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = image(&cloud, &client, "a").await;
    let cases = [
        ("0", "0", "InvalidParameterCombination"),
        ("3", "2", "InvalidParameterCombination"),
        ("-1", "1", "InvalidParameterValue"),
        ("1", "-1", "InvalidParameterValue"),
        ("1", "99999999999", "InvalidParameterValue"),
        ("1", "99999999999999999999999", "InvalidParameterValue"),
        ("one", "1", "InvalidParameterValue"),
        ("", "1", "InvalidParameterValue"),
        ("81", "90", "InstanceLimitExceeded"),
    ];
    for (min, max, code) in cases {
        let counts = [
            ("ImageId", image.as_str()),
            ("MinCount", min),
            ("MaxCount", max),
        ];
        for version in [OLD, NEW] {
            let reply = client.ask("RunInstances", version, &counts).await;
            assert_eq!(reply.code(400), code, "{min} {max}");
        }
        let good = item(&image, "1", "1");
        for items in [
            item(&image, min, max),
            format!("{good}{}", item(&image, min, max)),
        ] {
            let reply = run(&client, &items).await;
            assert_eq!(fault(&reply), format!("Client.{code}"), "{min} {max}");
        }
    }
    // Each may be launched, all together may not.
    let many = item(&image, "41", "41").repeat(2);
    assert_eq!(
        fault(&run(&client, &many).await),
        "Client.InstanceLimitExceeded"
    );
    let missing = |name: &str| {
        let cut = item(&image, "1", "1");
        let (before, rest) = cut.split_once(&format!("<{name}>")).expect(name);
        let (_, after) = rest.split_once(&format!("</{name}>")).expect(name);
        format!("{before}{after}")
    };
    for items in [
        String::new(),
        "<item></item>".into(),
        format!("{}<item></item>", item(&image, "1", "1")),
        missing("imageId"),
        missing("minCount"),
        missing("maxCount"),
    ] {
        let reply = run(&client, &items).await;
        assert_eq!(fault(&reply), "Client.MissingParameter", "{items}");
    }
    assert!(cloud.engine.snapshot().instances.is_empty());
    cloud.stop().await;
}

/// The first guides refuse both counts 0 and a minimum above the maximum; a minimum of 0 alone asks for what there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_of_none_is_content_with_what_there_is_until_2007_03_01() {
    let cloud = Cloud::start_as(room_for(2)).await;
    let client = cloud.client();
    let image = image(&cloud, &client, "a").await;
    let counts = [
        ("ImageId", image.as_str()),
        ("MinCount", "0"),
        ("MaxCount", "3"),
    ];
    for version in ["2007-08-29", NEW] {
        let reply = client.ask("RunInstances", version, &counts).await;
        assert_eq!(reply.code(400), "InvalidParameterCombination");
    }
    let reply = client.ask("RunInstances", OLD, &counts).await;
    assert_eq!(launched(&reply).len(), 2);
    // Not even one: a reservation without instances is none.
    let reply = client.ask("RunInstances", OLD, &counts).await;
    assert_eq!(reply.code(500), "InsufficientInstanceCapacity");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_are_soaps_alone_and_until_2007_03_01() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = image(&cloud, &client, "a").await;
    let counts = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    for name in [
        "InstancesSet.1.ImageId",
        "InstancesSet.2.ImageId",
        "InstancesSet.2.KeyName",
        "ImageId.2",
        "instancesSet.item.1.imageId",
    ] {
        let mut parameters = counts.to_vec();
        parameters.push((name, &image));
        for version in [OLD, NEW] {
            let reply = client.ask("RunInstances", version, &parameters).await;
            assert_eq!(reply.code(400), "UnknownParameter", "{name}");
        }
    }
    let reply = client
        .ask("RunInstances", OLD, &[("MinCount", "1"), ("MaxCount", "1")])
        .await;
    assert_eq!(reply.code(400), "MissingParameter");
    for version in ["2006-06-26", "2006-10-01", "2007-01-03", "2007-01-19", OLD] {
        let inside = format!(
            "<instancesSet>{}</instancesSet><groupSet></groupSet>",
            item(&image, "1", "1").repeat(2)
        );
        let reply = client.soap("RunInstances", version, &inside).await;
        assert_eq!(reply.values("instanceId").len(), 2, "{}", reply.text);
        let addressing = format!("{inside}<addressingType>direct</addressingType>");
        let reply = client.soap("RunInstances", version, &addressing).await;
        let code = if version < "2007-01-19" {
            "Client.UnknownParameter"
        } else {
            "Client.UnsupportedOperation"
        };
        assert_eq!(fault(&reply), code, "{version}");
    }
    for (kind, code) in [
        ("direct", "UnsupportedOperation"),
        ("both", "InvalidParameterValue"),
    ] {
        let asked = [
            ("ImageId", image.as_str()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("AddressingType", kind),
        ];
        let reply = client.ask("RunInstances", OLD, &asked).await;
        assert_eq!(reply.code(400), code, "{}", reply.text);
    }
    let inside = format!("<instancesSet>{}</instancesSet>", item(&image, "1", "1"));
    let reply = client.soap("RunInstances", "2007-08-29", &inside).await;
    assert_eq!(fault(&reply), "Client.UnknownParameter");
    cloud.stop().await;
}

/// Reference 5, UserDataType: readers ignore what is not of the alphabet, and the limit is that of the data before encoding.
#[tokio::test(flavor = "multi_thread")]
async fn user_data_is_read_as_the_guide_says() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = image(&cloud, &client, "a").await;
    let data = |attributes: &str, text: &str| {
        format!(
            "<instancesSet>{}</instancesSet><groupSet></groupSet><userData{attributes}><data>{text}</data></userData>",
            item(&image, "1", "1")
        )
    };
    let good = " encoding=\"base64\" version=\"1.0\"";
    let full = vec![b'x'; 16 * 1024];
    let lines = cumulet_wire::base64::encode_lines(&full);
    for (text, bytes) in [
        (
            "VGhpcyBpcyBi\nYXNl *-_ IDY0IQ==",
            b"This is base 64!".to_vec(),
        ),
        ("VGhpcyBpcyBiYXNlIDY0IQ", b"This is base 64!".to_vec()),
        (lines.as_str(), full.clone()),
    ] {
        let reply = client.soap("RunInstances", OLD, &data(good, text)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let id = reply.value("reservationId").expect("an id");
        let id: ReservationId = id.parse().expect("an id");
        assert_eq!(cloud.engine.snapshot().user_data[&id].as_ref(), bytes);
    }
    let longer = cumulet_wire::base64::encode(&[full, vec![b'x']].concat());
    for (attributes, text) in [
        (good, longer.as_str()),
        (good, "A"),
        (" encoding=\"hex\" version=\"1.0\"", "AAAA"),
        (" encoding=\"base64\" version=\"1.1\"", "AAAA"),
        (" encoding=\"base64\"", "AAAA"),
        (" version=\"1.0\"", "AAAA"),
        ("", "AAAA"),
    ] {
        let reply = client
            .soap("RunInstances", OLD, &data(attributes, text))
            .await;
        assert_eq!(
            fault(&reply),
            "Client.InvalidParameterValue",
            "{attributes}"
        );
    }
    cloud.stop().await;
}
