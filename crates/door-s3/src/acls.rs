//! ACLs of buckets and objects.
//!
//! Only canned ones are kept.  They are shown as grants, and a list of grants
//! is accepted when it says what a canned one says.

use std::collections::BTreeSet;

use cumulet_domain::AccountId;
use cumulet_objects::Acl;
use s3s::dto::{
    AccessControlPolicy, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput,
    GetObjectAclOutput, Grant, Grantee, Permission, PutBucketAclInput, PutBucketAclOutput,
    PutObjectAclInput, PutObjectAclOutput, Type,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use crate::convert::{acl, canonical_id, display_name, owner, refuse_version};
use crate::errors::{of_store, unsupported};
use crate::identity::caller;
use crate::service::Service;

const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
const AUTHENTICATED_USERS: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";
/// The canonical id under which the EC2 service reads images; `aws-exec-read` has always been shown
/// as a grant to it.
const EXEC_READER: &str = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c";

/// A grantee (id or group) and what it may.
type Plain = (String, &'static str);

/// What the ACL of a thing of `owner` says; `bucket_owner` for those of objects that name it.
fn grants(acl: Acl, owner: AccountId, bucket_owner: AccountId) -> BTreeSet<Plain> {
    let mut grants = BTreeSet::from([(canonical_id(owner), Permission::FULL_CONTROL)]);
    let mut add = |grantee: &str, permission| grants.insert((grantee.to_owned(), permission));
    let other = canonical_id(bucket_owner);
    match acl {
        Acl::Private => false,
        Acl::PublicRead => add(ALL_USERS, Permission::READ),
        Acl::PublicReadWrite => {
            add(ALL_USERS, Permission::READ);
            add(ALL_USERS, Permission::WRITE)
        }
        Acl::AuthenticatedRead => add(AUTHENTICATED_USERS, Permission::READ),
        Acl::AwsExecRead => add(EXEC_READER, Permission::READ),
        Acl::BucketOwnerRead => owner != bucket_owner && add(&other, Permission::READ),
        Acl::BucketOwnerFullControl => {
            owner != bucket_owner && add(&other, Permission::FULL_CONTROL)
        }
    };
    grants
}

fn shown((grantee, permission): Plain) -> Grant {
    let is_group = grantee.starts_with("http://");
    let grantee = if is_group {
        Grantee {
            type_: Type::from_static(Type::GROUP),
            uri: Some(grantee),
            display_name: None,
            email_address: None,
            id: None,
        }
    } else {
        let name = match grantee.as_str() {
            // As Amazon's account for EC2 images is called.
            EXEC_READER => "za-team".to_owned(),
            other => display_name(other),
        };
        Grantee {
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
            display_name: Some(name),
            email_address: None,
            id: Some(grantee),
        }
    };
    Grant {
        grantee: Some(grantee),
        permission: Some(Permission::from_static(permission)),
    }
}

fn read(grant: Grant) -> Option<Plain> {
    let grantee = grant.grantee?;
    let permission = grant.permission?;
    let known = [
        Permission::FULL_CONTROL,
        Permission::READ,
        Permission::WRITE,
        Permission::READ_ACP,
        Permission::WRITE_ACP,
    ];
    let permission = known
        .into_iter()
        .find(|name| *name == permission.as_str())?;
    Some((grantee.uri.or(grantee.id)?, permission))
}

/// The canned ACL that says what a policy says.
fn canned(policy: AccessControlPolicy, owner: AccountId, bucket_owner: AccountId) -> S3Result<Acl> {
    let named = policy.owner.and_then(|owner| owner.id);
    if named.is_some_and(|id| id != canonical_id(owner)) {
        return Err(s3_error!(AccessDenied, "Access Denied"));
    }
    let given: Option<BTreeSet<Plain>> = policy
        .grants
        .unwrap_or_default()
        .into_iter()
        .map(read)
        .collect();
    let found = given.and_then(|given| {
        Acl::ALL
            .into_iter()
            .find(|acl| grants(*acl, owner, bucket_owner) == given)
    });
    found.ok_or_else(|| unsupported("grants that no canned ACL says"))
}

/// What a request to set an ACL gives: the header or the policy, one of them.
macro_rules! wanted {
    ($input:expr, $owner:expr, $bucket_owner:expr) => {{
        let grants = [
            &$input.grant_full_control,
            &$input.grant_read,
            &$input.grant_read_acp,
            &$input.grant_write,
            &$input.grant_write_acp,
        ];
        if grants.iter().any(|grant| grant.is_some()) {
            return Err(unsupported("x-amz-grant headers"));
        }
        match ($input.acl.as_ref(), $input.access_control_policy) {
            (Some(given), None) => acl(Some(given.as_str()))?,
            (None, Some(policy)) => canned(policy, $owner, $bucket_owner)?,
            (Some(_), Some(_)) => {
                return Err(s3_error!(
                    UnexpectedContent,
                    "This request does not support content"
                ));
            }
            (None, None) => {
                return Err(s3_error!(
                    MissingSecurityHeader,
                    "Your request was missing a required header"
                ));
            }
        }
    }};
}

impl Service {
    pub(crate) async fn bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.own_bucket(caller, &input.bucket).await;
        let bucket = found.map_err(of_store)?;
        let grants = grants(bucket.acl, bucket.owner, bucket.owner);
        Ok(S3Response::new(GetBucketAclOutput {
            owner: Some(owner(bucket.owner)),
            grants: Some(grants.into_iter().map(shown).collect()),
        }))
    }

    pub(crate) async fn set_bucket_acl(
        &self,
        request: S3Request<PutBucketAclInput>,
    ) -> S3Result<S3Response<PutBucketAclOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.own_bucket(caller, &input.bucket).await;
        let owner = found.map_err(of_store)?.owner;
        let acl = wanted!(input, owner, owner);
        let done = self
            .objects
            .set_bucket_acl(caller, &input.bucket, acl)
            .await;
        done.map_err(of_store)?;
        Ok(S3Response::new(PutBucketAclOutput {}))
    }

    pub(crate) async fn object_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self
            .objects
            .control(caller, &input.bucket, &input.key)
            .await;
        let (bucket, object) = found.map_err(of_store)?;
        let grants = grants(object.acl, object.owner, bucket.owner);
        Ok(S3Response::new(GetObjectAclOutput {
            owner: Some(owner(object.owner)),
            grants: Some(grants.into_iter().map(shown).collect()),
            request_charged: None,
        }))
    }

    pub(crate) async fn set_object_acl(
        &self,
        request: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self
            .objects
            .control(caller, &input.bucket, &input.key)
            .await;
        let (bucket, object) = found.map_err(of_store)?;
        let acl = wanted!(input, object.owner, bucket.owner);
        let done = self
            .objects
            .set_object_acl(caller, &input.bucket, &input.key, acl);
        done.await.map_err(of_store)?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }
}
