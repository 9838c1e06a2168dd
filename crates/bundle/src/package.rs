//! What a user does: an image file to a bundle in a directory, and that to a bucket.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::bundle::{BundleError, Directory, Form, Options, bundle};
use crate::manifest::{self, Draft, ManifestError, Version};
use crate::s3_client::{Client, ClientError};
use crate::sign::{SignError, SigningKey};

/// Largest manifest that is read from a file.
const MANIFEST_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Largest part that is uploaded; one is held in memory.
const PART_BYTES_MAX: u64 = 100 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum PackageError {
    #[error("the account number {0:?} has not 12 digits")]
    Account(String),
    #[error("could not read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("could not write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("{0} is too large")]
    TooLarge(PathBuf),
    #[error("the certificate does not belong to the private key")]
    OtherCertificate,
    #[error("{0} is not as its manifest says; bundle again")]
    Damaged(PathBuf),
    #[error("no random numbers are to be had")]
    Random,
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What is bundled, for whom, and where the result goes.
pub struct Request<'a> {
    pub image: &'a Path,
    /// An existing directory; files of the same names in it are replaced.
    pub directory: &'a Path,
    /// Begins all names.
    pub prefix: &'a str,
    /// The owner's account number; dashes are allowed.
    pub account: &'a str,
    pub private_key_pem: &'a str,
    pub certificate_pem: &'a str,
    /// Certificate of the cloud that is to run the image.
    pub cloud_certificate_pem: &'a str,
    /// `i386` or `x86_64`.
    pub architecture: &'a str,
    pub version: Version,
    pub form: Form,
    pub threads: usize,
    /// Of gzip, 1 to 9.
    pub level: u32,
}

/// Makes the parts and the manifest; returns the manifest's path.
///
/// # Errors
/// What is wrong with the request or could not be read or written.
pub fn make(request: &Request<'_>) -> Result<PathBuf, PackageError> {
    let account = request.account.replace('-', "");
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PackageError::Account(request.account.to_owned()));
    }
    let signing_key = SigningKey::from_pem(request.private_key_pem)?;
    let (mut key, mut iv) = (Zeroizing::new([0; 16]), [0; 16]);
    aws_lc_rs::rand::fill(key.as_mut()).map_err(|_| PackageError::Random)?;
    aws_lc_rs::rand::fill(&mut iv).map_err(|_| PackageError::Random)?;
    // All that the certificates are needed for comes before the long work.
    let seal = |secret: &[u8; 16], certificate| manifest::encrypt_hex_text(secret, certificate);
    let mut draft = Draft {
        version: request.version,
        name: request.prefix.to_owned(),
        user: account,
        digest: [0; 20],
        size: 0,
        bundled_size: 0,
        ec2_encrypted_key: seal(&key, request.cloud_certificate_pem)?,
        ec2_encrypted_iv: seal(&iv, request.cloud_certificate_pem)?,
        user_encrypted_key: seal(&key, request.certificate_pem)?,
        user_encrypted_iv: seal(&iv, request.certificate_pem)?,
        parts: vec![],
        architecture: request.architecture.to_owned(),
        kernel_id: None,
        ramdisk_id: None,
        block_device_mapping: vec![],
        product_codes: vec![],
    };
    let image = File::open(request.image)
        .map_err(|error| PackageError::Read(request.image.to_owned(), error))?;
    let options = Options {
        prefix: request.prefix,
        form: request.form,
        key: &key,
        iv: &iv,
        threads: request.threads,
        level: request.level,
    };
    let made = bundle(&image, &options, &mut Directory::new(request.directory))?;
    draft.digest = made.digest;
    draft.size = made.size;
    draft.bundled_size = made.bundled_size;
    draft.parts = made.parts;
    let text = manifest::write(&draft, &signing_key)?;
    // What is written is read as the cloud will do it.
    if !manifest::verify(
        &manifest::parse(text.as_bytes())?,
        [request.certificate_pem],
    ) {
        return Err(PackageError::OtherCertificate);
    }
    let path = request
        .directory
        .join(format!("{}.manifest.xml", request.prefix));
    fs::write(&path, text).map_err(|error| PackageError::Write(path.clone(), error))?;
    Ok(path)
}

/// Where a bundle is put.
pub struct Destination<'a> {
    pub client: &'a Client,
    /// A bucket, or `BUCKET/PATH`; the bucket is created when there is none.
    pub bucket: &'a str,
    /// Canned access of every object.
    pub acl: &'a str,
}

/// Stores the parts that a manifest lists, which lie beside it, and then the manifest.  Returns the
/// location to be registered, `BUCKET/…/NAME.manifest.xml`.
///
/// # Errors
/// What could not be read, is not as the manifest says, or was refused.
pub fn upload(
    manifest_path: &Path,
    destination: &Destination<'_>,
    mut on_stored: impl FnMut(&str),
) -> Result<String, PackageError> {
    let text = read(manifest_path, MANIFEST_BYTES_MAX)?;
    let manifest = manifest::parse(&text)?;
    let (bucket, place) = destination
        .bucket
        .split_once('/')
        .unwrap_or((destination.bucket, ""));
    let place = place.trim_matches('/');
    let key = |name: &str| {
        if place.is_empty() {
            name.to_owned()
        } else {
            format!("{place}/{name}")
        }
    };
    destination.client.ensure_bucket(bucket)?;
    let put = |name: &str, body: &[u8]| {
        destination
            .client
            .put(bucket, &key(name), body, Some(destination.acl))
    };
    let directory = manifest_path.parent().unwrap_or(Path::new("."));
    for part in &manifest.parts {
        let path = directory.join(&part.filename);
        let body = read(&path, PART_BYTES_MAX)?;
        if digest(&SHA1_FOR_LEGACY_USE_ONLY, &body).as_ref() != part.sha1 {
            return Err(PackageError::Damaged(path));
        }
        put(&part.filename, &body)?;
        on_stored(&part.filename);
    }
    let name = manifest_path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    put(&name, &text)?;
    on_stored(&name);
    Ok(format!("{bucket}/{}", key(&name)))
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PackageError> {
    let failed = |error| PackageError::Read(path.to_owned(), error);
    if fs::metadata(path).map_err(failed)?.len() > bytes_max {
        return Err(PackageError::TooLarge(path.to_owned()));
    }
    fs::read(path).map_err(failed)
}
