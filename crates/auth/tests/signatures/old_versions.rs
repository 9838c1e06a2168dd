//! Versions 0 and 1 of signatures: what they cover, the times that clients sent, who may use them.

use cumulet_auth::sign::{v0_signature, v1_signature};

use super::*;

/// A request of 2006: its parameters, signed with version 0 or 1.
pub(super) fn old(version: u8, pairs: &str) -> Owned {
    let mut query = format!("{pairs}&AWSAccessKeyId=AKIDEXAMPLE&SignatureVersion={version}");
    let params = Params::parse(Some(&query), None).unwrap();
    let get = |name: &str| params.get(name).unwrap_or_default().to_owned();
    let action = get("Action") + &get("Operation");
    let signature = match version {
        0 => v0_signature(SECRET, &action, &(get("Timestamp") + &get("Expires"))),
        _ => v1_signature(SECRET, &params),
    };
    let signature = cumulet_wire::query::encode(&signature);
    query.push_str(&format!("&Signature={signature}"));
    Owned {
        query: Some(query),
        headers: HeaderMap::new(),
        body: vec![],
        method: Method::GET,
        ..v4("ec2", "us-east-1", "cloud:8773")
    }
}

pub(super) fn only(version: u8) -> &'static [u8] {
    &[0, 1][usize::from(version)..=usize::from(version)]
}

pub(super) const AT: &str = "Timestamp=2026-11-21T07%3A00%3A00Z";

#[test]
fn old_versions_take_the_times_that_clients_sent() {
    for version in [0, 1] {
        for time in [
            "Timestamp=2026-11-21T07%3A00%3A00Z",
            "Timestamp=2026-11-21T07%3A00%3A00",
            "Timestamp=2026-11-21T07:00:00.000Z",
            "Timestamp=2026-11-21T06:46:00Z",
            "Timestamp=2026-11-21T07:14:00Z",
            "Timestamp=2026-11-21T09%3A00%3A00%2B02%3A00",
            "Expires=2026-11-21T07%3A00%3A01Z",
            "Expires=2027-11-21T07%3A00%3A01.500Z",
            "Expires=2026-11-21T07%3A00%3A01",
        ] {
            for action in ["Action", "Operation"] {
                let request = old(version, &format!("{action}=DescribeImages&{time}"));
                let verified = request.verify(only(version));
                assert_eq!(
                    verified.map(|it| it.version),
                    Ok(version),
                    "{action}, {time}"
                );
            }
        }
    }
}

#[test]
fn old_versions_refuse_other_times() {
    let code = |version: u8, times: &str| {
        let request = old(version, &format!("Action=DescribeImages{times}"));
        request
            .verify(only(version))
            .unwrap_err()
            .refusal(Profile::Ec2)
            .code
    };
    for version in [0, 1] {
        for (times, expected) in [
            ("", "MissingParameter"),
            ("&Timestamp=2026-11-21T06:44:59Z", "RequestExpired"),
            ("&Timestamp=2026-11-21T07:15:01Z", "RequestExpired"),
            ("&Expires=2026-11-21T06:59:59Z", "RequestExpired"),
            (
                "&Expires=2026-11-21T07:00:01Z&Timestamp=2026-11-21T07:00:00Z",
                "InvalidParameterCombination",
            ),
            ("&Timestamp=yesterday", "InvalidParameterValue"),
            ("&Expires=", "InvalidParameterValue"),
            ("&Expires=2027-11-21T07:00:01Z%20", "InvalidParameterValue"),
            ("&Timestamp=2026-11-21", "InvalidParameterValue"),
        ] {
            assert_eq!(code(version, times), expected, "{times}");
        }
    }
}

/// What version 0 leaves open is documented; what it signs holds.
#[test]
fn old_versions_cover_what_they_sign() {
    let good = old(0, &format!("Action=DescribeImages&{AT}&Owner.1=self"));
    assert!(good.verify(&[0]).is_ok());
    let changed = |from: &str, to: &str| Owned {
        query: good.query.as_ref().map(|query| query.replace(from, to)),
        ..good.clone()
    };
    assert!(
        changed("self", "amazon").verify(&[0]).is_ok(),
        "a parameter that version 0 does not sign"
    );
    let mismatch = Err(AuthError::Mismatch { version: 0 });
    assert_eq!(
        changed("DescribeImages", "DescribeInstances").verify(&[0]),
        mismatch
    );
    assert_eq!(changed("07%3A00", "07%3A01").verify(&[0]), mismatch);

    let good = old(1, &format!("Action=DescribeImages&{AT}&Owner.1=self"));
    for (from, to) in [
        ("self", "amazon"),
        ("Owner.1", "Owner.2"),
        ("07%3A00", "07%3A01"),
    ] {
        let other = Owned {
            query: good.query.as_ref().map(|query| query.replace(from, to)),
            ..good.clone()
        };
        assert_eq!(
            other.verify(&[1]),
            Err(AuthError::Mismatch { version: 1 }),
            "{to}"
        );
    }
}

#[test]
fn a_text_of_two_readings_is_refused_after_its_signature() {
    let two = old(1, &format!("Action=DescribeImages&{AT}&Owner.1=PAIR"));
    let error = two.verify(&[1]).unwrap_err();
    assert_eq!(error, AuthError::Ambiguous("there are two".into()));
    assert_eq!(error.refusal(Profile::Ec2).code, "AuthFailure");
    let forged = Owned {
        query: two
            .query
            .as_ref()
            .map(|query| query.replace("PAIR", "PAIRS")),
        ..two
    };
    assert_eq!(forged.verify(&[1]), Err(AuthError::Mismatch { version: 1 }));
}

#[test]
fn old_versions_are_taken_where_a_key_and_a_service_allow_them() {
    for version in [0, 1] {
        let good = old(version, &format!("Action=DescribeImages&{AT}"));
        let error = good.verify(&[2, 4]).unwrap_err();
        assert_eq!(error, AuthError::VersionNotAllowed(version));
        let message = error.refusal(Profile::Ec2).message;
        let setting = format!("cumulet key create USER --signature-versions {version},2,4");
        assert!(message.contains(&setting), "{message}");
        let policy = QueryPolicy {
            readings: None,
            ..EC2
        };
        assert!(matches!(
            good.verify_as(only(version), &policy),
            Err(AuthError::Malformed(_))
        ));
        for later in [
            "SignatureMethod=HmacSHA256",
            "SignatureMethod=HmacSHA1",
            "X-Amz-Date=20261121T070000Z",
        ] {
            let odd = old(version, &format!("Action=DescribeImages&{AT}&{later}"));
            let error = odd.verify(only(version)).unwrap_err();
            assert!(matches!(error, AuthError::Malformed(_)), "{error:?}");
        }
    }
}

/// `ImageId.10` comes before `ImageId.2`, and capital letters count as small ones.
#[test]
fn names_are_sorted_without_regard_to_case() {
    let pairs = format!("Version=2007-03-01&ImageId.2=b&ImageId.10=c&ImageId.1=a&{AT}&Action=X");
    let request = old(1, &pairs);
    let text = "ActionXAWSAccessKeyIdAKIDEXAMPLEImageId.1aImageId.10cImageId.2bSignatureVersion1\
                Timestamp2026-11-21T07:00:00ZVersion2007-03-01";
    let key = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        SECRET.as_bytes(),
    );
    let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
    let signature = cumulet_wire::query::encode(&cumulet_wire::base64::encode(tag.as_ref()));
    assert!(
        request
            .query
            .as_ref()
            .unwrap()
            .ends_with(&format!("&Signature={signature}"))
    );
    assert!(request.verify(&[1]).is_ok());
}
