//! STS `GetCallerIdentity`: who am I?  Today's tools ask it before anything else.

use cumulet_auth::Principal;
use cumulet_domain::shown;
use cumulet_wire::xml::Writer;

use crate::RequestContext;
use crate::error::Refused;

/// STS has one version.
pub(crate) const VERSION: &str = "2011-06-15";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Operations that STS has and we do not: no temporary credentials are issued here.
const OTHERS: &[&str] = &[
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "AssumeRoot",
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetFederationToken",
    "GetSessionToken",
];

pub(crate) fn answer(
    action: &str,
    principal: &Principal,
    context: &RequestContext,
) -> Result<String, Refused> {
    if OTHERS.contains(&action) {
        let message = format!("The operation {action} is not supported here");
        return Err(Refused::new(400, "UnsupportedOperation", message));
    }
    if action != "GetCallerIdentity" {
        let name = shown(action);
        let message = format!("Could not find operation {name} for version {VERSION}");
        return Err(Refused::new(400, "InvalidAction", message));
    }
    let (account, user) = (principal.account, &principal.user);
    let mut writer = Writer::new();
    writer.open("GetCallerIdentityResponse", Some(NAMESPACE));
    writer.open("GetCallerIdentityResult", None);
    writer.leaf("Arn", &format!("arn:aws:iam::{account}:user/{user}"));
    // Users have no id beside their name, which is unique within the account.
    writer.leaf("UserId", &format!("{account}:{user}"));
    writer.leaf("Account", &account.to_string());
    writer.close();
    writer.open("ResponseMetadata", None);
    writer.leaf("RequestId", &context.request_id);
    Ok(writer.finish())
}

/// STS has an error document of its own.
pub(crate) fn error(refused: &Refused, request_id: &str) -> String {
    let is_sender = refused.status < 500;
    cumulet_wire::error::sts(
        NAMESPACE,
        is_sender,
        &refused.code,
        &refused.message,
        request_id,
    )
}
