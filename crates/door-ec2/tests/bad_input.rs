//! Requests that no client should send, for every operation: refused by the right code, and
//! nothing is changed.
//!
//! What is wrong with a parameter follows from the tables of the model, so that a new operation is
//! tried here as soon as it has a good request in [`GOOD`].

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Client, Cloud, HOST, NOW, Reply, form};
use cumulet_auth::sign::{Signer, Unsigned, v4_headers};
use cumulet_ec2_model::Version;
use cumulet_ec2_model::model::{self, Kind, Operation, Parameter, Rule};
use cumulet_engine::State;

const NEW: &str = "2016-11-15";

type Pairs = &'static [(&'static str, &'static str)];

/// Each operation with parameters that are well formed.
const GOOD: &[(&str, Pairs)] = &[
    (
        "AuthorizeSecurityGroupIngress",
        &[
            ("GroupName", "none"),
            ("IpProtocol", "tcp"),
            ("FromPort", "80"),
            ("ToPort", "80"),
            ("CidrIp", "0.0.0.0/0"),
        ],
    ),
    (
        "ConfirmProductInstance",
        &[("ProductCode", "774F4FF8"), ("InstanceId", "i-12345678")],
    ),
    ("CreateKeyPair", &[("KeyName", "new")]),
    (
        "CreateSecurityGroup",
        &[("GroupName", "new"), ("GroupDescription", "new")],
    ),
    (
        "CreateTags",
        &[("ResourceId.1", "i-12345678"), ("Tag.1.Key", "key")],
    ),
    ("DeleteKeyPair", &[("KeyName", "kept")]),
    ("DeleteSecurityGroup", &[("GroupName", "none")]),
    ("DeleteTags", &[("ResourceId.1", "i-12345678")]),
    ("DeregisterImage", &[("ImageId", "ami-12345678")]),
    ("DescribeAccountAttributes", &[]),
    ("DescribeAddresses", &[]),
    ("DescribeAvailabilityZones", &[]),
    (
        "DescribeImageAttribute",
        &[
            ("ImageId", "ami-12345678"),
            ("Attribute", "launchPermission"),
        ],
    ),
    ("DescribeImages", &[]),
    (
        "DescribeInstanceAttribute",
        &[("InstanceId", "i-12345678"), ("Attribute", "instanceType")],
    ),
    ("DescribeInstanceCreditSpecifications", &[]),
    ("DescribeInstanceStatus", &[]),
    ("DescribeInstanceTypeOfferings", &[]),
    ("DescribeInstanceTypes", &[]),
    ("DescribeInstances", &[]),
    ("DescribeKeyPairs", &[]),
    ("DescribeNetworkInterfaces", &[]),
    ("DescribeRegions", &[]),
    ("DescribeSecurityGroups", &[]),
    ("DescribeSubnets", &[]),
    ("DescribeTags", &[]),
    ("DescribeVolumes", &[]),
    (
        "DescribeVpcAttribute",
        &[
            ("VpcId", "vpc-0123456789abcdef0"),
            ("Attribute", "enableDnsSupport"),
        ],
    ),
    ("DescribeVpcs", &[]),
    ("GetConsoleOutput", &[("InstanceId", "i-12345678")]),
    (
        "ImportKeyPair",
        &[("KeyName", "new"), ("PublicKeyMaterial", "c3NoLXJzYQ==")],
    ),
    (
        "ModifyImageAttribute",
        &[
            ("ImageId", "ami-12345678"),
            ("Attribute", "launchPermission"),
            ("OperationType", "add"),
            ("UserId.1", "123456789012"),
        ],
    ),
    ("RebootInstances", &[("InstanceId.1", "i-12345678")]),
    ("RegisterImage", &[("ImageLocation", "bucket/none")]),
    (
        "ResetImageAttribute",
        &[
            ("ImageId", "ami-12345678"),
            ("Attribute", "launchPermission"),
        ],
    ),
    (
        "RevokeSecurityGroupIngress",
        &[
            ("GroupName", "none"),
            ("IpProtocol", "tcp"),
            ("FromPort", "80"),
            ("ToPort", "80"),
            ("CidrIp", "0.0.0.0/0"),
        ],
    ),
    (
        "RunInstances",
        &[
            ("ImageId", "ami-12345678"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
        ],
    ),
    ("TerminateInstances", &[("InstanceId.1", "i-12345678")]),
];

/// A cloud that holds something, and the state that must stay.
struct Ground {
    cloud: Cloud,
    client: Client,
    state: Arc<State>,
}

impl Ground {
    async fn lay() -> Self {
        let cloud = Cloud::start().await;
        let client = cloud.client();
        client
            .ask("CreateKeyPair", NEW, &[("KeyName", "kept")])
            .await
            .ok();
        let state = cloud.engine.snapshot();
        Self {
            cloud,
            client,
            state,
        }
    }

    /// The request is refused by this code, and no commit was made.
    #[track_caller]
    fn check(&self, reply: &Reply, code: &str, what: &str) {
        assert_eq!(reply.code(400), code, "{what}: {}", reply.text);
        assert!(reply.text.len() < 4_000, "{what}: a long answer");
        let now = self.cloud.engine.snapshot();
        assert!(Arc::ptr_eq(&self.state, &now), "{what}: the state changed");
    }

    /// Others are answered as before.
    async fn end(self) {
        let all = self.client.ask("DescribeKeyPairs", NEW, &[]).await.ok();
        assert_eq!(all.values("keyName"), ["kept"]);
        self.cloud.stop().await;
    }
}

fn operation(name: &str) -> &'static Operation {
    model::operation(name).expect("an operation of the model")
}

/// The parameters of the newest version.
fn parameters(name: &str) -> impl Iterator<Item = &'static Parameter> {
    let version = Version::parse(NEW).expect("a version");
    operation(name)
        .parameters
        .iter()
        .filter(move |it| version.is_within(it.first, it.last) && it.rule != Rule::Soap)
}

/// A name on the wire.
fn wire(parameter: &Parameter) -> String {
    let part = |part| if part == "n" { "1" } else { part };
    let parts: Vec<&str> = parameter.name.split('.').map(part).collect();
    parts.join(".")
}

fn with<'a>(pairs: Pairs, name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = pairs.iter().copied().filter(|(other, _)| *other != name);
    others.chain([(name, value)]).collect()
}

#[test]
fn every_operation_is_tried() {
    let named: Vec<&str> = GOOD.iter().map(|(name, _)| *name).collect();
    let text = include_str!("../../../models/ec2-requests.txt");
    let mut known: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("operation "))
        .collect();
    known.sort_unstable();
    assert_eq!(named, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_wrong_kind_are_refused() {
    const NUMBERS: &[&str] = &[
        "",
        "two",
        "1.5",
        "1e3",
        "0x1",
        " 1",
        "1 ",
        "--1",
        "\u{661}",
        "99999999999999999999",
        "-99999999999999999999",
    ];
    const BOOLEANS: &[&str] = &["", "yes", "2", "tru", "true ", "\u{0}"];
    let ground = Ground::lay().await;
    for (action, pairs) in GOOD {
        for parameter in parameters(action) {
            let name = wire(parameter);
            let (values, code): (&[&str], &str) = match (parameter.rule, parameter.kind) {
                (Rule::Refused, _) => (&["x", "", "-1"], "UnsupportedOperation"),
                (Rule::Only(_), _) => (&["definitely not"], "UnsupportedOperation"),
                (_, Kind::Integer) => (NUMBERS, "InvalidParameterValue"),
                (_, Kind::Boolean) => (BOOLEANS, "InvalidParameterValue"),
                (_, Kind::Base64) => (&["A", "AAAAA"], "InvalidParameterValue"),
                (_, Kind::Text | Kind::Time) => (&[], ""),
            };
            for value in values {
                let request = with(pairs, &name, value);
                let reply = ground.client.ask(action, NEW, &request).await;
                ground.check(&reply, code, &format!("{action} {name}={value:?}"));
                // Both are said, as they were sent; no document can hold a zero, and data may be
                // a secret.
                let message = reply.value("Message").unwrap_or_default();
                let is_quoted = message.contains(&format!("'{value}'"));
                let is_said = *value == "\u{0}" || is_quoted != (parameter.kind == Kind::Base64);
                assert!(is_said && message.contains(&name), "{action}: {message}");
            }
        }
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_unknown_repeated_and_misnumbered_parameters_are_refused() {
    let ground = Ground::lay().await;
    for (action, pairs) in GOOD {
        for parameter in parameters(action).filter(|it| it.rule == Rule::Required) {
            let name = wire(parameter);
            let others: Vec<_> = pairs.iter().copied().filter(|it| it.0 != name).collect();
            let reply = ground.client.ask(action, NEW, &others).await;
            ground.check(
                &reply,
                "MissingParameter",
                &format!("{action} without {name}"),
            );
        }
        for name in [
            "Colour",
            "dryrun",
            "DryRun.1",
            "InstanceId.1.x",
            "Filter",
            "",
            "\u{0}",
            "A\u{e9}",
        ] {
            let reply = ground
                .client
                .ask(action, NEW, &with(pairs, name, "1"))
                .await;
            ground.check(&reply, "UnknownParameter", &format!("{action} {name:?}"));
        }
        for parameter in parameters(action).filter(|it| it.name.ends_with(".n")) {
            let list = parameter.name.trim_end_matches(".n");
            let list = list.replace(".n", ".1");
            for index in [
                "10001",
                "99999999999",
                "01",
                "00",
                "-1",
                "+1",
                "x",
                "1 ",
                "\u{661}",
                "",
            ] {
                let name = format!("{list}.{index}");
                let reply = ground
                    .client
                    .ask(action, NEW, &with(pairs, &name, "x"))
                    .await;
                ground.check(&reply, "UnknownParameter", &format!("{action} {name:?}"));
            }
        }
        let twice = [
            ("Action", action),
            ("Version", &NEW),
            ("X", &"1"),
            ("X", &"1"),
        ];
        let twice = twice.map(|(name, value)| (name, *value));
        let reply = ground.client.post(&twice, "ec2").await;
        ground.check(&reply, "MalformedQueryString", &format!("{action} twice"));
        for version in ["", "2016-11-16", "2016-11-15 ", "latest"] {
            let reply = ground.client.ask(action, version, pairs).await;
            ground.check(&reply, "NoSuchVersion", &format!("{action} {version:?}"));
        }
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_or_too_much_is_refused() {
    let ground = Ground::lay().await;
    let long_name = "N".repeat(257);
    let long_value = "v".repeat(512 * 1024 + 1);
    for (action, pairs) in GOOD {
        for (name, value) in [(long_name.as_str(), "1"), ("X", &long_value)] {
            let reply = ground
                .client
                .ask(action, NEW, &with(pairs, name, value))
                .await;
            ground.check(
                &reply,
                "MalformedQueryString",
                &format!("{action} {}", name.len()),
            );
        }
        let names: Vec<String> = (0..4_001).map(|it| format!("X.{it}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let reply = ground.client.ask(action, NEW, &many).await;
        ground.check(
            &reply,
            "MalformedQueryString",
            &format!("{action}, too many"),
        );
    }
    // A list that may be this long, of things that are not there.
    let names: Vec<String> = (1..=3_000).map(|it| format!("InstanceId.{it}")).collect();
    let ids: Vec<String> = (1..=3_000).map(|it| format!("i-{it:08x}")).collect();
    let list: Vec<(&str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(ids.iter().map(String::as_str))
        .collect();
    for action in ["DescribeInstances", "RebootInstances", "TerminateInstances"] {
        let reply = ground.client.ask(action, NEW, &list).await;
        assert_eq!(reply.code(400), "InvalidInstanceID.NotFound", "{action}");
        let now = ground.cloud.engine.snapshot();
        assert!(Arc::ptr_eq(&ground.state, &now), "{action}");
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_ids_are_refused() {
    let ground = Ground::lay().await;
    let long = "1".repeat(10_000);
    let ends = [
        "",
        "1234567",
        "1234567g",
        "123456789",
        "12345678 ",
        "\u{661}2345678",
        "12345678\u{0}",
        "../../etc/passwd",
        "0123456789abcdef01",
        "12345678\n",
        &long,
    ];
    for (action, name, prefix, code) in [
        (
            "DescribeInstances",
            "InstanceId.1",
            "i-",
            "InvalidInstanceID.Malformed",
        ),
        (
            "DescribeInstanceStatus",
            "InstanceId.1",
            "i-",
            "InvalidInstanceID.Malformed",
        ),
        (
            "RebootInstances",
            "InstanceId.1",
            "i-",
            "InvalidInstanceID.Malformed",
        ),
        (
            "TerminateInstances",
            "InstanceId.1",
            "i-",
            "InvalidInstanceID.Malformed",
        ),
        (
            "GetConsoleOutput",
            "InstanceId",
            "i-",
            "InvalidInstanceID.Malformed",
        ),
        ("RunInstances", "ImageId", "ami-", "InvalidAMIID.Malformed"),
        (
            "DescribeImages",
            "ImageId.1",
            "ami-",
            "InvalidAMIID.Malformed",
        ),
        (
            "DeregisterImage",
            "ImageId",
            "ami-",
            "InvalidAMIID.Malformed",
        ),
    ] {
        let (_, pairs) = GOOD.iter().find(|(name, _)| *name == action).expect("good");
        let others = [
            "12345678",
            "vol-12345678",
            "I-12345678",
            " i-12345678",
            "\u{1f4a9}",
        ];
        let ids = ends.iter().map(|end| format!("{prefix}{end}"));
        for id in ids.chain(others.map(str::to_owned)) {
            let reply = ground
                .client
                .ask(action, NEW, &with(pairs, name, &id))
                .await;
            let shown: String = id.chars().take(40).collect();
            assert_eq!(reply.code(400), code, "{action} {shown:?}");
            let now = ground.cloud.engine.snapshot();
            assert!(Arc::ptr_eq(&ground.state, &now), "{action} {shown:?}");
        }
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_out_of_range_are_refused() {
    let ground = Ground::lay().await;
    for (action, name, values) in [
        (
            "RunInstances",
            "MinCount",
            &["-1", "4294967296", "9223372036854775807"][..],
        ),
        (
            "RunInstances",
            "MaxCount",
            &["-1", "4294967296", "-9223372036854775808"],
        ),
        (
            "RunInstances",
            "MetadataOptions.HttpPutResponseHopLimit",
            &["-1", "0", "65", "256", "65536"],
        ),
        (
            "DescribeInstances",
            "MaxResults",
            &["-1", "0", "4", "-9223372036854775808"],
        ),
        ("DescribeInstanceStatus", "MaxResults", &["-1", "0", "4"]),
        ("DescribeImages", "MaxResults", &["-1", "0"]),
    ] {
        let (_, pairs) = GOOD.iter().find(|(name, _)| *name == action).expect("good");
        for value in values {
            let reply = ground
                .client
                .ask(action, NEW, &with(pairs, name, value))
                .await;
            let what = format!("{action} {name}={value}");
            ground.check(&reply, "InvalidParameterValue", &what);
        }
    }
    ground.end().await;
}

/// A signed request with any body and type.
async fn post(client: &Client, content_type: &[u8], body: &[u8]) -> Reply {
    let signer = Signer {
        access_key_id: &client.key_id,
        secret: &client.secret,
        region: "us-east-1",
        service: "ec2",
    };
    let unsigned = Unsigned {
        method: "POST",
        host: HOST,
        raw_path: "/",
        raw_query: None,
        body,
        now: NOW,
    };
    let headers = v4_headers(&signer, &unsigned, &http::HeaderMap::new()).expect("signed");
    let mut request = http::Request::post("/")
        .header("host", HOST)
        .header("content-type", content_type);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let body = Bytes::copy_from_slice(body);
    client.send(request.body(body).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_forms_are_refused() {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let ground = Ground::lay().await;
    let good = form(&[
        ("Action", "CreateKeyPair"),
        ("Version", NEW),
        ("KeyName", "new"),
    ]);
    let kinds: [&[u8]; 6] = [
        b"application/json",
        b"multipart/form-data; boundary=x",
        b"application/x-www-form-urlencoded-not",
        b"",
        b"\xff\xfe",
        b"; application/x-www-form-urlencoded",
    ];
    for kind in kinds {
        let reply = post(&ground.client, kind, good.as_bytes()).await;
        ground.check(
            &reply,
            "MalformedQueryString",
            &String::from_utf8_lossy(kind),
        );
    }
    let bodies: [&[u8]; 6] = [
        b"Action=CreateKeyPair&Version=2016-11-15&KeyName=\xff",
        b"Action=CreateKeyPair&Version=2016-11-15&KeyName=%ff",
        b"Action=CreateKeyPair&Version=2016-11-15&KeyName=%C3",
        b"Action=CreateKeyPair&Version=2016-11-15&KeyName=%4",
        b"Action=CreateKeyPair&Version=2016-11-15&KeyName=%u1234",
        b"\x1f\x8b\x08\0\0\0\0\0",
    ];
    for body in bodies {
        let reply = post(&ground.client, FORM, body).await;
        let shown = String::from_utf8_lossy(body);
        ground.check(&reply, "MalformedQueryString", &shown);
    }
    let reply = post(&ground.client, FORM, b"<Envelope/>").await;
    ground.check(&reply, "MissingAction", "a document");
    // What says that it is XML is read, and answered, as SOAP.
    let reply = post(&ground.client, b"text/xml", good.as_bytes()).await;
    assert!(
        reply.text.contains("<faultcode>Client.InvalidRequest<"),
        "{}",
        reply.text
    );
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_data_and_keys_are_limited() {
    let ground = Ground::lay().await;
    // 16 KiB and a byte, and far more.
    let over = "A".repeat((16 * 1024 + 1_usize).div_ceil(3) * 4 + 4);
    let far = "A".repeat(400 * 1024);
    for data in [&over, &far] {
        let (_, pairs) = GOOD
            .iter()
            .find(|(name, _)| *name == "RunInstances")
            .expect("good");
        let reply = ground
            .client
            .ask("RunInstances", NEW, &with(pairs, "UserData", data))
            .await;
        ground.check(&reply, "InvalidParameterValue", "user data");
        let key = [("KeyName", "new"), ("PublicKeyMaterial", data.as_str())];
        let reply = ground.client.ask("ImportKeyPair", NEW, &key).await;
        ground.check(&reply, "InvalidParameterValue", "a key");
    }
    for material in ["c3NoLXJzYQ==", "", "AAAA", "c3NoLXJzYSBBQUFB"] {
        let key = [("KeyName", "new"), ("PublicKeyMaterial", material)];
        let reply = ground.client.ask("ImportKeyPair", NEW, &key).await;
        let code = reply.code(400);
        let is_right = ["InvalidKey.Format", "MissingParameter"].contains(&code.as_str());
        assert!(is_right, "{material}: {code}");
    }
    ground.end().await;
}
