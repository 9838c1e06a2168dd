//! Refusals: one table from the store's errors to S3's codes, one from those of
//! signatures, and the error document.

use cumulet_auth::AuthError;
use cumulet_objects::{Error, Expectation};
use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

/// Shown instead of what only the log may show.
pub(crate) const INTERNAL: &str = "We encountered an internal error. Please try again.";
/// Of a disk that answers errors.
const DISK_FAILED: &str = "Objects cannot be read or written at the moment. Please try again.";
pub(crate) const DENIED: &str = "Access Denied";

fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// A code that the library does not know, with its status.
pub(crate) fn custom(
    code: &'static str,
    status: StatusCode,
    message: impl Into<String>,
) -> S3Error {
    let mut error = error(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

pub(crate) fn unsupported(what: &str) -> S3Error {
    error(
        S3ErrorCode::NotImplemented,
        format!(
            "A header or parameter you provided implies functionality that is not implemented: {what}"
        ),
    )
}

pub(crate) fn invalid_argument(message: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidArgument, message)
}

/// What the store says, in S3's words.
pub(crate) fn of_store(cause: Error) -> S3Error {
    let message = cause.to_string();
    let code = match &cause {
        Error::NoSuchBucket => S3ErrorCode::NoSuchBucket,
        Error::NoSuchKey => S3ErrorCode::NoSuchKey,
        Error::NoSuchUpload => S3ErrorCode::NoSuchUpload,
        Error::AccessDenied => S3ErrorCode::AccessDenied,
        Error::BucketTaken => S3ErrorCode::BucketAlreadyExists,
        Error::BucketOwned => S3ErrorCode::BucketAlreadyOwnedByYou,
        Error::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
        Error::TooManyBuckets => S3ErrorCode::TooManyBuckets,
        Error::InvalidBucketName => S3ErrorCode::InvalidBucketName,
        Error::KeyTooLong => S3ErrorCode::KeyTooLongError,
        Error::InvalidKey(_) | Error::InvalidPartNumber => S3ErrorCode::InvalidArgument,
        Error::MetadataTooLarge => S3ErrorCode::MetadataTooLarge,
        Error::EntityTooLarge { .. } => S3ErrorCode::EntityTooLarge,
        Error::EntityTooSmall { .. } => S3ErrorCode::EntityTooSmall,
        Error::InvalidPart(_) => S3ErrorCode::InvalidPart,
        Error::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        Error::InvalidRange { .. } => S3ErrorCode::InvalidRange,
        Error::BadDigest(Expectation::ContentSha256) => return content_sha256_mismatch(),
        Error::BadDigest(_) => S3ErrorCode::BadDigest,
        Error::IncompleteBody => S3ErrorCode::IncompleteBody,
        Error::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        Error::StorageFull => {
            tracing::error!("no room is left for objects");
            return custom(
                "InsufficientStorage",
                StatusCode::INSUFFICIENT_STORAGE,
                message,
            );
        }
        Error::Disk { .. } => {
            tracing::error!(error = %cause, "the disk of objects failed");
            return error(S3ErrorCode::ServiceUnavailable, DISK_FAILED);
        }
        Error::Damaged(_) => {
            tracing::error!(error = %cause, "a request about objects failed");
            return error(S3ErrorCode::InternalError, INTERNAL);
        }
        Error::Closed => {
            return error(
                S3ErrorCode::ServiceUnavailable,
                "Please reduce your request rate.",
            );
        }
    };
    error(code, message)
}

pub(crate) fn content_sha256_mismatch() -> S3Error {
    custom(
        "XAmzContentSHA256Mismatch",
        StatusCode::BAD_REQUEST,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )
}

/// Why the library's stream of a body ended.  Its error types are not public, so that their texts
/// tell them apart; the tests of this crate would notice a change.
pub(crate) fn of_stream(cause: &(dyn std::error::Error + 'static)) -> S3Error {
    let mut text = cause.to_string();
    let mut deeper = cause.source();
    while let Some(source) = deeper {
        text.push_str(&source.to_string());
        deeper = source.source();
    }
    if text.contains("Sha256Mismatch") {
        content_sha256_mismatch()
    } else if text.contains("SignatureMismatch") {
        error(S3ErrorCode::SignatureDoesNotMatch, NO_MATCH)
    } else {
        error(
            S3ErrorCode::IncompleteBody,
            Error::IncompleteBody.to_string(),
        )
    }
}

const NO_MATCH: &str = "The request signature we calculated does not match the signature you provided. \
                        Check your key and signing method.";

/// A refusal that the wall itself pronounces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) region: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: code.to_owned(),
            message: message.into(),
            region: None,
        }
    }

    /// `is_query`: whether the credentials are in the query.
    pub(crate) fn of_auth(cause: &AuthError, is_query: bool) -> Self {
        let malformed = if is_query {
            "AuthorizationQueryParametersError"
        } else {
            "AuthorizationHeaderMalformed"
        };
        match cause {
            AuthError::NoCredentials => Self::new(403, "AccessDenied", DENIED),
            AuthError::Missing("Date") => Self::new(
                403,
                "AccessDenied",
                "AWS authentication requires a valid Date or x-amz-date header",
            ),
            // The last two are of Query requests alone.
            AuthError::Missing(_)
            | AuthError::Malformed(_)
            | AuthError::InvalidValue { .. }
            | AuthError::TwoTimes { .. } => Self::new(400, malformed, cause.to_string()),
            AuthError::TwoSources => Self::new(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
            ),
            AuthError::UnknownKey => Self::new(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            AuthError::Mismatch { .. } => Self::new(403, "SignatureDoesNotMatch", NO_MATCH),
            AuthError::Expired(detail) if is_query => {
                Self::new(403, "AccessDenied", detail.clone())
            }
            AuthError::Expired(_) => Self::new(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            // The second is of Query requests alone.
            AuthError::VersionNotAllowed(_) | AuthError::Ambiguous(_) => Self::new(
                400,
                "InvalidRequest",
                "The authorization mechanism you have provided is not supported for this key.",
            ),
            AuthError::WrongRegion { given, expected } => Self {
                region: Some(expected.clone()),
                ..Self::new(
                    400,
                    malformed,
                    format!(
                        "The authorization header is malformed; the region '{given}' is wrong; expecting '{expected}'"
                    ),
                )
            },
            AuthError::WrongService { .. } => Self::new(
                400,
                malformed,
                "The authorization header is malformed; incorrect service. This endpoint belongs to \"s3\".",
            ),
            AuthError::SessionToken => Self::new(
                400,
                "InvalidToken",
                "The provided token is malformed or otherwise invalid.",
            ),
        }
    }

    /// The document.  `host_id` is opaque, as S3's.
    pub(crate) fn document(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = cumulet_wire::xml::Writer::new();
        xml.open("Error", None);
        xml.leaf("Code", &self.code);
        xml.leaf("Message", &self.message);
        if let Some(region) = &self.region {
            xml.leaf("Region", region);
        }
        xml.leaf("Resource", resource);
        xml.leaf("RequestId", request_id);
        xml.leaf("HostId", host_id);
        xml.close();
        xml.finish()
    }
}

/// Code and message of a document that the library wrote.
pub(crate) fn read_document(status: StatusCode, text: &str) -> Refusal {
    let between = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(unescape(value))
    };
    let code = between("Code").unwrap_or_else(|| "InternalError".into());
    let message = between("Message").unwrap_or_else(|| default_message(&code).to_owned());
    Refusal {
        status,
        code,
        message,
        region: None,
    }
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

/// For those of the library's errors that say nothing.
fn default_message(code: &str) -> &'static str {
    match code {
        "SignatureDoesNotMatch" => NO_MATCH,
        "InternalError" => INTERNAL,
        "AccessDenied" => DENIED,
        "MalformedXML" => {
            "The XML you provided was not well-formed or did not validate against our published schema"
        }
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "KeyTooLongError" => "Your key is too long",
        "InvalidBucketName" => "The specified bucket is not valid.",
        "MissingContentLength" => "You must provide the Content-Length HTTP header.",
        "MaxMessageLengthExceeded" => "Your request was too big.",
        "IncompleteBody" => {
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        }
        _ => "The request could not be answered.",
    }
}
