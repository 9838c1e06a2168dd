//! `/services/Walrus/BUCKET/KEY` and its like, where the signed path includes the prefix.

use crate::cloud::{Ask, HOST, ask, cloud, v2_headers, v2_query, v4_query};

const SOON: i64 = 4_000_000_000;

#[tokio::test]
async fn a_prefix_leads_to_the_same_objects() {
    let cloud = cloud();
    for prefix in [
        "/services/Walrus",
        "/services/objectstorage",
        "/services/s3",
    ] {
        let at = |rest: &str| format!("{prefix}{rest}");
        let made = cloud.signed(ask("PUT", &at("/bucket"), b"")).await;
        assert_eq!(made.status, 200, "{}", made.body);
        let put = cloud
            .signed(ask("PUT", &at("/bucket/a%20b"), b"hello"))
            .await;
        assert_eq!(put.status, 200, "{}", put.body);
        assert_eq!(put.outcome.action, "PutObject");
        assert!(put.outcome.account.is_some());
        let plain = cloud.signed(ask("GET", "/bucket/a%20b", b"")).await;
        assert_eq!(plain.body, "hello");
        let listed = cloud
            .signed(ask("GET", &at("/bucket?prefix=a%20"), b""))
            .await;
        assert!(listed.body.contains("<Key>a b</Key>"), "{}", listed.body);
        for root in [at(""), at("/")] {
            let buckets = cloud.signed(ask("GET", &root, b"")).await;
            assert!(
                buckets.body.contains("<Name>bucket</Name>"),
                "{}",
                buckets.body
            );
        }
        let document = b"<Delete><Object><Key>a b</Key></Object></Delete>";
        let deleted = cloud
            .signed(ask("POST", &at("/bucket?delete"), document))
            .await;
        assert!(deleted.body.contains("<Deleted>"), "{}", deleted.body);
        let missing = cloud.signed(ask("GET", &at("/bucket/a%20b"), b"")).await;
        assert_eq!(missing.code(), "NoSuchKey");
        assert!(
            missing.body.contains("<Resource>/bucket/a%20b<"),
            "{}",
            missing.body
        );
    }
}

#[tokio::test]
async fn version_2_signs_the_prefix_too() {
    let cloud = cloud().with_bucket().await;
    let path = "/services/Walrus/bucket/key";
    let put = v2_headers("PUT", path, &[("x-amz-acl", "public-read")]);
    let done = cloud.send("PUT", path, HOST, &put, b"hello").await;
    assert_eq!(done.status, 200, "{}", done.body);
    let anonymous = cloud.send("GET", path, HOST, &[], b"").await;
    assert_eq!(anonymous.body, "hello");
    for target in [v2_query("GET", path, SOON), v4_query("GET", path, 60)] {
        let found = cloud.send("GET", &target, HOST, &[], b"").await;
        assert_eq!(found.body, "hello", "{target}");
        // What was signed for one path is no signature for the other.
        let moved = target.replace("/services/Walrus", "");
        let refused = cloud.send("GET", &moved, HOST, &[], b"").await;
        assert_eq!(refused.code(), "SignatureDoesNotMatch", "{moved}");
    }
    let short = v2_headers("GET", "/bucket/key", &[]);
    let refused = cloud.send("GET", path, HOST, &short, b"").await;
    assert_eq!(refused.code(), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn a_prefix_opens_nothing() {
    let cloud = cloud().with_bucket().await;
    let path = "/services/Walrus/bucket/key";
    cloud.signed(ask("PUT", path, b"secret")).await;
    let other = Ask {
        key: "AKIDOTHER",
        ..ask("GET", path, b"")
    };
    assert_eq!(cloud.signed(other).await.code(), "AccessDenied");
    assert_eq!(
        cloud.send("GET", path, HOST, &[], b"").await.code(),
        "AccessDenied"
    );
    let mut changed = ask("PUT", path, b"secret");
    changed.sent = Some(b"secreT");
    assert_eq!(
        cloud.signed(changed).await.code(),
        "XAmzContentSHA256Mismatch"
    );
    assert_eq!(cloud.signed(ask("GET", path, b"")).await.body, "secret");
    // In front of a bucket's own host name there is no prefix: it is the key's beginning.
    let mut by_host = ask("PUT", "/services/Walrus/x", b"key");
    by_host.host = "bucket.s3.cloud.test";
    assert_eq!(cloud.signed(by_host).await.status, 200);
    let found = cloud
        .signed(ask("GET", "/bucket/services/Walrus/x", b""))
        .await;
    assert_eq!(found.body, "key");
}
