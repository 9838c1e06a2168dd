//! The tree, version by version, and the answers that are errors.

use super::*;
use crate::facts::PublicKey;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn facts() -> Facts {
    Facts {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        image: "ami-0123456789abcdef0".parse().unwrap(),
        manifest_path: Some("my-amis/spamd-image.manifest.xml".into()),
        launch_index: 3,
        reservation: "r-0123456789abcdef0".parse().unwrap(),
        local_host_name: "ip-10-210-0-4.ec2.internal".into(),
        public_host_name: "ec2-203-0-113-4.compute-1.amazonaws.com".into(),
        local_ipv4: "10.210.0.4".parse().unwrap(),
        public_ipv4: Some("203.0.113.4".parse().unwrap()),
        mac: "02:c5:0a:d2:00:04".into(),
        instance_type: "m1.small".into(),
        architecture: "x86_64".into(),
        zone: "us-east-1a".into(),
        region: "us-east-1".into(),
        account: "598916040194".parse().unwrap(),
        launched: NOW,
        security_groups: vec!["default".into(), "web".into()],
        public_key: Some(PublicKey {
            name: "my-public-key".into(),
            openssh: "ssh-rsa AAAA".into(),
        }),
        product_codes: vec!["774F4FF8".into()],
        user_data: Some(Bytes::from_static(b"GIF89a\x00\xff\r\n")),
        kernel: Some("aki-0123456789abcdef0".parse().unwrap()),
        ramdisk: None,
        block_devices: vec![
            ("root".into(), "/dev/sda1".into()),
            ("ami".into(), "sda1".into()),
        ],
        services_domain: "amazonaws.com".into(),
        is_enabled: true,
        is_token_required: false,
        hop_limit: 1,
    }
}

fn ask(facts: &Facts, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let asked = Asked {
        method: &method,
        path,
        headers: &map,
    };
    answer(&asked, facts, &TokenKey::new(&[1; 32]), NOW)
}

fn get(path: &str) -> Option<String> {
    let response = ask(&facts(), Method::GET, path, &[]).response;
    match response.status() {
        StatusCode::OK => Some(String::from_utf8_lossy(response.body()).into_owned()),
        StatusCode::NOT_FOUND => None,
        other => panic!("{path}: {other}"),
    }
}

#[test]
fn the_guides_examples_hold() {
    for (path, text) in [
        (
            "/2007-03-01/meta-data/ami-manifest-path",
            "my-amis/spamd-image.manifest.xml",
        ),
        ("/2007-03-01/meta-data/ami-id", "ami-0123456789abcdef0"),
        (
            "/2007-03-01/meta-data/reservation-id",
            "r-0123456789abcdef0",
        ),
        (
            "/2007-03-01/meta-data/hostname",
            "ip-10-210-0-4.ec2.internal",
        ),
        ("/2007-03-01/meta-data/public-keys/", "0=my-public-key"),
        ("/2007-03-01/meta-data/public-keys/0/", "openssh-key"),
        (
            "/2007-03-01/meta-data/public-keys/0/openssh-key",
            "ssh-rsa AAAA my-public-key\n",
        ),
        ("/2007-03-01/meta-data/product-codes", "774F4FF8"),
        ("/1.0/meta-data/ami-launch-index", "3"),
        ("/1.0/meta-data/local-ipv4", "10.210.0.4"),
        ("/1.0/meta-data/security-groups", "default\nweb"),
        ("/2007-01-19/meta-data/public-ipv4", "203.0.113.4"),
        (
            "/latest/meta-data/placement/availability-zone",
            "us-east-1a",
        ),
        ("/latest/meta-data/block-device-mapping/root", "/dev/sda1"),
        ("/latest/meta-data/services/domain", "amazonaws.com"),
    ] {
        assert_eq!(get(path).as_deref(), Some(text), "{path}");
    }
}

#[test]
fn listings_are_exact() {
    assert_eq!(
        get("/2007-03-01/meta-data/").unwrap(),
        "ami-id\nami-launch-index\nami-manifest-path\nhostname\ninstance-id\nlocal-hostname\nlocal-ipv4\n\
         product-codes\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups"
    );
    assert_eq!(get("/latest").unwrap(), "dynamic\nmeta-data\nuser-data");
    assert_eq!(get("/2007-03-01/").unwrap(), "meta-data\nuser-data");
    assert_eq!(
        get("/latest/meta-data/public-keys"),
        get("/latest/meta-data/public-keys/")
    );
    assert_eq!(
        get("/latest/meta-data/network/interfaces/macs/").unwrap(),
        "02:c5:0a:d2:00:04/"
    );
    let root = get("/").unwrap();
    assert!(
        root.starts_with("1.0\n2007-01-19\n2007-03-01\n") && root.ends_with("\n2021-03-23\nlatest")
    );
}

#[test]
fn a_version_shows_only_what_it_had() {
    for (name, before, since) in [
        ("local-hostname", "1.0", "2007-01-19"),
        ("product-codes", "2007-01-19", "2007-03-01"),
        ("instance-type", "2007-03-01", "2007-08-29"),
        ("block-device-mapping/", "2007-10-10", "2007-12-15"),
        ("placement/", "2007-12-15", "2008-02-01"),
        ("kernel-id", "2007-12-15", "2008-02-01"),
        ("network/", "2009-04-04", "2011-01-01"),
        ("services/", "2012-01-12", "2014-02-25"),
    ] {
        for (version, is_shown) in [(before, false), (since, true), ("latest", true)] {
            assert_eq!(
                get(&format!("/{version}/meta-data/{name}")).is_some(),
                is_shown,
                "{version} {name}"
            );
            let listing = get(&format!("/{version}/meta-data/")).unwrap();
            assert_eq!(
                listing.lines().any(|line| line == name),
                is_shown,
                "{version} {name}"
            );
        }
    }
    assert_eq!(get("/2008-09-01/dynamic/instance-identity/document"), None);
    let document: serde_json::Value =
        serde_json::from_str(&get("/2009-04-04/dynamic/instance-identity/document").unwrap())
            .unwrap();
    assert_eq!(document["instanceId"], "i-0123456789abcdef0");
    assert_eq!(document["pendingTime"], "2023-11-14T22:13:20Z");
}

#[test]
fn what_is_not_there_is_not_found() {
    for path in [
        "/2049-01-01/meta-data/",
        "/favicon.ico",
        "/latest/meta-data/instance-id/",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/public-keys/1/openssh-key",
        "/latest/meta-data/../user-data",
        "/latest/api/token",
        "meta-data",
    ] {
        assert_eq!(get(path), None, "{path}");
    }
    let plain = Facts {
        user_data: None,
        public_key: None,
        public_ipv4: None,
        manifest_path: None,
        ..facts()
    };
    for path in [
        "/latest/user-data",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/public-ipv4",
    ] {
        let response = ask(&plain, Method::GET, path, &[]).response;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let response = ask(&plain, Method::GET, "/1.0/meta-data/ami-manifest-path", &[]).response;
    assert_eq!(response.body(), "(unknown)");
}

#[test]
fn user_data_goes_out_as_it_came_in() {
    for (version, kind) in [
        ("1.0", "application/x-octetstream"),
        ("2007-03-01", "application/x-octetstream"),
        ("latest", "application/octet-stream"),
    ] {
        let response = ask(&facts(), Method::GET, &format!("/{version}/user-data"), &[]).response;
        assert_eq!(response.headers()[header::CONTENT_TYPE], kind);
        assert_eq!(response.body(), &b"GIF89a\x00\xff\r\n"[..]);
    }
}

#[test]
fn tokens_are_issued_within_limits() {
    let put =
        |path: &str, headers: &[(&'static str, &str)]| ask(&facts(), Method::PUT, path, headers);
    let path = "/latest/api/token";
    let good = put(path, &[(TOKEN_TTL, "21600")]);
    assert_eq!(good.response.status(), StatusCode::OK);
    assert_eq!(good.response.headers()[TOKEN_TTL], "21600");
    assert!(good.has_token);
    let status = |path: &str, headers: &[(&'static str, &str)]| {
        let answer = put(path, headers);
        assert!(!answer.has_token);
        answer.response.status().as_u16()
    };
    for bad in ["0", "21601", "-1", "+1", "", "x", "99999999999"] {
        assert_eq!(status(path, &[(TOKEN_TTL, bad)]), 400, "{bad}");
    }
    assert_eq!(status(path, &[]), 400);
    assert_eq!(
        status(path, &[(TOKEN_TTL, "60"), (FORWARDED, "10.0.0.1")]),
        403
    );
    assert_eq!(status("/latest/meta-data/", &[(TOKEN_TTL, "60")]), 405);
    for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
        assert_eq!(
            ask(&facts(), method, "/latest/meta-data/", &[])
                .response
                .status(),
            405
        );
    }
}

#[test]
fn required_tokens_are_required() {
    let strict = Facts {
        is_token_required: true,
        ..facts()
    };
    let token = ask(
        &strict,
        Method::PUT,
        "/latest/api/token",
        &[(TOKEN_TTL, "60")],
    );
    let token = String::from_utf8(token.response.body().to_vec()).unwrap();
    let status = |facts: &Facts, headers: &[(&'static str, &str)]| {
        ask(facts, Method::GET, "/latest/meta-data/ami-id", headers)
            .response
            .status()
            .as_u16()
    };
    assert_eq!(status(&strict, &[]), 401);
    assert_eq!(status(&strict, &[(TOKEN, &token)]), 200);
    assert_eq!(status(&strict, &[(TOKEN, "nonsense")]), 401);
    assert_eq!(
        status(&facts(), &[(TOKEN, "nonsense")]),
        401,
        "also where none is required"
    );
    let other = Facts {
        instance: "i-0123456789abcdef1".parse().unwrap(),
        ..strict
    };
    assert_eq!(status(&other, &[(TOKEN, &token)]), 401);
    let off = Facts {
        is_enabled: false,
        ..facts()
    };
    assert_eq!(status(&off, &[]), 403);
    assert_eq!(
        ask(&off, Method::PUT, "/latest/api/token", &[(TOKEN_TTL, "60")])
            .response
            .status(),
        403
    );
}
