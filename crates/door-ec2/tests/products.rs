//! Products by Query and by SOAP: who may launch what, and what sellers are told.

mod common;

use common::{Client, Cloud, Reply};
use cumulet_domain::instances::InstanceState;

const OLD: &str = "2007-03-01";
const NEW: &str = "2016-11-15";
const CODE: &str = "774F4FF8";
const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// An image of the first account that everybody may launch, with these codes.
async fn paid_image(cloud: &Cloud, codes: &[&str]) -> String {
    cloud.add_kernel().await;
    cloud.upload_bundle("paid", codes, false);
    let client = cloud.client();
    let location = [("ImageLocation", "bucket/paid.manifest.xml")];
    let registered = client.ask("RegisterImage", OLD, &location).await.ok();
    let image = registered.value("imageId").expect("an id");
    cloud.wait_for_image(image.parse().expect("an id")).await;
    let everybody = [
        ("ImageId", image.as_str()),
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserGroup.1", "all"),
    ];
    client
        .ask("ModifyImageAttribute", OLD, &everybody)
        .await
        .ok();
    image
}

async fn launch(client: &Client, version: &str, image: &str) -> Reply {
    let one = [("ImageId", image), ("MinCount", "1"), ("MaxCount", "1")];
    client.ask("RunInstances", version, &one).await
}

/// Both bindings' answers, which must say the same; without the envelope.
async fn confirm(client: &Client, version: &str, code: &str, instance: &str) -> Reply {
    let asked = [("ProductCode", code), ("InstanceId", instance)];
    let query = client.ask("ConfirmProductInstance", version, &asked).await;
    let inside = format!("<productCode>{code}</productCode><instanceId>{instance}</instanceId>");
    if version <= "2013-08-15" {
        let soap = client
            .soap("ConfirmProductInstance", version, &inside)
            .await;
        match query.status {
            200 => {
                let answer = query.text.strip_prefix(HEAD).expect("the head");
                assert!(soap.text.contains(answer), "{}", soap.text);
            }
            _ => {
                let fault = soap.value("faultcode").expect("a fault");
                let code = query.value("Code").expect("an error");
                assert_eq!((soap.status, fault), (500, format!("Client.{code}")));
                assert_eq!(soap.value("faultstring"), query.value("Message"));
            }
        }
    }
    query
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_is_told_whose_instance_has_his_code() {
    let cloud = Cloud::start().await;
    let (seller, buyer) = (cloud.client(), cloud.stranger().await);
    let image = paid_image(&cloud, &[CODE]).await;
    let subscribed = cloud.engine.subscribe(buyer.account, CODE.into()).await;
    subscribed.expect("subscribed");
    let launched = launch(&buyer, OLD, &image).await.ok();
    let instance = launched.value("instanceId").expect("an id");
    let id = instance.parse().expect("an id");
    cloud.wait_for(id, InstanceState::Running).await;
    let buyers = buyer.account;
    for (version, more) in [
        (OLD, ""),
        (
            "2008-08-08",
            "<requestId>291cef62-3e86-414b-900e-17246eccfae8</requestId>",
        ),
        (
            "2013-08-15",
            "<requestId>291cef62-3e86-414b-900e-17246eccfae8</requestId>",
        ),
        (
            NEW,
            "<requestId>291cef62-3e86-414b-900e-17246eccfae8</requestId>",
        ),
    ] {
        let reply = confirm(&seller, version, CODE, &instance).await.ok();
        assert_eq!(
            reply.text,
            format!(
                "{HEAD}<ConfirmProductInstanceResponse xmlns=\"http://ec2.amazonaws.com/doc/{version}/\">{more}\
                 <return>true</return><ownerId>{buyers}</ownerId></ConfirmProductInstanceResponse>"
            )
        );
    }
    // A product of the seller that the instance does not have.
    let other = cloud
        .engine
        .create_product(seller.account, Some("0THER".into()));
    other.await.expect("product");
    let reply = confirm(&seller, OLD, "0THER", &instance).await.ok();
    assert_eq!(
        reply.text,
        format!(
            "{HEAD}<ConfirmProductInstanceResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\">\
             <return>false</return></ConfirmProductInstanceResponse>"
        )
    );
    let dry = [
        ("ProductCode", CODE),
        ("InstanceId", &instance),
        ("DryRun", "true"),
    ];
    let dry = seller.ask("ConfirmProductInstance", NEW, &dry).await;
    assert_eq!(dry.code(412), "DryRunOperation");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_of_a_code_may_ask() {
    let cloud = Cloud::start().await;
    let (seller, buyer) = (cloud.client(), cloud.stranger().await);
    let image = paid_image(&cloud, &[CODE]).await;
    let launched = launch(&seller, OLD, &image).await.ok();
    let instance = launched.value("instanceId").expect("an id");
    for version in [OLD, "2013-08-15", NEW] {
        // Nobody learns which codes there are.
        for code in ["NOBODYS", "774f4ff8"] {
            let refused = confirm(&seller, version, code, &instance).await;
            assert_eq!(refused.code(401), "AuthFailure");
            assert!(refused.value("Message").expect("a message").contains(code));
        }
        let unknown = confirm(&seller, version, CODE, "i-10a64379").await;
        assert_eq!(unknown.code(400), "InvalidInstanceID.NotFound");
        let malformed = confirm(&seller, version, CODE, "10a64379").await;
        assert_eq!(malformed.code(400), "InvalidInstanceID.Malformed");
        // Signed by the second account, which has no certificate: by Query alone.
        for instance in [instance.as_str(), "i-10a64379"] {
            let asked = [("ProductCode", CODE), ("InstanceId", instance)];
            let refused = buyer.ask("ConfirmProductInstance", version, &asked).await;
            assert_eq!(refused.code(401), "AuthFailure");
        }
        for missing in [("ProductCode", CODE), ("InstanceId", "i-10a64379")] {
            let asked = seller
                .ask("ConfirmProductInstance", version, &[missing])
                .await;
            assert_eq!(asked.code(400), "MissingParameter");
        }
    }
    let before = [("ProductCode", CODE), ("InstanceId", &instance)];
    let before = seller
        .ask("ConfirmProductInstance", "2007-01-19", &before)
        .await;
    assert_eq!(before.code(400), "InvalidAction");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_without_a_subscription_is_refused_in_the_words_of_its_version() {
    let cloud = Cloud::start().await;
    let buyer = cloud.stranger().await;
    let image = paid_image(&cloud, &[CODE]).await;
    for (version, code) in [
        (OLD, "AuthFailure"),
        ("2012-04-01", "AuthFailure"),
        ("2012-05-01", "OptInRequired"),
        (NEW, "OptInRequired"),
    ] {
        let refused = launch(&buyer, version, &image).await;
        assert_eq!(refused.code(401), code, "{version}");
        let message = refused.value("Message").expect("a message");
        assert!(
            message.contains(CODE) && message.contains(&image),
            "{message}"
        );
    }
    assert!(cloud.engine.snapshot().live_instances.is_empty());
    // The seller needs none; SOAP is signed by him.
    let item = format!("<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount>");
    let launch_of =
        format!("<instancesSet><item>{item}</item></instancesSet><groupSet></groupSet>");
    let seller = cloud.client();
    let launched = seller.soap("RunInstances", OLD, &launch_of).await.ok();
    assert_eq!(launched.values("productCode"), [CODE]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_nobody_sells_admits_nobody() {
    let cloud = Cloud::start().await;
    let image = paid_image(&cloud, &["NOBODYS"]).await;
    let item = format!("<imageId>{image}</imageId><minCount>1</minCount><maxCount>1</maxCount>");
    let launch_of =
        format!("<instancesSet><item>{item}</item></instancesSet><groupSet></groupSet>");
    let soap = cloud.client().soap("RunInstances", OLD, &launch_of).await;
    assert_eq!(
        soap.value("faultcode").as_deref(),
        Some("Client.AuthFailure"),
        "{}",
        soap.text
    );
    let query = launch(&cloud.client(), OLD, &image).await;
    assert_eq!(query.code(401), "AuthFailure");
    assert_eq!(soap.value("faultstring"), query.value("Message"));
    cloud.stop().await;
}

/// One code is all that an image may have, whoever says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_names_one_code_at_most() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    for (name, codes) in [
        ("two", &["774F4FF8", "774F4FF9"][..]),
        ("odd", &["no code"][..]),
    ] {
        cloud.upload_bundle(name, codes, false);
        let location = format!("bucket/{name}.manifest.xml");
        let register = [("ImageLocation", location.as_str())];
        let refused = client.ask("RegisterImage", "2007-03-01", &register).await;
        assert_eq!(refused.code(400), "InvalidManifest", "{}", refused.text);
    }
    cloud.stop().await;
}
