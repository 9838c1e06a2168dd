//! X.509 certificates: issuing them, and reading what is in them.

use aws_lc_rs::digest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

use crate::der::{pem, pem_body};
use crate::keys::{KeyError, generate_rsa};

/// A certificate that was just issued; the private key is seen only here.
pub struct Issued {
    pub certificate_pem: String,
    /// SHA-1 of the DER form, hex.
    pub fingerprint: String,
    /// PKCS#1 in PEM.
    pub private_key_pem: Zeroizing<String>,
    /// PKCS#8 DER.
    pub private_key_pkcs8: Zeroizing<Vec<u8>>,
}

/// Issues a self-signed certificate with a fresh RSA key.  The certificate is only a carrier of the
/// key: it is looked up by its fingerprint, its chain is never trusted.  Blocking.
///
/// # Errors
/// When the library fails.
pub fn issue(common_name: &str, organisation: &str, now_ms: i64) -> Result<Issued, KeyError> {
    let key = generate_rsa()?;
    let failed = |cause: rcgen::Error| KeyError(format!("could not issue a certificate: {cause}"));
    let pkcs8 = Zeroizing::new(pem("PRIVATE KEY", &key.pkcs8, 64));
    let pair =
        KeyPair::from_pkcs8_pem_and_sign_algo(&pkcs8, &rcgen::PKCS_RSA_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, organisation);
    params.distinguished_name = name;
    let day = 24 * 3600;
    let now = now_ms / 1000;
    params.not_before = date(now - day);
    params.not_after = date(now + 10 * 365 * day);
    let certificate = params.self_signed(&pair).map_err(failed)?;
    Ok(Issued {
        fingerprint: fingerprint_of_der(certificate.der()),
        certificate_pem: pem("CERTIFICATE", certificate.der(), 64),
        private_key_pem: key.pem,
        private_key_pkcs8: key.pkcs8,
    })
}

fn date(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn fingerprint_of_der(der: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der))
}

/// SHA-1 of the DER form of a PEM certificate, after checking that it can be parsed and has an RSA
/// key; `None` otherwise.
pub fn fingerprint(certificate_pem: &str) -> Option<String> {
    let der = pem_body(certificate_pem, "CERTIFICATE")?;
    let (rest, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let is_rsa = parsed
        .public_key()
        .parsed()
        .is_ok_and(|key| matches!(key, x509_parser::public_key::PublicKey::RSA(_)));
    (rest.is_empty() && is_rsa).then(|| fingerprint_of_der(&der))
}
