//! Access keys, RSA key pairs, and their text forms.

use aws_lc_rs::encoding::{AsBigEndian, AsDer};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

use crate::der::{Der, colons, element, pem};
use crate::public_keys::{self, PublicKey, openssh_rsa, rsa_public_parts, ssh_blob};

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

/// A fresh Ed25519 key in the forms that EC2's clients expect.
pub struct Ed25519Key {
    /// OpenSSH's own format, not encrypted, `BEGIN OPENSSH PRIVATE KEY`.
    pub pem: Zeroizing<String>,
    pub public: PublicKey,
}

/// Makes one.
///
/// # Errors
/// When the library fails.
pub fn generate_ed25519() -> Result<Ed25519Key, KeyError> {
    let failed = |_| KeyError("Ed25519 key generation failed".into());
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let seed = pair.seed().map_err(failed)?.as_be_bytes().map_err(failed)?;
    let mut check = [0; 4];
    rand::fill(&mut check).map_err(failed)?;
    let point = pair.public_key().as_ref();
    Ok(Ed25519Key {
        pem: openssh_pem(seed.as_ref(), point, check),
        public: public_keys::ed25519(point),
    })
}

/// OpenSSH's format for one private key without a passphrase (its file `PROTOCOL.key`); `check` is
/// random and stands twice, so that a reader sees whether it deciphered well.
fn openssh_pem(seed: &[u8], point: &[u8], check: [u8; 4]) -> Zeroizing<String> {
    const KIND: &[u8] = b"ssh-ed25519";
    const BLOCK: usize = 8;
    let both = Zeroizing::new([seed, point].concat());
    let mut private = Zeroizing::new([check, check].concat());
    private.extend(Zeroizing::new(ssh_blob(&[KIND, point, &both, b""])).iter());
    let padding = private.len().next_multiple_of(BLOCK) - private.len();
    private.extend((1..).take(padding));
    let file = Zeroizing::new(
        [
            &b"openssh-key-v1\0"[..],
            // No cipher, and nothing to derive its key by.
            &ssh_blob(&[b"none", b"none", b""]),
            &1_u32.to_be_bytes(),
            &ssh_blob(&[&ssh_blob(&[KIND, point]), &private]),
        ]
        .concat(),
    );
    Zeroizing::new(pem("OPENSSH PRIVATE KEY", &file, 70))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::pem_body;

    /// Made by `ssh-keygen -t ed25519 -N "" -C ""`.
    const OPENSSH: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCL/sVDQ1uRHhHUMii5+YoVam3PAuVV8IvZCf6NIfOinAAAAIhZPhA+WT4Q
PgAAAAtzc2gtZWQyNTUxOQAAACCL/sVDQ1uRHhHUMii5+YoVam3PAuVV8IvZCf6NIfOinA
AAAEDgPVZ/+6JG1oc40qW4d6ZMp6HvQrWtDTWuowwPJIRb2Iv+xUNDW5EeEdQyKLn5ihVq
bc8C5VXwi9kJ/o0h86KcAAAAAAECAwQF
-----END OPENSSH PRIVATE KEY-----
";

    #[test]
    fn an_ed25519_key_is_written_as_openssh_does() {
        let bytes = pem_body(OPENSSH, "OPENSSH PRIVATE KEY").unwrap();
        // The last fields: the seed and the point, an empty comment, the padding.
        let (rest, end) = bytes.split_at(bytes.len() - 73);
        let (seed, end) = end.split_at(32);
        let (point, end) = end.split_at(32);
        assert_eq!(end, [0, 0, 0, 0, 1, 2, 3, 4, 5]);
        let private = rest.len() - 8 - 15 - 36 - 4;
        let check = rest[private..private + 4].try_into().unwrap();
        assert_eq!(*openssh_pem(seed, point, check), OPENSSH);
        let public = public_keys::ed25519(point);
        assert_eq!(
            public.openssh,
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIv+xUNDW5EeEdQyKLn5ihVqbc8C5VXwi9kJ/o0h86Kc"
        );
    }
}
