//! Objects: put, get, copy, delete, and their ACLs.

use cumulet_domain::{AccountId, Timestamp};

use crate::access::{self, Acl, Permission};
use crate::checksums::ChecksumKind;
use crate::error::{Error, Result};
use crate::index::{Rows, Tables};
use crate::reader::ObjectBody;
use crate::records::{Attributes, Bucket, Object, Segment};
use crate::writer::{self, StagedBody};
use crate::{Caller, ObjectStore, names};

/// Bytes of one body; an object of several parts may have 5 TiB.
pub const OBJECT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// What must hold for the object that would be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    None,
    /// There is none.
    Absent,
    /// There is one with this ETag, without quotes; `*` is any.
    Matches(String),
}

impl Condition {
    pub(crate) fn check(&self, current: Option<&Object>) -> Result<()> {
        match (self, current) {
            (Condition::None, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Matches(etag), Some(object)) if etag == "*" || *etag == object.etag => {
                Ok(())
            }
            (Condition::Matches(_), None) => Err(Error::NoSuchKey),
            (Condition::Absent | Condition::Matches(_), Some(_)) => Err(Error::PreconditionFailed),
        }
    }
}

/// An object to be.
#[derive(Debug, Clone)]
pub struct NewObject {
    pub bucket: String,
    pub key: String,
    pub acl: Acl,
    pub attributes: Attributes,
    pub condition: Condition,
    pub now: Timestamp,
}

/// An object to copy; with `etag`, only if it still has that one.
#[derive(Debug, Clone)]
pub struct CopySource {
    pub bucket: String,
    pub key: String,
    pub etag: Option<String>,
}

pub(crate) fn check_attributes(attributes: &Attributes) -> Result<()> {
    let length: usize = attributes
        .metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if length > names::METADATA_LEN_MAX {
        return Err(Error::MetadataTooLarge);
    }
    Ok(())
}

/// The bucket, if the caller may write to it, and who will own what is written.
pub(crate) fn writable<R: Rows>(
    tables: &Tables<R>,
    caller: Caller,
    bucket: &str,
) -> Result<(Bucket, AccountId)> {
    let bucket = tables.bucket(bucket)?;
    if !access::may_write(caller, &bucket) {
        return Err(Error::AccessDenied);
    }
    let owner = caller.unwrap_or(bucket.owner);
    Ok((bucket, owner))
}

fn readable<R: Rows>(
    tables: &Tables<R>,
    bucket: &str,
    key: &str,
    may_list: impl FnOnce(&Bucket) -> bool,
    may_read: impl FnOnce(&Bucket, &Object) -> bool,
) -> Result<(Bucket, Object)> {
    let bucket = tables.bucket(bucket)?;
    match tables.find_object(&bucket.name, key)? {
        Some(object) if may_read(&bucket, &object) => Ok((bucket, object)),
        None if may_list(&bucket) => Err(Error::NoSuchKey),
        // Whether there is such a key is not told to those who may not list.
        Some(_) | None => Err(Error::AccessDenied),
    }
}

fn readable_by<R: Rows>(
    tables: &Tables<R>,
    caller: Caller,
    bucket: &str,
    key: &str,
) -> Result<Object> {
    let found = readable(
        tables,
        bucket,
        key,
        |bucket| access::may_list(caller, bucket),
        |bucket, object| access::may_read(caller, bucket, object),
    );
    found.map(|(_, object)| object)
}

impl ObjectStore {
    /// Whether the caller could put an object there now: so that a body that will be refused need
    /// not be read.  Asked again when the object is put.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`, `KeyTooLong`, `InvalidKey`.
    pub async fn check_writable(&self, caller: Caller, bucket: &str, key: &str) -> Result<()> {
        names::check_key(key)?;
        let bucket = bucket.to_owned();
        self.read(move |tables| writable(tables, caller, &bucket).map(|_| ()))
            .await
    }

    /// Makes `body` the object of that key.  When it returns, the object is durable and everybody
    /// sees it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`, `PreconditionFailed`, `MetadataTooLarge`, those of keys and
    /// of the disk.
    pub async fn put(&self, caller: Caller, body: StagedBody, new: NewObject) -> Result<Object> {
        names::check_key(&new.key)?;
        check_attributes(&new.attributes)?;
        self.index
            .write(vec![body.dir()], move |tx| {
                let (bucket, owner) = writable(&tx.tables, caller, &new.bucket)?;
                let current = tx.tables.find_object(&bucket.name, &new.key)?;
                new.condition.check(current.as_ref())?;
                let (size, digests) = (body.size, body.digests.clone());
                let body = body.keep();
                let has_checksums = !digests.checksums.is_empty();
                let object = Object {
                    owner,
                    acl: new.acl,
                    size,
                    etag: hex::encode(digests.md5),
                    modified: new.now,
                    attributes: new.attributes,
                    checksums: digests.checksums,
                    checksum_kind: has_checksums.then_some(ChecksumKind::FullObject),
                    parts: None,
                    segments: vec![Segment { body, length: size }],
                };
                tx.add_use(body)?;
                tx.put_object(&bucket.name, &new.key, &object)?;
                Ok(object)
            })
            .await
    }

    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    pub async fn head(&self, caller: Caller, bucket: &str, key: &str) -> Result<Object> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.read(move |tables| readable_by(tables, caller, &bucket, &key))
            .await
    }

    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    pub async fn get(&self, caller: Caller, bucket: &str, key: &str) -> Result<ObjectBody> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.opened(move |tables| readable_by(tables, caller, &bucket, &key))
            .await
    }

    /// What the EC2 service may read because `caller` asks it to: what the caller may read, and
    /// what is shared with the service (`aws-exec-read`).
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    pub async fn open_for_service(
        &self,
        caller: AccountId,
        bucket: &str,
        key: &str,
    ) -> Result<ObjectBody> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.opened(move |tables| service_readable(tables, caller, &bucket, &key))
            .await
    }

    /// As [`Self::open_for_service`], for threads outside the runtime.
    ///
    /// # Errors
    /// As [`Self::open_for_service`].
    pub fn open_for_service_blocking(
        &self,
        caller: AccountId,
        bucket: &str,
        key: &str,
    ) -> Result<ObjectBody> {
        self.opened_blocking(|tables| service_readable(tables, caller, bucket, key))
    }

    /// As [`Self::get`], for threads outside the runtime.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_blocking(&self, caller: Caller, bucket: &str, key: &str) -> Result<ObjectBody> {
        self.opened_blocking(|tables| readable_by(tables, caller, bucket, key))
    }

    async fn opened<F>(&self, lookup: F) -> Result<ObjectBody>
    where
        F: FnOnce(&Tables<crate::index::ReadRows>) -> Result<Object> + Send + 'static,
    {
        let store = self.clone();
        let permit = writer::worker(&self.workers).await?;
        writer::joined(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            store.opened_blocking(lookup)
        }))
        .await
    }

    fn opened_blocking<F>(&self, lookup: F) -> Result<ObjectBody>
    where
        F: FnOnce(&Tables<crate::index::ReadRows>) -> Result<Object>,
    {
        let (object, pin) = self.bodies.pinned(|| {
            let object = self.index.read(lookup)?;
            let ids = object.segments.iter().map(|segment| segment.body).collect();
            Ok((object, ids))
        })?;
        Ok(ObjectBody {
            object,
            pin,
            workers: self.workers.clone(),
        })
    }

    /// The object, for somebody who may do with its ACL what `wanted` says.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    pub async fn control(
        &self,
        caller: Caller,
        bucket: &str,
        key: &str,
        wanted: Permission,
    ) -> Result<(Bucket, Object)> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.read(move |tables| controllable(tables, caller, &bucket, &key, wanted))
            .await
    }

    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    pub async fn set_object_acl(
        &self,
        caller: Caller,
        bucket: &str,
        key: &str,
        acl: Acl,
    ) -> Result<()> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.index
            .write(vec![], move |tx| {
                let wanted = Permission::WriteAcp;
                let (bucket, object) = controllable(&tx.tables, caller, &bucket, &key, wanted)?;
                // The bodies stay the same: they are counted once more for the new record.
                for segment in &object.segments {
                    tx.add_use(segment.body)?;
                }
                tx.put_object(&bucket.name, &key, &Object { acl, ..object })
            })
            .await
    }

    /// A second object over the same bytes, which are not copied.  `attributes: None` keeps those
    /// of the source; the ACL is never taken over, as in S3.  The ETag and the checksums are the
    /// source's.
    ///
    /// # Errors
    /// As [`Self::get`] for the source and [`Self::put`] for the target; `PreconditionFailed` when
    /// the source has changed.
    pub async fn copy(
        &self,
        caller: Caller,
        source: CopySource,
        new: NewObject,
        keep_attributes: bool,
    ) -> Result<Object> {
        names::check_key(&new.key)?;
        check_attributes(&new.attributes)?;
        self.index
            .write(vec![], move |tx| {
                let found = readable_by(&tx.tables, caller, &source.bucket, &source.key)?;
                if source.etag.is_some_and(|etag| etag != found.etag) {
                    return Err(Error::PreconditionFailed);
                }
                let (bucket, owner) = writable(&tx.tables, caller, &new.bucket)?;
                let current = tx.tables.find_object(&bucket.name, &new.key)?;
                new.condition.check(current.as_ref())?;
                for segment in &found.segments {
                    tx.add_use(segment.body)?;
                }
                let object = Object {
                    owner,
                    acl: new.acl,
                    modified: new.now,
                    attributes: if keep_attributes {
                        found.attributes
                    } else {
                        new.attributes
                    },
                    ..found
                };
                tx.put_object(&bucket.name, &new.key, &object)?;
                Ok(object)
            })
            .await
    }

    /// Deletes; a key that is not there is no error.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`; `PreconditionFailed` when there is an object and the
    /// condition does not hold.
    pub async fn delete(
        &self,
        caller: Caller,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<()> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.index
            .write(vec![], move |tx| {
                let (bucket, _) = writable(&tx.tables, caller, &bucket)?;
                let current = tx.tables.find_object(&bucket.name, &key)?;
                if current.is_some() {
                    condition.check(current.as_ref())?;
                    tx.delete_object(&bucket.name, &key)?;
                }
                Ok(())
            })
            .await
    }

    /// Deletes all of them at once.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub async fn delete_many(&self, caller: Caller, bucket: &str, keys: Vec<String>) -> Result<()> {
        let bucket = bucket.to_owned();
        self.index
            .write(vec![], move |tx| {
                let (bucket, _) = writable(&tx.tables, caller, &bucket)?;
                for key in &keys {
                    tx.delete_object(&bucket.name, key)?;
                }
                Ok(())
            })
            .await
    }
}

fn service_readable<R: Rows>(
    tables: &Tables<R>,
    caller: AccountId,
    bucket: &str,
    key: &str,
) -> Result<Object> {
    let found = readable(
        tables,
        bucket,
        key,
        |bucket| access::may_list(Some(caller), bucket),
        |bucket, object| access::service_may_read(caller, bucket, object),
    );
    found.map(|(_, object)| object)
}

fn controllable<R: Rows>(
    tables: &Tables<R>,
    caller: Caller,
    bucket: &str,
    key: &str,
    wanted: Permission,
) -> Result<(Bucket, Object)> {
    readable(
        tables,
        bucket,
        key,
        |bucket| access::may_list(caller, bucket),
        |bucket, object| access::may_control(caller, bucket, object, wanted),
    )
}
