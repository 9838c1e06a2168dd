//! What is kept about buckets, objects, uploads and parts.
//!
//! Stored as one byte of version and JSON.  A new version gets a new number and
//! a function from the previous one in [`decode`].

use std::collections::BTreeMap;
use std::ops::Range;

use cumulet_domain::{AccountId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::access::Acl;
use crate::bodies::BodyId;
use crate::checksums::{Algorithm, ChecksumKind, Checksums};
use crate::error::{Error, Result};

const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub name: String,
    pub owner: AccountId,
    pub acl: Acl,
    pub created: Timestamp,
    /// The region it was asked for in.
    pub location: String,
}

/// What a user says about an object and gets back with it; nothing of it is interpreted here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    pub content_language: Option<String>,
    pub cache_control: Option<String>,
    pub expires: Option<String>,
    pub website_redirect: Option<String>,
    /// `x-amz-meta-…`, names in lower case.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Who wrote it.
    pub owner: AccountId,
    pub acl: Acl,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub modified: Timestamp,
    pub attributes: Attributes,
    pub checksums: Checksums,
    /// `None` without checksums.
    pub checksum_kind: Option<ChecksumKind>,
    /// Number of parts, `None` when it was put in one piece.
    pub parts: Option<u32>,
    pub(crate) segments: Vec<Segment>,
}

impl Object {
    /// Where a part lies in the object; `None` when there is no such part.  What was put in one
    /// piece is its own only part.
    pub fn part(&self, number: u16) -> Option<Range<u64>> {
        let at = usize::from(number).checked_sub(1)?;
        if self.parts.is_none() {
            return (at == 0).then_some(0..self.size);
        }
        let length = self.segments.get(at)?.length;
        let start = self.segments[..at].iter().map(|part| part.length).sum();
        Some(start..start + length)
    }
}

/// Bytes of an object that lie in one body, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) body: BodyId,
    pub(crate) length: u64,
}

/// A multipart upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub initiator: AccountId,
    pub acl: Acl,
    pub attributes: Attributes,
    pub started: Timestamp,
    pub checksum: Option<(Algorithm, ChecksumKind)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub number: u16,
    pub size: u64,
    pub md5: [u8; 16],
    pub modified: Timestamp,
    pub checksums: Checksums,
    pub(crate) body: BodyId,
}

impl Part {
    /// Without quotes.
    pub fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, record)
        .expect("records have only string keys and memory takes every write");
    bytes
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json)
            .map_err(|cause| Error::Damaged(format!("a record ({cause})"))),
        Some((other, _)) => Err(Error::Damaged(format!("a record of version {other}"))),
        None => Err(Error::Damaged("an empty record".into())),
    }
}
