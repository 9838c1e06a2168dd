//! The manifest of a bundle: its parts, their digests, the encrypted key, the owner's signature.
//!
//! Facts: `docs/` names them as the bundle format; three forms exist (`3`, `2007-08-29`,
//! `2007-10-10`) and all are read.  This module knows no object store and no account.

mod read;
mod seal;
mod write;

pub use read::parse;
pub use seal::{Keys, decrypt, encrypt_hex_text, verify};
pub use write::{Draft, write};

use thiserror::Error;

/// Largest number of parts that is read.
pub const PARTS_MAX: usize = 10_000;
/// Longest name of a part.
pub const FILENAME_BYTES_MAX: usize = 255;

/// Why a manifest is refused; the text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ManifestError(pub String);

impl ManifestError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The form of a manifest, which decides what its signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `3`: the signature covers `<image>`.
    V3,
    /// `2007-08-29`, also written `20070829`: `<machine_configuration>`, then `<image>`.
    V20070829,
    /// `2007-10-10`: as before.
    V20071010,
}

/// One encrypted part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Key relative to the manifest's own place; never holds a `/`.
    pub filename: String,
    /// SHA-1 of the encrypted bytes.
    pub sha1: [u8; 20],
}

/// A manifest that was read and is well formed; nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub version: Version,
    /// The bundle's prefix.
    pub name: String,
    /// The owner's account number as written, dashes removed.
    pub user: String,
    /// SHA-1 of the stream before compression.
    pub digest: [u8; 20],
    /// Bytes of the image.
    pub size: u64,
    /// Sum of the sizes of the parts.
    pub bundled_size: u64,
    /// RSA ciphertext of the key's hex text, encrypted to the cloud.
    pub ec2_encrypted_key: Vec<u8>,
    /// RSA ciphertext of the IV's hex text, encrypted to the cloud.
    pub ec2_encrypted_iv: Vec<u8>,
    /// The same two, encrypted to the user.
    pub user_encrypted_key: Vec<u8>,
    pub user_encrypted_iv: Vec<u8>,
    pub parts: Vec<Part>,
    /// `i386` or `x86_64`; version 3 does not say.
    pub architecture: Option<String>,
    pub kernel_id: Option<String>,
    pub ramdisk_id: Option<String>,
    /// `machine`, `kernel` or `ramdisk`; `None` means machine.
    pub image_type: Option<String>,
    /// `(virtual, device)`, as `("ami", "sda1")`.
    pub block_device_mapping: Vec<(String, String)>,
    pub product_codes: Vec<String>,
    pub signature: Vec<u8>,
    /// The exact bytes that the signature covers, as received.
    pub signed: Vec<u8>,
}
