//! ACLs of buckets and objects: canned ones, lists of grants, and grants in
//! headers.
//!
//! A list that says what a canned ACL says is kept as that one.

use std::collections::BTreeSet;

use cumulet_domain::AccountId;
use cumulet_objects::access::{EC2_SERVICE_ID, GRANTS_MAX, canonical_id};
use cumulet_objects::{Acl, Grant, Grantee, Permission};
use s3s::dto::{
    self, AccessControlPolicy, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput,
    GetObjectAclOutput, PutBucketAclInput, PutBucketAclOutput, PutObjectAclInput,
    PutObjectAclOutput, Type,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use crate::convert::{display_name, owner, refuse_version};
use crate::errors::{invalid_argument, of_store};
use crate::identity::caller;
use crate::service::Service;

const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
const AUTHENTICATED_USERS: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";

const PERMISSIONS: [(Permission, &str); 5] = [
    (Permission::FullControl, dto::Permission::FULL_CONTROL),
    (Permission::Read, dto::Permission::READ),
    (Permission::Write, dto::Permission::WRITE),
    (Permission::ReadAcp, dto::Permission::READ_ACP),
    (Permission::WriteAcp, dto::Permission::WRITE_ACP),
];

/// What the headers of a request say about an ACL.
pub(crate) struct Headers<'a> {
    pub(crate) canned: Option<&'a str>,
    pub(crate) grants: Vec<(Permission, Option<&'a str>)>,
}

/// Takes them from an input; `write` where there is an `x-amz-grant-write`.
macro_rules! headers {
    ($input:expr) => {
        crate::acls::Headers {
            canned: $input.acl.as_ref().map(|acl| acl.as_str()),
            grants: vec![
                (
                    cumulet_objects::Permission::FullControl,
                    $input.grant_full_control.as_deref(),
                ),
                (
                    cumulet_objects::Permission::Read,
                    $input.grant_read.as_deref(),
                ),
                (
                    cumulet_objects::Permission::ReadAcp,
                    $input.grant_read_acp.as_deref(),
                ),
                (
                    cumulet_objects::Permission::WriteAcp,
                    $input.grant_write_acp.as_deref(),
                ),
            ],
        }
    };
    ($input:expr, write) => {{
        let mut headers = crate::acls::headers!($input);
        let write = $input.grant_write.as_deref();
        headers
            .grants
            .push((cumulet_objects::Permission::Write, write));
        headers
    }};
}

pub(crate) use headers;

/// The ACL that headers ask for; `None` when they ask for none.
pub(crate) fn of_headers(headers: Headers<'_>) -> S3Result<Option<Acl>> {
    let mut grants = BTreeSet::new();
    for (permission, text) in &headers.grants {
        let Some(text) = text else { continue };
        for item in text.split(',') {
            grants.insert(Grant {
                grantee: named_grantee(item)?,
                permission: *permission,
            });
        }
    }
    let has_grants = headers.grants.iter().any(|(_, text)| text.is_some());
    match headers.canned {
        Some(_) if has_grants => Err(s3_error!(
            InvalidRequest,
            "Specifying both Canned ACLs and Header Grants is not allowed"
        )),
        Some(text) => Acl::parse(text)
            .map(Some)
            .ok_or_else(|| invalid_argument(format!("{text} is not a canned ACL"))),
        None if has_grants => Ok(Some(Acl::Grants(limited(grants)?))),
        None => Ok(None),
    }
}

fn limited(grants: BTreeSet<Grant>) -> S3Result<BTreeSet<Grant>> {
    if grants.len() > GRANTS_MAX {
        return Err(malformed());
    }
    Ok(grants)
}

fn malformed() -> S3Error {
    s3_error!(
        MalformedACLError,
        "The XML you provided was not well-formed or did not validate against our published schema"
    )
}

/// `id="…"`, `uri="…"` or `emailAddress="…"`.
fn named_grantee(item: &str) -> S3Result<Grantee> {
    let refused = || invalid_argument("Argument format not recognized");
    let (kind, value) = item.trim().split_once('=').ok_or_else(refused)?;
    let value = value.trim().trim_matches('"');
    match kind.trim() {
        "id" => by_id(value),
        "uri" => by_group(value),
        "emailAddress" => Err(by_mail()),
        _ => Err(refused()),
    }
}

/// That an id is somebody's cannot be told from it: one that is nobody's gives to nobody.
fn by_id(id: &str) -> S3Result<Grantee> {
    let is_hex = id
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if id.len() != 64 || !is_hex {
        return Err(invalid_argument("Invalid id"));
    }
    Ok(Grantee::Id(id.to_owned()))
}

fn by_group(uri: &str) -> S3Result<Grantee> {
    match uri {
        ALL_USERS => Ok(Grantee::AllUsers),
        AUTHENTICATED_USERS => Ok(Grantee::AuthenticatedUsers),
        _ => Err(invalid_argument("Invalid group uri")),
    }
}

/// Nobody here has an address.
fn by_mail() -> S3Error {
    s3_error!(
        UnresolvableGrantByEmailAddress,
        "The e-mail address you provided does not match any account on record."
    )
}

/// What the ACL of a thing of `owner` says; `bucket_owner` for those of objects that name it.
fn grants(acl: &Acl, owner: AccountId, bucket_owner: AccountId) -> BTreeSet<Grant> {
    let grant = |grantee, permission| Grant {
        grantee,
        permission,
    };
    let id = |account| Grantee::Id(canonical_id(account));
    let to_bucket = |permission| {
        let is_other = owner != bucket_owner;
        is_other.then(|| grant(id(bucket_owner), permission))
    };
    let beside: Vec<Grant> = match acl {
        Acl::Grants(grants) => return grants.clone(),
        Acl::Private => vec![],
        Acl::PublicRead => vec![grant(Grantee::AllUsers, Permission::Read)],
        Acl::PublicReadWrite => [Permission::Read, Permission::Write]
            .map(|permission| grant(Grantee::AllUsers, permission))
            .to_vec(),
        Acl::AuthenticatedRead => vec![grant(Grantee::AuthenticatedUsers, Permission::Read)],
        Acl::AwsExecRead => vec![grant(
            Grantee::Id(EC2_SERVICE_ID.to_owned()),
            Permission::Read,
        )],
        Acl::BucketOwnerRead => to_bucket(Permission::Read).into_iter().collect(),
        Acl::BucketOwnerFullControl => to_bucket(Permission::FullControl).into_iter().collect(),
    };
    let own = grant(id(owner), Permission::FullControl);
    beside.into_iter().chain([own]).collect()
}

fn shown(grant: Grant) -> dto::Grant {
    let group = |uri: &str| dto::Grantee {
        type_: Type::from_static(Type::GROUP),
        uri: Some(uri.to_owned()),
        display_name: None,
        email_address: None,
        id: None,
    };
    let grantee = match grant.grantee {
        Grantee::AllUsers => group(ALL_USERS),
        Grantee::AuthenticatedUsers => group(AUTHENTICATED_USERS),
        Grantee::Id(id) => {
            let name = match id.as_str() {
                // As Amazon's account for EC2 images is called.
                EC2_SERVICE_ID => "za-team".to_owned(),
                other => display_name(other),
            };
            dto::Grantee {
                type_: Type::from_static(Type::CANONICAL_USER),
                uri: None,
                display_name: Some(name),
                email_address: None,
                id: Some(id),
            }
        }
    };
    let named = PERMISSIONS
        .into_iter()
        .find(|(permission, _)| *permission == grant.permission);
    dto::Grant {
        grantee: Some(grantee),
        permission: named.map(|(_, name)| dto::Permission::from_static(name)),
    }
}

fn read(grant: dto::Grant) -> S3Result<Grant> {
    let grantee = grant.grantee.ok_or_else(malformed)?;
    let permission = grant.permission.ok_or_else(malformed)?;
    let permission = PERMISSIONS
        .into_iter()
        .find(|(_, name)| *name == permission.as_str());
    let (permission, _) = permission.ok_or_else(malformed)?;
    let grantee = match (grantee.id, grantee.uri, grantee.email_address) {
        (Some(id), None, None) => by_id(&id)?,
        (None, Some(uri), None) => by_group(&uri)?,
        (None, None, Some(_)) => return Err(by_mail()),
        _ => return Err(malformed()),
    };
    Ok(Grant {
        grantee,
        permission,
    })
}

/// What a policy says, by the canned ACL if there is one that says the same.
fn of_policy(
    policy: AccessControlPolicy,
    owner: AccountId,
    bucket_owner: AccountId,
) -> S3Result<Acl> {
    let named = policy.owner.and_then(|owner| owner.id);
    if named.is_some_and(|id| id != canonical_id(owner)) {
        return Err(s3_error!(AccessDenied, "Access Denied"));
    }
    let given = policy.grants.unwrap_or_default().into_iter().map(read);
    let given = limited(given.collect::<S3Result<BTreeSet<Grant>>>()?)?;
    let mut canned = Acl::CANNED.into_iter();
    let same = canned.find(|acl| grants(acl, owner, bucket_owner) == given);
    Ok(same.unwrap_or(Acl::Grants(given)))
}

/// What a request to set an ACL gives: headers or a policy, one of them.
fn wanted(
    headers: Headers<'_>,
    policy: Option<AccessControlPolicy>,
    owner: AccountId,
    bucket_owner: AccountId,
) -> S3Result<Acl> {
    match (of_headers(headers)?, policy) {
        (Some(acl), None) => Ok(acl),
        (None, Some(policy)) => of_policy(policy, owner, bucket_owner),
        (Some(_), Some(_)) => Err(s3_error!(
            UnexpectedContent,
            "This request does not support content"
        )),
        (None, None) => Err(s3_error!(
            MissingSecurityHeader,
            "Your request was missing a required header"
        )),
    }
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
        let found = self
            .objects
            .control_bucket(caller, &input.bucket, Permission::ReadAcp);
        let bucket = found.await.map_err(of_store)?;
        let grants = grants(&bucket.acl, bucket.owner, bucket.owner);
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
        let found = self
            .objects
            .control_bucket(caller, &input.bucket, Permission::WriteAcp);
        let owner = found.await.map_err(of_store)?.owner;
        let headers = headers!(input, write);
        let acl = wanted(headers, input.access_control_policy.clone(), owner, owner)?;
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
            .control(caller, &input.bucket, &input.key, Permission::ReadAcp)
            .await;
        let (bucket, object) = found.map_err(of_store)?;
        let grants = grants(&object.acl, object.owner, bucket.owner);
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
            .control(caller, &input.bucket, &input.key, Permission::WriteAcp)
            .await;
        let (bucket, object) = found.map_err(of_store)?;
        let policy = input.access_control_policy.clone();
        let acl = wanted(headers!(input, write), policy, object.owner, bucket.owner)?;
        let done = self
            .objects
            .set_object_acl(caller, &input.bucket, &input.key, acl);
        done.await.map_err(of_store)?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }
}
