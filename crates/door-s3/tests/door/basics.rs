//! What every client relies on, and what no client's library would send.

use cumulet_domain::AccountId;

use crate::cloud::{Ask, HOST, ask, base64, cloud};

#[tokio::test]
async fn an_object_goes_in_and_comes_out() {
    let cloud = cloud().with_bucket().await;
    let put = cloud.signed(ask("PUT", "/bucket/a%20b", b"hello")).await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.headers["etag"], "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(put.headers["x-amz-request-id"], "REQUEST1");
    assert_eq!(put.outcome.action, "PutObject");
    assert_eq!(put.outcome.account, Some(AccountId::from_random(1)));
    let got = cloud.signed(ask("GET", "/bucket/a%20b", b"")).await;
    assert_eq!(got.body, "hello");
    // The same bucket as a label of the host.
    let mut by_host = ask("GET", "/a%20b", b"");
    by_host.host = "bucket.s3.cloud.test:8773";
    assert_eq!(cloud.signed(by_host).await.body, "hello");
    let missing = cloud.signed(ask("GET", "/bucket/none", b"")).await;
    assert_eq!(
        (missing.status.as_u16(), missing.code()),
        (404, "NoSuchKey")
    );
    for part in [
        "<Resource>/bucket/none<",
        "<RequestId>REQUEST1<",
        "<HostId>",
    ] {
        assert!(missing.body.contains(part), "{}", missing.body);
    }
    assert_eq!(missing.outcome.code.as_deref(), Some("NoSuchKey"));
    let head = cloud.signed(ask("HEAD", "/bucket/none", b"")).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (404, ""));
}

#[tokio::test]
async fn wrong_digests_are_refused_and_nothing_is_kept() {
    let cloud = cloud().with_bucket().await;
    let cases = [
        ("content-md5", base64(&[0; 16]), "BadDigest"),
        ("content-md5", "nonsense!".into(), "InvalidDigest"),
        ("x-amz-checksum-crc32", base64(&[0; 4]), "BadDigest"),
        ("x-amz-checksum-crc32c", base64(&[0; 4]), "BadDigest"),
        ("x-amz-checksum-crc64nvme", base64(&[0; 8]), "BadDigest"),
        ("x-amz-checksum-sha1", base64(&[0; 20]), "BadDigest"),
        ("x-amz-checksum-sha256", base64(&[0; 32]), "BadDigest"),
        ("x-amz-checksum-sha256", base64(&[0; 31]), "InvalidRequest"),
    ];
    for (name, value, code) in cases {
        let mut put = ask("PUT", "/bucket/key", b"hello");
        put.headers.push((name, value.clone()));
        let refused = cloud.signed(put).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, code),
            "{name}"
        );
        // A document: nothing is deleted.
        let document = b"<Delete><Object><Key>key</Key></Object></Delete>";
        let mut delete = ask("POST", "/bucket?delete", document);
        delete.headers.push((name, value));
        assert_eq!(
            cloud.signed(delete).await.code(),
            code,
            "{name} of a document"
        );
    }
    for (target, method, signed, sent) in [
        ("/bucket/key", "PUT", &b"hello"[..], &b"hellO"[..]),
        (
            "/bucket?delete",
            "POST",
            b"<Delete><Object><Key>a</Key></Object></Delete>",
            b"<Delete><Object><Key>b</Key></Object></Delete>",
        ),
    ] {
        let mut other = ask(method, target, signed);
        other.sent = Some(sent);
        let refused = cloud.signed(other).await;
        let found = (refused.status.as_u16(), refused.code());
        assert_eq!(
            found,
            (400, "XAmzContentSHA256Mismatch"),
            "{}",
            refused.body
        );
    }
    let list = cloud.signed(ask("GET", "/bucket", b"")).await;
    assert!(!list.body.contains("<Contents>"), "{}", list.body);
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let cloud = cloud().with_bucket().await;
    cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
    let code = async |ask: Ask<'_>| cloud.signed(ask).await.code().to_owned();
    let get = ask("GET", "/bucket/key", b"");
    assert_eq!(
        code(Ask {
            key: "AKIDOTHER",
            ..get.clone()
        })
        .await,
        "AccessDenied"
    );
    assert_eq!(
        code(Ask {
            key: "AKIDNOBODY",
            ..get.clone()
        })
        .await,
        "InvalidAccessKeyId"
    );
    assert_eq!(
        code(Ask {
            key: "AKIDOLD",
            ..get.clone()
        })
        .await,
        "InvalidRequest"
    );
    let elsewhere = cloud
        .signed(Ask {
            region: "eu-west-1",
            ..get.clone()
        })
        .await;
    assert_eq!(elsewhere.code(), "AuthorizationHeaderMalformed");
    assert!(
        elsewhere.body.contains("<Region>us-east-1</Region>"),
        "{}",
        elsewhere.body
    );
    let anonymous = cloud.send("GET", "/bucket/key", HOST, &[], b"").await;
    assert_eq!(
        (anonymous.status.as_u16(), anonymous.code()),
        (403, "AccessDenied")
    );
    let anonymous = cloud.send("PUT", "/other-bucket", HOST, &[], b"").await;
    assert_eq!(anonymous.code(), "AccessDenied");
    // Whoever points a browser at the cloud learns what it is.
    let anonymous = cloud.send("GET", "/", HOST, &[], b"").await;
    assert_eq!(
        (anonymous.status.as_u16(), anonymous.code()),
        (403, "AccessDenied")
    );
    assert!(
        anonymous
            .body
            .contains("<Message>Access Denied. This cloud answers S3 and EC2 here"),
        "{}",
        anonymous.body
    );

    // A header that somebody added on the way.
    let mut added = ask("PUT", "/bucket/key", b"hello");
    added.unsigned.push(("x-amz-acl", "public-read".into()));
    assert_eq!(code(added).await, "AccessDenied");
    let mut token = get.clone();
    token.headers.push(("x-amz-security-token", "token".into()));
    assert_eq!(code(token).await, "InvalidToken");
    // Names that only the library would decode, beside a header.
    for target in [
        "/bucket/key?%53ignature=x&AWSAccessKeyI%64=AKIDNEW&Expires=9999999999",
        "/bucket/key?Signature=x&AWSAccessKeyId=AKIDNEW&Expires=9999999999",
        "/bucket/key?X-Amz-%53ignature=x",
    ] {
        let refused = cloud
            .signed(Ask {
                target,
                key: "AKIDNEW",
                ..get.clone()
            })
            .await;
        assert_eq!(refused.status, 400, "{target} {}", refused.body);
    }
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let cloud = cloud().with_bucket().await;
    for (method, target) in [
        ("GET", "/bucket?tagging"),
        ("GET", "/bucket?policy"),
        ("PUT", "/bucket?versioning"),
        ("GET", "/bucket/key?tagging"),
        ("GET", "/bucket?lifecycle"),
    ] {
        let body: &[u8] = match (method, target) {
            ("PUT", _) => {
                b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            }
            _ => b"",
        };
        let refused = cloud.signed(ask(method, target, body)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (501, "NotImplemented"),
            "{target}"
        );
    }
    let mut encrypted = ask("PUT", "/bucket/key", b"hello");
    encrypted
        .headers
        .push(("x-amz-server-side-encryption", "AES256".into()));
    assert_eq!(cloud.signed(encrypted).await.code(), "NotImplemented");
    for name in ["services", "image", "Bad_Name", "192.168.5.4"] {
        let target = format!("/{name}");
        let refused = cloud.signed(ask("PUT", &target, b"")).await;
        assert_eq!(refused.code(), "InvalidBucketName", "{name}");
    }
    let typed =
        b"<!DOCTYPE Delete [<!ENTITY a \"b\">]><Delete><Object><Key>&a;</Key></Object></Delete>";
    let refused = cloud.signed(ask("POST", "/bucket?delete", typed)).await;
    assert_eq!(refused.code(), "MalformedXML");
    let long = vec![b' '; 3 * 1024 * 1024];
    let refused = cloud.signed(ask("POST", "/bucket?delete", &long)).await;
    assert_eq!(refused.code(), "MaxMessageLengthExceeded");
}

#[tokio::test]
async fn nonsense_is_refused_and_never_an_internal_error() {
    let cloud = cloud().with_bucket().await;
    let targets = [
        "/",
        "//",
        "/?location",
        "/%ff",
        "/bucket/%00",
        "/bucket/a%00b",
        "/bucket/%ff%fe",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/bucket/../../etc/passwd",
        "/bucket?list-type=2&max-keys=-1",
        "/bucket?list-type=2&max-keys=99999999999",
        "/bucket?list-type=2&continuation-token=!!",
        "/bucket?list-type=3",
        "/bucket?encoding-type=morse",
        "/bucket?uploads&max-uploads=x",
        "/bucket?uploads&key-marker=%00&upload-id-marker=a",
        "/bucket?versions",
        "/bucket?prefix=%00&delimiter=%00",
        "/bucket/key?uploadId=none",
        "/bucket/key?uploadId=%00%00&partNumber=1",
        "/bucket/key?partNumber=0&uploadId=a",
        "/bucket/key?partNumber=99999999999&uploadId=a",
        "/bucket/key?acl",
        "/bucket/key?versionId=3",
        "/bucket?acl&acl",
        "/bucket?location=%E0%A4%A",
    ];
    let bodies: [&[u8]; 4] = [b"", b"<", b"<!DOCTYPE a><Delete/>", b"<Delete></Delete>"];
    for target in targets {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            for body in bodies {
                // Some of these cannot even be signed, which is also an answer.
                let found = cloud.send(method, target, HOST, &[], body).await;
                let status = found.status.as_u16();
                assert!(
                    status < 500 || status == 501,
                    "{method} {target}: {}",
                    found.body
                );
                if target.contains("%ff") || target.contains("%A") {
                    continue;
                }
                let found = cloud.signed(ask(method, target, body)).await;
                let status = found.status.as_u16();
                assert!(
                    status < 500 || status == 501,
                    "{method} {target}: {}",
                    found.body
                );
                let is_told = status < 400 || method == "HEAD" || !found.code().is_empty();
                assert!(is_told, "{method} {target}: {}", found.body);
            }
        }
    }
    for range in [
        "bytes=5-1",
        "bytes=a-b",
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=-0",
    ] {
        cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
        let mut get = ask("GET", "/bucket/key", b"");
        get.headers.push(("range", range.into()));
        let found = cloud.signed(get).await;
        assert!(found.status.as_u16() < 500, "{range}: {}", found.body);
    }
    for authorization in [
        "AWS",
        "AWS ",
        "AWS a",
        "AWS a:b",
        "AWS4-HMAC-SHA256",
        "Basic eA==",
        "\u{7f}",
    ] {
        let Ok(value) = http::HeaderValue::from_bytes(authorization.as_bytes()) else {
            continue;
        };
        let text = value.to_str().unwrap_or("x").to_owned();
        let headers = [("authorization".to_owned(), text)];
        let found = cloud.send("GET", "/bucket/key", HOST, &headers, b"").await;
        let status = found.status.as_u16();
        assert!(
            (400..500).contains(&status),
            "{authorization}: {}",
            found.body
        );
    }
}
