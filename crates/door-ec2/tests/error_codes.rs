//! Every error code of the 2007 guide (reference 4.1 and 4.2), provoked by Query and by SOAP.

mod common;

use std::collections::BTreeSet;

use common::{Client, Cloud, Setup, account};

use cumulet_ec2_model::model;

const OLD: &str = "2007-03-01";

/// The guide's codes, clients' errors first, in its order.
const CODES: &[&str] = &[
    "AuthFailure",
    "InvalidManifest",
    "InvalidAMIID.Malformed",
    "InvalidAMIID.NotFound",
    "InvalidAMIID.Unavailable",
    "InvalidInstanceID.Malformed",
    "InvalidInstanceID.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidKeyPair.Duplicate",
    "InvalidGroup.NotFound",
    "InvalidGroup.Duplicate",
    "InvalidGroup.InUse",
    "InvalidGroup.Reserved",
    "InvalidParameterValue",
    "InvalidPermission.Duplicate",
    "InvalidPermission.Malformed",
    "InvalidReservationID.Malformed",
    "InvalidReservationID.NotFound",
    "InstanceLimitExceeded",
    "InvalidParameterCombination",
    "InvalidUserID.Malformed",
    "InvalidAMIAttributeItemValue",
    "UnknownParameter",
    "InternalError",
    "InsufficientInstanceCapacity",
    "Unavailable",
];

/// The guide lists them, yet none of its operations takes the id of a reservation.
const UNREACHABLE: &[&str] = &[
    "InvalidReservationID.Malformed",
    "InvalidReservationID.NotFound",
];

/// One refusal, asked for in both bindings.
struct Case {
    code: &'static str,
    status: u16,
    operation: &'static str,
    query: Vec<(&'static str, String)>,
    soap: String,
    /// What a user needs to find the mistake: the value, or its name.
    says: String,
}

fn case(
    code: &'static str,
    operation: &'static str,
    query: &[(&'static str, &str)],
    soap: &str,
    says: &str,
) -> Case {
    Case {
        code,
        status: match code {
            "AuthFailure" => 401,
            "InternalError" | "InsufficientInstanceCapacity" => 500,
            "Unavailable" => 503,
            _ => 400,
        },
        operation,
        query: query
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        soap: soap.into(),
        says: says.into(),
    }
}

fn launch(code: &'static str, image: &str, counts: (&str, &str), says: &str) -> Case {
    let (min, max) = counts;
    let query = [("ImageId", image), ("MinCount", min), ("MaxCount", max)];
    case(
        code,
        "RunInstances",
        &query,
        &item(image, min, max, ""),
        says,
    )
}

fn item(image: &str, min: &str, max: &str, rest: &str) -> String {
    let groups = if rest.contains("groupSet") {
        ""
    } else {
        "<groupSet></groupSet>"
    };
    format!(
        "<instancesSet><item><imageId>{image}</imageId><minCount>{min}</minCount>\
         <maxCount>{max}</maxCount></item></instancesSet>{groups}{rest}"
    )
}

/// Asks in both bindings; both refuse with the code and in the same words.
async fn provoke(client: &Client, case: &Case) {
    let pairs: Vec<(&str, &str)> = case
        .query
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let by_query = client.ask(case.operation, OLD, &pairs).await;
    assert_eq!(by_query.code(case.status), case.code, "{}", case.operation);
    let by_soap = client.soap(case.operation, OLD, &case.soap).await;
    let side = if case.status < 500 {
        "Client"
    } else {
        "Server"
    };
    assert_eq!(by_soap.status, 500, "{}", by_soap.text);
    assert_eq!(
        by_soap.value("faultcode"),
        Some(format!("{side}.{}", case.code)),
        "{}",
        by_soap.text
    );
    for message in [by_query.value("Message"), by_soap.value("faultstring")] {
        let message = message.unwrap_or_default();
        assert!(
            message.contains(&case.says),
            "{}: {message:?} should say {:?}",
            case.code,
            case.says
        );
        assert!(!message.contains("/srv"), "{message}");
    }
}

async fn clients_errors(cloud: &Cloud, client: &Client) -> Vec<Case> {
    let id = |name: &str, list: &str, value: &str| {
        format!("<{list}><item><{name}>{value}</{name}></item></{list}>")
    };
    let other = cloud.image(account(2), "theirs", false).await.to_string();
    let own = cloud.image(account(1), "ours", false).await.to_string();
    let gone = cloud.image(account(1), "gone", false).await.to_string();
    let gone_pair = [("ImageId", gone.as_str())];
    client.ask("DeregisterImage", OLD, &gone_pair).await.ok();
    client
        .ask("CreateKeyPair", OLD, &[("KeyName", "mine")])
        .await
        .ok();
    cloud.upload_bundle("first", &[], false);
    let run = |more: (&'static str, &'static str), rest: &str, code, says: &str| {
        let query = [
            ("ImageId", own.as_str()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            more,
        ];
        case(
            code,
            "RunInstances",
            &query,
            &item(&own, "1", "1", rest),
            says,
        )
    };
    let part = "bucket/first.part.0";
    vec![
        launch("AuthFailure", &other, ("1", "1"), &other),
        case(
            "InvalidManifest",
            "RegisterImage",
            &[("ImageLocation", part)],
            &format!("<imageLocation>{part}</imageLocation>"),
            part,
        ),
        case(
            "InvalidAMIID.Malformed",
            "DescribeImages",
            &[("ImageId.1", "ami-xyz")],
            &id("imageId", "imagesSet", "ami-xyz"),
            "ami-xyz",
        ),
        case(
            "InvalidAMIID.NotFound",
            "DescribeImages",
            &[("ImageId.1", "ami-01234567")],
            &id("imageId", "imagesSet", "ami-01234567"),
            "ami-01234567",
        ),
        launch("InvalidAMIID.Unavailable", &gone, ("1", "1"), &gone),
        case(
            "InvalidInstanceID.Malformed",
            "DescribeInstances",
            &[("InstanceId.1", "i-1")],
            &id("instanceId", "instancesSet", "i-1"),
            "i-1",
        ),
        case(
            "InvalidInstanceID.NotFound",
            "TerminateInstances",
            &[("InstanceId.1", "i-01234567")],
            &id("instanceId", "instancesSet", "i-01234567"),
            "i-01234567",
        ),
        case(
            "InvalidKeyPair.NotFound",
            "DescribeKeyPairs",
            &[("KeyName.1", "yours")],
            &id("keyName", "keySet", "yours"),
            "yours",
        ),
        case(
            "InvalidKeyPair.Duplicate",
            "CreateKeyPair",
            &[("KeyName", "mine")],
            "<keyName>mine</keyName>",
            "mine",
        ),
        run(
            ("SecurityGroup.1", "nobody"),
            "<groupSet><item><groupId>nobody</groupId></item></groupSet>",
            "InvalidGroup.NotFound",
            "nobody",
        ),
        run(
            ("UserData", "A"),
            "<userData encoding=\"base64\" version=\"1.0\"><data>A</data></userData>",
            "InvalidParameterValue",
            "UserData: it has one letter",
        ),
        launch("InstanceLimitExceeded", &own, ("2", "2"), "limit of 1"),
        launch("InvalidParameterCombination", &own, ("2", "1"), "MinCount"),
        case(
            "InvalidUserID.Malformed",
            "DescribeImages",
            &[("Owner.1", "bob")],
            &format!("<imagesSet></imagesSet>{}", id("owner", "ownersSet", "bob")),
            "bob",
        ),
        case(
            "InvalidAMIAttributeItemValue",
            "ModifyImageAttribute",
            &[
                ("ImageId", own.as_str()),
                ("Attribute", "launchPermission"),
                ("OperationType", "add"),
                ("UserId.1", "bob"),
            ],
            &format!(
                "<imageId>{own}</imageId><launchPermission><add><item><userId>bob</userId></item>\
                 </add></launchPermission>"
            ),
            "bob",
        ),
        case(
            "UnknownParameter",
            "DescribeImages",
            &[("Foo", "1")],
            "<foo>1</foo>",
            "oo",
        ),
    ]
}

/// Those of security groups; afterwards the account has an instance and is at its limit.
async fn groups_errors(cloud: &Cloud, client: &Client) -> Vec<Case> {
    let image = cloud.image(account(1), "member", false).await.to_string();
    for name in ["free", "used"] {
        let group = [("GroupName", name), ("GroupDescription", "d")];
        client.ask("CreateSecurityGroup", OLD, &group).await.ok();
    }
    let launched = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("SecurityGroup.1", "used"),
    ];
    client.ask("RunInstances", OLD, &launched).await.ok();
    let web = rule("", "AuthorizeSecurityGroupIngress", ("tcp", "80", "80"), "");
    let pairs: Vec<_> = web.query.iter().map(|(n, v)| (*n, v.as_str())).collect();
    client.ask(web.operation, OLD, &pairs).await.ok();
    let group = |code, operation, name: &str, says| {
        let named = format!("<groupName>{name}</groupName>");
        let described = [("GroupName", name), ("GroupDescription", "d")];
        match operation {
            "CreateSecurityGroup" => {
                let message = format!("{named}<groupDescription>d</groupDescription>");
                case(code, operation, &described, &message, says)
            }
            _ => case(code, operation, &described[..1], &named, says),
        }
    };
    let authorize = "AuthorizeSecurityGroupIngress";
    let revoke = "RevokeSecurityGroupIngress";
    vec![
        group(
            "InvalidGroup.Duplicate",
            "CreateSecurityGroup",
            "free",
            "free",
        ),
        group(
            "InvalidGroup.Reserved",
            "CreateSecurityGroup",
            "default",
            "default",
        ),
        group(
            "InvalidGroup.Reserved",
            "DeleteSecurityGroup",
            "default",
            "default",
        ),
        group("InvalidGroup.InUse", "DeleteSecurityGroup", "used", "used"),
        group(
            "InvalidGroup.NotFound",
            "DeleteSecurityGroup",
            "gone",
            "gone",
        ),
        rule(
            "InvalidPermission.Duplicate",
            authorize,
            ("tcp", "80", "80"),
            "80",
        ),
        rule(
            "InvalidPermission.Malformed",
            authorize,
            ("gre", "80", "80"),
            "gre",
        ),
        rule(
            "InvalidPermission.Malformed",
            authorize,
            ("tcp", "80", "65536"),
            "65536",
        ),
        rule(
            "InvalidPermission.Malformed",
            revoke,
            ("udp", "2", "1"),
            "(2:1)",
        ),
    ]
}

/// A change of what the group `free` lets in from everywhere.
fn rule(
    code: &'static str,
    operation: &'static str,
    (protocol, from, to): (&str, &str, &str),
    says: &str,
) -> Case {
    let query = [
        ("GroupName", "free"),
        ("IpProtocol", protocol),
        ("FromPort", from),
        ("ToPort", to),
        ("CidrIp", "0.0.0.0/0"),
    ];
    let message = format!(
        "<userId></userId><groupName>free</groupName><ipPermissions><item>\
         <ipProtocol>{protocol}</ipProtocol><fromPort>{from}</fromPort><toPort>{to}</toPort>\
         <groups></groups><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges>\
         </item></ipPermissions>"
    );
    case(code, operation, &query, &message, says)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_of_the_guide_is_provoked() {
    let cloud = Cloud::start_as(Setup {
        instances_per_account: 1,
        ..Setup::default()
    })
    .await;
    cloud.stranger().await;
    let client = cloud.client();
    let mut seen = BTreeSet::new();
    for case in clients_errors(&cloud, &client).await {
        provoke(&client, &case).await;
        seen.insert(case.code);
    }
    for case in groups_errors(&cloud, &client).await {
        provoke(&client, &case).await;
        seen.insert(case.code);
    }

    // The object store fails: nobody's mistake, and nobody learns where.
    let manifest = "bucket/first.manifest.xml";
    let internal = case(
        "InternalError",
        "RegisterImage",
        &[("ImageLocation", manifest)],
        &format!("<imageLocation>{manifest}</imageLocation>"),
        "internal error",
    );
    cloud.break_objects(true);
    provoke(&client, &internal).await;
    cloud.break_objects(false);
    seen.insert(internal.code);

    // The disk of the records is full: nothing was done, and it works again with room.
    let name = [("KeyName", "later")];
    let unavailable = case(
        "Unavailable",
        "CreateKeyPair",
        &name,
        "<keyName>later</keyName>",
        "unavailable; retry later",
    );
    cloud.fill_disk(true);
    provoke(&client, &unavailable).await;
    cloud.fill_disk(false);
    client.ask("CreateKeyPair", OLD, &name).await.ok();
    seen.insert(unavailable.code);
    cloud.stop().await;

    let small = Cloud::start_as(Setup {
        memory_mib: 1,
        ..Setup::default()
    })
    .await;
    let image = small.image(account(1), "ours", false).await.to_string();
    let full = launch(
        "InsufficientInstanceCapacity",
        &image,
        ("1", "1"),
        "1 MiB are free",
    );
    provoke(&small.client(), &full).await;
    seen.insert(full.code);

    small.stop().await;
    let is_reservation = |name: &str| name.split('.').any(|part| part == "ReservationId");
    for operation in model::operations() {
        let mut names = operation.parameters.iter().map(|it| it.name);
        assert!(!names.any(is_reservation), "{}", operation.name);
    }
    seen.extend(UNREACHABLE);
    assert_eq!(
        seen,
        CODES.iter().copied().collect(),
        "codes and their cases"
    );
}
