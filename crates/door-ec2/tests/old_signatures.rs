//! Requests that are signed as in 2006 and 2007, through the door.

mod common;

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{Client, Cloud, HOST, Reply, account};
use cumulet_domain::Timestamp;
use cumulet_wire::time::parse_iso8601;

/// Sends a query as it is.
async fn get(client: &Client, query: &str, now: Timestamp) -> Reply {
    let request = http::Request::get(format!("/?{query}"))
        .header("host", HOST)
        .body(Bytes::new());
    client.send_at(request.unwrap(), now).await
}

/// The guide's key, time, query and signature, as they were printed in 2007.
#[tokio::test(flavor = "multi_thread")]
async fn the_guides_example_is_answered() {
    let cloud = Cloud::start().await;
    let key = cloud.engine.create_access_key(
        account(1),
        "alice".into(),
        "10QMXFEV71ZS32XQFTR2".into(),
        "DMADSSfPfdaDjbK+RRUhS/aDrjsiZadgAUm8gRU2",
        BTreeSet::from([1]),
    );
    key.await.unwrap();
    let client = cloud.client();
    let query = "Action=DescribeImages&AWSAccessKeyId=10QMXFEV71ZS32XQFTR2&SignatureVersion=1\
                 &Timestamp=2006-12-08T07%3A48%3A03Z&Version=2007-01-03";
    let signed = format!("{query}&Signature=GjH3941IBe6qsgQu%2Bk7FpCJjpnc%3D");
    let at = |text: &str| parse_iso8601(text).unwrap();
    let reply = get(&client, &signed, at("2006-12-08T08:03:03Z")).await;
    assert_eq!(
        reply.ok().text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <DescribeImagesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-01-03/\"><imagesSet>\
         </imagesSet></DescribeImagesResponse>"
    );
    // A quarter of an hour is over; a letter of the signature is another.
    let late = get(&client, &signed, at("2006-12-08T08:03:04Z")).await;
    assert_eq!(late.code(400), "RequestExpired");
    let other = signed.replace("GjH3", "GjH4");
    let refused = get(&client, &other, at("2006-12-08T07:48:03Z")).await;
    assert_eq!(refused.code(401), "AuthFailure");
    cloud.stop().await;
}

/// Whoever sees a signed request can send what else was signed; nothing of that happens.
#[tokio::test(flavor = "multi_thread")]
async fn another_reading_of_a_signed_request_does_nothing() {
    let cloud = Cloud::start().await;
    let client = cloud.old_client().await;
    for name in ["a", "b", "aKeyName.2b"] {
        let query = format!("Action=CreateKeyPair&Version=2007-03-01&KeyName={name}");
        client.get_v1(&query).await.ok();
    }
    let base = "Version=2007-03-01&Action";
    for keys in ["KeyName.1=a&KeyName.2=b", "KeyName.1=aKeyName.2b"] {
        let reply = client
            .get_v1(&format!("{base}=DescribeKeyPairs&{keys}"))
            .await;
        assert_eq!(reply.code(401), "AuthFailure");
        assert!(
            reply.text.contains("Sign with SignatureVersion 2"),
            "{}",
            reply.text
        );
    }
    let one = client
        .get_v1(&format!("{base}=DescribeKeyPairs&KeyName.1=a"))
        .await;
    assert_eq!(one.ok().value("keyName").as_deref(), Some("a"));

    // Ids cannot be cut in two ways: a list of them is taken, and what it could be made is not.
    let ids = ["i-11111111", "i-22222222"];
    let two = format!(
        "{base}=TerminateInstances&InstanceId.1={}&InstanceId.2={}",
        ids[0], ids[1]
    );
    let reply = client.get_v1(&two).await;
    assert_eq!(reply.code(400), "InvalidInstanceID.NotFound");
    for forged in [
        format!("InstanceId.1={}InstanceId.2{}", ids[0], ids[1]),
        format!("InstanceId.=1{}&InstanceId.2={}", ids[0], ids[1]),
        format!("InstanceId.1i-={}&InstanceId.2={}", &ids[0][2..], ids[1]),
    ] {
        let query = format!("{base}=TerminateInstances&{forged}");
        let reply = client.get_v1(&query).await;
        assert!(matches!(reply.status, 400 | 401), "{query}: {}", reply.text);
        assert!(
            !reply.text.contains("NotFound"),
            "{query} reached the engine: {}",
            reply.text
        );
    }
    // A gap in a list would give its digits two places.
    let reply = client
        .get_v1(&format!("{base}=DescribeKeyPairs&KeyName.12=a"))
        .await;
    assert_eq!(reply.code(401), "AuthFailure");
    assert!(reply.text.contains("counted 1, 2, 3"), "{}", reply.text);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_signatures_need_a_key_that_allows_them() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let reply = client
        .get_v1("Action=DescribeImages&Version=2007-03-01")
        .await;
    assert_eq!(reply.code(401), "AuthFailure");
    assert!(
        reply
            .text
            .contains("cumulet key create USER --signature-versions 1,2,4"),
        "{}",
        reply.text
    );
    // STS is younger than versions 0 and 1.
    let old = cloud.old_client().await;
    let reply = old
        .get_v1("Action=GetCallerIdentity&Version=2011-06-15")
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.text.contains("not taken by this service"));
    cloud.stop().await;
}
