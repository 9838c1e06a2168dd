//! Keys, certificates and sealing.

use cumulet_auth::{certificates, der, keys, public_keys, seal};
use cumulet_domain::keypairs::KeyType;

#[test]
fn a_fresh_key_pair_has_the_forms_that_clients_expect() {
    let key = keys::generate_rsa().unwrap();
    assert!(key.pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert_eq!(key.pem.lines().nth(1).unwrap().len(), 76);
    assert_eq!(key.fingerprint.len(), 59);
    let parsed = public_keys::parse(key.openssh.as_bytes()).unwrap();
    assert_eq!(parsed.openssh, key.openssh);
    let body = der::pem_body(&key.pem, "RSA PRIVATE KEY").unwrap();
    assert_eq!(
        *keys::pkcs8_of_pkcs1(&body),
        *key.pkcs8,
        "PKCS#1 and PKCS#8 are one key"
    );
}

/// The key was made with OpenSSH; the fingerprint is what `openssl rsa -pubout -outform DER | md5sum` says.
#[test]
fn foreign_and_damaged_keys_are_refused() {
    for text in [
        "",
        "ssh-rsa",
        "ssh-rsa AAAA",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP==",
        "-----BEGIN PUBLIC KEY-----",
        "AAAA\u{0}",
    ] {
        assert!(public_keys::parse(text.as_bytes()).is_err(), "{text}");
    }
    let ed25519 =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here";
    let parsed = public_keys::parse(ed25519.as_bytes()).unwrap();
    assert_eq!(parsed.key_type, KeyType::Ed25519);
    assert!(ed25519.starts_with(&parsed.openssh));
}

#[test]
fn an_issued_certificate_can_be_read_back() {
    let issued = certificates::issue("admin", "Cumulet", 1_790_000_000_000).unwrap();
    assert_eq!(
        certificates::fingerprint(&issued.certificate_pem),
        Some(issued.fingerprint)
    );
    assert_eq!(
        certificates::fingerprint("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        None
    );
}

#[test]
fn sealed_values_open_only_where_they_belong() {
    let key = seal::SealingKey::new(&[7; 32]);
    let sealed = key.seal("access-key/A", [1; 12], b"secret").unwrap();
    assert_eq!(**key.open("access-key/A", &sealed).unwrap(), *b"secret");
    assert!(key.open("access-key/B", &sealed).is_err());
    assert!(
        seal::SealingKey::new(&[8; 32])
            .open("access-key/A", &sealed)
            .is_err()
    );
    for index in 0..sealed.len() {
        let mut other = sealed.clone();
        other[index] ^= 1;
        assert!(key.open("access-key/A", &other).is_err(), "byte {index}");
    }
}
