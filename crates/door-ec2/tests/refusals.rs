//! Error documents, and what is refused before an operation is reached.

mod common;

use bytes::Bytes;
use common::{Client, Cloud, HOST, NOW, REQUEST_ID, form};
use cumulet_door_ec2::RequestContext;

const NEW: &str = "2016-11-15";

/// Action, version, parameters, and the code that is answered.
type Case = (
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str)>,
    &'static str,
);

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_ec2s_document() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let reply = client
        .ask(
            "DescribeInstances",
            "2007-03-01",
            &[("InstanceId.1", "i-<1>")],
        )
        .await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Response><Errors><Error><Code>InvalidInstanceID.Malformed</Code>\
             <Message>Invalid id: &quot;i-&lt;1&gt;&quot; (expecting &quot;i-...&quot;)</Message></Error></Errors>\
             <RequestID>{REQUEST_ID}</RequestID></Response>"
        )
    );
    assert_eq!(reply.handled.action, "DescribeInstances");
    assert_eq!(reply.handled.account, Some(client.account));
    let sts = client.ask("AssumeRole", "2011-06-15", &[]).await;
    assert_eq!(
        sts.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>UnsupportedOperation</Code><Message>The operation AssumeRole is not supported here</Message></Error>\
             <RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
        )
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_of_the_version_or_not_honoured_is_refused() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let run = [
        ("ImageId", "ami-12345678"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let with = |name: &'static str, value: &'static str| [&run[..], &[(name, value)]].concat();
    let cases: Vec<Case> = vec![
        ("CreateVpc", NEW, vec![], "UnsupportedOperation"),
        (
            "StartInstances",
            "2009-10-31",
            vec![],
            "UnsupportedOperation",
        ),
        ("StartInstances", "2007-03-01", vec![], "InvalidAction"),
        ("DescribeEverything", NEW, vec![], "InvalidAction"),
        ("DescribeImages", "2007-03-02", vec![], "NoSuchVersion"),
        (
            "DescribeImages",
            NEW,
            vec![("ImageIds.1", "ami-12345678")],
            "UnknownParameter",
        ),
        (
            "DescribeImages",
            NEW,
            vec![("ImageId.1", "12345678")],
            "InvalidAMIID.Malformed",
        ),
        (
            "DescribeImages",
            NEW,
            vec![("ImageId.1", "ami-12345678")],
            "InvalidAMIID.NotFound",
        ),
        (
            "DescribeImages",
            NEW,
            vec![("Owner.1", "me")],
            "InvalidUserID.Malformed",
        ),
        (
            "DescribeImages",
            NEW,
            vec![("ExecutableBy.1", "1")],
            "InvalidUserID.Malformed",
        ),
        ("RegisterImage", NEW, vec![], "MissingParameter"),
        (
            "RegisterImage",
            NEW,
            vec![("ImageLocation", "bucket")],
            "InvalidParameterValue",
        ),
        (
            "RegisterImage",
            NEW,
            vec![("ImageLocation", "bucket/none")],
            "InvalidManifest",
        ),
        (
            "RegisterImage",
            NEW,
            vec![("ImageLocation", "bucket/none"), ("Name", "?")],
            "InvalidAMIName.Malformed",
        ),
        ("RunInstances", NEW, run.to_vec(), "InvalidAMIID.NotFound"),
        (
            "RunInstances",
            NEW,
            with("KeyName", "nobody"),
            "InvalidAMIID.NotFound",
        ),
        (
            "RunInstances",
            NEW,
            with("RamdiskId", "ari-12345678"),
            "UnsupportedOperation",
        ),
        (
            "RunInstances",
            NEW,
            with("Monitoring.Enabled", "true"),
            "UnsupportedOperation",
        ),
        (
            "RunInstances",
            NEW,
            with("InstanceType", "z9.huge"),
            "InvalidParameterValue",
        ),
        (
            "RunInstances",
            NEW,
            with("UserData", "A"),
            "InvalidParameterValue",
        ),
        (
            "RunInstances",
            NEW,
            with("SecurityGroup.1", "web"),
            "InvalidGroup.NotFound",
        ),
        (
            "RunInstances",
            NEW,
            with("Placement.AvailabilityZone", "mars-1a"),
            "InvalidParameterValue",
        ),
        (
            "RunInstances",
            NEW,
            with("MetadataOptions.HttpTokens", "maybe"),
            "InvalidParameterValue",
        ),
        (
            "RunInstances",
            "2007-03-01",
            with("InstanceType", "m1.small"),
            "UnknownParameter",
        ),
        (
            "RunInstances",
            NEW,
            vec![
                ("ImageId", "ami-12345678"),
                ("MinCount", "0"),
                ("MaxCount", "0"),
            ],
            "InvalidParameterCombination",
        ),
        (
            "RunInstances",
            NEW,
            vec![
                ("ImageId", "ami-12345678"),
                ("MinCount", "two"),
                ("MaxCount", "2"),
            ],
            "InvalidParameterValue",
        ),
        ("TerminateInstances", NEW, vec![], "MissingParameter"),
        ("GetConsoleOutput", NEW, vec![], "MissingParameter"),
        (
            "GetConsoleOutput",
            NEW,
            vec![
                ("InstanceId.1", "i-12345678"),
                ("InstanceId.2", "i-22345678"),
            ],
            "InvalidParameterCombination",
        ),
        (
            "CreateKeyPair",
            NEW,
            vec![("KeyName", "")],
            "MissingParameter",
        ),
        (
            "DescribeRegions",
            NEW,
            vec![("RegionName.1", "mars-1")],
            "InvalidParameterValue",
        ),
        (
            "DescribeInstances",
            NEW,
            vec![("MaxResults", "4")],
            "InvalidParameterValue",
        ),
        (
            "DescribeInstances",
            NEW,
            vec![("NextToken", "x")],
            "InvalidNextToken",
        ),
        (
            "DescribeInstances",
            NEW,
            vec![("Filter.1.Name", "colour"), ("Filter.1.Value.1", "blue")],
            "InvalidParameterValue",
        ),
        (
            "DescribeInstances",
            NEW,
            vec![("Filter.1.Name", "image-id")],
            "MissingParameter",
        ),
    ];
    for (action, version, parameters, code) in cases {
        let reply = client.ask(action, version, &parameters).await;
        assert_eq!(
            reply.code(400),
            code,
            "{action} {version} {parameters:?}: {}",
            reply.text
        );
    }
    cloud.stop().await;
}

/// Whoever made a hundred requests finds the one that was wrong.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_repeat_the_value() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let run = [("ImageId", "ami-12345678"), ("MaxCount", "1")];
    let location = ("ImageLocation", "bucket/none");
    for (action, parameters, said) in [
        (
            "RegisterImage",
            vec![("ImageLocation", "bucket")],
            "not 'bucket'",
        ),
        ("RegisterImage", vec![location, ("Name", "a?")], "'a?'"),
        ("RegisterImage", vec![location], "bucket/none"),
        ("DescribeInstances", vec![("NextToken", "x")], "'x'"),
        (
            "RunInstances",
            [&run[..], &[("MinCount", "1"), ("RamdiskId", "ari-1")]].concat(),
            "RamdiskId, given as 'ari-1'",
        ),
    ] {
        let reply = client.ask(action, NEW, &parameters).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        let message = reply.value("Message").unwrap_or_default();
        assert!(message.contains(said), "{action} {parameters:?}: {message}");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_does_nothing() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let request = [("KeyName", "dry"), ("DryRun", "true")];
    let reply = client.ask("CreateKeyPair", NEW, &request).await;
    assert_eq!(reply.code(412), "DryRunOperation");
    let all = client.ask("DescribeKeyPairs", NEW, &[]).await.ok();
    assert_eq!(all.values("keyName"), Vec::<String>::new());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_without_a_signature() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let liar = Client {
        secret: "guessed".into(),
        ..client.clone()
    };
    let nobody = Client {
        key_id: "AKIDNOBODY".into(),
        ..client.clone()
    };
    let query = [("Action", "DescribeInstances"), ("Version", "2007-03-01")];
    assert_eq!(liar.post(&query, "ec2").await.code(401), "AuthFailure");
    assert_eq!(nobody.post(&query, "ec2").await.code(401), "AuthFailure");
    assert_eq!(liar.get_v2(&query).await.code(403), "SignatureDoesNotMatch");
    // A signature for another service is none for this one.
    assert_eq!(client.post(&query, "s3").await.code(401), "AuthFailure");

    let bare = http::Request::get(format!("/?{}", form(&query)))
        .body(Bytes::new())
        .unwrap();
    let reply = client.send(bare).await;
    assert_eq!(reply.code(400), "MissingParameter");
    assert_eq!(reply.handled.account, None);

    let sts = liar.ask("GetCallerIdentity", "2011-06-15", &[]).await;
    assert_eq!(sts.code(403), "SignatureDoesNotMatch");
    // Whoever is not known learns nothing of what exists: the signature comes first.
    let reply = nobody.ask("NoSuchThing", NEW, &[]).await;
    assert_eq!(reply.code(401), "AuthFailure");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_are_refused() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let get = |query: &str| {
        http::Request::get(format!("/?{query}"))
            .body(Bytes::new())
            .unwrap()
    };
    let body = |kind: &str, body: &'static [u8]| {
        let request = http::Request::post("/").header("content-type", kind);
        request.body(Bytes::from_static(body)).unwrap()
    };
    let form = "application/x-www-form-urlencoded";
    for (request, code, said) in [
        (get("Version=2007-03-01"), "MissingAction", "action"),
        (
            get("Action=X&Action=Y"),
            "MalformedQueryString",
            "Action is given more than once",
        ),
        (get("Action=a%zz"), "MalformedQueryString", "escape: '%zz'"),
        (
            get("Action=X&A=%ff"),
            "MalformedQueryString",
            "not UTF-8: character 1 of A",
        ),
        (
            body(form, b"Action=X&A=\xe9"),
            "MalformedQueryString",
            "not UTF-8: character 1 of A",
        ),
        (
            get("Action=X&Operation=Y"),
            "InvalidParameterCombination",
            "different operations: 'X' and 'Y'",
        ),
        (
            body("application/json", b"{}"),
            "MalformedQueryString",
            "application/x-www-form-urlencoded, not 'application/json'",
        ),
    ] {
        let reply = client.send(request).await;
        assert_eq!(reply.code(400), code, "{}", reply.text);
        let message = reply.value("Message").unwrap_or_default();
        assert!(message.contains(said), "{message}");
    }
    let put = http::Request::put("/?Action=DescribeImages")
        .body(Bytes::new())
        .unwrap();
    let answer = client.send(put.clone()).await;
    assert_eq!(answer.code(405), "UnsupportedProtocol");
    assert!(
        answer.text.contains("by GET or POST, not by PUT"),
        "{}",
        answer.text
    );
    let context = RequestContext {
        request_id: REQUEST_ID.into(),
        client_host: HOST.into(),
        now: NOW,
    };
    let response = cloud.door.handle(put, context).await;
    assert_eq!(response.headers()["allow"], "GET, POST");
    cloud.stop().await;
}
