//! Writing and signing a manifest.
//!
//! No white space stands between elements, as readers of the time expect.

use std::fmt::Write as _;

use quick_xml::escape::escape;

use super::{ManifestError, Part, Version};
use crate::sign::SigningKey;

/// What a manifest is to say.
#[derive(Debug, Clone)]
pub struct Draft {
    pub version: Version,
    /// The bundle's prefix.
    pub name: String,
    /// The owner's account number, without dashes.
    pub user: String,
    /// SHA-1 of the stream before compression.
    pub digest: [u8; 20],
    /// Bytes of the image.
    pub size: u64,
    /// Sum of the sizes of the parts.
    pub bundled_size: u64,
    pub ec2_encrypted_key: Vec<u8>,
    pub ec2_encrypted_iv: Vec<u8>,
    pub user_encrypted_key: Vec<u8>,
    pub user_encrypted_iv: Vec<u8>,
    pub parts: Vec<Part>,
    /// `i386` or `x86_64`; version 3 has no place for it, nor for what follows but the parts.
    pub architecture: String,
    pub kernel_id: Option<String>,
    pub ramdisk_id: Option<String>,
    /// `(virtual, device)`, as `("ami", "sda1")`.
    pub block_device_mapping: Vec<(String, String)>,
    pub product_codes: Vec<String>,
}

/// The manifest of a machine image as text, signed with its owner's key.
///
/// # Errors
/// When signing fails.
pub fn write(draft: &Draft, key: &SigningKey) -> Result<String, ManifestError> {
    let version = match draft.version {
        Version::V3 => "3",
        Version::V20070829 => "2007-08-29",
        Version::V20071010 => "2007-10-10",
    };
    let signed = [configuration(draft), image(draft)].concat();
    let signature = key.sign(signed.as_bytes()).map_err(|cause| {
        ManifestError::new(format!("The manifest could not be signed: {cause}"))
    })?;
    Ok(format!(
        "<?xml version='1.0'?><manifest><version>{version}</version>\
         <bundler><name>cumulet</name><version>{}</version><release>1</release></bundler>\
         {signed}<signature>{}</signature></manifest>",
        env!("CARGO_PKG_VERSION"),
        hex::encode(signature)
    ))
}

/// An element with text in it.
fn leaf(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

fn configuration(draft: &Draft) -> String {
    let mut text = leaf("architecture", &draft.architecture);
    match draft.version {
        Version::V3 => return String::new(),
        Version::V20070829 => {}
        Version::V20071010 => {
            if !draft.block_device_mapping.is_empty() {
                let mappings = draft.block_device_mapping.iter().map(|(name, device)| {
                    format!(
                        "<mapping>{}{}</mapping>",
                        leaf("virtual", name),
                        leaf("device", device)
                    )
                });
                let mappings: String = mappings.collect();
                let _ = write!(
                    text,
                    "<block_device_mapping>{mappings}</block_device_mapping>"
                );
            }
            let ids = [
                ("kernel_id", &draft.kernel_id),
                ("ramdisk_id", &draft.ramdisk_id),
            ];
            text.extend(
                ids.into_iter()
                    .filter_map(|(name, id)| Some(leaf(name, id.as_ref()?))),
            );
            if !draft.product_codes.is_empty() {
                let codes = draft
                    .product_codes
                    .iter()
                    .map(|code| leaf("product_code", code));
                let codes: String = codes.collect();
                let _ = write!(text, "<product_codes>{codes}</product_codes>");
            }
        }
    }
    format!("<machine_configuration>{text}</machine_configuration>")
}

fn image(draft: &Draft) -> String {
    let mut text = leaf("name", &draft.name) + &leaf("user", &draft.user);
    if draft.version == Version::V20071010 {
        text += &leaf("type", "machine");
    }
    let _ = write!(
        text,
        "<digest algorithm='SHA1'>{}</digest><size>{}</size><bundled_size>{}</bundled_size>\
         <ec2_encrypted_key algorithm='AES-128-CBC'>{}</ec2_encrypted_key>\
         <user_encrypted_key algorithm='AES-128-CBC'>{}</user_encrypted_key>\
         <ec2_encrypted_iv>{}</ec2_encrypted_iv><user_encrypted_iv>{}</user_encrypted_iv>\
         <parts count='{}'>",
        hex::encode(draft.digest),
        draft.size,
        draft.bundled_size,
        hex::encode(&draft.ec2_encrypted_key),
        hex::encode(&draft.user_encrypted_key),
        hex::encode(&draft.ec2_encrypted_iv),
        hex::encode(&draft.user_encrypted_iv),
        draft.parts.len()
    );
    for (index, part) in draft.parts.iter().enumerate() {
        let _ = write!(
            text,
            "<part index='{index}'>{}<digest algorithm='SHA1'>{}</digest></part>",
            leaf("filename", &part.filename),
            hex::encode(part.sha1)
        );
    }
    format!("<image>{text}</parts></image>")
}
