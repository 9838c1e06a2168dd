//! The SOAP binding: the same operations, answers and refusals as by Query, in envelopes.

mod common;

use bytes::Bytes;
use common::{Client, Cloud, NOW, REQUEST_ID, Reply};
use cumulet_domain::instances::InstanceState;

const OLD: &str = "2007-03-01";
const NEW: &str = "2013-08-15";
const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Operation, version, the message, and the parameters that say the same.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// What is in the body of an envelope.
fn inside(reply: &Reply) -> &str {
    let text = reply.text.as_str();
    let start = text.find("<SOAP-ENV:Body>").expect("a body") + "<SOAP-ENV:Body>".len();
    let end = text.find("</SOAP-ENV:Body>").expect("its end");
    &text[start..end]
}

fn between<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.find(&format!("<{name}>")).expect(name) + name.len() + 2;
    let end = text[start..].find(&format!("</{name}>")).expect(name);
    &text[start..start + end]
}

async fn ready_image(cloud: &Cloud, client: &Client) -> String {
    cloud.add_kernel().await;
    cloud.upload_bundle("image", &[], false);
    let location = "<imageLocation>bucket/image.manifest.xml</imageLocation>";
    let registered = client.soap("RegisterImage", OLD, location).await;
    assert_eq!(registered.status, 200, "{}", registered.text);
    let id = between(inside(&registered), "imageId").to_owned();
    cloud.wait_for_image(id.parse().expect("an id")).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_runs_over_soap_in_the_shapes_of_its_versions() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = ready_image(&cloud, &client).await;
    client
        .soap("CreateKeyPair", OLD, "<keyName>key</keyName>")
        .await;
    // Until 2007-03-01 the images of a launch are a list; then there is one.
    let item = format!(
        "<imageId>{image}</imageId><minCount>1</minCount><maxCount>2</maxCount><keyName>key</keyName>"
    );
    let data = "<userData encoding=\"base64\" version=\"1.0\"><data>aGVsbG8=</data></userData>";
    let launched = client
        .soap(
            "RunInstances",
            OLD,
            &format!(
                "<instancesSet><item>{item}</item></instancesSet><groupSet></groupSet><additionalInfo></additionalInfo>{data}"
            ),
        )
        .await;
    // An element that is there and empty says something, which is not done here.
    assert_eq!(
        between(inside(&launched), "faultcode"),
        "Client.UnsupportedOperation"
    );
    let launched = client
        .soap(
            "RunInstances",
            OLD,
            &format!("<instancesSet><item>{item}</item></instancesSet><groupSet></groupSet>{data}"),
        )
        .await;
    assert_eq!(launched.status, 200, "{}", launched.text);
    let answer = inside(&launched);
    assert!(answer.starts_with(
        "<RunInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><reservationId>"
    ));
    assert_eq!(answer.matches("<instanceId>").count(), 2);
    let newer = client
        .soap(
            "RunInstances",
            "2007-08-29",
            &format!("{item}<groupSet></groupSet>"),
        )
        .await;
    assert_eq!(inside(&newer).matches("<instanceId>").count(), 2);

    let id = between(answer, "instanceId").to_owned();
    let instance = id.parse().expect("an id");
    cloud.wait_for(instance, InstanceState::Running).await;
    let asked = format!("<instancesSet><item><instanceId>{id}</instanceId></item></instancesSet>");
    let ended = client.soap("TerminateInstances", OLD, &asked).await;
    assert!(
        inside(&ended).contains("<previousState><code>16</code>"),
        "{}",
        ended.text
    );
    cloud.wait_for(instance, InstanceState::Terminated).await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_query_binding() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = ready_image(&cloud, &client).await;
    for name in ["one", "two"] {
        let name = format!("<keyName>{name}</keyName>");
        client.soap("CreateKeyPair", OLD, &name).await;
    }
    let images = format!("<imagesSet><item><imageId>{image}</imageId></item></imagesSet>");
    let filter = "<filterSet><item><name>key-name</name><valueSet><item><value>t*</value></item><item><value>x</value></item></valueSet></item></filterSet>";
    let owner = client.account.to_string();
    let owners = format!(
        "<ownersSet><item><owner>self</owner></item><item><owner>{owner}</owner></item></ownersSet>"
    );
    let cases: [Case<'_>; 8] = [
        ("DescribeImages", OLD, &images, &[("ImageId.1", &image)]),
        (
            "DescribeImages",
            NEW,
            &owners,
            &[("Owner.1", "self"), ("Owner.2", &owner)],
        ),
        ("DescribeKeyPairs", OLD, "<keySet></keySet>", &[]),
        (
            "DescribeKeyPairs",
            OLD,
            "<keySet><item><keyName>two</keyName></item><item><keyName>one</keyName></item></keySet>",
            &[("KeyName.1", "two"), ("KeyName.2", "one")],
        ),
        (
            "DescribeKeyPairs",
            NEW,
            filter,
            &[
                ("Filter.1.Name", "key-name"),
                ("Filter.1.Value.1", "t*"),
                ("Filter.1.Value.2", "x"),
            ],
        ),
        ("DescribeInstances", OLD, "", &[]),
        ("DescribeRegions", NEW, "", &[]),
        (
            "DescribeAvailabilityZones",
            "2008-02-01",
            "<availabilityZoneSet><item><zoneName>us-east-1a</zoneName></item></availabilityZoneSet>",
            &[("ZoneName.1", "us-east-1a")],
        ),
    ];
    for (operation, version, message, parameters) in cases {
        let by_soap = client.soap(operation, version, message).await;
        let by_query = client.ask(operation, version, parameters).await;
        assert_eq!(
            (by_soap.status, by_query.status),
            (200, 200),
            "{}",
            by_soap.text
        );
        assert_eq!(
            inside(&by_soap),
            by_query.text.trim_start_matches(HEAD),
            "{operation}"
        );
        assert_eq!(by_soap.handled, by_query.handled);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_faults_with_the_codes_of_the_query_binding() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let reply = client
        .soap(
            "DescribeInstances",
            OLD,
            "<instancesSet><item><instanceId>i-&lt;1&gt;</instanceId></item></instancesSet>",
        )
        .await;
    assert_eq!(reply.status, 500);
    assert_eq!(
        inside(&reply),
        format!(
            "<SOAP-ENV:Fault><faultcode>Client.InvalidInstanceID.Malformed</faultcode>\
             <faultstring>Invalid id: &quot;i-&lt;1&gt;&quot; (expecting &quot;i-...&quot;)</faultstring>\
             <detail><aws:RequestId xmlns:aws=\"http://webservices.amazon.com/AWSFault/2005-15-09\">{REQUEST_ID}</aws:RequestId></detail></SOAP-ENV:Fault>"
        )
    );
    let two =
        "<item><imageId>ami-00000001</imageId><minCount>1</minCount><maxCount>1</maxCount></item>"
            .repeat(2);
    let two = format!("<instancesSet>{two}</instancesSet><groupSet></groupSet>");
    let data = |attributes: &str| {
        format!("<instancesSet></instancesSet><userData {attributes}><data></data></userData>")
    };
    let filtered = "<filterSet><item><name>colour</name><valueSet><item><value>red</value></item></valueSet></item></filterSet>";
    for (operation, version, message, said) in [
        (
            "DescribeAccountAttributes",
            NEW,
            filtered,
            "The parameter Filter.1.Name, given as 'colour', is not supported here",
        ),
        (
            "RunInstances",
            NEW,
            "<monitoring><enabled>true</enabled></monitoring>",
            "The parameter Monitoring.Enabled, given as 'true', is not supported here, unless it is 'false'",
        ),
        (
            "RunInstances",
            OLD,
            "<instanceType>m1.small</instanceType>",
            "The parameter instanceType is not recognized in version 2007-03-01; it is in versions 2007-08-29 to 2013-08-15",
        ),
        (
            "ImportKeyPair",
            OLD,
            "",
            "The action ImportKeyPair is not valid for this web service. It is not one in version 2007-03-01; it is in versions from 2010-08-31 on.",
        ),
    ] {
        let reply = client.soap(operation, version, message).await;
        assert_eq!(between(inside(&reply), "faultstring"), said, "{message}");
    }
    for (operation, version, message, code) in [
        (
            "DescribeKeyPairs",
            OLD,
            "<filterSet></filterSet>",
            "Client.UnknownParameter",
        ),
        (
            "DescribeKeyPairs",
            OLD,
            "<keySet><item><name>a</name></item></keySet>",
            "Client.UnknownParameter",
        ),
        (
            "DescribeKeyPairs",
            OLD,
            "<keySet x=\"1\"></keySet>",
            "Client.UnknownParameter",
        ),
        ("RunInstances", OLD, &two, "Client.InvalidAMIID.NotFound"),
        (
            "RunInstances",
            OLD,
            &data("encoding=\"base64\""),
            "Client.InvalidParameterValue",
        ),
        (
            "RunInstances",
            OLD,
            &data("encoding=\"base64\" version=\"2.0\""),
            "Client.InvalidParameterValue",
        ),
        (
            "RunInstances",
            OLD,
            &data("encoding=\"hex\" version=\"1.0\""),
            "Client.InvalidParameterValue",
        ),
        (
            "RunInstances",
            OLD,
            "<imageId>ami-00000001</imageId>",
            "Client.UnknownParameter",
        ),
        (
            "RunInstances",
            NEW,
            "<instancesSet></instancesSet>",
            "Client.UnknownParameter",
        ),
        (
            "TerminateInstances",
            OLD,
            "<instancesSet></instancesSet>",
            "Client.MissingParameter",
        ),
        (
            "DescribeInstances",
            "2007-03-02",
            "",
            "Client.NoSuchVersion",
        ),
        (
            "DescribeInstances",
            "2016-11-15",
            "",
            "Client.NoSuchVersion",
        ),
        ("ImportKeyPair", OLD, "", "Client.InvalidAction"),
        (
            "CreateVolume",
            "2008-05-05",
            "",
            "Client.UnsupportedOperation",
        ),
        ("Nonsense", OLD, "", "Client.InvalidAction"),
        ("DescribeInstances", OLD, "text", "Client.InvalidRequest"),
        (
            "DescribeInstances",
            OLD,
            "<a xmlns=\"urn:a\"></a>",
            "Client.InvalidRequest",
        ),
    ] {
        let reply = client.soap(operation, version, message).await;
        assert_eq!(reply.status, 500);
        assert_eq!(
            between(inside(&reply), "faultcode"),
            code,
            "{operation} {message}"
        );
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_nobody_are_refused() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let unsigned = "<S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\"><S:Body><DescribeInstances xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"/></S:Body></S:Envelope>";
    let stranger = cumulet_auth::certificates::issue("eve", "2", NOW.0).expect("a certificate");
    let of_stranger = |at: i64| {
        let signer = cumulet_auth::wss::sign::Client::new(
            &stranger.certificate_pem,
            &stranger.private_key_pem,
        );
        let operation = "<DescribeInstances xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"></DescribeInstances>";
        let at = cumulet_domain::Timestamp(at);
        signer
            .expect("keys")
            .envelope(operation, at)
            .expect("signed")
    };
    for (text, code) in [
        (unsigned, "Client.InvalidSecurity"),
        (&of_stranger(NOW.0), "Client.AuthFailure"),
        ("no XML", "Client.InvalidRequest"),
        ("", "Client.InvalidRequest"),
        ("<a/>", "Client.InvalidRequest"),
        ("Action=DescribeInstances", "Client.InvalidRequest"),
    ] {
        let reply = client.post_soap("DescribeInstances", text).await;
        assert_eq!(between(inside(&reply), "faultcode"), code, "{text}");
        assert_eq!(reply.handled.account, None);
    }
    cloud.stop().await;
}

/// What is wrong before anybody's signature is looked at is said by name.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_the_binding_is_told_so_and_not_how_to_sign() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let unsigned = |namespace: &str| {
        format!(
            "<S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\"><S:Body>\
             <DescribeInstances {namespace}/></S:Body></S:Envelope>"
        )
    };
    let of_version = |version: &str| {
        unsigned(&format!(
            "xmlns=\"http://ec2.amazonaws.com/doc/{version}/\""
        ))
    };
    for (text, said) in [
        (
            of_version("2016-11-15"),
            "Version 2016-11-15 of service AmazonEC2 has no SOAP binding; the versions up to 2013-08-15 have one",
        ),
        (
            of_version("2007-03-02"),
            "The requested version (http://ec2.amazonaws.com/doc/2007-03-02/) of service AmazonEC2 does not exist",
        ),
        (
            unsigned("xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""),
            "The requested version (http://s3.amazonaws.com/doc/2006-03-01/) of service AmazonEC2 does not exist",
        ),
        (unsigned(""), "The message names no version"),
    ] {
        let reply = client.post_soap("DescribeInstances", &text).await;
        let fault = inside(&reply);
        assert_eq!(
            between(fault, "faultcode"),
            "Client.NoSuchVersion",
            "{text}"
        );
        assert!(between(fault, "faultstring").starts_with(said), "{fault}");
    }
    // The type of no body makes no message of a request by GET.
    let typed = http::Request::get("/?Action=DescribeInstances&Version=2007-03-01")
        .header("content-type", "text/xml");
    let reply = client.send(typed.body(Bytes::new()).unwrap()).await;
    assert_eq!(reply.code(400), "MissingParameter");
    let got = http::Request::get("/").header("soapaction", "DescribeInstances");
    let reply = client.send(got.body(Bytes::new()).unwrap()).await;
    assert_eq!(
        between(inside(&reply), "faultcode"),
        "Client.UnsupportedProtocol"
    );
    assert_eq!(
        between(inside(&reply), "faultstring"),
        "A SOAP message is sent by POST, not by GET"
    );
    cloud.stop().await;
}

/// EC2 went by the message; what clients put into the header differs.
#[tokio::test(flavor = "multi_thread")]
async fn the_header_with_the_action_does_not_matter() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    for (index, action) in [
        "\"CreateKeyPair\"",
        "CreateKeyPair",
        "",
        "\"\"",
        "DescribeImages",
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            "<CreateKeyPair xmlns=\"http://ec2.amazonaws.com/doc/{OLD}/\"><keyName>key-{index}</keyName></CreateKeyPair>"
        );
        let reply = client.post_soap_as(action, &common::enveloped(&text)).await;
        assert_eq!(reply.status, 200, "{action:?}: {}", reply.text);
        assert_eq!(reply.handled.action, "CreateKeyPair");
    }
    cloud.stop().await;
}
