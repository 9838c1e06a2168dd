//! Who owns things and who may sign for whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, Timestamp};

/// Longest name of an account or a user.
pub const NAME_LEN_MAX: usize = 64;

/// Owner of images, instances, key pairs and buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub created: Timestamp,
    /// How many instances may be alive at once; `None` means the cloud's default.
    pub instance_limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub account: AccountId,
    pub name: String,
    pub created: Timestamp,
    /// Salted hash in the form that the program's password module writes; never the password.
    pub password_hash: Option<String>,
}

/// A pair of id and secret.  The secret is sealed with the cloud's key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    pub id: String,
    pub account: AccountId,
    pub user: String,
    pub created: Timestamp,
    pub sealed_secret: Vec<u8>,
    /// Which signature versions (0, 1, 2, 4) may be used with this key.
    pub signature_versions: BTreeSet<u8>,
}

/// An X.509 certificate with which a user signs bundles and SOAP requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-1 of the DER form in lower-case hex, 40 digits.
    pub fingerprint: String,
    pub account: AccountId,
    pub user: String,
    pub created: Timestamp,
    pub pem: String,
}

/// The identity of the cloud itself: to it bundles are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudIdentity {
    pub certificate_pem: String,
    /// PKCS#8 DER of the private key, sealed.
    pub sealed_private_key: Vec<u8>,
    pub created: Timestamp,
}

/// Checks the name of an account or user: letters, digits and `+=,.@_-`, as IAM has it.
///
/// # Errors
/// [`Error::InvalidValue`] naming `parameter`.
pub fn check_name(parameter: &str, name: &str) -> Result<(), Error> {
    let is_good = !name.is_empty()
        && name.len() <= NAME_LEN_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
    if is_good {
        Ok(())
    } else {
        Err(Error::invalid(
            parameter,
            format!("A name has 1 to {NAME_LEN_MAX} letters, digits or characters of +=,.@_-"),
        ))
    }
}
