//! Bodies of objects: received as a stream and compared with all that the
//! client said about them.

use std::collections::BTreeSet;
use std::time::Duration;

use cumulet_objects::{Algorithm, Checksums, Expected, OBJECT_BYTES_MAX, ObjectStore, StagedBody};
use futures::StreamExt as _;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders, s3_error};

use crate::convert;
use crate::errors::{of_store, of_stream};

/// How long the next bytes may take.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

const HEADER_PREFIX: &str = "x-amz-checksum-";

pub(crate) fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    let bytes = cumulet_wire::base64::decode(text.trim(), 16).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))
}

pub(crate) fn parse_checksum(algorithm: Algorithm, text: &str) -> S3Result<Vec<u8>> {
    let length = match algorithm {
        Algorithm::Crc32 | Algorithm::Crc32c => 4,
        Algorithm::Crc64Nvme => 8,
        Algorithm::Sha1 => 20,
        Algorithm::Sha256 => 32,
    };
    let bytes = cumulet_wire::base64::decode(text.trim(), length).ok();
    bytes.filter(|bytes| bytes.len() == length).ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "Value for {HEADER_PREFIX}{} header is invalid.",
            algorithm.to_string().to_lowercase()
        )
    })
}

/// The checksum that headers give; more than one is refused.
pub(crate) fn header_checksums(headers: &HeaderMap) -> S3Result<Checksums> {
    let given = Algorithm::ALL.into_iter().filter_map(|algorithm| {
        let name = format!("{HEADER_PREFIX}{}", algorithm.to_string().to_lowercase());
        Some((algorithm, headers.get(name)?.to_str().ok()?))
    });
    parse_checksums(given)
}

pub(crate) fn parse_checksums<'a>(
    given: impl Iterator<Item = (Algorithm, &'a str)>,
) -> S3Result<Checksums> {
    let mut checksums = Checksums::new();
    for (algorithm, text) in given {
        checksums.insert(algorithm, parse_checksum(algorithm, text)?);
    }
    if checksums.len() > 1 {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single {HEADER_PREFIX} header. Multiple checksum Types are not allowed."
        ));
    }
    Ok(checksums)
}

/// A body, and what was said about it.
pub(crate) struct Payload<'a> {
    pub(crate) body: Option<StreamingBlob>,
    pub(crate) content_length: Option<i64>,
    pub(crate) content_md5: Option<&'a str>,
    /// Those in headers or fields.
    pub(crate) checksums: Checksums,
    /// What the client's library says that it uses.
    pub(crate) declared: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) trailing: Option<TrailingHeaders>,
    /// To be computed whether or not the client gave it.
    pub(crate) wanted: Option<Algorithm>,
}

impl Payload<'_> {
    /// Algorithms whose values come behind the body.
    fn announced(&self) -> S3Result<Vec<Algorithm>> {
        let names = self.headers.get("x-amz-trailer");
        let names = names.and_then(|value| value.to_str().ok()).unwrap_or("");
        names
            .split(',')
            .filter_map(|name| name.trim().strip_prefix(HEADER_PREFIX))
            .map(convert::algorithm)
            .collect()
    }

    /// Receives all of it; what is answered is on the disk, compared, and not yet an object.
    pub(crate) async fn receive(mut self, objects: &ObjectStore) -> S3Result<StagedBody> {
        let announced = self.announced()?;
        let is_declared_only = self.checksums.is_empty() && announced.is_empty();
        if self.declared.is_some() && is_declared_only {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
            ));
        }
        let size = self.content_length.map(u64::try_from).transpose();
        let size = size.map_err(|_| s3_error!(InvalidArgument, "a negative length"))?;
        if size.is_none() && self.body.is_some() {
            return Err(s3_error!(
                MissingContentLength,
                "You must provide the Content-Length HTTP header."
            ));
        }
        if size.is_some_and(|size| size > OBJECT_BYTES_MAX) {
            return Err(s3_error!(
                EntityTooLarge,
                "Your proposed upload exceeds the maximum allowed size"
            ));
        }
        let md5 = self.content_md5.map(parse_md5).transpose()?;
        let mut algorithms: BTreeSet<Algorithm> = self.checksums.keys().copied().collect();
        algorithms.extend(announced.iter().copied());
        algorithms.extend(self.wanted);
        let mut writer = objects.begin_body(&algorithms, OBJECT_BYTES_MAX);
        if let Some(mut body) = self.body.take() {
            loop {
                let next = tokio::time::timeout(IDLE_TIME_MAX, body.next()).await;
                match next.map_err(|_| s3_error!(RequestTimeout, "Your socket connection to the server was not read from or written to within the timeout period."))? {
                    Some(Ok(bytes)) => writer.write(bytes).await.map_err(of_store)?,
                    Some(Err(cause)) => return Err(of_stream(cause.as_ref())),
                    None => break,
                }
            }
        }
        for algorithm in announced {
            let value = self
                .trailer(algorithm)
                .ok_or_else(|| s3_error!(IncompleteBody, "the announced trailer did not come"))?;
            let value = parse_checksum(algorithm, &value)?;
            self.checksums.insert(algorithm, value);
        }
        let expected = Expected {
            md5,
            // Compared by the library's stream.
            content_sha256: None,
            checksums: self.checksums,
            size,
        };
        writer.finish(expected).await.map_err(of_store)
    }

    fn trailer(&self, algorithm: Algorithm) -> Option<String> {
        let name = format!("{HEADER_PREFIX}{}", algorithm.to_string().to_lowercase());
        self.trailing
            .as_ref()?
            .read(|headers| Some(headers.get(name)?.to_str().ok()?.to_owned()))?
    }
}
