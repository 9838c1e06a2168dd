//! Public keys and certificates that users hand in.

use cumulet_auth::{certificates, public_keys};

use super::{Runner, Target};
use crate::harness::shape;

pub(crate) static KEYS: Target = Target {
    name: "keys",
    dictionary: &[
        b"ssh-rsa ",
        b"ssh-ed25519 ",
        b"ecdsa-sha2-nistp256 ",
        b"AAAAB3NzaC1yc2E",
        b"AAAAC3NzaC1lZDI1NTE5",
        b"-----BEGIN PUBLIC KEY-----\n",
        b"\n-----END PUBLIC KEY-----",
        b"-----BEGIN CERTIFICATE-----\n",
        b"\n-----END CERTIFICATE-----\n",
        b"---- BEGIN SSH2 PUBLIC KEY ----\n",
        b"\n---- END SSH2 PUBLIC KEY ----",
        b"Comment: x\n",
        b"MII",
        b"AQAB",
        b"////",
        b"\n",
        b"=",
    ],
    length_max: 20 * 1024,
    prepare,
};

/// The text as it is, and with its middle as base64 of what the input holds after a first `\0`.
fn prepare() -> Runner {
    Box::new(|input| {
        let given = input.split_first().filter(|(first, _)| **first == 0);
        let texts = match given {
            None => vec![input.to_vec()],
            Some((_, der)) => {
                let body = cumulet_wire::base64::encode(der);
                vec![
                    body.clone().into_bytes(),
                    format!("ssh-rsa {body} x").into_bytes(),
                    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
                        .into_bytes(),
                    cumulet_auth::der::pem("CERTIFICATE", der, 64).into_bytes(),
                ]
            }
        };
        let mut answer = String::new();
        for text in texts {
            let parsed = public_keys::parse(&text);
            if let Ok(key) = &parsed {
                let again = public_keys::parse(key.openssh.as_bytes());
                assert_eq!(again.as_ref(), Ok(key), "what is kept is read again");
            }
            let kind = parsed.map(|key| key.key_type);
            let certificate = certificates::fingerprint(&String::from_utf8_lossy(&text));
            answer.push_str(&format!("{kind:?} {}", certificate.is_some()));
        }
        shape(&answer.replace('"', ""))
    })
}
