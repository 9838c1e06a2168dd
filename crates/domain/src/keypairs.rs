//! Key pairs: we keep the public half.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, KeyPairId, Timestamp, shown};

/// The kinds of keys that EC2 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    Rsa,
    Ed25519,
}

impl KeyType {
    /// EC2's word.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Rsa => "rsa",
            KeyType::Ed25519 => "ed25519",
        }
    }

    /// The kind that EC2 calls so.
    pub fn of_name(name: &str) -> Option<Self> {
        let mut all = [KeyType::Rsa, KeyType::Ed25519].into_iter();
        all.find(|kind| kind.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub id: KeyPairId,
    pub owner: AccountId,
    pub name: String,
    /// In the form that EC2 has for this kind of key: hex octets joined by colons, or base64.
    pub fingerprint: String,
    /// One line in `authorized_keys` format, without a line end.
    pub public_key: String,
    pub key_type: KeyType,
    pub created: Timestamp,
}

/// EC2 takes up to 255 printable ASCII characters.
pub fn check_key_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::Missing {
            parameter: "KeyName".into(),
        });
    }
    if name.len() > 255 || !name.bytes().all(|b| (b' '..=b'~').contains(&b)) || name.trim() != name
    {
        let shown = shown(name);
        return Err(Error::invalid(
            "KeyName",
            format!(
                "Value ({shown}) for parameter KeyName is invalid. A name has up to 255 printable ASCII characters and no space at its ends."
            ),
        ));
    }
    Ok(())
}
