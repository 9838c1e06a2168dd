//! Signing as bundles need it: RSASSA-PKCS1-v1_5 with SHA-1.
//!
//! The bundle format fixes the algorithm.  The safe library verifies such
//! signatures and does not make them, therefore this calls the C library below
//! it; that is all this module does.

#![expect(
    unsafe_code,
    reason = "aws-lc-rs has no SHA-1 signing; its C library has"
)]

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_sys::{
    EVP_PKEY, EVP_PKEY_free, EVP_PKEY_get0_RSA, NID_sha1, RSA, RSA_sign, RSA_size,
    d2i_AutoPrivateKey,
};
use thiserror::Error;
use zeroize::Zeroizing;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignError {
    #[error("the private key cannot be read: an unencrypted RSA key in PEM is needed")]
    Key,
    #[error("signing failed")]
    Sign,
}

/// An RSA private key.
pub struct SigningKey {
    /// Owned; never null.
    key: *mut EVP_PKEY,
}

// SAFETY: the library's keys may be moved to and used from other threads.
unsafe impl Send for SigningKey {}

impl SigningKey {
    /// Reads a key in PEM, PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`).
    ///
    /// # Errors
    /// `Key` for everything else, encrypted keys too.
    pub fn from_pem(pem: &str) -> Result<Self, SignError> {
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| SignError::Key)?;
        let der = Zeroizing::new(pem.contents);
        let length = std::ffi::c_long::try_from(der.len()).map_err(|_| SignError::Key)?;
        let mut position = der.as_ptr();
        // SAFETY: `position` and `length` describe `der`, which outlives the call; the first
        // argument may be null; the result is null or owned by us.
        let key = unsafe { d2i_AutoPrivateKey(std::ptr::null_mut(), &raw mut position, length) };
        if key.is_null() {
            return Err(SignError::Key);
        }
        let key = Self { key };
        key.rsa().ok_or(SignError::Key)?;
        Ok(key)
    }

    /// Signs the SHA-1 of `message`.
    ///
    /// # Errors
    /// `Sign` when the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let rsa = self.rsa().ok_or(SignError::Sign)?;
        let hashed = digest(&SHA1_FOR_LEGACY_USE_ONLY, message);
        let hashed = hashed.as_ref();
        // SAFETY: `rsa` is valid as long as `self`.
        let size = unsafe { RSA_size(rsa) };
        let mut signature = vec![0; usize::try_from(size).map_err(|_| SignError::Sign)?];
        let mut length = 0;
        // SAFETY: `hashed` has the length that is given, `signature` has room for `RSA_size` bytes
        // as the call demands, and `rsa` is valid as long as `self`.
        let is_done = unsafe {
            RSA_sign(
                NID_sha1,
                hashed.as_ptr(),
                hashed.len(),
                signature.as_mut_ptr(),
                &raw mut length,
                rsa,
            )
        };
        if is_done != 1 {
            return Err(SignError::Sign);
        }
        signature.truncate(usize::try_from(length).map_err(|_| SignError::Sign)?);
        Ok(signature)
    }

    /// The RSA key inside, borrowed from `self`; `None` for a key of another kind.
    fn rsa(&self) -> Option<*mut RSA> {
        // SAFETY: `key` is valid and not null; the result is borrowed from it.
        let rsa = unsafe { EVP_PKEY_get0_RSA(self.key) };
        (!rsa.is_null()).then_some(rsa)
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        // SAFETY: `key` is owned and not used again.
        unsafe { EVP_PKEY_free(self.key) }
    }
}
