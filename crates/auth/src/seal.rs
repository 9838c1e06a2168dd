//! Sealing of the server's copies of secrets.
//!
//! AES-256-GCM with a key file beside the data.  A sealed value is one byte of
//! version, 12 of nonce, then ciphertext and tag; the context is authenticated,
//! so that a value moved to another record does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

const VERSION: u8 = 1;

/// Bytes of a key file.
pub const KEY_LEN: usize = 32;

/// Seals and opens.
pub struct SealingKey(LessSafeKey);

impl SealingKey {
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"),
        ))
    }

    /// Seals with a nonce that must be random and used once.
    ///
    /// # Errors
    /// A text for the log.
    pub fn seal(
        &self,
        context: &str,
        nonce: [u8; NONCE_LEN],
        plain: &[u8],
    ) -> Result<Vec<u8>, String> {
        let mut bytes = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| "sealing failed".to_owned())?;
        Ok([&[VERSION][..], &nonce, &bytes].concat())
    }

    /// # Errors
    /// A text for the log: another key, another context, or tampering.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let failed = || format!("the sealed value of {context} does not open with this key file");
        let (version, rest) = sealed.split_first().ok_or_else(failed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(failed)?;
        if *version != VERSION {
            return Err(format!(
                "the sealed value of {context} has the unknown version {version}"
            ));
        }
        let mut bytes = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut bytes)
            .map_err(|_| failed())?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

/// Random bytes of a nonce.
pub const SEAL_NONCE_LEN: usize = NONCE_LEN;
