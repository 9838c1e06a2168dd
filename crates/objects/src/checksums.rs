//! Digests of bodies, computed while the bytes pass.  Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest as lc;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Expectation, Result};

/// The checksums of S3 besides MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        })
    }
}

impl Algorithm {
    pub const ALL: [Algorithm; 5] = [
        Algorithm::Crc32,
        Algorithm::Crc32c,
        Algorithm::Crc64Nvme,
        Algorithm::Sha1,
        Algorithm::Sha256,
    ];

    pub fn is_crc(self) -> bool {
        self.crc().is_some()
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    fn crc_bytes(self, value: u64) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        match self {
            Algorithm::Crc64Nvme => bytes.to_vec(),
            _ => bytes[4..].to_vec(),
        }
    }
}

/// Raw bytes of digests by algorithm.
pub type Checksums = BTreeMap<Algorithm, Vec<u8>>;

/// How the checksum of an object of several parts comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// Of all bytes.
    FullObject,
    /// Of the digests of the parts.
    Composite,
}

/// What a client said about a body; each is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub md5: Option<[u8; 16]>,
    /// Hash of the payload as the signature covers it.
    pub content_sha256: Option<[u8; 32]>,
    pub checksums: Checksums,
    pub size: Option<u64>,
}

/// What was found about a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    pub md5: [u8; 16],
    pub checksums: Checksums,
}

enum Running {
    Crc(Algorithm, Box<crc_fast::Digest>),
    Sha(Algorithm, Box<lc::Context>),
}

/// Several digests at once.
pub struct Hasher {
    md5: Md5,
    running: Vec<Running>,
}

impl Hasher {
    pub fn new(algorithms: &BTreeSet<Algorithm>) -> Self {
        let running = algorithms.iter().map(|&algorithm| match algorithm.crc() {
            Some(crc) => Running::Crc(algorithm, Box::new(crc_fast::Digest::new(crc))),
            None if algorithm == Algorithm::Sha1 => Running::Sha(
                algorithm,
                Box::new(lc::Context::new(&lc::SHA1_FOR_LEGACY_USE_ONLY)),
            ),
            None => Running::Sha(algorithm, Box::new(lc::Context::new(&lc::SHA256))),
        });
        Self {
            md5: Md5::new(),
            running: running.collect(),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        for running in &mut self.running {
            match running {
                Running::Crc(_, digest) => digest.update(bytes),
                Running::Sha(_, context) => context.update(bytes),
            }
        }
    }

    pub fn finish(self) -> Digests {
        let checksums = self.running.into_iter().map(|running| match running {
            Running::Crc(algorithm, digest) => (algorithm, algorithm.crc_bytes(digest.finalize())),
            Running::Sha(algorithm, context) => (algorithm, context.finish().as_ref().to_vec()),
        });
        Digests {
            checksums: checksums.collect(),
            md5: self.md5.finalize().into(),
        }
    }
}

/// Compares; `Sha256` must be among the digests when `content_sha256` is expected.
pub(crate) fn compare(expected: &Expected, found: &Digests, size: u64) -> Result<()> {
    if expected.size.is_some_and(|announced| announced != size) {
        return Err(Error::IncompleteBody);
    }
    if expected.md5.is_some_and(|md5| md5 != found.md5) {
        return Err(Error::BadDigest(Expectation::ContentMd5));
    }
    if let Some(sha256) = &expected.content_sha256
        && found.checksums.get(&Algorithm::Sha256).map(Vec::as_slice) != Some(sha256)
    {
        return Err(Error::BadDigest(Expectation::ContentSha256));
    }
    for (algorithm, value) in &expected.checksums {
        if found.checksums.get(algorithm) != Some(value) {
            return Err(Error::BadDigest(Expectation::Checksum(*algorithm)));
        }
    }
    Ok(())
}

/// The checksum of all bytes from those of the parts; `None` for algorithms that cannot.
pub(crate) fn combine_full(algorithm: Algorithm, parts: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
    let crc = algorithm.crc()?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let mut parts = parts.iter();
    let (first, _) = parts.next()?;
    let combined = parts.fold(number(first), |sum, (part, length)| {
        crc_fast::checksum_combine(crc, sum, number(part), *length)
    });
    Some(algorithm.crc_bytes(combined))
}

/// The checksum of the parts' checksums.
pub(crate) fn combine_composite(algorithm: Algorithm, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut hasher = Hasher::new(&BTreeSet::from([algorithm]));
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish().checksums.remove(&algorithm)
}

/// MD5 of the parts' MD5s, the number of parts behind it.
pub(crate) fn multipart_etag(parts: &[[u8; 16]]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(bytes: &[u8]) -> Digests {
        let mut hasher = Hasher::new(&BTreeSet::from(Algorithm::ALL));
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn check_values_of_the_algorithms() {
        let found = digests(b"123456789");
        let hex = |algorithm| hex::encode(&found.checksums[&algorithm]);
        assert_eq!(hex(Algorithm::Crc32), "cbf43926");
        assert_eq!(hex(Algorithm::Crc32c), "e3069283");
        assert_eq!(hex(Algorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(
            hex(Algorithm::Sha1),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
        assert_eq!(hex::encode(found.md5), "25f9e794323b453885f5181f1b624d0b");
    }

    #[test]
    fn parts_combine_to_the_whole() {
        let (first, second) = (vec![7_u8; 5000], vec![9_u8; 77]);
        let whole = digests(&[first.clone(), second.clone()].concat());
        for algorithm in Algorithm::ALL.into_iter().filter(|each| each.is_crc()) {
            let part = |bytes: &Vec<u8>| {
                (
                    digests(bytes).checksums[&algorithm].clone(),
                    bytes.len() as u64,
                )
            };
            let combined = combine_full(algorithm, &[part(&first), part(&second)]);
            assert_eq!(combined.as_ref(), whole.checksums.get(&algorithm));
        }
        assert_eq!(combine_full(Algorithm::Sha256, &[]), None);
    }
}
