//! Signing a message, as a client does: RSA with SHA-256.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use cumulet_domain::Timestamp;
use cumulet_wire::soap::ENVELOPE;
use cumulet_wire::{base64, time};

use super::{DS, EXCLUSIVE, RSA_SHA256, SHA256_URI, WSSE, WSU};
use crate::der::pem_body;
use crate::keys::{KeyError, pkcs8_of_pkcs1};

/// Signs with a certificate's key.
pub struct Client {
    certificate: Vec<u8>,
    key: RsaKeyPair,
}

impl Client {
    /// Both in PEM; the key as PKCS#1 or PKCS#8.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn new(certificate_pem: &str, private_key_pem: &str) -> Result<Self, KeyError> {
        let unreadable = |what: &str| KeyError(format!("the {what} cannot be read"));
        let pkcs8 = match pem_body(private_key_pem, "RSA PRIVATE KEY") {
            Some(pkcs1) => pkcs8_of_pkcs1(&pkcs1).to_vec(),
            None => {
                pem_body(private_key_pem, "PRIVATE KEY").ok_or_else(|| unreadable("private key"))?
            }
        };
        Ok(Self {
            certificate: pem_body(certificate_pem, "CERTIFICATE")
                .ok_or_else(|| unreadable("certificate"))?,
            key: RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| unreadable("private key"))?,
        })
    }

    /// The envelope around `operation`, an element in canonical form, signed at `now`.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn envelope(&self, operation: &str, now: Timestamp) -> Result<String, KeyError> {
        let failed = |_| KeyError("the message cannot be signed".into());
        let random = SystemRandom::new();
        // Two messages of one moment that say the same are two.
        let mut own = [0; 8];
        aws_lc_rs::rand::SecureRandom::fill(&random, &mut own).map_err(failed)?;
        let own = hex::encode(own);
        let created = time::format_iso8601(now);
        let stamp = format!(
            "<wsu:Timestamp xmlns:wsu=\"{WSU}\" wsu:Id=\"timestamp-{own}\"><wsu:Created>{created}</wsu:Created></wsu:Timestamp>"
        );
        let body = format!(
            "<S:Body xmlns:S=\"{ENVELOPE}\" xmlns:wsu=\"{WSU}\" wsu:Id=\"body-{own}\">{operation}</S:Body>"
        );
        let reference = |id: &str, canonical: &str| {
            let value = base64::encode(digest::digest(&SHA256, canonical.as_bytes()).as_ref());
            format!(
                "<ds:Reference URI=\"#{id}-{own}\"><ds:Transforms><ds:Transform Algorithm=\"{EXCLUSIVE}\"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm=\"{SHA256_URI}\"></ds:DigestMethod><ds:DigestValue>{value}</ds:DigestValue></ds:Reference>"
            )
        };
        let info = format!(
            "<ds:SignedInfo xmlns:ds=\"{DS}\"><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"{RSA_SHA256}\"></ds:SignatureMethod>{}{}</ds:SignedInfo>",
            reference("timestamp", &stamp),
            reference("body", &body),
        );
        let mut value = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, info.as_bytes(), &mut value)
            .map_err(failed)?;
        Ok(format!(
            "<S:Envelope xmlns:S=\"{ENVELOPE}\"><S:Header><wsse:Security xmlns:wsse=\"{WSSE}\"><wsse:BinarySecurityToken xmlns:wsu=\"{WSU}\" wsu:Id=\"token\">{}</wsse:BinarySecurityToken><ds:Signature xmlns:ds=\"{DS}\">{info}<ds:SignatureValue>{}</ds:SignatureValue><ds:KeyInfo><wsse:SecurityTokenReference><wsse:Reference URI=\"#token\"></wsse:Reference></wsse:SecurityTokenReference></ds:KeyInfo></ds:Signature>{stamp}</wsse:Security></S:Header>{body}</S:Envelope>",
            base64::encode(&self.certificate),
            base64::encode(&value),
        ))
    }
}
