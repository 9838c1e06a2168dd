//! What guests send: DHCP, DNS, requests to the metadata service.

use std::net::Ipv4Addr;

use cumulet_domain::Timestamp;
use cumulet_door_metadata::{Facts, PublicKey, TokenKey, fuzzing as metadata};
use cumulet_host::net::fuzzing;

use super::{Runner, Target, request};
use crate::harness::shape;

pub(crate) static DHCP: Target = Target {
    name: "dhcp",
    dictionary: &[
        &[0x63, 0x82, 0x53, 0x63],
        &[53, 1, 1],
        &[53, 1, 3],
        &[53, 1, 8],
        &[50, 4, 10, 1, 0, 4],
        &[54, 4, 10, 1, 0, 1],
        &[55, 4, 1, 3, 6, 15],
        &[82, 255],
        &[255],
        &[2, 0xc5, 10, 1, 0, 4],
    ],
    length_max: 4096,
    prepare: prepare_dhcp,
};

pub(crate) static DNS: Target = Target {
    name: "dns",
    dictionary: &[
        b"\x03ec2\x08internal\0",
        b"\x0bip-10-1-0-4",
        b"\x07in-addr\x04arpa\0",
        b"\xc0\x0c",
        b"\x3f",
        b"\0\x01\0\x01",
        b"\0\x0c\0\x01",
        b"\0\xff\0\xff",
    ],
    length_max: 4096,
    prepare: prepare_dns,
};

pub(crate) static METADATA: Target = Target {
    name: "metadata",
    dictionary: &[
        b"/",
        b"//",
        b"/latest",
        b"/2007-03-01",
        b"/1.0",
        b"/meta-data/",
        b"/user-data",
        b"/dynamic/instance-identity/document",
        b"public-keys/0/openssh-key",
        b"/api/token",
        b"GET ",
        b"PUT ",
        b"HEAD ",
        b"\nx-aws-ec2-metadata-token: ",
        b"\nx-aws-ec2-metadata-token-ttl-seconds: ",
        b"\nx-forwarded-for: ",
        b"%2e%2e",
        b"?",
        b"=my-key",
    ],
    length_max: 8192,
    prepare: prepare_metadata,
};

fn prepare_dhcp() -> Runner {
    Box::new(|packet| match fuzzing::dhcp(packet) {
        None => 1,
        Some(reply) => {
            assert!((300..=1_472).contains(&reply.len()), "{}", reply.len());
            assert_eq!(reply[4..8], packet[4..8], "another transaction");
            let kind = reply.get(242).copied().unwrap_or_default();
            u64::from(kind) << 32 | u64::try_from(reply.len()).unwrap_or_default()
        }
    })
}

fn prepare_dns() -> Runner {
    Box::new(|message| match fuzzing::dns(message) {
        None => 1,
        Some(answer) => {
            assert_eq!(answer[..2], message[..2], "another question");
            assert!(answer[2] & 0x80 != 0, "a question");
            assert!(answer.len() <= message.len() + 512);
            shape(&format!("{}", char::from(b'a' + (answer[3] & 15)))) ^ u64::from(answer[7])
        }
    })
}

fn prepare_metadata() -> Runner {
    let facts = facts();
    let key = TokenKey::new(&[7; 32]);
    Box::new(move |input| {
        let Some(request) = request::read(input) else {
            return 1;
        };
        let mut answer = String::new();
        for is_token_required in [false, true] {
            let facts = Facts {
                is_token_required,
                ..facts.clone()
            };
            let path = request.uri().path();
            let response = metadata::answer(
                request.method(),
                path,
                request.headers(),
                &facts,
                &key,
                Timestamp(1),
            );
            let is_read = *request.method() != http::Method::PUT && response.status() == 200;
            assert!(!(is_read && is_token_required), "read without a token");
            answer.push_str(response.status().as_str());
            answer.push_str(&String::from_utf8_lossy(response.body()));
        }
        // Numbers tell versions and statuses apart here.
        let letters = answer.bytes().map(|byte| {
            char::from(if byte.is_ascii_digit() {
                byte + 64
            } else {
                byte
            })
        });
        shape(&letters.collect::<String>())
    })
}

fn facts() -> Facts {
    Facts {
        instance: "i-0123456789abcdef0".parse().expect("an id"),
        image: "ami-0123456789abcdef0".parse().expect("an id"),
        manifest_path: Some("images/image.manifest.xml".into()),
        launch_index: 0,
        reservation: "r-0123456789abcdef0".parse().expect("an id"),
        local_host_name: "ip-10-1-0-4.ec2.internal".into(),
        public_host_name: String::new(),
        local_ipv4: Ipv4Addr::new(10, 1, 0, 4),
        public_ipv4: None,
        mac: "02:c5:0a:01:00:04".into(),
        instance_type: "m1.small".into(),
        architecture: "x86_64".into(),
        zone: "us-east-1a".into(),
        region: "us-east-1".into(),
        account: "123456789012".parse().expect("an account"),
        launched: Timestamp(0),
        security_groups: vec!["default".into()],
        public_key: Some(PublicKey {
            name: "my-key".into(),
            openssh: "ssh-rsa AAAA".into(),
        }),
        product_codes: vec![],
        user_data: Some(bytes::Bytes::from_static(b"\0\xffdata")),
        kernel: None,
        ramdisk: None,
        block_devices: vec![("ami".into(), "sda1".into())],
        services_domain: "amazonaws.com".into(),
        is_enabled: true,
        is_token_required: false,
        hop_limit: 1,
    }
}
