//! The cryptography around a manifest: its encryption, its keys, its signature.

use std::borrow::Cow;

use aws_lc_rs::cipher::{AES_128, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{Manifest, ManifestError};

/// The key and IV of a bundle's stream, AES-128-CBC.
#[derive(Clone)]
pub struct Keys {
    pub key: Zeroizing<[u8; 16]>,
    pub iv: [u8; 16],
}

/// A manifest may arrive encrypted to the cloud (byte 0x01 or 0x02 first); plain text passes.
///
/// # Errors
/// When it is neither plain nor encrypted to `private_key` (PKCS#8 DER).
pub fn decrypt<'a>(bytes: &'a [u8], private_key: &[u8]) -> Result<Cow<'a, [u8]>, ManifestError> {
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Ok(Cow::Borrowed(bytes));
    }
    let refused = || ManifestError::new("The manifest cannot be decrypted with this cloud's key");
    let (length, rest) = match bytes {
        [1, length, rest @ ..] => (usize::from(*length), rest),
        [2, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => {
            return Err(ManifestError::new(
                "The manifest is neither XML nor encrypted",
            ));
        }
    };
    let (sealed, body) = rest.split_at_checked(length).ok_or_else(refused)?;
    let opened = rsa_decrypt(private_key, sealed).ok_or_else(refused)?;
    let (key, iv) = opened.split_at_checked(16).ok_or_else(refused)?;
    let iv: [u8; 16] = iv.try_into().map_err(|_| refused())?;
    let unbound = UnboundCipherKey::new(&AES_128, key).map_err(|_| refused())?;
    let context = DecryptionContext::Iv128(FixedLength::from(&iv));
    let mut stream = StreamingDecryptingKey::cbc_pkcs7(unbound, context).map_err(|_| refused())?;
    let mut plain = vec![0; body.len() + 32];
    let written = stream
        .update(body, &mut plain)
        .map_err(|_| refused())?
        .written()
        .len();
    let rest = plain.get_mut(written..).ok_or_else(refused)?;
    let last = stream.finish(rest).map_err(|_| refused())?.written().len();
    plain.truncate(written + last);
    Ok(Cow::Owned(plain))
}

impl Manifest {
    /// Opens the stream's key and IV with the cloud's private key (PKCS#8 DER).
    ///
    /// # Errors
    /// One text whatever is wrong, so that nothing is learnt from it.
    pub fn open_for_cloud(&self, private_key: &[u8]) -> Result<Keys, ManifestError> {
        open(&self.ec2_encrypted_key, &self.ec2_encrypted_iv, private_key)
            .ok_or_else(|| ManifestError::new("The bundle's key is not encrypted to this cloud"))
    }

    /// The same with the user's own private key (PKCS#8 DER).
    ///
    /// # Errors
    /// As before.
    pub fn open_for_user(&self, private_key: &[u8]) -> Result<Keys, ManifestError> {
        open(
            &self.user_encrypted_key,
            &self.user_encrypted_iv,
            private_key,
        )
        .ok_or_else(|| ManifestError::new("The bundle's key is not encrypted to this user"))
    }
}

fn open(key: &[u8], iv: &[u8], private_key: &[u8]) -> Option<Keys> {
    let read = |sealed: &[u8]| -> Option<[u8; 16]> {
        let text = rsa_decrypt(private_key, sealed)?;
        hex::decode(text.as_slice()).ok()?.try_into().ok()
    };
    Some(Keys {
        key: Zeroizing::new(read(key)?),
        iv: read(iv)?,
    })
}

fn rsa_decrypt(pkcs8: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8).ok()?;
    let key = Pkcs1PrivateDecryptingKey::new(key).ok()?;
    let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
    let length = key.decrypt(sealed, &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

/// Encrypts the hex text of `secret` to the key of a certificate in PEM, as manifests hold it.
///
/// # Errors
/// When the certificate cannot be read or has no RSA key.
pub fn encrypt_hex_text(secret: &[u8], certificate_pem: &str) -> Result<Vec<u8>, ManifestError> {
    let refused = || ManifestError::new("The certificate cannot be read or has no RSA key");
    let spki = with_certificate(certificate_pem, |parsed| parsed.public_key().raw.to_vec())
        .ok_or_else(refused)?;
    let key = PublicEncryptingKey::from_der(&spki).map_err(|_| refused())?;
    let key = Pkcs1PublicEncryptingKey::new(key).map_err(|_| refused())?;
    let text = Zeroizing::new(hex::encode(secret));
    let mut sealed = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(text.as_bytes(), &mut sealed)
        .map_err(|_| refused())?
        .len();
    sealed.truncate(length);
    Ok(sealed)
}

/// Whether one of the certificates (PEM) made the manifest's signature.
pub fn verify<'a>(
    manifest: &Manifest,
    certificates_pem: impl IntoIterator<Item = &'a str>,
) -> bool {
    certificates_pem.into_iter().any(|pem| {
        let key = with_certificate(pem, |parsed| {
            parsed.public_key().subject_public_key.data.to_vec()
        });
        key.is_some_and(|key| {
            UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
                .verify(&manifest.signed, &manifest.signature)
                .is_ok()
        })
    })
}

fn with_certificate<T>(
    pem: &str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Option<T> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&pem.contents).ok()?;
    Some(read(&parsed))
}
