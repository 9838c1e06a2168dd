//! Attributes of images, by Query and by SOAP.

mod common;

use std::collections::BTreeSet;

use common::{Client, Cloud, Reply, account};
use cumulet_domain::AccountId;
use cumulet_domain::images::{LAUNCH_ACCOUNTS_MAX, LaunchPermissions};
use cumulet_ec2_model::Version;
use cumulet_engine::Caller;
use cumulet_engine::image_attributes::Modification;

const OLD: &str = "2007-03-01";
const NEW: &str = "2016-11-15";

/// Names of groups and ids of accounts that may launch an image, as its owner reads them.
async fn permissions(client: &Client, id: &str) -> Vec<String> {
    let asked = [("ImageId", id), ("Attribute", "launchPermission")];
    let reply = client.ask("DescribeImageAttribute", OLD, &asked).await.ok();
    let mut found = vec![];
    for (path, text) in reply.elements() {
        match path.as_str() {
            "launchPermission/item/group" | "launchPermission/item/userId" => found.push(text),
            "imageId" => assert_eq!(text, id),
            "launchPermission" | "launchPermission/item" => {}
            other => panic!("{other} in {}", reply.text),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_added_removed_and_reset() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let id = cloud.image(client.account, "mine", false).await.to_string();
    let add = |rest: &[(&'static str, &'static str)]| {
        let all = [
            &[("Attribute", "launchPermission"), ("OperationType", "add")],
            rest,
        ];
        all.concat()
    };
    let one = ("UserId.1", "495219933132");
    // What is there already may be added again, and what is not there may be removed.
    for _ in 0..2 {
        client
            .modify_image(OLD, &id, &add(&[one, ("UserGroup.1", "all")]))
            .await
            .ok();
        assert_eq!(permissions(&client, &id).await, ["all", "495219933132"]);
    }
    for _ in 0..2 {
        let inside = format!(
            "<imageId>{id}</imageId><launchPermission><remove><item><group>all</group></item></remove></launchPermission>"
        );
        let reply = client.soap("ModifyImageAttribute", OLD, &inside).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        // Explicit permissions stay when the public one goes.
        assert_eq!(permissions(&client, &id).await, ["495219933132"]);
    }
    // Lists have gaps, and begin where they like.
    let more = [("UserId.7", "000000000007"), ("UserId.3", "000000000003")];
    client.modify_image(OLD, &id, &add(&more)).await.ok();
    let three = ["000000000003", "000000000007", "495219933132"];
    assert_eq!(permissions(&client, &id).await, three);
    // What clients send from 2010-06-15 on, with or without the attribute's name.
    for (version, name) in [("2010-06-15", None), (NEW, Some("launchPermission"))] {
        let mut pairs = vec![
            ("LaunchPermission.Add.1.Group", "all"),
            ("LaunchPermission.Add.2.UserId", "000000000004"),
            ("LaunchPermission.Remove.1.UserId", "000000000003"),
            ("LaunchPermission.Remove.2.UserId", "000000000007"),
        ];
        pairs.extend(name.map(|name| ("Attribute", name)));
        let reply = client.modify_image(version, &id, &pairs).await.ok();
        assert_eq!(reply.value("return").as_deref(), Some("true"));
        let now = ["all", "000000000004", "495219933132"];
        assert_eq!(permissions(&client, &id).await, now);
    }
    // The same in both forms, without an operation.
    let twice = [
        ("LaunchPermission.Add.1.Group", "all"),
        ("LaunchPermission.Add.2.UserId", "000000000005"),
        ("UserGroup.1", "all"),
        ("UserId.1", "000000000005"),
    ];
    client.modify_image(NEW, &id, &twice).await.ok();
    let now = ["all", "000000000004", "000000000005", "495219933132"];
    assert_eq!(permissions(&client, &id).await, now);
    let reset = [("ImageId", id.as_str()), ("Attribute", "launchPermission")];
    for _ in 0..2 {
        client.ask("ResetImageAttribute", OLD, &reset).await.ok();
        assert_eq!(permissions(&client, &id).await, [""; 0]);
    }
    // The owner's own permission is none of these.
    let run = [
        ("ImageId", id.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    client.ask("RunInstances", OLD, &run).await.ok();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_names_so_many_accounts_and_no_more() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let id = cloud.image(client.account, "mine", false).await.to_string();
    let accounts = (0..).map(AccountId::from_random).take(LAUNCH_ACCOUNTS_MAX);
    let most = Modification::LaunchPermission {
        add: LaunchPermissions {
            everybody: false,
            accounts: accounts.collect(),
        },
        remove: LaunchPermissions::default(),
    };
    let me = Caller {
        account: client.account,
        user: "alice".into(),
    };
    let parsed = id.parse().expect("an id");
    let filled = cloud.engine.modify_image_attribute(&me, parsed, most);
    filled.await.expect("so many fit");
    let one = [
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserId.1", "000000000002"),
    ];
    let refused = client.modify_image(OLD, &id, &one).await;
    assert_eq!(refused.code(400), "ResourceLimitExceeded");
    let inside = format!(
        "<imageId>{id}</imageId><launchPermission><add><item><userId>000000000002</userId></item></add></launchPermission>"
    );
    let refused = client.soap("ModifyImageAttribute", OLD, &inside).await;
    let fault = refused.value("SOAP-ENV:Fault/faultcode");
    assert_eq!(fault.as_deref(), Some("Client.ResourceLimitExceeded"));
    // Everybody is no account.
    let public = [
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserGroup.1", "all"),
    ];
    client.modify_image(OLD, &id, &public).await.ok();
    let named = permissions(&client, &id).await;
    assert_eq!(named.len(), LAUNCH_ACCOUNTS_MAX + 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_what_a_launch_asks_for() {
    let cloud = Cloud::start().await;
    let (client, stranger) = (cloud.client(), cloud.stranger().await);
    let id = cloud.image(client.account, "mine", false).await.to_string();
    let run = [
        ("ImageId", id.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let launch = || stranger.ask("RunInstances", OLD, &run);
    let change = |kind: &'static str, item: (&'static str, &'static str)| {
        let pairs = [
            ("Attribute", "launchPermission"),
            ("OperationType", kind),
            item,
        ];
        let (client, id) = (&client, &id);
        async move { client.modify_image(OLD, id, &pairs).await.ok() }
    };
    assert_eq!(launch().await.code(401), "AuthFailure");
    change("add", ("UserId.1", "000000000002")).await;
    launch().await.ok();
    change("add", ("UserGroup.1", "all")).await;
    change("remove", ("UserId.1", "000000000002")).await;
    launch().await.ok();
    change("remove", ("UserGroup.1", "all")).await;
    assert_eq!(launch().await.code(401), "AuthFailure");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_code_is_written_once() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let id = cloud.image(client.account, "mine", false).await.to_string();
    let set = |code: &'static str| {
        // boto sent an operation with everything.
        let pairs = [
            ("Attribute", "productCodes"),
            ("OperationType", "add"),
            ("ProductCode.1", code),
        ];
        let (client, id) = (&client, &id);
        async move { client.modify_image(OLD, id, &pairs).await }
    };
    let asked = [("ImageId", id.as_str()), ("Attribute", "productCodes")];
    let before = client.ask("DescribeImageAttribute", OLD, &asked).await;
    let nothing = [("imageId", id.as_str()), ("productCodes", "")];
    assert_eq!(
        before.ok().elements(),
        nothing.map(|(path, text)| (path.to_owned(), text.to_owned()))
    );
    set("774F4FF8").await.ok();
    set("774F4FF8").await.ok();
    assert_eq!(
        set("AAAAAAAA").await.code(400),
        "InvalidAMIAttributeItemValue"
    );
    for (version, types) in [(OLD, vec![]), ("2012-04-01", vec!["devpay"])] {
        let reply = client.ask("DescribeImageAttribute", version, &asked).await;
        let reply = reply.ok();
        assert_eq!(reply.values("productCode"), ["774F4FF8"]);
        assert_eq!(reply.values("type"), types);
    }
    // Everybody sees in lists that an image has a code.
    let listed = client.ask("DescribeImages", OLD, &[]).await.ok();
    assert_eq!(listed.values("productCode"), ["774F4FF8"]);
    cloud.stop().await;
}

/// Section 10: who buys support for an image of his own attaches the code that he got.
#[tokio::test(flavor = "multi_thread")]
async fn a_product_code_is_the_owners_or_one_he_is_subscribed_to() {
    let cloud = Cloud::start().await;
    let (client, seller) = (cloud.client(), cloud.stranger().await);
    let code = "0DDBA11C".to_owned();
    let product = cloud
        .engine
        .create_product(seller.account, Some(code.clone()));
    product.await.expect("a product");
    let id = cloud.image(client.account, "mine", false).await.to_string();
    let pairs = [
        ("Attribute", "productCodes"),
        ("ProductCode.1", code.as_str()),
    ];
    let inside = format!(
        "<imageId>{id}</imageId><productCodes><item><productCode>{code}</productCode></item></productCodes>"
    );
    let refused = client.modify_image(OLD, &id, &pairs).await;
    assert_eq!(refused.code(400), "InvalidAMIAttributeItemValue");
    let refused = client.soap("ModifyImageAttribute", OLD, &inside).await;
    let fault = refused.value("SOAP-ENV:Fault/faultcode");
    assert_eq!(
        fault.as_deref(),
        Some("Client.InvalidAMIAttributeItemValue")
    );
    let subscribed = cloud.engine.subscribe(client.account, code.clone()).await;
    subscribed.expect("a subscription");
    client.soap("ModifyImageAttribute", OLD, &inside).await.ok();
    let listed = client.ask("DescribeImages", OLD, &[]).await.ok();
    assert_eq!(listed.values("productCode"), [code]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_versions_have_their_attributes() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let id = cloud.image(client.account, "mine", true).await.to_string();
    let by_query = [("Attribute", "description"), ("Value", "by its old name")];
    client.modify_image("2009-10-31", &id, &by_query).await.ok();
    let described = |version: &'static str, name: &'static str| {
        let pairs = [("ImageId", id.clone()), ("Attribute", name.to_owned())];
        let client = &client;
        async move {
            let pairs = pairs
                .each_ref()
                .map(|(name, value)| (*name, value.as_str()));
            client.ask("DescribeImageAttribute", version, &pairs).await
        }
    };
    let value = |reply: Reply| reply.ok().value("description/value");
    let text = value(described("2009-10-31", "description").await);
    assert_eq!(text.as_deref(), Some("by its old name"));
    let inside =
        format!("<imageId>{id}</imageId><description><value>by SOAP</value></description>");
    let reply = client
        .soap("ModifyImageAttribute", "2013-08-15", &inside)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let text = value(described(NEW, "description").await);
    assert_eq!(text.as_deref(), Some("by SOAP"));
    for (new, shown) in [("today's name", Some("today's name")), ("", None)] {
        client
            .modify_image(NEW, &id, &[("Description.Value", new)])
            .await
            .ok();
        assert_eq!(value(described(NEW, "description").await).as_deref(), shown);
    }
    // First version of each, and whether there is something to say.
    for (name, first) in [
        ("launchPermission", "2006-10-01"),
        ("productCodes", "2007-03-01"),
        ("kernel", "2008-02-01"),
        ("ramdisk", "2008-02-01"),
        ("blockDeviceMapping", "2008-02-01"),
        ("description", "2009-10-31"),
        ("sriovNetSupport", "2013-10-15"),
        ("bootMode", "2016-11-15"),
        ("tpmSupport", "2016-11-15"),
        ("uefiData", "2016-11-15"),
        ("imdsSupport", "2016-11-15"),
        ("deregistrationProtection", "2016-11-15"),
    ] {
        for version in Version::all().filter(|version| version.as_str() >= "2006-10-01") {
            let label = version.as_str();
            let reply = described(label, name).await;
            if label < first {
                assert_eq!(reply.code(400), "InvalidParameterValue", "{label} {name}");
                continue;
            }
            // The image's id and the one attribute.
            let top: Vec<String> = reply
                .ok()
                .paths()
                .into_iter()
                .filter(|path| !path.contains('/') && path != "requestId")
                .collect();
            let wanted: BTreeSet<String> = [name.to_owned(), "imageId".to_owned()].into();
            assert_eq!(top, Vec::from_iter(wanted), "{label} {name}");
        }
    }
    let protection = described(NEW, "deregistrationProtection").await.ok();
    assert_eq!(protection.value("value").as_deref(), Some("disabled"));
    for (name, code) in [
        ("lastLaunchedTime", "UnsupportedOperation"),
        ("instanceTypeCategory", "UnsupportedOperation"),
        ("Kernel", "InvalidParameterValue"),
    ] {
        assert_eq!(described(NEW, name).await.code(400), code, "{name}");
    }
    cloud.stop().await;
}

/// Operation, version, parameters, the same by SOAP (without the image's id), and the code.
type Refusal<'a> = (
    &'a str,
    &'a str,
    &'a [(&'a str, &'a str)],
    Option<&'a str>,
    &'a str,
);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_in_both_bindings() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let mine = cloud.image(client.account, "mine", false).await.to_string();
    cloud.stranger().await;
    let theirs = cloud.image(account(2), "theirs", true).await.to_string();
    let gone = cloud.image(client.account, "gone", false).await.to_string();
    client
        .ask("DeregisterImage", OLD, &[("ImageId", &gone)])
        .await
        .ok();
    const MODIFY: &str = "ModifyImageAttribute";
    const DESCRIBE: &str = "DescribeImageAttribute";
    const RESET: &str = "ResetImageAttribute";
    const PERMISSION: (&str, &str) = ("Attribute", "launchPermission");
    const ADD: (&str, &str) = ("OperationType", "add");
    const CODES: (&str, &str) = ("Attribute", "productCodes");
    const DESCRIBED: (&str, &str) = ("Attribute", "description");
    let to_all = "<launchPermission><add><item><group>all</group></item></add></launchPermission>";
    let all: &[(&str, &str)] = &[PERMISSION, ADD, ("UserGroup.1", "all")];
    let empty = Some("<launchPermission></launchPermission>");
    // Of images that are not the caller's to change.
    for (id, code) in [
        ("ami-zzzzzzzz", "InvalidAMIID.Malformed"),
        ("ami-00000000", "InvalidAMIID.NotFound"),
        (theirs.as_str(), "AuthFailure"),
        (gone.as_str(), "InvalidAMIID.Unavailable"),
    ] {
        let cases: [Refusal<'_>; 3] = [
            (MODIFY, OLD, all, Some(to_all), code),
            (DESCRIBE, OLD, &[PERMISSION], empty, code),
            (RESET, OLD, &[PERMISSION], empty, code),
        ];
        for case in cases {
            refused(&client, id, case).await;
        }
    }
    let item = "InvalidAMIAttributeItemValue";
    let value = "InvalidParameterValue";
    let combination = "InvalidParameterCombination";
    let unknown = "UnknownParameter";
    let long = "x".repeat(256);
    let by_query = [DESCRIBED, ("Value", long.as_str())];
    let long_by_soap = format!("<description><value>{long}</value></description>");
    let in_list = |inside: &str| format!("<launchPermission>{inside}</launchPermission>");
    let user = |text: &str| in_list(&format!("<add><item><userId>{text}</userId></item></add>"));
    let (short_user, word_user) = (user("4952"), user("all"));
    let other_group = in_list("<remove><item><group>self</group></item></remove>");
    let both = in_list(
        "<add><item><group>all</group></item></add><remove><item><userId>000000000003</userId></item></remove>",
    );
    let two_kinds = format!(
        "{to_all}<productCodes><item><productCode>774F4FF8</productCode></item></productCodes>"
    );
    let code_item = |code: &str| format!("<item><productCode>{code}</productCode></item>");
    let two_codes = format!(
        "<productCodes>{}{}</productCodes>",
        code_item("A"),
        code_item("B")
    );
    let bad_code = format!("<productCodes>{}</productCodes>", code_item("A B"));
    let nobody = in_list("<add></add>");
    let with_text = in_list("text");
    let cases: Vec<Refusal<'_>> = vec![
        (
            MODIFY,
            OLD,
            &[PERMISSION, ADD, ("UserId.1", "4952")],
            Some(&short_user),
            item,
        ),
        (
            MODIFY,
            OLD,
            &[PERMISSION, ADD, ("UserId.1", "all")],
            Some(&word_user),
            item,
        ),
        (
            MODIFY,
            OLD,
            &[
                PERMISSION,
                ("OperationType", "remove"),
                ("UserGroup.1", "self"),
            ],
            Some(&other_group),
            item,
        ),
        (MODIFY, OLD, &[PERMISSION, ADD], Some(&nobody), combination),
        (
            MODIFY,
            OLD,
            &[PERMISSION, ("UserId.1", "495219933132")],
            None,
            "MissingParameter",
        ),
        (
            MODIFY,
            OLD,
            &[PERMISSION, ("OperationType", "set"), ("UserGroup.1", "all")],
            None,
            value,
        ),
        (
            MODIFY,
            NEW,
            &[
                ("LaunchPermission.Add.1.UserId", "000000000005"),
                ("UserId.1", "000000000006"),
            ],
            None,
            "MissingParameter",
        ),
        (
            MODIFY,
            NEW,
            &[
                ("LaunchPermission.Add.1.UserId", "000000000005"),
                ("OperationType", "set"),
            ],
            None,
            value,
        ),
        (
            MODIFY,
            NEW,
            &[
                ("LaunchPermission.Add.1.Group", "all"),
                ("LaunchPermission.Remove.1.Group", "all"),
            ],
            Some(&both),
            combination,
        ),
        (
            MODIFY,
            OLD,
            &[
                PERMISSION,
                ADD,
                ("UserGroup.1", "all"),
                ("ProductCode.1", "774F4FF8"),
            ],
            Some(&two_kinds),
            combination,
        ),
        (
            MODIFY,
            OLD,
            &[CODES, ("ProductCode.1", "A"), ("ProductCode.2", "B")],
            Some(&two_codes),
            item,
        ),
        (
            MODIFY,
            OLD,
            &[CODES, ("ProductCode.1", "A B")],
            Some(&bad_code),
            item,
        ),
        (
            MODIFY,
            OLD,
            &[
                CODES,
                ("OperationType", "remove"),
                ("ProductCode.1", "774F4FF8"),
            ],
            None,
            value,
        ),
        (
            MODIFY,
            OLD,
            &[CODES],
            Some("<productCodes></productCodes>"),
            "MissingParameter",
        ),
        (
            MODIFY,
            OLD,
            &[("UserGroup.1", "all"), ADD],
            Some(""),
            "MissingParameter",
        ),
        (MODIFY, NEW, &[], None, combination),
        (MODIFY, OLD, &[("Attribute", "nonsense"), ADD], None, value),
        (MODIFY, "2006-10-01", &[CODES], None, value),
        (
            MODIFY,
            "2006-10-01",
            &[CODES, ("ProductCode.1", "A")],
            None,
            unknown,
        ),
        (MODIFY, "2009-08-15", &[DESCRIBED], None, value),
        (
            MODIFY,
            "2009-11-30",
            &[("Description.Value", "a")],
            None,
            unknown,
        ),
        (MODIFY, "2009-10-31", &by_query, Some(&long_by_soap), value),
        (
            MODIFY,
            NEW,
            &[("Attribute", "imdsSupport"), ("Value", "v2.0")],
            None,
            "UnsupportedOperation",
        ),
        (
            MODIFY,
            NEW,
            &[("ImdsSupport.Value", "v2.0")],
            None,
            "UnsupportedOperation",
        ),
        (
            MODIFY,
            NEW,
            &[("LaunchPermission.Add.1.OrganizationArn", "arn")],
            None,
            "UnsupportedOperation",
        ),
        (DESCRIBE, OLD, &[("Attribute", "description")], None, value),
        (DESCRIBE, OLD, &[("Attribute", "")], None, value),
        (DESCRIBE, OLD, &[], Some(""), "MissingParameter"),
        (DESCRIBE, OLD, &[PERMISSION], Some(&with_text), value),
        (
            DESCRIBE,
            OLD,
            &[PERMISSION, CODES],
            Some("<launchPermission></launchPermission><productCodes></productCodes>"),
            combination,
        ),
        (
            DESCRIBE,
            OLD,
            &[("Attribute", "kernel")],
            Some("<kernel></kernel>"),
            unknown,
        ),
        (
            RESET,
            OLD,
            &[CODES],
            Some("<productCodes></productCodes>"),
            value,
        ),
        (RESET, OLD, &[("Attribute", "description")], None, value),
        (RESET, OLD, &[], Some(""), "MissingParameter"),
    ];
    for case in cases {
        refused(&client, &mine, case).await;
    }
    assert_eq!(permissions(&client, &mine).await, [""; 0]);
    cloud.stop().await;
}

/// What the two bindings say differently: a choice of SOAP has one name in Query, and an element that the version does not
/// have is an attribute there.
async fn refused(client: &Client, id: &str, case: Refusal<'_>) {
    let (operation, version, parameters, inside, code) = case;
    let pairs = [&[("ImageId", id)], parameters].concat();
    let names: BTreeSet<&str> = pairs.iter().map(|(name, _)| *name).collect();
    let is_elsewhere = match (operation, inside) {
        (_, None) => false,
        ("DescribeImageAttribute", Some(inside)) => {
            inside.contains("text") || inside.contains("<kernel>")
        }
        ("ResetImageAttribute", Some(inside)) => inside.contains("productCodes"),
        _ => false,
    };
    if names.len() == pairs.len() && !is_elsewhere {
        let reply = client.ask(operation, version, &pairs).await;
        let status = if code == "AuthFailure" { 401 } else { 400 };
        assert_eq!(reply.code(status), code, "{operation} {parameters:?}");
    }
    if let Some(inside) = inside {
        let version = if version == NEW {
            "2013-08-15"
        } else {
            version
        };
        let message = format!("<imageId>{id}</imageId>{inside}");
        let reply = client.soap(operation, version, &message).await;
        assert_eq!(reply.status, 500, "{}", reply.text);
        let fault = reply.value("SOAP-ENV:Fault/faultcode");
        // Products cannot be reset: the element is none of the operation's.
        let code = if is_elsewhere && operation == "ResetImageAttribute" {
            "UnknownParameter"
        } else {
            code
        };
        assert_eq!(
            fault,
            Some(format!("Client.{code}")),
            "{operation} {inside}"
        );
    }
}
