//! Between the library's types and the store's.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use cumulet_domain::AccountId;
use cumulet_objects::access::canonical_id;
use cumulet_objects::{Algorithm, ChecksumKind, Condition, Object};
use s3s::dto::{self, ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Result, s3_error};

use crate::errors::{of_store, unsupported};

/// The content type of an object that was put without one.
pub(crate) const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

/// The five checksum fields that many of the library's types have.
macro_rules! checksums_of {
    ($from:expr) => {
        [
            (Algorithm::Crc32, $from.checksum_crc32.as_deref()),
            (Algorithm::Crc32c, $from.checksum_crc32c.as_deref()),
            (Algorithm::Crc64Nvme, $from.checksum_crc64nvme.as_deref()),
            (Algorithm::Sha1, $from.checksum_sha1.as_deref()),
            (Algorithm::Sha256, $from.checksum_sha256.as_deref()),
        ]
    };
}

/// Fills these fields from an object or part, `$suffix` behind each value.
macro_rules! set_checksums {
    ($to:expr, $checksums:expr, $suffix:expr) => {
        let text = |algorithm| {
            let value = $checksums.get(&algorithm)?;
            Some(format!(
                "{}{}",
                cumulet_wire::base64::encode(value),
                $suffix
            ))
        };
        $to.checksum_crc32 = text(Algorithm::Crc32);
        $to.checksum_crc32c = text(Algorithm::Crc32c);
        $to.checksum_crc64nvme = text(Algorithm::Crc64Nvme);
        $to.checksum_sha1 = text(Algorithm::Sha1);
        $to.checksum_sha256 = text(Algorithm::Sha256);
    };
}

pub(crate) use {checksums_of, set_checksums};

/// What stands behind the value of a checksum over the parts' checksums.
pub(crate) fn checksum_suffix(object: &Object) -> String {
    match (object.checksum_kind, object.parts) {
        (Some(ChecksumKind::Composite), Some(parts)) => format!("-{parts}"),
        _ => String::new(),
    }
}

pub(crate) fn checksum_type(kind: ChecksumKind) -> dto::ChecksumType {
    dto::ChecksumType::from_static(match kind {
        ChecksumKind::FullObject => dto::ChecksumType::FULL_OBJECT,
        ChecksumKind::Composite => dto::ChecksumType::COMPOSITE,
    })
}

pub(crate) fn algorithm(text: &str) -> S3Result<Algorithm> {
    let found = Algorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
        )
    })
}

/// Old clients demand a name for people; ours is the beginning of the id.
pub(crate) fn display_name(id: &str) -> String {
    id.chars().take(12).collect()
}

pub(crate) fn owner(account: AccountId) -> dto::Owner {
    let id = canonical_id(account);
    dto::Owner {
        display_name: Some(display_name(&id)),
        id: Some(id),
    }
}

pub(crate) fn initiator(account: AccountId) -> dto::Initiator {
    let id = canonical_id(account);
    dto::Initiator {
        display_name: Some(display_name(&id)),
        id: Some(id),
    }
}

pub(crate) fn timestamp(at: cumulet_domain::Timestamp) -> Timestamp {
    let millis = u64::try_from(at.0).unwrap_or(0);
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// Seconds, which is all that HTTP dates have.
pub(crate) fn seconds(at: &Timestamp) -> i64 {
    time::OffsetDateTime::from(at.clone()).unix_timestamp()
}

pub(crate) fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// `If-Match` and `If-None-Match` of a request that replaces an object.
pub(crate) fn condition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Matches("*".into())),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Matches(etag.into_value())),
        (None, Some(ETagCondition::ETag(_))) => Err(unsupported("If-None-Match with an ETag")),
        (Some(_), Some(_)) => Err(unsupported("If-Match together with If-None-Match")),
    }
}

pub(crate) fn http_date(at: &Timestamp) -> Option<String> {
    let mut bytes = vec![];
    at.format(TimestampFormat::HttpDate, &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// `aws-chunked` tells how the body was sent, not what it is.
pub(crate) fn content_encoding(given: Option<String>) -> Option<String> {
    let kept: Vec<&str> = given
        .as_deref()?
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked") && !coding.is_empty())
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

pub(crate) fn metadata(given: Option<dto::Metadata>) -> BTreeMap<String, String> {
    given.unwrap_or_default().into_iter().collect()
}

/// The fields of attributes that the library's inputs share.
macro_rules! attributes_of {
    ($input:expr) => {
        cumulet_objects::Attributes {
            content_type: $input.content_type.clone(),
            content_encoding: crate::convert::content_encoding($input.content_encoding.clone()),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            expires: $input.expires.as_ref().and_then(crate::convert::http_date),
            website_redirect: $input.website_redirect_location.clone(),
            metadata: crate::convert::metadata($input.metadata.clone()),
        }
    };
}

/// Refuses what we would otherwise only seem to do.
macro_rules! refuse_unsupported {
    ($input:expr) => {
        for (is_given, what) in [
            (
                $input.server_side_encryption.is_some(),
                "server-side encryption",
            ),
            ($input.ssekms_key_id.is_some(), "server-side encryption"),
            ($input.sse_customer_key.is_some(), "server-side encryption"),
            ($input.object_lock_mode.is_some(), "object lock"),
            (
                $input.object_lock_legal_hold_status.is_some(),
                "object lock",
            ),
            (
                $input.tagging.as_ref().is_some_and(|tags| !tags.is_empty()),
                "tagging",
            ),
        ] {
            if is_given {
                return Err(crate::errors::unsupported(what));
            }
        }
        if let Some(class) = &$input.storage_class
            && class.as_str() != "STANDARD"
        {
            return Err(crate::errors::unsupported(
                "a storage class other than STANDARD",
            ));
        }
    };
}

pub(crate) use {attributes_of, refuse_unsupported};

/// Versions do not exist here; the only one is called `null`.
pub(crate) fn refuse_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null" | "") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

/// Fills the fields that answers to GET and HEAD share.
macro_rules! describe {
    ($output:expr, $object:expr) => {
        let attributes: &Attributes = &$object.attributes;
        $output.accept_ranges = Some("bytes".into());
        $output.e_tag = Some(crate::convert::etag(&$object.etag));
        $output.last_modified = Some(crate::convert::timestamp($object.modified));
        $output.content_type = attributes
            .content_type
            .clone()
            .or_else(|| Some(crate::convert::CONTENT_TYPE_DEFAULT.into()));
        $output.content_encoding = attributes.content_encoding.clone();
        $output.content_disposition = attributes.content_disposition.clone();
        $output.content_language = attributes.content_language.clone();
        $output.cache_control = attributes.cache_control.clone();
        $output.expires = attributes
            .expires
            .as_deref()
            .and_then(|text| Timestamp::parse(s3s::dto::TimestampFormat::HttpDate, text).ok());
        $output.website_redirect_location = attributes.website_redirect.clone();
        let metadata = attributes.metadata.clone().into_iter().collect();
        $output.metadata = Some(metadata);
    };
}

pub(crate) use describe;

/// Bucket and key of a source.
pub(crate) fn copy_source(source: &dto::CopySource) -> S3Result<(String, String)> {
    match source {
        dto::CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => {
            refuse_version(version_id.as_deref())?;
            Ok((bucket.to_string(), key.to_string()))
        }
        dto::CopySource::AccessPoint { .. } | dto::CopySource::Outpost { .. } => {
            Err(unsupported("access points"))
        }
    }
}

/// The number of a part, from one on.
pub(crate) fn part_number(given: i32) -> S3Result<u16> {
    u16::try_from(given)
        .ok()
        .filter(|number| (1..=cumulet_objects::PART_NUMBER_MAX).contains(number))
        .ok_or_else(|| of_store(cumulet_objects::Error::InvalidPartNumber))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunking_is_no_encoding_of_the_object() {
        let cut = |text: &str| content_encoding(Some(text.into()));
        assert_eq!(cut("aws-chunked"), None);
        assert_eq!(cut("gzip,aws-chunked").as_deref(), Some("gzip"));
        assert_eq!(cut("aws-chunked, gzip, br").as_deref(), Some("gzip,br"));
        assert_eq!(cut("gzip").as_deref(), Some("gzip"));
    }
}
