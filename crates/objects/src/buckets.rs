//! Buckets: create, look at, list, delete.

use cumulet_domain::AccountId;

use crate::access::{self, Acl, Permission};
use crate::error::{Error, Result};
use crate::index::{key, successor};
use crate::records::{Bucket, decode};
use crate::{Caller, ObjectStore, names};
use redb::ReadableTable as _;

/// Buckets of one account.
pub(crate) const BUCKETS_MAX: usize = 1000;

impl ObjectStore {
    /// # Errors
    /// `InvalidBucketName`, `BucketOwned`, `BucketTaken`, `TooManyBuckets`.
    pub async fn create_bucket(&self, bucket: Bucket) -> Result<()> {
        names::check_bucket(&bucket.name)?;
        self.index
            .write(vec![], move |tx| {
                match tx.tables.find_bucket(&bucket.name)? {
                    Some(old) if old.owner == bucket.owner => return Err(Error::BucketOwned),
                    Some(_) => return Err(Error::BucketTaken),
                    None => {}
                }
                let mut owned = 0;
                for row in tx.tables.buckets.iter()? {
                    let other: Bucket = decode(row?.1.value())?;
                    owned += usize::from(other.owner == bucket.owner);
                }
                if owned >= BUCKETS_MAX {
                    return Err(Error::TooManyBuckets);
                }
                tx.put_bucket(&bucket)
            })
            .await
    }

    /// The account's buckets, by name.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn list_buckets(&self, owner: AccountId) -> Result<Vec<Bucket>> {
        self.read(move |tables| {
            let mut found = vec![];
            for row in tables.buckets.iter()? {
                let bucket: Bucket = decode(row?.1.value())?;
                if bucket.owner == owner {
                    found.push(bucket);
                }
            }
            Ok(found)
        })
        .await
    }

    /// A bucket that the caller may list.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn bucket(&self, caller: Caller, name: &str) -> Result<Bucket> {
        let name = name.to_owned();
        self.read(move |tables| {
            let bucket = tables.bucket(&name)?;
            if !access::may_list(caller, &bucket) {
                return Err(Error::AccessDenied);
            }
            Ok(bucket)
        })
        .await
    }

    /// Whose the bucket is; for comparing only, whoever asks.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub async fn bucket_owner(&self, name: &str) -> Result<AccountId> {
        let name = name.to_owned();
        self.read(move |tables| tables.bucket(&name).map(|bucket| bucket.owner))
            .await
    }

    /// The bucket, for somebody who may do with its ACL what `wanted` says.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn control_bucket(
        &self,
        caller: Caller,
        name: &str,
        wanted: Permission,
    ) -> Result<Bucket> {
        let name = name.to_owned();
        self.read(move |tables| {
            let bucket = tables.bucket(&name)?;
            if !access::may_control_bucket(caller, &bucket, wanted) {
                return Err(Error::AccessDenied);
            }
            Ok(bucket)
        })
        .await
    }

    /// A bucket of the caller's own: what is its owner's business alone.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn own_bucket(&self, caller: Caller, name: &str) -> Result<Bucket> {
        let name = name.to_owned();
        self.read(move |tables| {
            let bucket = tables.bucket(&name)?;
            if !access::owns_bucket(caller, &bucket) {
                return Err(Error::AccessDenied);
            }
            Ok(bucket)
        })
        .await
    }

    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn set_bucket_acl(&self, caller: Caller, name: &str, acl: Acl) -> Result<()> {
        let name = name.to_owned();
        self.index
            .write(vec![], move |tx| {
                let bucket = tx.tables.bucket(&name)?;
                if !access::may_control_bucket(caller, &bucket, Permission::WriteAcp) {
                    return Err(Error::AccessDenied);
                }
                tx.put_bucket(&Bucket { acl, ..bucket })
            })
            .await
    }

    /// Deletes an empty bucket; uploads that were begun in it are aborted.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`, `BucketNotEmpty`.
    pub async fn delete_bucket(&self, caller: Caller, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.index
            .write(vec![], move |tx| {
                let bucket = tx.tables.bucket(&name)?;
                if !access::owns_bucket(caller, &bucket) {
                    return Err(Error::AccessDenied);
                }
                let from = key(&[&name, ""]);
                let to = successor(from.clone());
                let range = from.as_slice()..to.as_slice();
                if tx
                    .tables
                    .objects
                    .range::<&[u8]>(range.clone())?
                    .next()
                    .is_some()
                {
                    return Err(Error::BucketNotEmpty);
                }
                let mut uploads = vec![];
                for row in tx.tables.uploads.range::<&[u8]>(range)? {
                    uploads.push(upload_name(row?.0.value())?);
                }
                for (object, id) in uploads {
                    tx.delete_upload(&name, &object, &id)?;
                }
                tx.delete_bucket(&name)
            })
            .await
    }
}

/// Key and id from the key of an upload's row.
pub(crate) fn upload_name(row: &[u8]) -> Result<(String, String)> {
    let damaged = || Error::Damaged("the key of an upload".into());
    let text = std::str::from_utf8(row).map_err(|_| damaged())?;
    let (_, rest) = text.split_once('\0').ok_or_else(damaged)?;
    let (object, id) = rest.split_once('\0').ok_or_else(damaged)?;
    Ok((object.to_owned(), id.to_owned()))
}
