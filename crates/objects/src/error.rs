//! How the object store says no.
//!
//! One variant for each difference that a caller may act on.  The texts are for
//! users; what only the log may show (paths, causes) is in [`Error::Disk`] and
//! [`Error::Damaged`], which doors replace by a text of their own.

use crate::Algorithm;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("The specified bucket does not exist")]
    NoSuchBucket,
    #[error("The specified key does not exist.")]
    NoSuchKey,
    #[error(
        "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )]
    NoSuchUpload,
    #[error("Access Denied")]
    AccessDenied,
    /// Somebody else has a bucket of that name.
    #[error(
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Select a different name and try again."
    )]
    BucketTaken,
    /// The caller has it already.
    #[error("Your previous request to create the named bucket succeeded and you already own it.")]
    BucketOwned,
    #[error("The bucket you tried to delete is not empty")]
    BucketNotEmpty,
    #[error("You have attempted to create more buckets than allowed")]
    TooManyBuckets,
    #[error("The specified bucket is not valid.")]
    InvalidBucketName,
    #[error("Your key is too long")]
    KeyTooLong,
    /// Empty, or with a character that no XML document could name.
    #[error("The key cannot be used: {0}")]
    InvalidKey(&'static str),
    #[error("Your metadata headers exceed the maximum allowed metadata size.")]
    MetadataTooLarge,
    #[error("Your proposed upload exceeds the maximum allowed size of {max} bytes")]
    EntityTooLarge { max: u64 },
    /// A part other than the last has fewer than 5 MiB.
    #[error(
        "Your proposed upload is smaller than the minimum allowed size: part {part} has {size} bytes"
    )]
    EntityTooSmall { part: u16, size: u64 },
    #[error(
        "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag: part {0}"
    )]
    InvalidPart(u16),
    #[error(
        "The list of parts was not in ascending order. The parts list must be specified in order by part number."
    )]
    InvalidPartOrder,
    #[error("Part number must be an integer between 1 and 10000, inclusive")]
    InvalidPartNumber,
    /// The object has `size` bytes.
    #[error("The requested range is not satisfiable")]
    InvalidRange { size: u64 },
    #[error("The {0} you specified did not match what was received.")]
    BadDigest(Expectation),
    /// The body ended early, or was longer than announced.
    #[error("You did not provide the number of bytes specified by the Content-Length HTTP header")]
    IncompleteBody,
    #[error("At least one of the pre-conditions you specified did not hold")]
    PreconditionFailed,
    /// The disk has less than the reserve left.
    #[error("There is no room left for objects")]
    StorageFull,
    /// For the log.
    #[error("could not {doing}: {cause}")]
    Disk { doing: &'static str, cause: String },
    /// A record or a body is not what was written.  For the log.
    #[error("{0} is damaged")]
    Damaged(String),
    /// The store was closed, or its index could not be opened again after an error.
    #[error("the object store is not available")]
    Closed,
}

/// What a body was to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    ContentMd5,
    ContentSha256,
    Checksum(Algorithm),
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expectation::ContentMd5 => f.write_str("Content-MD5"),
            Expectation::ContentSha256 => f.write_str("x-amz-content-sha256"),
            Expectation::Checksum(algorithm) => write!(f, "{algorithm}"),
        }
    }
}

impl Error {
    pub(crate) fn disk(doing: &'static str, cause: impl std::fmt::Display) -> Self {
        Error::Disk {
            doing,
            cause: cause.to_string(),
        }
    }

    pub(crate) fn io(doing: &'static str, cause: &std::io::Error) -> Self {
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::StorageFull
            }
            _ => Self::disk(doing, cause),
        }
    }
}

macro_rules! from_redb {
    ($($cause:ty),*) => {$(
        impl From<$cause> for Error {
            fn from(cause: $cause) -> Self {
                Error::disk("use the index of objects", cause)
            }
        }
    )*};
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError
);

pub type Result<T> = std::result::Result<T, Error>;
