//! A text that was signed with version 1 is taken when it has one reading, and only then.

use std::collections::BTreeSet;

use cumulet_ec2_model::readings::{Unclear, others};
use cumulet_ec2_model::request::check;
use cumulet_wire::query::Params;
use proptest::prelude::*;

const KEY: &str = "10QMXFEV71ZS32XQFTR2";

/// A request of 2007 with its common parameters.
fn request(action: &str, pairs: &[(&str, &str)]) -> Params {
    let common = [
        ("Action", action),
        ("AWSAccessKeyId", KEY),
        ("SignatureVersion", "1"),
        ("Timestamp", "2006-12-08T07:48:03Z"),
        ("Version", "2007-03-01"),
    ];
    let mut params = Params::default();
    for (name, value) in common.iter().chain(pairs) {
        params.insert((*name).into(), (*value).into()).unwrap();
    }
    params
}

/// What version 1 signs.
fn signed(params: &Params) -> String {
    let mut pairs: Vec<(&str, &str)> = params.iter().collect();
    pairs.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    let texts = pairs.into_iter().flat_map(|(name, value)| [name, value]);
    texts.collect()
}

fn verdict(action: &str, pairs: &[(&str, &str)]) -> Result<(), Unclear> {
    let params = request(action, pairs);
    others(&signed(&params), &params)
}

const IMAGE: (&str, &str) = ("ImageId", "ami-60a54009");
const RUN: [(&str, &str); 3] = [IMAGE, ("MaxCount", "1"), ("MinCount", "1")];

fn run_with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&RUN[..], more].concat()
}

#[test]
fn what_clients_of_2007_sent_has_one_reading() {
    let one = "i-2ea64347";
    let two = [("InstanceId.1", one), ("InstanceId.2", "i-21a64348")];
    let images = [("ImageId.1", "ami-61a54008"), ("ImageId.2", "ami-72a53012")];
    let owners = [
        ("Owner.1", "self"),
        ("Owner.2", "495219933132"),
        ("ExecutableBy.1", "all"),
        ("ExecutableBy.2", "111122223333"),
    ];
    let named = run_with(&[
        ("KeyName", "MyKey 1"),
        ("SecurityGroup.1", "1"),
        ("UserData", "VGhpcyBpcyBiYXNlIDY0IQ=="),
        ("AddressingType", "public"),
    ]);
    let image = |more: &[(&'static str, &'static str)]| [&[IMAGE][..], more].concat();
    let permission = [
        ("Attribute", "launchPermission"),
        ("OperationType", "add"),
        ("UserId.1", "495219933132"),
        ("UserId.2", "111122223333"),
        ("UserGroup.1", "all"),
    ];
    let product = [("Attribute", "productCodes"), ("ProductCode.1", "774F4FF8")];
    let cases: &[(&str, &[(&str, &str)])] = &[
        (
            "RegisterImage",
            &[("ImageLocation", "mybucket/myimage.manifest.xml")],
        ),
        ("DescribeImages", &[]),
        ("DescribeImages", &images),
        ("DescribeImages", &owners),
        ("DeregisterImage", &[IMAGE]),
        ("ModifyImageAttribute", &image(&permission)),
        ("ModifyImageAttribute", &image(&product)),
        ("DescribeImageAttribute", &image(&product[..1])),
        ("ResetImageAttribute", &image(&permission[..1])),
        ("RunInstances", &RUN),
        ("RunInstances", &named),
        ("DescribeInstances", &two),
        ("TerminateInstances", &two),
        ("RebootInstances", &two),
        ("GetConsoleOutput", &[("InstanceId", one)]),
        ("GetConsoleOutput", &[("InstanceId.1", one)]),
        ("CreateKeyPair", &[("KeyName", "example-key-name")]),
        ("DescribeKeyPairs", &[("KeyName.1", "2007")]),
        ("DeleteKeyPair", &[("KeyName", "example-key-name")]),
    ];
    for (action, pairs) in cases {
        assert_eq!(verdict(action, pairs), Ok(()), "{action} {pairs:?}");
    }
}

/// boto of 2008 named type and zone, and one group.
#[test]
fn what_clients_of_2008_sent_has_one_reading() {
    let of = |zone: &str| {
        let mut params = Params::default();
        let common = request("RunInstances", &RUN);
        for (name, value) in common.iter().filter(|(name, _)| *name != "Version") {
            params.insert(name.into(), value.into()).unwrap();
        }
        for (name, value) in [
            ("Version", "2008-02-01"),
            ("InstanceType", "m1.small"),
            ("KeyName", "Mine"),
            ("Placement.AvailabilityZone", zone),
            ("SecurityGroup.1", "Web"),
        ] {
            params.insert(name.into(), value.into()).unwrap();
        }
        others(&signed(&params), &params)
    };
    assert_eq!(of("us-east-1a"), Ok(()));
    assert_eq!(of("RegionOne"), Err(Unclear::Capitals));
}

/// Pairs of requests that are signed alike: neither is taken, whichever was meant.
#[test]
fn requests_that_are_signed_alike_are_both_refused() {
    let taken_over = [
        IMAGE,
        ("KeyName", "a"),
        ("MaxCount", "20"),
        ("MinCount", "20"),
        ("SecurityGroup.1", "bMaxCount1MinCount1"),
    ];
    let cases = [
        (
            "DescribeKeyPairs",
            vec![("KeyName.1", "a"), ("KeyName.2", "b")],
            vec![("KeyName.1", "aKeyName.2b")],
        ),
        (
            "RunInstances",
            run_with(&[("SecurityGroup.1", "default"), ("SecurityGroup.2", "web")]),
            run_with(&[("SecurityGroup.1", "defaultSecurityGroup.2web")]),
        ),
        (
            "RunInstances",
            run_with(&[("KeyName", "aMaxCount20MinCount20SecurityGroup.1b")]),
            taken_over.to_vec(),
        ),
    ];
    for (action, one, other) in cases {
        let (first, second) = (request(action, &one), request(action, &other));
        assert_eq!(signed(&first), signed(&second), "{action}");
        for params in [&first, &second] {
            assert!(check(params).is_ok(), "{params:?}");
            let verdict = others(&signed(params), params);
            assert_eq!(verdict, Err(Unclear::Others), "{params:?}");
        }
    }
}

/// Permissions take the name of a protocol in capital letters too: it is a reading however it is written.
#[test]
fn protocols_are_read_however_they_are_written() {
    let source = [
        ("SourceSecurityGroupName", "s"),
        ("SourceSecurityGroupOwnerId", "111122223333"),
    ];
    for protocol in ["tcp", "TCP", "Udp", "017", "-1"] {
        let swallowed = format!("aIpProtocol{protocol}");
        let apart = [("GroupName", "a"), ("IpProtocol", protocol)];
        let whole = [("GroupName", swallowed.as_str())];
        let apart = request(
            "AuthorizeSecurityGroupIngress",
            &[&apart[..], &source].concat(),
        );
        let whole = request(
            "AuthorizeSecurityGroupIngress",
            &[&whole[..], &source].concat(),
        );
        assert_eq!(signed(&apart), signed(&whole));
        for params in [&apart, &whole] {
            let verdict = others(&signed(params), params);
            assert_eq!(verdict, Err(Unclear::Others), "{params:?}");
        }
        // With ports and a network there is one reading: what follows is no part of a protocol.
        let network = [
            ("CidrIp", "0.0.0.0/0"),
            ("FromPort", "80"),
            ("GroupName", "web"),
            ("IpProtocol", protocol),
            ("ToPort", "80"),
        ];
        let verdict = verdict("AuthorizeSecurityGroupIngress", &network);
        assert_eq!(verdict, Ok(()), "{protocol}");
    }
}

/// Clients of 2008 name the devices of the disk, which hold no capital letters.
#[test]
fn devices_that_are_named_have_one_reading() {
    let mut params = Params::default();
    let run = request("RunInstances", &RUN);
    for (name, value) in run.iter().filter(|(name, _)| *name != "Version") {
        params.insert(name.into(), value.into()).unwrap();
    }
    for (name, value) in [
        ("Version", "2008-02-01"),
        ("BlockDeviceMapping.1.DeviceName", "sda2"),
        ("BlockDeviceMapping.1.VirtualName", "ephemeral0"),
        ("BlockDeviceMapping.2.DeviceName", "/dev/sda3"),
        ("BlockDeviceMapping.2.VirtualName", "swap"),
    ] {
        params.insert(name.into(), value.into()).unwrap();
    }
    assert!(check(&params).is_ok());
    assert_eq!(others(&signed(&params), &params), Ok(()));
}

/// Base64 is read without the characters that are not of its alphabet, so that it may hold names.
#[test]
fn base64_can_hold_anything() {
    let import = |name: &str, material: &str| {
        let mut params = Params::default();
        let common = request("ImportKeyPair", &[]);
        for (name, value) in common.iter().filter(|(name, _)| *name != "Version") {
            params.insert(name.into(), value.into()).unwrap();
        }
        for (name, value) in [
            ("Version", "2010-08-31"),
            ("KeyName", name),
            ("PublicKeyMaterial", material),
        ] {
            params.insert(name.into(), value.into()).unwrap();
        }
        params
    };
    let one = import("k", "AA.AAPublicKeyMaterialBBBB");
    let other = import("kPublicKeyMaterialAA.AA", "BBBB");
    assert_eq!(signed(&one), signed(&other));
    for params in [&one, &other] {
        assert!(check(params).is_ok());
        assert_eq!(others(&signed(params), params), Err(Unclear::Others));
    }
}

/// The same in another version.
fn request_of(version: &str, action: &str, pairs: &[(&str, &str)]) -> Params {
    let mut params = Params::default();
    let common = request(action, pairs);
    for (name, value) in common.iter().filter(|(name, _)| *name != "Version") {
        params.insert(name.into(), value.into()).unwrap();
    }
    params.insert("Version".into(), version.into()).unwrap();
    params
}

/// What may be left empty is a reading when it is empty, too.
#[test]
fn an_empty_kernel_is_a_reading() {
    let run = |pairs: &[(&str, &str)]| {
        let counts = [("MaxCount", "1"), ("MinCount", "1")];
        request_of("2010-08-31", "RunInstances", &[&counts[..], pairs].concat())
    };
    let alone = run(&[IMAGE, ("KernelId", ""), ("KeyName", "k")]);
    assert_eq!(others(&signed(&alone), &alone), Ok(()));
    let apart = run(&[
        ("ClientToken", "a"),
        IMAGE,
        ("KernelId", ""),
        ("KeyName", "kImageIdami-61a54008"),
    ]);
    let whole = run(&[
        ("ClientToken", "aImageIdami-60a54009KernelIdKeyNamek"),
        ("ImageId", "ami-61a54008"),
    ]);
    assert_eq!(signed(&apart), signed(&whole));
    for params in [&apart, &whole] {
        assert!(check(params).is_ok());
        assert_eq!(others(&signed(params), params), Err(Unclear::Others));
    }
}

/// Aliases of accounts begin with a letter and may go on with digits.
#[test]
fn aliases_with_digits_are_readings() {
    let of = |pairs: &[(&str, &str)]| request_of("2016-11-15", "DescribeImages", pairs);
    let alone = of(&[("Owner.1", "team1"), ("Owner.2", "495219933132")]);
    assert_eq!(others(&signed(&alone), &alone), Ok(()));
    let apart = of(&[("NextToken", "a"), ("Owner.1", "team1")]);
    let whole = of(&[("NextToken", "aOwner.1team1")]);
    assert_eq!(signed(&apart), signed(&whole));
    for params in [&apart, &whole] {
        assert!(check(params).is_ok());
        assert_eq!(others(&signed(params), params), Err(Unclear::Others));
    }
}

/// From 2011-01-01 on the owner of a group may be left out: with and without are two readings.
#[test]
fn a_group_without_its_owner_is_a_reading() {
    let group = ("GroupName", "web");
    let swallowed = "aSourceSecurityGroupOwnerId111122223333";
    let whole = [group, ("SourceSecurityGroupName", swallowed)];
    let apart = [
        group,
        ("SourceSecurityGroupName", "a"),
        ("SourceSecurityGroupOwnerId", "111122223333"),
    ];
    for (version, expected) in [("2010-11-15", Ok(())), ("2011-01-01", Err(Unclear::Others))] {
        let of =
            |pairs: &[(&str, &str)]| request_of(version, "AuthorizeSecurityGroupIngress", pairs);
        let (whole, apart) = (of(&whole), of(&apart));
        assert_eq!(signed(&whole), signed(&apart));
        assert!(check(&whole).is_ok() && check(&apart).is_ok());
        assert_eq!(others(&signed(&apart), &apart), expected, "{version}");
    }
}

/// What an attacker sends who has seen a good request.
#[test]
fn forgeries_of_a_good_request_are_refused() {
    // Two ids made one value.
    let two = [
        ("InstanceId.1", "i-2ea64347"),
        ("InstanceId.2", "i-21a64348"),
    ];
    let good = request("TerminateInstances", &two);
    let one = [("InstanceId.1", "i-2ea64347InstanceId.2i-21a64348")];
    let forged = request("TerminateInstances", &one);
    assert_eq!(signed(&good), signed(&forged));
    assert_eq!(others(&signed(&good), &good), Ok(()));
    assert_eq!(others(&signed(&forged), &forged), Err(Unclear::Others));

    // The number of a list takes digits of its value.
    let good = request("DescribeKeyPairs", &[("KeyName.1", "2007")]);
    for (name, value) in [
        ("KeyName.12", "007"),
        ("KeyName.120", "07"),
        ("KeyName.1200", "7"),
    ] {
        let forged = request("DescribeKeyPairs", &[(name, value)]);
        assert_eq!(signed(&good), signed(&forged));
        assert_eq!(others(&signed(&forged), &forged), Err(Unclear::Gaps));
    }

    // A boundary of what every request has is moved.
    let good = request("DescribeInstances", &[("InstanceId.1", "i-28a64341")]);
    let text = signed(&good);
    for (moved, name, value) in [
        ("Action", "ActionDescribe", "Instances"),
        ("Timestamp", "Timestamp2006-12-08", "T07:48:03Z"),
        ("Version", "Version2007", "-03-01"),
        ("InstanceId.1", "InstanceId.1i-", "28a64341"),
    ] {
        let mut forged = Params::default();
        for (old_name, old_value) in good.iter() {
            let is_moved = old_name == moved;
            let pair = if is_moved {
                (name, value)
            } else {
                (old_name, old_value)
            };
            forged.insert(pair.0.into(), pair.1.into()).unwrap();
        }
        assert_eq!(signed(&forged), text);
        let is_refused = others(&text, &forged).is_err() || check(&forged).is_err();
        assert!(is_refused, "{forged:?}");
    }
}

#[test]
fn lists_are_counted() {
    let ids = ["i-00000000", "i-00000001", "i-00000002"];
    for (indexes, expected) in [
        (["1", "2", "3"], Ok(())),
        (["0", "1", "2"], Ok(())),
        (["1", "2", "4"], Err(Unclear::Gaps)),
        (["2", "3", "4"], Err(Unclear::Gaps)),
        (["01", "2", "3"], Err(Unclear::Gaps)),
    ] {
        let names = indexes.map(|index| format!("InstanceId.{index}"));
        let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(ids).collect();
        assert_eq!(verdict("TerminateInstances", &pairs), expected, "{names:?}");
    }
    // Many ids, in the order of texts: 1, 10, 100, 11, 12 …
    let many: Vec<(String, String)> = (1..=1_200)
        .map(|index| (format!("InstanceId.{index}"), format!("i-{index:08x}")))
        .collect();
    let pairs = many.iter().map(|(name, id)| (name.as_str(), id.as_str()));
    let pairs: Vec<(&str, &str)> = pairs.collect();
    assert_eq!(verdict("TerminateInstances", &pairs), Ok(()));
}

/// Texts that were made to be slow are refused by limits, which are counted and not timed.
#[test]
fn hostile_texts_are_bounded() {
    let of = |name: &str, value: &str| verdict("DescribeKeyPairs", &[(name, value)]);
    let names = "KeyName.1aKeyName.2b".repeat(3_000);
    assert_eq!(of("KeyName.1", &names), Err(Unclear::TooLong));
    let long = "x".repeat(200 * 1024);
    assert_eq!(of("KeyName.1", &long), Err(Unclear::TooLong));
    let versions: Vec<String> = cumulet_ec2_model::Version::all()
        .map(|version| format!("Version{version}"))
        .collect();
    assert_eq!(of("KeyName.1", &versions.concat()), Err(Unclear::TooLong));

    let user_data = "UserData".repeat(1_500);
    let run = run_with(&[("UserData", &user_data)]);
    assert_eq!(verdict("RunInstances", &run), Ok(()));
    // As many places as there may be, most of which can follow each other.
    let items: Vec<String> = (1..=500).map(|index| format!("KeyName.{index}")).collect();
    let pairs: Vec<(&str, &str)> = items.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(verdict("DescribeKeyPairs", &pairs), Err(Unclear::Others));
}

type Pairs = Vec<(String, String)>;

/// Every cut of a text into names and values, the slow way: at each name that could follow.
fn cuts(text: &str, names: &[&str]) -> Vec<Pairs> {
    let mut out = vec![];
    if text.is_empty() {
        return vec![vec![]];
    }
    for name in names.iter().filter(|name| text.starts_with(**name)) {
        let rest = &text[name.len()..];
        for end in 0..=rest.len() {
            for mut following in cuts(&rest[end..], names) {
                following.insert(0, ((*name).to_owned(), rest[..end].to_owned()));
                out.push(following);
            }
        }
    }
    out
}

const NAMES: &[&str] = &[
    "KeyName",
    "MaxCount",
    "MinCount",
    "SecurityGroup.1",
    "SecurityGroup.2",
    "UserData",
];

fn value() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "KeyName",
        "MaxCount1",
        "MinCount1",
        "SecurityGroup.1",
        "SecurityGroup.2",
        "a",
        "1",
    ]);
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Against a search that knows nothing of forms, orders and needs, but asks `check`.
    #[test]
    fn a_request_with_another_reading_is_never_taken(
        key in value(),
        groups in prop::collection::vec(value(), 0..3),
    ) {
        let names = ["SecurityGroup.1", "SecurityGroup.2"];
        let mut pairs = run_with(&[("KeyName", &key)]);
        pairs.extend(names.iter().copied().zip(groups.iter().map(String::as_str)));
        let params = request("RunInstances", &pairs);
        let whole = signed(&params);
        // The ends are fixed by exact values; what lies between is cut in every way.
        let start = whole.find(IMAGE.1).unwrap() + IMAGE.1.len();
        let end = whole.rfind("SignatureVersion1").unwrap();
        let mut readings = 0;
        for cut in cuts(&whole[start..end], NAMES) {
            let names: BTreeSet<&str> = cut.iter().map(|(name, _)| name.as_str()).collect();
            if names.len() < cut.len() {
                continue;
            }
            let pairs = cut.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let other = request("RunInstances", &[IMAGE].into_iter().chain(pairs).collect::<Vec<_>>());
            let is_counted = names.contains("SecurityGroup.1") || !names.contains("SecurityGroup.2");
            if signed(&other) == whole && check(&other).is_ok() && is_counted {
                readings += 1;
            }
        }
        prop_assert!(readings >= 1, "{whole}");
        let expected = if readings > 1 { Err(Unclear::Others) } else { Ok(()) };
        prop_assert_eq!(others(&whole, &params), expected, "{}", whole);
    }

    #[test]
    fn any_text_is_settled(
        text in "(Action|RunInstances|Version|2007-03-01|KeyName|[.0-9a-z]|SecurityGroup\\.1|é){0,60}"
    ) {
        let params = request("RunInstances", &[("KeyName", &text)]);
        let _ = others(&signed(&params), &params);
        let _ = others(&text, &params);
    }
}
