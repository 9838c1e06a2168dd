//! Grants by account: kept as they were given, shown, and enforced.

use cumulet_domain::AccountId;
use cumulet_objects::access::canonical_id;

use crate::cloud::{Ask, Cloud, HOST, ask, cloud};

fn id(number: u64) -> String {
    canonical_id(AccountId::from_random(number))
}

fn other<'a>(method: &'a str, target: &'a str, body: &'a [u8]) -> Ask<'a> {
    Ask {
        key: "AKIDOTHER",
        ..ask(method, target, body)
    }
}

async fn code(cloud: &Cloud, ask: Ask<'_>) -> String {
    cloud.signed(ask).await.code().to_owned()
}

fn granting<'a>(ask: Ask<'a>, name: &'static str, value: &str) -> Ask<'a> {
    let mut ask = ask;
    ask.headers.push((name, value.to_owned()));
    ask
}

#[tokio::test]
async fn an_object_is_read_by_whom_a_header_names() {
    let cloud = cloud().with_bucket().await;
    let friend = format!("id=\"{}\"", id(2));
    let put = ask("PUT", "/bucket/key", b"hello");
    cloud
        .signed(granting(put.clone(), "x-amz-grant-read", &friend))
        .await;
    let got = cloud.signed(other("GET", "/bucket/key", b"")).await;
    assert_eq!(got.body, "hello");
    assert_eq!(
        cloud
            .send("GET", "/bucket/key", HOST, &[], b"")
            .await
            .code(),
        "AccessDenied"
    );
    assert_eq!(
        code(&cloud, other("GET", "/bucket/key?acl", b"")).await,
        "AccessDenied"
    );
    let shown = cloud.signed(ask("GET", "/bucket/key?acl", b"")).await.body;
    for part in [
        &*format!("<ID>{}</ID>", id(2)),
        "<Permission>READ</Permission>",
        "CanonicalUser",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(shown.matches("<Grant>").count(), 1, "{shown}");
    // Another who may only look at the list, and then one who may change it.
    cloud
        .signed(granting(put.clone(), "x-amz-grant-read-acp", &friend))
        .await;
    assert_eq!(
        code(&cloud, other("GET", "/bucket/key", b"")).await,
        "AccessDenied"
    );
    assert_eq!(
        cloud
            .signed(other("GET", "/bucket/key?acl", b""))
            .await
            .status,
        200
    );
    let public = |ask| granting(ask, "x-amz-acl", "public-read");
    let refused = public(other("PUT", "/bucket/key?acl", b""));
    assert_eq!(code(&cloud, refused).await, "AccessDenied");
    cloud
        .signed(granting(put, "x-amz-grant-full-control", &friend))
        .await;
    let changed = cloud
        .signed(public(other("PUT", "/bucket/key?acl", b"")))
        .await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(
        cloud.send("GET", "/bucket/key", HOST, &[], b"").await.body,
        "hello"
    );
}

#[tokio::test]
async fn a_policy_gives_a_bucket_to_accounts() {
    let cloud = cloud().with_bucket().await;
    let grant = |id: &str, permission: &str| {
        format!(
            "<Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"><ID>{id}</ID></Grantee><Permission>{permission}</Permission></Grant>"
        )
    };
    let policy = |grants: &str| {
        let owner = id(1);
        format!(
            "<AccessControlPolicy><Owner><ID>{owner}</ID></Owner><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>"
        )
    };
    let own = grant(&id(1), "FULL_CONTROL");
    let given = policy(&format!("{own}{}", grant(&id(2), "WRITE")));
    let done = cloud
        .signed(ask("PUT", "/bucket?acl", given.as_bytes()))
        .await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(
        cloud
            .signed(other("PUT", "/bucket/theirs", b"x"))
            .await
            .status,
        200
    );
    assert_eq!(
        code(&cloud, other("GET", "/bucket", b"")).await,
        "AccessDenied"
    );
    assert_eq!(
        code(&cloud, other("DELETE", "/bucket", b"")).await,
        "AccessDenied"
    );
    let shown = cloud.signed(ask("GET", "/bucket?acl", b"")).await.body;
    assert_eq!(shown.matches("<Grant>").count(), 2, "{shown}");
    let readable = policy(&format!("{own}{}", grant(&id(2), "READ")));
    cloud
        .signed(ask("PUT", "/bucket?acl", readable.as_bytes()))
        .await;
    let listed = cloud.signed(other("GET", "/bucket", b"")).await;
    assert!(listed.body.contains("<Key>theirs</Key>"), "{}", listed.body);
    assert_eq!(
        code(&cloud, other("PUT", "/bucket/theirs", b"y")).await,
        "AccessDenied"
    );
    cloud
        .signed(ask("PUT", "/bucket?acl", policy(&own).as_bytes()))
        .await;
    assert_eq!(
        code(&cloud, other("GET", "/bucket", b"")).await,
        "AccessDenied"
    );

    let many: String = (0..=100)
        .map(|number| grant(&id(number + 10), "READ"))
        .collect();
    let foreign = policy(&own).replace(&id(1), &id(2));
    for (document, expected) in [
        (policy(&grant("nobody", "READ")), "InvalidArgument"),
        (policy(&grant(&id(2), "EVERYTHING")), "MalformedACLError"),
        (policy(&many), "MalformedACLError"),
        (foreign, "AccessDenied"),
    ] {
        let refused = cloud
            .signed(ask("PUT", "/bucket?acl", document.as_bytes()))
            .await;
        assert_eq!(refused.code(), expected, "{document}");
    }
}

#[tokio::test]
async fn headers_that_give_to_nobody_are_refused() {
    let cloud = cloud().with_bucket().await;
    for (value, expected) in [
        ("id=\"123456789012\"", "InvalidArgument"),
        (
            "emailAddress=\"a@b.test\"",
            "UnresolvableGrantByEmailAddress",
        ),
        (
            "uri=\"http://acs.amazonaws.com/groups/s3/LogDelivery\"",
            "InvalidArgument",
        ),
        ("everybody", "InvalidArgument"),
    ] {
        for target in ["/bucket/key", "/bucket?acl", "/bucket-two"] {
            let refused = granting(ask("PUT", target, b""), "x-amz-grant-read", value);
            assert_eq!(code(&cloud, refused).await, expected, "{value:?} {target}");
        }
    }
    let both = granting(ask("PUT", "/bucket/key", b""), "x-amz-acl", "private");
    let uri = "uri=http://acs.amazonaws.com/groups/global/AllUsers";
    let both = granting(both, "x-amz-grant-read", uri);
    assert_eq!(code(&cloud, both).await, "InvalidRequest");
    let bucket = granting(ask("PUT", "/bucket-two", b""), "x-amz-grant-read", uri);
    assert_eq!(cloud.signed(bucket).await.status, 200);
    assert_eq!(
        cloud
            .send("GET", "/bucket-two", HOST, &[], b"")
            .await
            .status,
        200
    );
}
