//! Who may do what with a bucket or an object: owners, canned ACLs and grants.
//!
//! Pure.  A caller is `Some(account)`, or `None` when nobody signed.  The rules
//! are those of classic S3: an object belongs to who wrote it, also in somebody
//! else's bucket, and the owner of the bucket may delete but not read it unless
//! the object's ACL says so.  Owners may always do everything with what is
//! theirs, whatever their grants say.

use std::collections::BTreeSet;

use cumulet_domain::AccountId;
use serde::{Deserialize, Serialize};

use crate::records::{Bucket, Object};

/// The canonical id under which the EC2 service reads images; `aws-exec-read` has always been shown
/// as a grant to it.
pub const EC2_SERVICE_ID: &str = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c";
/// Grants of one ACL.
pub const GRANTS_MAX: usize = 100;

/// The canonical id of an account: stable, and not its number.
pub fn canonical_id(account: AccountId) -> String {
    let text = format!("cumulet canonical user {account}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex::encode(digest)
}

/// Who is given something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grantee {
    /// By canonical id.
    Id(String),
    AllUsers,
    AuthenticatedUsers,
}

/// What is given: on a bucket, `Read` is to list and `Write` to put and delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    FullControl,
    Read,
    Write,
    ReadAcp,
    WriteAcp,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    pub grantee: Grantee,
    pub permission: Permission,
}

impl Grant {
    fn gives(&self, caller: Option<AccountId>, wanted: Permission) -> bool {
        let is_wanted = [wanted, Permission::FullControl].contains(&self.permission);
        is_wanted
            && match &self.grantee {
                Grantee::AllUsers => true,
                Grantee::AuthenticatedUsers => caller.is_some(),
                Grantee::Id(id) => caller.is_some_and(|caller| canonical_id(caller) == *id),
            }
    }
}

/// An access control list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
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
    /// What no canned one says.
    Grants(BTreeSet<Grant>),
}

impl Acl {
    pub const CANNED: [Acl; 7] = [
        Acl::Private,
        Acl::PublicRead,
        Acl::PublicReadWrite,
        Acl::AuthenticatedRead,
        Acl::AwsExecRead,
        Acl::BucketOwnerRead,
        Acl::BucketOwnerFullControl,
    ];

    /// As it is written in `x-amz-acl`; `None` for grants.
    pub fn as_str(&self) -> Option<&'static str> {
        Some(match self {
            Acl::Private => "private",
            Acl::PublicRead => "public-read",
            Acl::PublicReadWrite => "public-read-write",
            Acl::AuthenticatedRead => "authenticated-read",
            Acl::AwsExecRead => "aws-exec-read",
            Acl::BucketOwnerRead => "bucket-owner-read",
            Acl::BucketOwnerFullControl => "bucket-owner-full-control",
            Acl::Grants(_) => return None,
        })
    }

    /// `None` for a text that is no canned ACL.
    pub fn parse(text: &str) -> Option<Acl> {
        let mut canned = Acl::CANNED.into_iter();
        canned.find(|acl| acl.as_str() == Some(text))
    }

    /// What it gives to everybody, or to those who are granted it.
    fn gives(&self, caller: Option<AccountId>, wanted: Permission) -> bool {
        match self {
            Acl::PublicRead => wanted == Permission::Read,
            Acl::PublicReadWrite => [Permission::Read, Permission::Write].contains(&wanted),
            Acl::AuthenticatedRead => wanted == Permission::Read && caller.is_some(),
            Acl::Grants(grants) => grants.iter().any(|grant| grant.gives(caller, wanted)),
            Acl::Private
            | Acl::AwsExecRead
            | Acl::BucketOwnerRead
            | Acl::BucketOwnerFullControl => false,
        }
    }
}

/// May list the bucket's keys and uploads, and ask for its existence and location.
pub fn may_list(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    owns_bucket(caller, bucket) || bucket.acl.gives(caller, Permission::Read)
}

/// May create, overwrite and delete objects.
pub fn may_write(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    owns_bucket(caller, bucket) || bucket.acl.gives(caller, Permission::Write)
}

/// May delete the bucket.
pub fn owns_bucket(caller: Option<AccountId>, bucket: &Bucket) -> bool {
    caller == Some(bucket.owner)
}

/// May do with the bucket's ACL what `wanted` says.
pub fn may_control_bucket(caller: Option<AccountId>, bucket: &Bucket, wanted: Permission) -> bool {
    owns_bucket(caller, bucket) || bucket.acl.gives(caller, wanted)
}

/// May read the object's bytes and metadata.
pub fn may_read(caller: Option<AccountId>, bucket: &Bucket, object: &Object) -> bool {
    let is_shared_with_bucket = matches!(
        object.acl,
        Acl::BucketOwnerRead | Acl::BucketOwnerFullControl
    );
    caller == Some(object.owner)
        || object.acl.gives(caller, Permission::Read)
        || (is_shared_with_bucket && owns_bucket(caller, bucket))
}

/// May do with the object's ACL what `wanted` says.
pub fn may_control(
    caller: Option<AccountId>,
    bucket: &Bucket,
    object: &Object,
    wanted: Permission,
) -> bool {
    caller == Some(object.owner)
        || object.acl.gives(caller, wanted)
        || (object.acl == Acl::BucketOwnerFullControl && owns_bucket(caller, bucket))
}

/// May be read by the EC2 service when `caller` asks it to.
pub fn service_may_read(caller: AccountId, bucket: &Bucket, object: &Object) -> bool {
    let is_of_service = |grant: &Grant| {
        let reads = [Permission::Read, Permission::FullControl].contains(&grant.permission);
        reads && grant.grantee == Grantee::Id(EC2_SERVICE_ID.to_owned())
    };
    may_read(Some(caller), bucket, object)
        || match &object.acl {
            Acl::AwsExecRead => true,
            Acl::Grants(grants) => grants.iter().any(is_of_service),
            Acl::Private
            | Acl::PublicRead
            | Acl::PublicReadWrite
            | Acl::AuthenticatedRead
            | Acl::BucketOwnerRead
            | Acl::BucketOwnerFullControl => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cumulet_domain::Timestamp;

    #[test]
    fn grants_give_what_they_say_and_no_more() {
        let [owner, friend, stranger] = [1, 2, 3].map(AccountId::from_random);
        let all = [
            Permission::FullControl,
            Permission::Read,
            Permission::Write,
            Permission::ReadAcp,
            Permission::WriteAcp,
        ];
        for given in all {
            let grant = Grant {
                grantee: Grantee::Id(canonical_id(friend)),
                permission: given,
            };
            let bucket = Bucket {
                name: "bucket".into(),
                owner,
                acl: Acl::Grants(BTreeSet::from([grant])),
                created: Timestamp(0),
                location: "us-east-1".into(),
            };
            let can = |caller| {
                [
                    may_list(caller, &bucket),
                    may_write(caller, &bucket),
                    may_control_bucket(caller, &bucket, Permission::ReadAcp),
                    may_control_bucket(caller, &bucket, Permission::WriteAcp),
                ]
            };
            let expected = all[1..].iter().map(|each| *each == given);
            let is_all = given == Permission::FullControl;
            let expected: Vec<bool> = expected.map(|is_given| is_given || is_all).collect();
            assert_eq!(can(Some(friend)).to_vec(), expected, "{given:?}");
            assert_eq!(can(Some(owner)), [true; 4]);
            assert_eq!(can(Some(stranger)), [false; 4]);
            assert_eq!(can(None), [false; 4]);
            assert!(!owns_bucket(Some(friend), &bucket));
        }
    }

    #[test]
    fn records_of_before_grants_are_read() {
        let read: Acl = serde_json::from_str("\"aws-exec-read\"").unwrap();
        assert_eq!(read, Acl::AwsExecRead);
        let grants = Acl::Grants(BTreeSet::from([Grant {
            grantee: Grantee::AuthenticatedUsers,
            permission: Permission::ReadAcp,
        }]));
        let text = serde_json::to_string(&grants).unwrap();
        assert_eq!(
            text,
            r#"{"grants":[{"grantee":"authenticated-users","permission":"read-acp"}]}"#
        );
        assert_eq!(serde_json::from_str::<Acl>(&text).unwrap(), grants);
    }
}
