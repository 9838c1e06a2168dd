//! Access keys, RSA key pairs, and their text forms.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use zeroize::Zeroizing;

use crate::der::{Der, colons, element, pem};
use crate::public_keys::{openssh_rsa, rsa_public_parts};

/// Random bytes that an access key id needs.
pub const ACCESS_KEY_ID_RANDOM: usize = 16;
/// Random bytes that a secret needs.
pub const SECRET_RANDOM: usize = 30;

/// `AKIA` and 16 characters of base 32, as AWS writes ids.
pub fn access_key_id(random: &[u8; ACCESS_KEY_ID_RANDOM]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let tail = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    "AKIA".chars().chain(tail).collect()
}

/// 40 characters of base 64.
pub fn secret_access_key(random: &[u8; SECRET_RANDOM]) -> Zeroizing<String> {
    Zeroizing::new(cumulet_wire::base64::encode(random))
}

/// Whether a text may be an access key id that an operator chooses.
pub fn is_access_key_id(text: &str) -> bool {
    (3..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A key could not be made or read; for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub String);

/// A fresh RSA key of 2048 bits in the forms that EC2's clients expect.
pub struct RsaKey {
    /// PKCS#8 DER.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// PKCS#1 in PEM, lines of 76 characters, `BEGIN RSA PRIVATE KEY`.
    pub pem: Zeroizing<String>,
    /// SHA-1 over the PKCS#8 form, octets joined by colons (checked against a pair that EC2 made in
    /// 2006).
    pub fingerprint: String,
    /// `ssh-rsa AAAA…` without a comment.
    pub openssh: String,
}

/// Makes one.  Takes some 70 ms of CPU, at times much more: never on an async thread.
///
/// # Errors
/// When the library fails.
pub fn generate_rsa() -> Result<RsaKey, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048)
        .map_err(|_| KeyError("RSA key generation failed".into()))?;
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair)
        .map_err(|_| KeyError("the key has no PKCS#8 form".into()))?;
    let pkcs8 = Zeroizing::new(der.as_ref().to_vec());
    let (modulus, exponent) = rsa_public_parts(pair.public_key().as_ref())
        .ok_or_else(|| KeyError("the public key has no PKCS#1 form".into()))?;
    Ok(RsaKey {
        pem: pkcs1_pem(&pkcs8).ok_or_else(|| KeyError("the key has no PKCS#1 form".into()))?,
        fingerprint: colons(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &pkcs8).as_ref()),
        openssh: openssh_rsa(modulus, exponent),
        pkcs8,
    })
}

/// The PKCS#1 key inside a PKCS#8 document, as PEM.
pub fn pkcs1_pem(pkcs8: &[u8]) -> Option<Zeroizing<String>> {
    let mut outer = Der(Der(pkcs8).take(0x30)?);
    outer.take(0x02)?;
    outer.take(0x30)?;
    let pkcs1 = outer.take(0x04)?;
    Some(Zeroizing::new(pem("RSA PRIVATE KEY", pkcs1, 76)))
}

/// The PKCS#8 document around a PKCS#1 key.
pub fn pkcs8_of_pkcs1(pkcs1: &[u8]) -> Zeroizing<Vec<u8>> {
    const RSA_ALGORITHM: [u8; 15] = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let body = [
        &[0x02, 0x01, 0x00][..],
        &RSA_ALGORITHM,
        &element(0x04, pkcs1),
    ]
    .concat();
    Zeroizing::new(element(0x30, &body))
}
