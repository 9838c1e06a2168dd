//! Objects in parts: begin, put a part, look, complete, abort.
//!
//! A completed object refers to the bodies of its parts; nothing is copied.

use cumulet_domain::Timestamp;

use crate::checksums::{
    Algorithm, ChecksumKind, Checksums, combine_composite, combine_full, multipart_etag,
};
use crate::error::{Error, Expectation, Result};
use crate::index::{Rows, Tables};
use crate::objects::{Condition, check_attributes, writable};
use crate::records::{Attributes, Bucket, Object, Part, Segment, Upload};
use crate::writer::StagedBody;
use crate::{Acl, Caller, ObjectStore, access, names};

pub const PART_NUMBER_MAX: u16 = 10_000;
/// Every part but the last has at least so many bytes.
pub const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Bytes of an object of several parts: 5 TiB.
const PARTS_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct NewUpload {
    pub bucket: String,
    pub key: String,
    pub acl: Acl,
    pub attributes: Attributes,
    pub checksum: Option<(Algorithm, ChecksumKind)>,
    pub now: Timestamp,
}

/// A part as the client lists it when it completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    pub number: u16,
    /// Without quotes.
    pub etag: String,
    /// Those that the client repeats; each must be the part's.
    pub checksums: Checksums,
}

/// The upload, for whoever began it or owns the bucket.
fn own_upload<R: Rows>(
    tables: &Tables<R>,
    caller: Caller,
    bucket: &str,
    key: &str,
    id: &str,
) -> Result<(Bucket, Upload)> {
    let (bucket, _) = writable(tables, caller, bucket)?;
    // An id with a NUL would be read as another key.
    if id.contains('\0') || key.contains('\0') {
        return Err(Error::NoSuchUpload);
    }
    let upload = tables.upload(&bucket.name, key, id)?;
    if caller != Some(upload.initiator) && !access::owns_bucket(caller, &bucket) {
        return Err(Error::AccessDenied);
    }
    Ok((bucket, upload))
}

impl ObjectStore {
    /// Begins an upload; answers its id.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied` (also for callers that did not sign), `MetadataTooLarge`,
    /// those of keys.
    pub async fn create_upload(&self, caller: Caller, new: NewUpload) -> Result<String> {
        names::check_key(&new.key)?;
        check_attributes(&new.attributes)?;
        let initiator = caller.ok_or(Error::AccessDenied)?;
        let id = hex::encode(rand::random::<[u8; 16]>());
        self.index
            .write(vec![], move |tx| {
                let (bucket, _) = writable(&tx.tables, caller, &new.bucket)?;
                let upload = Upload {
                    initiator,
                    acl: new.acl,
                    attributes: new.attributes,
                    started: new.now,
                    checksum: new.checksum,
                };
                tx.put_upload(&bucket.name, &new.key, &id, &upload)?;
                Ok(id)
            })
            .await
    }

    /// The upload, for whoever may add parts to it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`, `AccessDenied`.
    pub async fn upload(
        &self,
        caller: Caller,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Upload> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.read(move |tables| {
            own_upload(tables, caller, &bucket, &key, &id).map(|(_, upload)| upload)
        })
        .await
    }

    /// Makes `body` the part of that number, in place of an earlier one.
    ///
    /// # Errors
    /// As [`Self::upload`]; `InvalidPartNumber`.
    pub async fn put_part(
        &self,
        caller: Caller,
        (bucket, key, id): (&str, &str, &str),
        number: u16,
        body: StagedBody,
        now: Timestamp,
    ) -> Result<Part> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(Error::InvalidPartNumber);
        }
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.index
            .write(vec![body.dir()], move |tx| {
                own_upload(&tx.tables, caller, &bucket, &key, &id)?;
                let part = Part {
                    number,
                    size: body.size,
                    md5: body.digests.md5,
                    modified: now,
                    checksums: body.digests.checksums.clone(),
                    body: body.keep(),
                };
                tx.add_use(part.body)?;
                tx.put_part(&id, &part)?;
                Ok(part)
            })
            .await
    }

    /// Parts with numbers above `after`, ascending, at most `limit`; whether there are more; and
    /// the upload.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn list_parts(
        &self,
        caller: Caller,
        (bucket, key, id): (&str, &str, &str),
        after: u16,
        limit: usize,
    ) -> Result<(Upload, Vec<Part>, bool)> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.read(move |tables| {
            let (_, upload) = own_upload(tables, caller, &bucket, &key, &id)?;
            let mut parts = tables.parts(&id, after, limit + 1)?;
            let is_truncated = parts.len() > limit;
            parts.truncate(limit);
            Ok((upload, parts, is_truncated))
        })
        .await
    }

    /// Makes the listed parts one object, in their order; parts that are not listed go.
    ///
    /// # Errors
    /// As [`Self::upload`]; `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `BadDigest` when
    /// `expected` differs, `PreconditionFailed`.
    pub async fn complete_upload(
        &self,
        caller: Caller,
        (bucket, key, id): (&str, &str, &str),
        listed: Vec<CompletedPart>,
        expected: Checksums,
        condition: Condition,
        now: Timestamp,
    ) -> Result<Object> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.index
            .write(vec![], move |tx| {
                let (bucket, upload) = own_upload(&tx.tables, caller, &bucket, &key, &id)?;
                let current = tx.tables.find_object(&bucket.name, &key)?;
                condition.check(current.as_ref())?;
                let parts = chosen(&tx.tables, &id, &listed)?;
                let object = assembled(upload, &parts, now)?;
                for (algorithm, value) in &expected {
                    let has = object.checksums.get(algorithm);
                    if has.is_some_and(|has| has != value) {
                        return Err(Error::BadDigest(Expectation::Checksum(*algorithm)));
                    }
                }
                for segment in &object.segments {
                    tx.add_use(segment.body)?;
                }
                tx.put_object(&bucket.name, &key, &object)?;
                tx.delete_upload(&bucket.name, &key, &id)?;
                Ok(object)
            })
            .await
    }

    /// Gives an upload up, with its parts.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn abort_upload(
        &self,
        caller: Caller,
        (bucket, key, id): (&str, &str, &str),
    ) -> Result<()> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
        self.index
            .write(vec![], move |tx| {
                let (bucket, _) = own_upload(&tx.tables, caller, &bucket, &key, &id)?;
                tx.delete_upload(&bucket.name, &key, &id)
            })
            .await
    }
}

/// The parts that were listed, if they are there as listed.
fn chosen<R: Rows>(tables: &Tables<R>, id: &str, listed: &[CompletedPart]) -> Result<Vec<Part>> {
    if listed.is_empty() {
        return Err(Error::InvalidPart(0));
    }
    if !listed.is_sorted_by(|one, next| one.number < next.number) {
        return Err(Error::InvalidPartOrder);
    }
    let mut parts = vec![];
    for wanted in listed {
        let part = tables.find_part(id, wanted.number)?;
        let part = part.ok_or(Error::InvalidPart(wanted.number))?;
        let differs = wanted.checksums.iter().any(|(algorithm, value)| {
            part.checksums
                .get(algorithm)
                .is_some_and(|has| has != value)
        });
        if part.etag() != wanted.etag || differs {
            return Err(Error::InvalidPart(wanted.number));
        }
        parts.push(part);
    }
    let all_but_last = parts.split_last().map_or(&[][..], |(_, before)| before);
    if let Some(small) = all_but_last.iter().find(|part| part.size < PART_BYTES_MIN) {
        return Err(Error::EntityTooSmall {
            part: small.number,
            size: small.size,
        });
    }
    Ok(parts)
}

fn assembled(upload: Upload, parts: &[Part], now: Timestamp) -> Result<Object> {
    let size = parts.iter().map(|part| part.size).sum();
    if size > PARTS_BYTES_MAX {
        return Err(Error::EntityTooLarge {
            max: PARTS_BYTES_MAX,
        });
    }
    let md5s: Vec<[u8; 16]> = parts.iter().map(|part| part.md5).collect();
    let checksum = upload.checksum.and_then(|(algorithm, kind)| {
        let of_parts: Option<Vec<(Vec<u8>, u64)>> = parts
            .iter()
            .map(|part| Some((part.checksums.get(&algorithm)?.clone(), part.size)))
            .collect();
        let of_parts = of_parts?;
        let value = match kind {
            ChecksumKind::FullObject => combine_full(algorithm, &of_parts),
            ChecksumKind::Composite => {
                let values: Vec<Vec<u8>> = of_parts.into_iter().map(|(value, _)| value).collect();
                combine_composite(algorithm, &values)
            }
        };
        Some((algorithm, kind, value?))
    });
    Ok(Object {
        owner: upload.initiator,
        acl: upload.acl,
        size,
        etag: multipart_etag(&md5s),
        modified: now,
        attributes: upload.attributes,
        checksum_kind: checksum.as_ref().map(|(_, kind, _)| *kind),
        checksums: checksum
            .map(|(algorithm, _, value)| (algorithm, value))
            .into_iter()
            .collect(),
        parts: u32::try_from(parts.len()).ok(),
        segments: parts
            .iter()
            .map(|part| Segment {
                body: part.body,
                length: part.size,
            })
            .collect(),
    })
}
