//! Objects as the engine reads them for images: bundles' manifests and parts.

use std::io::Read;

use async_trait::async_trait;
use cumulet_domain::AccountId;
use cumulet_engine::environment::{ImageObjects, ObjectError, ObjectReader};
use cumulet_objects::{Error, ObjectStore};

/// The object store, read on behalf of callers with the rights that the EC2 service has there.
pub(crate) struct StoredObjects(pub(crate) ObjectStore);

#[async_trait]
impl ImageObjects for StoredObjects {
    async fn read_small(
        &self,
        caller: AccountId,
        bucket: &str,
        key: &str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        let location = format!("{bucket}/{key}");
        let body = self
            .0
            .open_for_service(caller, bucket, key)
            .await
            .map_err(|error| refused(error, &location))?;
        let size = usize::try_from(body.object.size).unwrap_or(usize::MAX);
        if size > bytes_max {
            return Err(ObjectError::TooLarge(location));
        }
        let read = move || {
            let mut bytes = Vec::with_capacity(size);
            body.reader().read_to_end(&mut bytes).map(|_| bytes)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|cause| ObjectError::Failed(cause.to_string()))?
            .map_err(|cause| ObjectError::Failed(format!("reading {location}: {cause}")))
    }

    async fn has_buckets(&self, owner: AccountId) -> Result<bool, ObjectError> {
        let buckets = self.0.list_buckets(owner).await;
        buckets
            .map(|found| !found.is_empty())
            .map_err(|error| refused(error, "the buckets"))
    }

    fn open(
        &self,
        caller: AccountId,
        bucket: &str,
        key: &str,
    ) -> Result<ObjectReader, ObjectError> {
        let location = format!("{bucket}/{key}");
        let body = self
            .0
            .open_for_service_blocking(caller, bucket, key)
            .map_err(|error| refused(error, &location))?;
        Ok(Box::new(body.reader()))
    }
}

fn refused(error: Error, location: &str) -> ObjectError {
    match error {
        Error::NoSuchBucket
        | Error::NoSuchKey
        | Error::InvalidBucketName
        | Error::InvalidKey(_)
        | Error::KeyTooLong => ObjectError::NotFound(location.to_owned()),
        Error::AccessDenied => ObjectError::Denied(location.to_owned()),
        other => ObjectError::Failed(format!("reading {location}: {other}")),
    }
}
