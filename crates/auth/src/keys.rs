//! Access keys, RSA key pairs, and their text forms.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use zeroize::Zeroizing;

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

/// Octets in hex, joined by colons.
pub fn colons(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
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
        &der_element(0x04, pkcs1),
    ]
    .concat();
    Zeroizing::new(der_element(0x30, &body))
}

/// The DER inside the first PEM block of the given label.
pub fn pem_body(text: &str, label: &str) -> Option<Vec<u8>> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let start = text.find(&begin)? + begin.len();
    let length = text[start..].find(&end)?;
    cumulet_wire::base64::decode(&text[start..start + length], 64 * 1024).ok()
}

/// PEM with lines of `width` characters.
pub fn pem(label: &str, der: &[u8], width: usize) -> String {
    let body = cumulet_wire::base64::encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % width == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str(&format!("\n-----END {label}-----\n"));
    out
}

pub(crate) fn der_element(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = body.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match (body.len(), u8::try_from(body.len())) {
        (0..=127, Ok(short)) => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend(significant);
        }
    }
    out.extend_from_slice(body);
    out
}

/// A cursor over DER: elements with short or long lengths, nothing else.
pub(crate) struct Der<'a>(pub(crate) &'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, if it has this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if length >= 0x80 {
            let count = length - 0x80;
            if !(1..=4).contains(&count) {
                return None;
            }
            let (digits, after) = rest.split_at_checked(count)?;
            length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        (*found == tag).then_some(content)
    }
}
