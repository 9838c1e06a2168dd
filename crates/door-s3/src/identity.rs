//! Whose request it is, once the library has verified the signature.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cumulet_auth::Keys;
use cumulet_domain::AccountId;
use cumulet_objects::Caller;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Request, S3Result, TrailingHeaders, s3_error};

use crate::prefix::Proven;

/// What the wall found the request to claim; travels with it and is filled on the way.
#[derive(Default)]
pub(crate) struct Claim {
    /// `None` for a request without credentials in its headers and query.
    pub(crate) access_key_id: Option<String>,
    pub(crate) seen: Mutex<(String, Caller)>,
}

/// The verified caller, as operations find it.
#[derive(Clone, Copy)]
struct Verified(Caller);

pub(crate) struct Secrets(pub(crate) Arc<dyn Keys>);

#[async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.find(access_key) {
            Some(key) => Ok(SecretKey::from(key.secret.as_str())),
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
        }
    }
}

pub(crate) struct Identity(pub(crate) Arc<dyn Keys>);

#[async_trait]
impl S3Access for Identity {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let proven = cx.extensions_mut().get::<Proven>().cloned();
        let verified = cx.credentials().map(|found| found.access_key.clone());
        let verified = verified.or(proven.map(|Proven(key)| key));
        let action = cx.s3_op().name().to_owned();
        let claim = cx.extensions_mut().get::<Arc<Claim>>().cloned();
        let claim = claim.ok_or_else(|| s3_error!(InternalError, "the request has no claim"))?;
        let caller = self.caller(verified.as_deref(), &claim, &action)?;
        let mut seen = claim.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (action, caller);
        drop(seen);
        cx.extensions_mut().insert(Verified(caller));
        Ok(())
    }
}

impl Identity {
    /// The library and the wall read the request each for itself; what they do not agree on is
    /// refused, since only the wall knows which signature version was used.
    fn caller(&self, verified: Option<&str>, claim: &Claim, action: &str) -> S3Result<Caller> {
        let refused = || s3_error!(AccessDenied, "Access Denied");
        match (verified, claim.access_key_id.as_deref()) {
            (None, None) => Ok(None),
            (Some(verified), Some(claimed)) if verified == claimed => {
                Ok(Some(self.account(verified, &[])?))
            }
            // The credentials of a form are in its fields, where the version cannot be seen from
            // here: the key must be good for both.
            (Some(verified), None) if action == "PostObject" => {
                Ok(Some(self.account(verified, &[2, 4])?))
            }
            _ => Err(refused()),
        }
    }

    fn account(&self, access_key_id: &str, versions: &[u8]) -> S3Result<AccountId> {
        self.0
            .find(access_key_id)
            .filter(|key| {
                versions
                    .iter()
                    .all(|version| key.versions.contains(version))
            })
            .map(|key| key.principal.account)
            .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
    }
}

/// Who asks.
pub(crate) fn caller<T>(request: &S3Request<T>) -> S3Result<Caller> {
    let verified = request.extensions.get::<Verified>();
    verified
        .map(|Verified(caller)| *caller)
        .ok_or_else(|| s3_error!(InternalError, "the request was not checked"))
}

/// What came behind the body; of a request that went through two services the first has it.
pub(crate) fn trailers<T>(request: &mut S3Request<T>) -> Option<TrailingHeaders> {
    let own = request.trailing_headers.take();
    own.or_else(|| request.extensions.remove())
}
