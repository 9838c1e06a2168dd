//! Who is there from the start: a cloud with its certificate, and one account with a user, a key and a certificate.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use cumulet_auth::certificates::{Issued, issue};
use cumulet_auth::keys::{RsaKey, generate_rsa};
use cumulet_domain::accounts::{AccessKey, Account, Certificate, CloudIdentity, User};
use cumulet_engine::accounts::{Bootstrap, secret_context};
use cumulet_engine::environment::Sealer as _;

use super::surroundings::PlainSealer;
use super::{NOW, account};

/// Keys are slow to make: one pair of certificates and one key for all tests of a file.
pub(super) fn cloud_certificate() -> &'static Issued {
    static ISSUED: OnceLock<Issued> = OnceLock::new();
    ISSUED.get_or_init(|| issue("cloud", "Cumulet", NOW.0).expect("a certificate"))
}

pub(super) fn user_certificate() -> &'static Issued {
    static ISSUED: OnceLock<Issued> = OnceLock::new();
    ISSUED.get_or_init(|| issue("user", "Cumulet", NOW.0).expect("a certificate"))
}

pub(super) fn rsa_key() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| generate_rsa().expect("a key"))
}
pub(super) fn bootstrap() -> Bootstrap {
    let owner = account(1);
    let user = user_certificate();
    let cloud = cloud_certificate();
    let sealed = |context: &str, plain: &[u8]| PlainSealer.seal(context, plain).expect("sealed");
    Bootstrap {
        account: Account {
            id: owner,
            name: "first".into(),
            created: NOW,
            instance_limit: None,
            alias: None,
        },
        user: User {
            account: owner,
            name: "alice".into(),
            created: NOW,
            password_hash: None,
        },
        access_key: AccessKey {
            id: "AKIDFIRST".into(),
            account: owner,
            user: "alice".into(),
            created: NOW,
            sealed_secret: sealed(&secret_context("AKIDFIRST"), b"first secret"),
            signature_versions: BTreeSet::from([2, 4]),
        },
        certificate: Certificate {
            fingerprint: user.fingerprint.clone(),
            account: owner,
            user: "alice".into(),
            created: NOW,
            pem: user.certificate_pem.clone(),
        },
        identity: CloudIdentity {
            certificate_pem: cloud.certificate_pem.clone(),
            sealed_private_key: sealed("cloud-identity", &cloud.private_key_pkcs8),
            created: NOW,
        },
    }
}
