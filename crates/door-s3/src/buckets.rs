//! Buckets: make, list, look at, delete.

use cumulet_objects::Bucket;
use s3s::dto::{
    BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use crate::convert::{owner, timestamp};
use crate::errors::{of_store, unsupported};
use crate::identity::caller;
use crate::service::Service;

/// The region that has no name in locations.
const CLASSIC_REGION: &str = "us-east-1";
/// What a browser is shown that was pointed at the cloud: S3's code, as its clients know it, and the
/// way on.
const UNSIGNED: &str = "Access Denied. This cloud answers S3 and EC2 here, and the request is neither signed nor names \
                        an EC2 Action; the tools are told how by the command: cumulet env";
/// Buckets in one page of a listing.
const BUCKETS_PAGE_MAX: usize = 10_000;

impl Service {
    pub(crate) async fn make_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let owner = caller(&request)?.ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let input = request.input;
        if input.object_lock_enabled_for_bucket == Some(true) {
            return Err(unsupported("object lock"));
        }
        let acl = crate::acls::of_headers(crate::acls::headers!(input, write))?;
        let asked = input
            .create_bucket_configuration
            .and_then(|configuration| configuration.location_constraint)
            .map(|location| location.as_str().to_owned())
            .filter(|location| !location.is_empty());
        if asked
            .as_ref()
            .is_some_and(|asked| *asked != self.config.region)
        {
            return Err(crate::errors::custom(
                "InvalidLocationConstraint",
                http::StatusCode::BAD_REQUEST,
                "The specified location-constraint is not valid",
            ));
        }
        let location = format!("/{}", input.bucket);
        let bucket = Bucket {
            name: input.bucket,
            owner,
            acl: acl.unwrap_or_default(),
            created: self.now(),
            location: self.config.region.clone(),
        };
        match self.objects.create_bucket(bucket).await {
            // us-east-1 answers 200 to an owner who makes a bucket again; other regions do not.
            Err(cumulet_objects::Error::BucketOwned) if self.config.region == CLASSIC_REGION => {}
            made => made.map_err(of_store)?,
        }
        Ok(S3Response::new(CreateBucketOutput {
            location: Some(location),
        }))
    }

    pub(crate) async fn all_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let account = caller(&request)?.ok_or_else(|| s3_error!(AccessDenied, "{UNSIGNED}"))?;
        let input = request.input;
        let limit = input.max_buckets.and_then(|max| usize::try_from(max).ok());
        let limit = limit.unwrap_or(BUCKETS_PAGE_MAX).clamp(1, BUCKETS_PAGE_MAX);
        let after = input.continuation_token.unwrap_or_default();
        let prefix = input.prefix.clone().unwrap_or_default();
        let is_here = input
            .bucket_region
            .is_none_or(|region| region == self.config.region);
        let found = self.objects.list_buckets(account).await.map_err(of_store)?;
        let mut found: Vec<Bucket> = found
            .into_iter()
            .filter(|bucket| is_here && bucket.name > after && bucket.name.starts_with(&prefix))
            .take(limit + 1)
            .collect();
        let is_truncated = found.len() > limit;
        found.truncate(limit);
        let next = found.last().map(|bucket| bucket.name.clone());
        let buckets = found
            .into_iter()
            .map(|bucket| s3s::dto::Bucket {
                name: Some(bucket.name),
                creation_date: Some(timestamp(bucket.created)),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            owner: Some(owner(account)),
            continuation_token: next.filter(|_| is_truncated),
            prefix: input.prefix,
        }))
    }

    pub(crate) async fn look_at_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.bucket(caller, &input.bucket).await;
        let bucket = found.map_err(of_store)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(bucket.location),
            ..Default::default()
        }))
    }

    pub(crate) async fn bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.own_bucket(caller, &input.bucket).await;
        let location = found.map_err(of_store)?.location;
        let named = (location != CLASSIC_REGION).then(|| BucketLocationConstraint::from(location));
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint: named,
        }))
    }

    /// Versioning was never switched on, since it cannot be.
    pub(crate) async fn bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.own_bucket(caller, &input.bucket).await;
        found.map_err(of_store)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    pub(crate) async fn remove_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let done = self.objects.delete_bucket(caller, &input.bucket).await;
        done.map_err(of_store)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }
}
