//! Signature version 2: method, host, path and sorted parameters.

use aws_lc_rs::hmac;
use cumulet_wire::query::{Params, encode};

/// The text that is signed.  `host` is taken as it is given; callers try it with and without its
/// port, since clients disagree.
pub(crate) fn string_to_sign(method: &str, host: &str, path: &str, params: &Params) -> String {
    // The order is that of bytes of the names, which is the order of `Params`.
    let pairs: Vec<String> = params
        .iter()
        .filter(|(name, _)| *name != "Signature")
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    format!(
        "{method}\n{}\n{path}\n{}",
        host.to_ascii_lowercase(),
        pairs.join("&")
    )
}

/// The HMAC of the method that `SignatureMethod` names; `None` for another name.
pub(crate) fn signature(method: &str, secret: &str, text: &str) -> Option<Vec<u8>> {
    let algorithm = match method {
        "HmacSHA256" => hmac::HMAC_SHA256,
        "HmacSHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        _ => return None,
    };
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    Some(hmac::sign(&key, text.as_bytes()).as_ref().to_vec())
}
