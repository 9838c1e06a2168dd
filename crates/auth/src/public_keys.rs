//! Public keys that users hand in: OpenSSH, PEM, base64 DER, RFC 4716.

use aws_lc_rs::digest;
use cumulet_domain::keypairs::KeyType;
use md5::Digest as _;

use crate::der::{Der, colons, element, pem_body};

/// Longest material that is read.
pub const MATERIAL_LEN_MAX: usize = 16 * 1024;

/// A public key, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `ssh-rsa AAAA…` or `ssh-ed25519 AAAA…`, without a comment.
    pub openssh: String,
    /// For RSA MD5 over the DER form, for Ed25519 SHA-256 in base64: what EC2 shows for imported keys.
    pub fingerprint: String,
    pub key_type: KeyType,
}

/// Reads a key.
///
/// # Errors
/// A text for the user.
pub fn parse(material: &[u8]) -> Result<PublicKey, String> {
    let bad = || "Key is not in valid OpenSSH public key format".to_owned();
    if material.len() > MATERIAL_LEN_MAX {
        return Err(format!("Key is longer than {MATERIAL_LEN_MAX} bytes"));
    }
    let text = std::str::from_utf8(material).map_err(|_| bad())?.trim();
    if text.starts_with("-----BEGIN PUBLIC KEY-----") {
        return from_spki(&pem_body(text, "PUBLIC KEY").ok_or_else(bad)?).ok_or_else(bad);
    }
    if text.starts_with("---- BEGIN SSH2 PUBLIC KEY ----") {
        return from_blob(&rfc4716_body(text).ok_or_else(bad)?);
    }
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(blob)) if kind.starts_with("ssh-") || kind.starts_with("ecdsa-") => {
            from_blob(&cumulet_wire::base64::decode(blob, MATERIAL_LEN_MAX).map_err(|_| bad())?)
        }
        (Some(only), None) => {
            let der = cumulet_wire::base64::decode(only, MATERIAL_LEN_MAX).map_err(|_| bad())?;
            from_spki(&der).ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

fn rfc4716_body(text: &str) -> Option<Vec<u8>> {
    let body: String = text
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("---- END"))
        .filter(|line| !line.contains(':'))
        .collect();
    cumulet_wire::base64::decode(&body, MATERIAL_LEN_MAX).ok()
}

/// Fields of an SSH key blob: each four bytes of length and the bytes.
fn ssh_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (field, after) =
        after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(field)
}

fn from_blob(blob: &[u8]) -> Result<PublicKey, String> {
    let bad = || "Key is not in valid OpenSSH public key format".to_owned();
    let mut rest = blob;
    match ssh_field(&mut rest).ok_or_else(bad)? {
        b"ssh-rsa" => {
            let exponent = ssh_field(&mut rest).ok_or_else(bad)?;
            let modulus = ssh_field(&mut rest).ok_or_else(bad)?;
            if !rest.is_empty() {
                return Err(bad());
            }
            rsa(modulus, exponent)
        }
        b"ssh-ed25519" => {
            let point = ssh_field(&mut rest)
                .filter(|point| point.len() == 32 && rest.is_empty())
                .ok_or_else(bad)?;
            Ok(ed25519(point))
        }
        other => Err(format!(
            "Keys of the type {:?} are not supported; use RSA or ED25519",
            String::from_utf8_lossy(other)
        )),
    }
}

/// What is known of an Ed25519 key by its 32 bytes.
pub(crate) fn ed25519(point: &[u8]) -> PublicKey {
    let blob = ssh_blob(&[b"ssh-ed25519", point]);
    let hash = digest::digest(&digest::SHA256, &blob);
    PublicKey {
        openssh: format!("ssh-ed25519 {}", cumulet_wire::base64::encode(&blob)),
        fingerprint: cumulet_wire::base64::encode(hash.as_ref()),
        key_type: KeyType::Ed25519,
    }
}

fn strip_zeros(mut bytes: &[u8]) -> &[u8] {
    while let Some((0, rest)) = bytes.split_first() {
        bytes = rest;
    }
    bytes
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, String> {
    let (modulus, exponent) = (strip_zeros(modulus), strip_zeros(exponent));
    if !(128..=2048).contains(&modulus.len()) || exponent.is_empty() || exponent.len() > 8 {
        return Err("RSA keys have from 1024 to 16384 bits".to_owned());
    }
    let fingerprint = colons(&md5::Md5::digest(spki_rsa(modulus, exponent)));
    Ok(PublicKey {
        openssh: openssh_rsa(modulus, exponent),
        fingerprint,
        key_type: KeyType::Rsa,
    })
}

/// A DER integer: with a zero before it where the first bit is set.
fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let bytes = strip_zeros(bytes);
    let needs_zero = bytes.first().is_none_or(|first| *first >= 0x80);
    let padded = if needs_zero {
        [&[0][..], bytes].concat()
    } else {
        bytes.to_vec()
    };
    element(0x02, &padded)
}

fn spki_rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    const RSA: [u8; 15] = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let key = element(
        0x30,
        &[der_integer(modulus), der_integer(exponent)].concat(),
    );
    let bits = element(0x03, &[&[0][..], &key].concat());
    element(0x30, &[&RSA[..], &bits].concat())
}

fn from_spki(der: &[u8]) -> Option<PublicKey> {
    let mut outer = Der(Der(der).take(0x30)?);
    outer.take(0x30)?;
    let (zero, key) = outer.take(0x03)?.split_first()?;
    if *zero != 0 {
        return None;
    }
    let (modulus, exponent) = rsa_public_parts(key)?;
    rsa(modulus, exponent).ok()
}

/// Modulus and exponent of a PKCS#1 public key.
pub(crate) fn rsa_public_parts(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut key = Der(Der(pkcs1).take(0x30)?);
    Some((key.take(0x02)?, key.take(0x02)?))
}

/// Each field with four bytes of length before it.
pub(crate) fn ssh_blob(fields: &[&[u8]]) -> Vec<u8> {
    let mut blob = vec![];
    for field in fields {
        blob.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend_from_slice(field);
    }
    blob
}

/// `ssh-rsa AAAA…`.
pub(crate) fn openssh_rsa(modulus: &[u8], exponent: &[u8]) -> String {
    let integer = |bytes: &[u8]| {
        let bytes = strip_zeros(bytes);
        let needs_zero = bytes.first().is_some_and(|first| *first >= 0x80);
        if needs_zero {
            [&[0][..], bytes].concat()
        } else {
            bytes.to_vec()
        }
    };
    let blob = ssh_blob(&[b"ssh-rsa", &integer(exponent), &integer(modulus)]);
    format!("ssh-rsa {}", cumulet_wire::base64::encode(&blob))
}
