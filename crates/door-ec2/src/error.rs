//! One table from what the cloud refuses to EC2's codes and statuses.
//!
//! Statuses: 400 for clients' errors, 401 for `AuthFailure`, 500 for
//! `InternalError` and `InsufficientInstanceCapacity`, 503 for `Unavailable` (reference 2.6).

use cumulet_auth::{AuthError, Profile};
use cumulet_domain::{Error, Resource};
use cumulet_ec2_model::ModelError;
use cumulet_wire::query::QueryError;

/// A refusal as it goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) log: Option<String>,
}

impl Refused {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            log: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterValue", message)
    }

    pub(crate) fn combination(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterCombination", message)
    }

    pub(crate) fn auth(error: &AuthError, profile: Profile) -> Self {
        let refusal = error.refusal(profile);
        Self::new(refusal.status, refusal.code, refusal.message)
    }
}

impl From<QueryError> for Refused {
    fn from(error: QueryError) -> Self {
        Self::new(400, "MalformedQueryString", error.to_string())
    }
}

impl From<ModelError> for Refused {
    fn from(error: ModelError) -> Self {
        let code = match &error {
            ModelError::MissingAction => "MissingAction",
            ModelError::Missing(_) => "MissingParameter",
            ModelError::UnknownVersion(_) => "NoSuchVersion",
            ModelError::UnknownAction { .. } => "InvalidAction",
            ModelError::UnsupportedAction(_) | ModelError::UnsupportedParameter { .. } => {
                "UnsupportedOperation"
            }
            ModelError::UnknownParameter { .. } => "UnknownParameter",
            ModelError::InvalidValue { .. } => "InvalidParameterValue",
            ModelError::InvalidCombination { .. } => "InvalidParameterCombination",
        };
        Self::new(400, code, error.to_string())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let (status, code, message) = match &error {
            Error::Malformed { resource, id, form } => {
                let message = format!("Invalid id: \"{id}\" (expecting \"{form}\")");
                (400, malformed(*resource), message)
            }
            Error::NotFound { resource, ids, id } => {
                (400, not_found(*resource), missing_text(*resource, ids, id))
            }
            Error::AlreadyExists { resource, id } => match resource {
                Resource::KeyPair => (
                    400,
                    "InvalidKeyPair.Duplicate",
                    format!("The keypair '{id}' already exists."),
                ),
                Resource::Image => (
                    400,
                    "InvalidAMIName.Duplicate",
                    format!("AMI name {id} is already in use"),
                ),
                Resource::SecurityGroup => (
                    400,
                    "InvalidGroup.Duplicate",
                    format!("The security group '{id}' already exists"),
                ),
                Resource::PrivateAddress => (
                    400,
                    "InvalidIPAddress.InUse",
                    format!("Address {id} is in use."),
                ),
                Resource::Permission => (
                    400,
                    "InvalidPermission.Duplicate",
                    format!(
                        "The permission '{id}' has already been authorized on the specified group"
                    ),
                ),
                _ => (400, "InvalidParameterValue", text),
            },
            Error::Reserved { resource, id } => match resource {
                Resource::SecurityGroup => (
                    400,
                    "InvalidGroup.Reserved",
                    format!("The security group '{id}' is reserved"),
                ),
                _ => (400, "InvalidParameterValue", text),
            },
            Error::Unavailable { resource, id, why } => match resource {
                Resource::Image => {
                    let message = match why {
                        Some(why) => format!("The image id '[{id}]' is not available: {why}"),
                        None => format!("The image id '[{id}]' is no longer available"),
                    };
                    (400, "InvalidAMIID.Unavailable", message)
                }
                _ => (400, "IncorrectState", text),
            },
            Error::InvalidValue { parameter, .. } => match parameter.as_str() {
                "PublicKeyMaterial" => (400, "InvalidKey.Format", text),
                "BlockDeviceMapping" => (400, "InvalidBlockDeviceMapping", text),
                "Name" => (400, "InvalidAMIName.Malformed", text),
                "IpPermissions" => (400, "InvalidPermission.Malformed", text),
                _ => (400, "InvalidParameterValue", text),
            },
            Error::InvalidCombination { .. } => (400, "InvalidParameterCombination", text),
            Error::InvalidItem { .. } => (400, "InvalidAMIAttributeItemValue", text),
            Error::Missing { .. } => (400, "MissingParameter", text),
            Error::Unsupported { .. } => (400, "UnsupportedOperation", text),
            Error::LimitExceeded { resource, .. } => match resource {
                Resource::Instance => (400, "InstanceLimitExceeded", text),
                Resource::Tag => (400, "TagLimitExceeded", text),
                Resource::SecurityGroup => (400, "SecurityGroupLimitExceeded", text),
                Resource::Permission => (400, "RulesPerSecurityGroupLimitExceeded", text),
                _ => (400, "ResourceLimitExceeded", text),
            },
            Error::InsufficientCapacity { .. } => (500, "InsufficientInstanceCapacity", text),
            Error::Denied { .. } => (401, "AuthFailure", text),
            Error::NotSubscribed { .. } => (401, "OptInRequired", text),
            Error::InvalidManifest { .. } => (400, "InvalidManifest", text),
            Error::IdempotentParameterMismatch { .. } => (400, "IdempotentParameterMismatch", text),
            Error::IncorrectState { resource, .. } => match resource {
                Resource::Instance => (400, "IncorrectInstanceState", text),
                Resource::SecurityGroup => (400, "InvalidGroup.InUse", text),
                _ => (400, "IncorrectState", text),
            },
            Error::Internal { .. } => (500, "InternalError", text),
            Error::ServiceUnavailable { .. } => (503, "Unavailable", text),
            Error::Rehearsed => (412, "DryRunOperation", text),
        };
        Self {
            status,
            code: code.to_owned(),
            message,
            log: error.log().map(str::to_owned),
        }
    }
}

fn malformed(resource: Resource) -> &'static str {
    match resource {
        Resource::Image | Resource::Kernel => "InvalidAMIID.Malformed",
        Resource::Instance => "InvalidInstanceID.Malformed",
        Resource::Reservation => "InvalidReservationID.Malformed",
        Resource::Account => "InvalidUserID.Malformed",
        Resource::SecurityGroup => "InvalidGroupId.Malformed",
        Resource::Permission => "InvalidPermission.Malformed",
        Resource::Vpc => "InvalidVpcID.Malformed",
        Resource::Subnet => "InvalidSubnetID.Malformed",
        Resource::NetworkInterface => "InvalidNetworkInterfaceID.Malformed",
        Resource::Volume => "InvalidVolumeID.Malformed",
        _ => "InvalidParameterValue",
    }
}

fn not_found(resource: Resource) -> &'static str {
    match resource {
        Resource::Image | Resource::Kernel => "InvalidAMIID.NotFound",
        Resource::Instance => "InvalidInstanceID.NotFound",
        Resource::Reservation => "InvalidReservationID.NotFound",
        Resource::KeyPair => "InvalidKeyPair.NotFound",
        Resource::SecurityGroup => "InvalidGroup.NotFound",
        Resource::Permission => "InvalidPermission.NotFound",
        Resource::Vpc => "InvalidVpcID.NotFound",
        Resource::Subnet => "InvalidSubnetID.NotFound",
        Resource::NetworkInterface => "InvalidNetworkInterfaceID.NotFound",
        Resource::Volume => "InvalidVolume.NotFound",
        _ => "InvalidParameterValue",
    }
}

/// EC2 speaks of one id and of several, and names them all.
fn missing_text(resource: Resource, ids: &[String], id: &str) -> String {
    let is_one = ids.len() == 1;
    match resource {
        Resource::Instance if is_one => format!("The instance ID '{id}' does not exist"),
        Resource::Instance => format!("The instance IDs '{id}' do not exist"),
        Resource::Image if is_one => format!("The image id '[{id}]' does not exist"),
        Resource::Image => format!("The image ids '[{id}]' do not exist"),
        Resource::KeyPair => format!("The key pair '{id}' does not exist"),
        Resource::SecurityGroup => format!("The security group '{id}' does not exist"),
        Resource::Permission => {
            format!("The specified rule does not exist in this security group: {id}")
        }
        Resource::Vpc => format!("The vpc ID '{id}' does not exist"),
        Resource::Subnet => format!("The subnet ID '{id}' does not exist"),
        Resource::NetworkInterface => format!("The networkInterface ID '{id}' does not exist"),
        other => format!("The {other} '{id}' does not exist"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_references_codes() {
        let cases = [
            (
                Error::not_found_all(Resource::Instance, vec!["i-1".into(), "i-2".into()]),
                400,
                "InvalidInstanceID.NotFound",
                "The instance IDs 'i-1, i-2' do not exist",
            ),
            (
                Error::AlreadyExists {
                    resource: Resource::KeyPair,
                    id: "me".into(),
                },
                400,
                "InvalidKeyPair.Duplicate",
                "The keypair 'me' already exists.",
            ),
            (
                Error::denied("Not authorized for images: [ami-1]"),
                401,
                "AuthFailure",
                "Not authorized for images: [ami-1]",
            ),
            (
                Error::InsufficientCapacity {
                    message: "no room".into(),
                },
                500,
                "InsufficientInstanceCapacity",
                "no room",
            ),
            (
                Error::internal("/secret/path"),
                500,
                "InternalError",
                "An internal error has occurred",
            ),
        ];
        for (error, status, code, message) in cases {
            let refused = Refused::from(error);
            assert_eq!(
                (
                    refused.status,
                    refused.code.as_str(),
                    refused.message.as_str()
                ),
                (status, code, message)
            );
        }
        let log = Refused::from(Error::internal("/secret/path")).log;
        assert_eq!(log.as_deref(), Some("/secret/path"));
    }
}
