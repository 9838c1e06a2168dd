//! Key pairs: we keep the public half.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Error, KeyPairId, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub id: KeyPairId,
    pub owner: AccountId,
    pub name: String,
    /// Hex octets joined by colons, in the form EC2 uses for this kind of key.
    pub fingerprint: String,
    /// One line in `authorized_keys` format, without a line end.
    pub public_key: String,
    /// `rsa` or `ed25519`.
    pub key_type: String,
    pub created: Timestamp,
}

/// Longest part of a name that a refusal repeats.
const NAME_SHOWN_MAX: usize = 60;

/// EC2 takes up to 255 printable ASCII characters.
pub fn check_key_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::Missing {
            parameter: "KeyName".into(),
        });
    }
    if name.len() > 255 || !name.bytes().all(|b| (b' '..=b'~').contains(&b)) || name.trim() != name
    {
        let shown: String = name.chars().take(NAME_SHOWN_MAX).collect();
        return Err(Error::invalid(
            "KeyName",
            format!(
                "Value ({shown}) for parameter KeyName is invalid. A name has up to 255 printable ASCII characters and no space at its ends."
            ),
        ));
    }
    Ok(())
}
