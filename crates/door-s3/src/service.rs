//! The list of operations that we have.
//!
//! Every other operation of S3 answers `NotImplemented`, which is what the
//! library's trait does for a method that is not here.

use std::sync::Arc;

use async_trait::async_trait;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_objects::ObjectStore;
use s3s::dto;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::Config;
use crate::errors::of_store;

pub(crate) struct Service {
    pub(crate) objects: ObjectStore,
    pub(crate) config: Arc<Config>,
}

impl Service {
    pub(crate) fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    /// `x-amz-expected-bucket-owner`.
    pub(crate) async fn check_owner(&self, bucket: &str, expected: Option<&str>) -> S3Result<()> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let owner = self.objects.bucket_owner(bucket).await.map_err(of_store)?;
        if expected.parse::<AccountId>().ok() != Some(owner) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }
}

/// One line for each operation: the library's method, its name, ours.
macro_rules! operations {
    ($($method:ident $input:ident $output:ident => $ours:ident;)*) => {
        #[async_trait]
        impl S3 for Service {
            $(
                async fn $method(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    self.$ours(request).await
                }
            )*
        }
    };
}

operations! {
    create_bucket CreateBucketInput CreateBucketOutput => make_bucket;
    list_buckets ListBucketsInput ListBucketsOutput => all_buckets;
    head_bucket HeadBucketInput HeadBucketOutput => look_at_bucket;
    get_bucket_location GetBucketLocationInput GetBucketLocationOutput => bucket_location;
    get_bucket_versioning GetBucketVersioningInput GetBucketVersioningOutput => bucket_versioning;
    delete_bucket DeleteBucketInput DeleteBucketOutput => remove_bucket;
    put_object PutObjectInput PutObjectOutput => put;
    get_object GetObjectInput GetObjectOutput => get;
    head_object HeadObjectInput HeadObjectOutput => head;
    copy_object CopyObjectInput CopyObjectOutput => copy;
    delete_object DeleteObjectInput DeleteObjectOutput => delete;
    delete_objects DeleteObjectsInput DeleteObjectsOutput => delete_several;
    list_objects ListObjectsInput ListObjectsOutput => list;
    list_objects_v2 ListObjectsV2Input ListObjectsV2Output => list_v2;
    create_multipart_upload CreateMultipartUploadInput CreateMultipartUploadOutput => begin_upload;
    upload_part UploadPartInput UploadPartOutput => put_part;
    upload_part_copy UploadPartCopyInput UploadPartCopyOutput => copy_part;
    complete_multipart_upload CompleteMultipartUploadInput CompleteMultipartUploadOutput => complete;
    abort_multipart_upload AbortMultipartUploadInput AbortMultipartUploadOutput => abort;
    list_parts ListPartsInput ListPartsOutput => parts;
    list_multipart_uploads ListMultipartUploadsInput ListMultipartUploadsOutput => uploads;
    get_bucket_acl GetBucketAclInput GetBucketAclOutput => bucket_acl;
    put_bucket_acl PutBucketAclInput PutBucketAclOutput => set_bucket_acl;
    get_object_acl GetObjectAclInput GetObjectAclOutput => object_acl;
    put_object_acl PutObjectAclInput PutObjectAclOutput => set_object_acl;
}
