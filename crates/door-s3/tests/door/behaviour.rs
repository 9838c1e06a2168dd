//! Conditions, copies, parts, ranges, overrides and presigned addresses.

use crate::cloud::{Answer, Ask, Cloud, HOST, ask, cloud, percent, v2_query, v4_query};

const PART: usize = 5 * 1024 * 1024;

fn with<'a>(mut ask: Ask<'a>, headers: &[(&'static str, &str)]) -> Ask<'a> {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    ask.headers.extend(headers);
    ask
}

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer
        .headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

fn between<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let (_, rest) = answer.body.split_once(&format!("<{name}>")).unwrap();
    rest.split_once('<').unwrap().0
}

#[tokio::test]
async fn conditions_decide() {
    let cloud = cloud().with_bucket().await;
    let put = cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
    let etag = text(&put, "etag").to_owned();
    let (past, future) = (
        "Mon, 01 Jan 2007 00:00:00 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    );
    let other = "\"00000000000000000000000000000000\"";
    let reads: &[(&[(&'static str, &str)], u16)] = &[
        (&[("if-match", &etag)], 200),
        (&[("if-match", other)], 412),
        (&[("if-none-match", &etag)], 304),
        (&[("if-none-match", other)], 200),
        (&[("if-modified-since", past)], 200),
        (&[("if-modified-since", future)], 304),
        (&[("if-unmodified-since", past)], 412),
        (&[("if-unmodified-since", future)], 200),
        // An ETag overrules a date.
        (&[("if-match", &etag), ("if-unmodified-since", past)], 200),
        (
            &[("if-none-match", other), ("if-modified-since", future)],
            200,
        ),
    ];
    for (headers, status) in reads {
        for method in ["GET", "HEAD"] {
            let found = cloud
                .signed(with(ask(method, "/bucket/key", b""), headers))
                .await;
            assert_eq!(found.status.as_u16(), *status, "{method} {headers:?}");
            let code = if *status == 412 && method == "GET" {
                "PreconditionFailed"
            } else {
                ""
            };
            assert_eq!(found.code(), code, "{method} {headers:?}");
            assert!(
                *status == 412 || text(&found, "etag") == etag,
                "{headers:?}"
            );
        }
    }
    let writes: &[(&str, &'static str, &str, u16)] = &[
        ("/bucket/key", "if-none-match", "*", 412),
        ("/bucket/new", "if-none-match", "*", 200),
        ("/bucket/key", "if-match", other, 412),
        ("/bucket/none", "if-match", "*", 404),
        ("/bucket/key", "if-match", &etag, 200),
    ];
    for (target, name, value, status) in writes {
        let put = with(ask("PUT", target, b"hello"), &[(name, value)]);
        let found = cloud.signed(put).await;
        assert_eq!(found.status.as_u16(), *status, "{target} {name} {value}");
    }
    let source = ("x-amz-copy-source", "/bucket/key");
    let copies: &[(&[(&'static str, &str)], u16)] = &[
        (&[source, ("x-amz-copy-source-if-match", &etag)], 200),
        (&[source, ("x-amz-copy-source-if-match", other)], 412),
        (&[source, ("x-amz-copy-source-if-none-match", &etag)], 412),
        (
            &[source, ("x-amz-copy-source-if-modified-since", future)],
            412,
        ),
        (
            &[source, ("x-amz-copy-source-if-unmodified-since", past)],
            412,
        ),
        (&[source, ("if-none-match", "*")], 412),
        (&[source, ("if-match", other)], 412),
        (&[source, ("if-match", &etag)], 200),
    ];
    for (headers, status) in copies {
        let found = cloud
            .signed(with(ask("PUT", "/bucket/copy", b""), headers))
            .await;
        assert_eq!(found.status.as_u16(), *status, "{headers:?} {}", found.body);
    }
}

#[tokio::test]
async fn a_copy_takes_metadata_over_or_replaces_it() {
    let cloud = cloud().with_bucket().await;
    let given = [("x-amz-meta-colour", "blue"), ("content-type", "text/x-a")];
    cloud
        .signed(with(ask("PUT", "/bucket/key", b"hello"), &given))
        .await;
    let source = ("x-amz-copy-source", "bucket/key");
    let red = ("x-amz-meta-colour", "red");
    let directive = |word: &'static str| ("x-amz-metadata-directive", word);
    for (headers, colour, kind) in [
        (vec![source], "blue", "text/x-a"),
        (vec![source, directive("COPY"), red], "blue", "text/x-a"),
        (
            vec![source, directive("REPLACE"), red],
            "red",
            "binary/octet-stream",
        ),
    ] {
        let done = cloud
            .signed(with(ask("PUT", "/bucket/copy", b""), &headers))
            .await;
        assert!(done.body.contains("<CopyObjectResult"), "{}", done.body);
        let found = cloud.signed(ask("GET", "/bucket/copy", b"")).await;
        let shown = (
            text(&found, "x-amz-meta-colour"),
            text(&found, "content-type"),
        );
        assert_eq!((shown, found.body.as_str()), ((colour, kind), "hello"));
    }
    for (target, headers, code) in [
        ("/bucket/key", vec![source], "InvalidRequest"),
        (
            "/bucket/copy",
            vec![source, directive("MERGE")],
            "InvalidArgument",
        ),
        (
            "/bucket/copy",
            vec![("x-amz-copy-source", "bucket/none")],
            "NoSuchKey",
        ),
    ] {
        let refused = cloud.signed(with(ask("PUT", target, b""), &headers)).await;
        assert_eq!(refused.code(), code, "{headers:?}");
    }
}

async fn begin(cloud: &Cloud, key: &str) -> String {
    let begun = cloud
        .signed(ask("POST", &format!("/bucket/{key}?uploads"), b""))
        .await;
    between(&begun, "UploadId").to_owned()
}

#[tokio::test]
async fn parts_are_put_copied_listed_and_read_by_number() {
    let cloud = cloud().with_bucket().await;
    let bytes: Vec<u8> = (0..PART).map(|at| b"abcdefg"[at % 7]).collect();
    cloud.signed(ask("PUT", "/bucket/source", &bytes)).await;
    let id = begin(&cloud, "big").await;
    let part = |number: u32| format!("/bucket/big?partNumber={number}&uploadId={id}");
    let first = cloud.signed(ask("PUT", &part(1), &bytes)).await;
    let copy = [
        ("x-amz-copy-source", "/bucket/source"),
        ("x-amz-copy-source-range", "bytes=7-16"),
    ];
    let second = cloud.signed(with(ask("PUT", &part(2), b""), &copy)).await;
    assert_eq!(second.status, 200, "{}", second.body);
    let listed = cloud
        .signed(ask("GET", &format!("/bucket/big?uploadId={id}"), b""))
        .await;
    assert!(listed.body.contains("<Size>10</Size>"), "{}", listed.body);
    let uploads = cloud.signed(ask("GET", "/bucket?uploads", b"")).await;
    assert_eq!(between(&uploads, "UploadId"), id);
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part><Part><PartNumber>2</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        text(&first, "etag"),
        between(&second, "ETag"),
    );
    let target = format!("/bucket/big?uploadId={id}");
    let done = cloud
        .signed(ask("POST", &target, document.as_bytes()))
        .await;
    assert_eq!(done.status, 200, "{}", done.body);
    let all = PART + 10;
    for (number, range, length) in [
        (1, format!("bytes 0-{}/{all}", PART - 1), PART),
        (2, format!("bytes {PART}-{}/{all}", all - 1), 10),
    ] {
        for method in ["GET", "HEAD"] {
            let target = format!("/bucket/big?partNumber={number}");
            let found = cloud.signed(ask(method, &target, b"")).await;
            assert_eq!(found.status, 206, "{method} {number}");
            assert_eq!(text(&found, "content-range"), range);
            assert_eq!(text(&found, "x-amz-mp-parts-count"), "2");
            assert_eq!(text(&found, "content-length"), length.to_string());
            assert!(method == "HEAD" || found.body.len() == length);
        }
    }
    let second = cloud
        .signed(ask("GET", "/bucket/big?partNumber=2", b""))
        .await;
    assert_eq!(second.body, "abcdefgabc");
    let whole = cloud
        .signed(ask("GET", "/bucket/source?partNumber=1", b""))
        .await;
    assert_eq!((whole.status.as_u16(), whole.body.len()), (206, PART));
    for (target, status, code) in [
        ("/bucket/big?partNumber=3", 416, "InvalidPartNumber"),
        ("/bucket/source?partNumber=2", 416, "InvalidPartNumber"),
        ("/bucket/big?partNumber=0", 400, "InvalidArgument"),
        ("/bucket/big?partNumber=10001", 400, "InvalidArgument"),
    ] {
        let refused = cloud.signed(ask("GET", target, b"")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (status, code),
            "{target}"
        );
    }
    let both = with(
        ask("GET", "/bucket/big?partNumber=1", b""),
        &[("range", "bytes=0-1")],
    );
    assert_eq!(cloud.signed(both).await.code(), "InvalidRequest");
    let id = begin(&cloud, "given-up").await;
    let target = format!("/bucket/given-up?uploadId={id}");
    let aborted = cloud.signed(ask("DELETE", &target, b"")).await;
    assert_eq!(aborted.status, 204, "{}", aborted.body);
    assert_eq!(
        cloud.signed(ask("GET", &target, b"")).await.code(),
        "NoSuchUpload"
    );
    let uploads = cloud.signed(ask("GET", "/bucket?uploads", b"")).await;
    assert!(!uploads.body.contains("<UploadId>"), "{}", uploads.body);
}

#[tokio::test]
async fn ranges_and_overrides() {
    let cloud = cloud().with_bucket().await;
    cloud.signed(ask("PUT", "/bucket/key", b"0123456789")).await;
    for (range, status, body, shown) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
        ("bytes=-99", 206, "0123456789", "bytes 0-9/10"),
    ] {
        let found = cloud
            .signed(with(ask("GET", "/bucket/key", b""), &[("range", range)]))
            .await;
        let shown_range = text(&found, "content-range");
        assert_eq!(
            (found.status.as_u16(), found.body.as_str(), shown_range),
            (status, body, shown)
        );
    }
    let beyond = with(ask("GET", "/bucket/key", b""), &[("range", "bytes=10-")]);
    let refused = cloud.signed(beyond).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (416, "InvalidRange")
    );
    assert_eq!(text(&refused, "content-range"), "bytes */10");

    let pairs = [
        ("response-content-type", "text/x-b", "content-type"),
        ("response-content-language", "de", "content-language"),
        ("response-cache-control", "no-store", "cache-control"),
        (
            "response-content-disposition",
            "attachment",
            "content-disposition",
        ),
        ("response-content-encoding", "x-none", "content-encoding"),
    ];
    let query: Vec<String> = pairs
        .iter()
        .map(|(name, value, _)| format!("{name}={}", percent(value)))
        .collect();
    let target = format!("/bucket/key?{}", query.join("&"));
    let found = cloud.signed(ask("GET", &target, b"")).await;
    for (name, value, header) in pairs {
        assert_eq!(text(&found, header), value, "{name} {}", found.body);
    }
    let anonymous = cloud.send("GET", &target, HOST, &[], b"").await;
    assert_eq!(
        (anonymous.status.as_u16(), anonymous.code()),
        (400, "InvalidRequest")
    );
}

#[tokio::test]
async fn presigned_addresses_are_good_for_at_most_seven_days() {
    let cloud = cloud().with_bucket().await;
    for target in [
        v4_query("PUT", "/bucket/key", 604_800),
        v2_query("PUT", "/bucket/key", 4_000_000_000),
    ] {
        let put = cloud.send("PUT", &target, HOST, &[], b"by address").await;
        assert_eq!(put.status, 200, "{}", put.body);
        let got = cloud.send("GET", &target, HOST, &[], b"").await;
        assert_eq!(got.code(), "SignatureDoesNotMatch");
    }
    for target in [
        v4_query("GET", "/bucket/key", 60),
        v2_query("GET", "/bucket/key", 4_000_000_000),
    ] {
        let got = cloud.send("GET", &target, HOST, &[], b"").await;
        assert_eq!(got.body, "by address");
    }
    for seconds in [0, 604_801] {
        let target = v4_query("GET", "/bucket/key", seconds);
        let refused = cloud.send("GET", &target, HOST, &[], b"").await;
        let found = (refused.status.as_u16(), refused.code());
        assert_eq!(
            found,
            (400, "AuthorizationQueryParametersError"),
            "{seconds}"
        );
    }
    let old = v2_query("GET", "/bucket/key", 1_000_000_000);
    let refused = cloud.send("GET", &old, HOST, &[], b"").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (403, "AccessDenied")
    );
}
