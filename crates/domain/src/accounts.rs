//! Who owns things and who may sign for whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, Timestamp};

/// Longest name of an account or a user.
pub const NAME_LEN_MAX: usize = 64;
/// Longest alias of an account.
pub const ALIAS_LEN_MAX: usize = 32;
/// Words that stand for somebody in requests, and can be nobody's alias.
const RESERVED_ALIASES: &[&str] = &["self", "all"];

/// Owner of images, instances, key pairs and buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub created: Timestamp,
    /// How many instances may be alive at once; `None` means the cloud's default.
    pub instance_limit: Option<u32>,
    /// A word that the operator lets its public images show for their owner, as EC2's own showed `amazon`;
    /// no other account has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
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

/// Checks an account's alias: lower-case letters, digits and `-`, beginning with a letter.
///
/// # Errors
/// [`Error::InvalidValue`].
pub fn check_alias(alias: &str) -> Result<(), Error> {
    let is_good = alias.starts_with(|first: char| first.is_ascii_lowercase())
        && alias.len() <= ALIAS_LEN_MAX
        && alias
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_good {
        return Err(Error::invalid(
            "alias",
            format!(
                "An alias has 1 to {ALIAS_LEN_MAX} lower-case letters, digits or hyphens, and begins with a letter"
            ),
        ));
    }
    if RESERVED_ALIASES.contains(&alias) {
        return Err(Error::invalid(
            "alias",
            format!("The word {alias} means something else in requests"),
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_words_that_mean_nothing_else() {
        for good in ["amazon", "a", "aws-marketplace", "x86"] {
            check_alias(good).unwrap();
        }
        let long = "a".repeat(ALIAS_LEN_MAX + 1);
        for bad in [
            "",
            "self",
            "all",
            "Amazon",
            "000000000001",
            "-a",
            "a b",
            "\u{e9}",
            &long,
        ] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
    }
}
