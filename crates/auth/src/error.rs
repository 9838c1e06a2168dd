//! How signatures are refused, and what each kind of service calls it.

/// Why a request is not from whom it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the request carries no credentials")]
    NoCredentials,
    #[error("the request must contain the parameter {0}")]
    Missing(&'static str),
    #[error("the request carries credentials in more than one place")]
    TwoSources,
    #[error("the credentials cannot be read: {0}")]
    Malformed(String),
    /// A parameter that says how or when a request was signed; `expected` ends the sentence.
    #[error("invalid value '{value}' for {parameter}. {expected}")]
    InvalidValue {
        parameter: &'static str,
        value: String,
        expected: String,
    },
    /// Both, with their values: which of them counts is not said.
    #[error("a request has Timestamp or Expires, not both: '{timestamp}' and '{expires}'")]
    TwoTimes { timestamp: String, expires: String },
    #[error("the access key is unknown")]
    UnknownKey,
    /// `version` is the signature version that was used.
    #[error("the signature does not match")]
    Mismatch { version: u8 },
    #[error("the signing time is too far from the time here: {0}")]
    Expired(String),
    /// Which versions a key allows is the operator's choice, when it is made.
    #[error(
        "the access key may not be used with signature version {version}; an operator makes one \
         that may with: cumulet key create USER --signature-versions {versions}",
        version = .0,
        versions = allowing(*.0)
    )]
    VersionNotAllowed(u8),
    /// The signature is good, and would be for another request, too.
    #[error("the request cannot be told from others: {0}")]
    Ambiguous(String),
    #[error("the credential is scoped to the region {given:?}; it must be {expected:?}")]
    WrongRegion { given: String, expected: String },
    #[error("the credential is scoped to the service {given:?}; it must be {expected:?}")]
    WrongService { given: String, expected: String },
    /// Session tokens are not issued here, so that none can be valid.
    #[error("session tokens are unknown here")]
    SessionToken,
}

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Ec2,
    Sts,
}

/// A refusal as it goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

const NOT_VALIDATED: &str = "AWS was not able to validate the provided access credentials";
const NO_MATCH: &str = "The request signature we calculated does not match the signature you provided. \
                        Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

impl AuthError {
    /// The code and status that a service of this kind answers.
    ///
    /// EC2 tells an unknown key and a wrong V4 signature by the same `AuthFailure`, and a wrong V2
    /// signature by `SignatureDoesNotMatch`; STS has codes of its own (observed with boto3).
    pub fn refusal(&self, profile: Profile) -> Refusal {
        let refuse = |status, code, message: &str| Refusal {
            status,
            code,
            message: message.to_owned(),
        };
        let is_sts = profile == Profile::Sts;
        let text = capitalised(&self.to_string());
        match self {
            AuthError::NoCredentials if is_sts => refuse(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            ),
            AuthError::NoCredentials => refuse(
                400,
                "MissingParameter",
                "The request must contain the parameter AWSAccessKeyId",
            ),
            AuthError::Missing(_) => refuse(400, "MissingParameter", &text),
            AuthError::TwoSources | AuthError::TwoTimes { .. } => {
                refuse(400, "InvalidParameterCombination", &text)
            }
            AuthError::InvalidValue { .. } => refuse(400, "InvalidParameterValue", &text),
            AuthError::Malformed(_) => refuse(400, "IncompleteSignature", &text),
            AuthError::UnknownKey | AuthError::SessionToken if is_sts => refuse(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            AuthError::UnknownKey | AuthError::SessionToken => {
                refuse(401, "AuthFailure", NOT_VALIDATED)
            }
            AuthError::Mismatch { version: 2 } => refuse(403, "SignatureDoesNotMatch", NO_MATCH),
            AuthError::Mismatch { .. } if is_sts => refuse(403, "SignatureDoesNotMatch", NO_MATCH),
            AuthError::Mismatch { .. } => refuse(401, "AuthFailure", NOT_VALIDATED),
            AuthError::Expired(_) if is_sts => refuse(403, "SignatureDoesNotMatch", &text),
            AuthError::Expired(detail) => refuse(
                400,
                "RequestExpired",
                &format!("Request has expired. {detail}"),
            ),
            AuthError::VersionNotAllowed(_) | AuthError::Ambiguous(_) => {
                refuse(401, "AuthFailure", &text)
            }
            AuthError::WrongRegion { given, expected } => {
                let message = format!(
                    "Credential should be scoped to a valid Region, not '{given}'. The Region here is '{expected}'."
                );
                if is_sts {
                    refuse(403, "SignatureDoesNotMatch", &message)
                } else {
                    refuse(401, "AuthFailure", &message)
                }
            }
            AuthError::WrongService { given, expected } => {
                let message = format!(
                    "Credential should be scoped to correct service: '{expected}', not '{given}'."
                );
                if is_sts {
                    refuse(403, "SignatureDoesNotMatch", &message)
                } else {
                    refuse(401, "AuthFailure", &message)
                }
            }
        }
    }
}

/// Versions for a new key, one of which is `version`.
fn allowing(version: u8) -> String {
    match version {
        2 | 4 => "2,4".into(),
        old => format!("{old},2,4"),
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(characters)
        .collect()
}
