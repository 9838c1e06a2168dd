//! Listings of objects, both versions.

use cumulet_objects::{Entry, ListQuery, Listing};
use s3s::dto::{
    self, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output,
};
use s3s::{S3Request, S3Response, S3Result};

use crate::convert::{etag, owner, size, timestamp};
use crate::errors::{invalid_argument, of_store};
use crate::identity::caller;
use crate::service::Service;

const PAGE_MAX: i32 = 1000;

/// How names are written into the answer.
#[derive(Clone, Copy)]
pub(crate) struct Encoding {
    is_url: bool,
}

impl Encoding {
    pub(crate) fn of(given: Option<&EncodingType>) -> S3Result<Self> {
        match given.map(EncodingType::as_str) {
            None => Ok(Self { is_url: false }),
            Some("url") => Ok(Self { is_url: true }),
            Some(_) => Err(invalid_argument(
                "Invalid Encoding Method specified in Request",
            )),
        }
    }

    /// Slashes stay readable, as in S3's own answers.
    pub(crate) fn write(self, text: String) -> String {
        if self.is_url {
            cumulet_wire::query::encode_except(&text, b"/")
        } else {
            text
        }
    }
}

/// The size of a page: cut to 1000, as S3 does.
pub(crate) fn page(given: Option<i32>, name: &str) -> S3Result<(i32, usize)> {
    let given = given.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let limit = usize::try_from(given).map_err(|_| {
        invalid_argument(format!(
            "Argument {name} must be an integer between 0 and 2147483647"
        ))
    })?;
    Ok((given, limit))
}

/// An opaque token; it only has to be ours.
fn token(name: &str) -> String {
    cumulet_wire::base64::encode(name.as_bytes())
}

fn read_token(text: &str) -> S3Result<String> {
    let bytes = cumulet_wire::base64::decode(text, 4096).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| invalid_argument("The continuation token provided is incorrect"))
}

fn split(
    listing: Listing,
    encoding: Encoding,
    with_owner: bool,
) -> (Vec<dto::Object>, Vec<CommonPrefix>) {
    let (mut contents, mut prefixes) = (vec![], vec![]);
    for entry in listing.entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(encoding.write(prefix)),
            }),
            Entry::Item((key, object)) => {
                let algorithms = object.checksums.keys();
                let algorithms: Vec<dto::ChecksumAlgorithm> = algorithms
                    .map(|algorithm| algorithm.to_string().into())
                    .collect();
                contents.push(dto::Object {
                    key: Some(encoding.write(key)),
                    e_tag: Some(etag(&object.etag)),
                    size: Some(size(object.size)),
                    last_modified: Some(timestamp(object.modified)),
                    owner: with_owner.then(|| owner(object.owner)),
                    storage_class: Some("STANDARD".to_owned().into()),
                    checksum_algorithm: Some(algorithms).filter(|found| !found.is_empty()),
                    checksum_type: object.checksum_kind.map(crate::convert::checksum_type),
                    ..Default::default()
                });
            }
        }
    }
    (contents, prefixes)
}

impl Service {
    pub(crate) async fn list(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let (max_keys, limit) = page(input.max_keys, "max-keys")?;
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone(),
            after: input.marker.clone().filter(|marker| !marker.is_empty()),
            limit,
        };
        let listing = self.objects.list(caller, &input.bucket, query).await;
        let listing = listing.map_err(of_store)?;
        let next = listing.next.clone();
        let (contents, prefixes) = split(listing, encoding, true);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.write(input.prefix.unwrap_or_default())),
            marker: Some(encoding.write(input.marker.unwrap_or_default())),
            max_keys: Some(max_keys),
            is_truncated: Some(next.is_some()),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            // Without a delimiter the last key is the marker, and S3 does not repeat it.
            next_marker: next
                .filter(|_| delimiter.is_some())
                .map(|next| encoding.write(next)),
            delimiter: delimiter.map(|delimiter| encoding.write(delimiter)),
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    pub(crate) async fn list_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let (max_keys, limit) = page(input.max_keys, "max-keys")?;
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let after = match &input.continuation_token {
            Some(text) => Some(read_token(text)?),
            None => input.start_after.clone().filter(|after| !after.is_empty()),
        };
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone(),
            after,
            limit,
        };
        let listing = self.objects.list(caller, &input.bucket, query).await;
        let listing = listing.map_err(of_store)?;
        let next = listing.next.clone();
        let count = listing.entries.len();
        let (contents, prefixes) = split(listing, encoding, input.fetch_owner == Some(true));
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.write(input.prefix.unwrap_or_default())),
            max_keys: Some(max_keys),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(next.is_some()),
            next_continuation_token: next.as_deref().map(token),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            delimiter: delimiter.map(|delimiter| encoding.write(delimiter)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|after| encoding.write(after)),
            request_charged: None,
        }))
    }
}
