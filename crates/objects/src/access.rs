//! Who may do what with a bucket or an object: owners and canned ACLs.
//!
//! Pure.  A caller is `Some(account)`, or `None` when nobody signed.  The rules
//! are those of classic S3: an object belongs to who wrote it, also in somebody
//! else's bucket, and the owner of the bucket may delete but not read it unless
//! the object's ACL says so.

use cumulet_domain::AccountId;
use serde::{Deserialize, Serialize};

use crate::records::{Bucket, Object};

/// A canned access control list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acl {
    #[default]
    Private,
    PublicRead,
    PublicReadWrite,
    AuthenticatedRead,
    /// The EC2 service may read, on anybody's behalf: how images were shared in 2007.
    AwsExecRead,
    BucketOwnerRead,
    BucketOwnerFullControl,
}

impl Acl {
    pub const ALL: [Acl; 7] = [
        Acl::Private,
        Acl::PublicRead,
        Acl::PublicReadWrite,
        Acl::AuthenticatedRead,
        Acl::AwsExecRead,
        Acl::BucketOwnerRead,
        Acl::BucketOwnerFullControl,
    ];

    /// As it is written in `x-amz-acl`.
    pub fn as_str(self) -> &'static str {
        match self {
            Acl::Private => "private",
            Acl::PublicRead => "public-read",
            Acl::PublicReadWrite => "public-read-write",
            Acl::AuthenticatedRead => "authenticated-read",
            Acl::AwsExecRead => "aws-exec-read",
            Acl::BucketOwnerRead => "bucket-owner-read",
            Acl::BucketOwnerFullControl => "bucket-owner-full-control",
        }
    }

    /// `None` for a text that is no canned ACL.
    pub fn parse(text: &str) -> Option<Acl> {
        Acl::ALL.into_iter().find(|acl| acl.as_str() == text)
    }

    fn lets_read(self, caller: Option<AccountId>) -> bool {
        match self {
            Acl::PublicRead | Acl::PublicReadWrite => true,
            Acl::AuthenticatedRead => caller.is_some(),
            Acl::Private
            | Acl::AwsExecRead
            | Acl::BucketOwnerRead
            | Acl::BucketOwnerFullControl => false,
        }
    }
}

/// May list the bucket's keys and uploads, and ask for its existence and location.
pub fn may_list(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    caller == Some(bucket.owner) || bucket.acl.lets_read(caller)
}

/// May create, overwrite and delete objects.
pub fn may_write(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    caller == Some(bucket.owner) || bucket.acl == Acl::PublicReadWrite
}

/// May delete the bucket, and read and change its ACL.
pub fn owns_bucket(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    caller == Some(bucket.owner)
}

/// May read the object's bytes and metadata.
pub fn may_read(caller: Option<AccountId>, bucket: &Bucket, object: &Object) -> bool {
    let is_shared_with_bucket = matches!(
        object.acl,
        Acl::BucketOwnerRead | Acl::BucketOwnerFullControl
    );
    caller == Some(object.owner)
        || object.acl.lets_read(caller)
        || (is_shared_with_bucket && caller == Some(bucket.owner))
}

/// May read and change the object's ACL.
pub fn may_control(caller: Option<AccountId>, bucket: &Bucket, object: &Object) -> bool {
    caller == Some(object.owner)
        || (object.acl == Acl::BucketOwnerFullControl && caller == Some(bucket.owner))
}

/// May be read by the EC2 service when `caller` asks it to.
pub fn service_may_read(caller: AccountId, bucket: &Bucket, object: &Object) -> bool {
    may_read(Some(caller), bucket, object) || object.acl == Acl::AwsExecRead
}
