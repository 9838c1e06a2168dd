//! Objects: put, get, head, copy, delete.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use cumulet_objects::{Algorithm, Attributes, Condition, CopySource, Error, NewObject, Object};
use futures::Stream;
use http::{HeaderValue, StatusCode, header};
use s3s::dto::{
    self, CopyObjectInput, CopyObjectOutput, CopyObjectResult, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::convert::{
    attributes_of, checksum_suffix, checksum_type, checksums_of, condition, copy_source, describe,
    etag, http_date, part_number, refuse_unsupported, refuse_version, seconds, set_checksums, size,
    timestamp,
};
use crate::errors::{custom, invalid_argument, of_store, unsupported};
use crate::identity::{caller, trailers};
use crate::payload::{Payload, parse_checksums};
use crate::service::Service;

/// Keys of one request to delete many.
const DELETE_KEYS_MAX: usize = 1000;

/// The conditions of a read.
struct Conditions<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

fn is_etag(condition: &ETagCondition, object: &Object) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    }
}

impl Conditions<'_> {
    /// As RFC 9110 orders them: an ETag overrules a date.
    fn check(&self, object: &Object) -> S3Result<()> {
        let modified = timestamp(object.modified);
        let is_after = |date: &Timestamp| seconds(&modified) > seconds(date);
        let holds = match (self.if_match, self.if_unmodified_since) {
            (Some(wanted), _) => is_etag(wanted, object),
            (None, Some(date)) => !is_after(date),
            (None, None) => true,
        };
        if !holds {
            return Err(of_store(Error::PreconditionFailed));
        }
        let is_unchanged = match (self.if_none_match, self.if_modified_since) {
            (Some(known), _) => is_etag(known, object),
            (None, Some(date)) => !is_after(date),
            (None, None) => false,
        };
        if is_unchanged {
            return Err(not_modified(object));
        }
        Ok(())
    }
}

fn not_modified(object: &Object) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = http::HeaderMap::new();
    let fields = [
        (header::ETAG, Some(format!("\"{}\"", object.etag))),
        (
            header::LAST_MODIFIED,
            http_date(&timestamp(object.modified)),
        ),
    ];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    error.set_headers(headers);
    error
}

/// What of an object is asked for.
struct Span {
    range: std::ops::Range<u64>,
    /// `Content-Range` of an answer that is not the whole.
    content_range: Option<String>,
    parts_count: Option<i32>,
}

/// By range or by number of a part; not by both.
fn span(range: Option<&dto::Range>, part: Option<i32>, object: &Object) -> S3Result<Span> {
    let found = match (range, part) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            ));
        }
        (range, None) => range_of(range, object)?,
        (None, Some(number)) => {
            let number = part_number(number)?;
            object.part(number).ok_or_else(|| {
                custom(
                    "InvalidPartNumber",
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested partnumber is not satisfiable",
                )
            })?
        }
    };
    // An empty object has no range that could be named.
    let is_partial = (range.is_some() || part.is_some()) && !found.is_empty();
    let content_range =
        is_partial.then(|| format!("bytes {}-{}/{}", found.start, found.end - 1, object.size));
    let parts = object.parts.filter(|_| part.is_some());
    Ok(Span {
        range: found,
        content_range,
        parts_count: parts.and_then(|count| i32::try_from(count).ok()),
    })
}

/// `If-Match` and `If-None-Match` on the target of a copy, which the library does not read.
fn target_condition(headers: &http::HeaderMap) -> S3Result<Condition> {
    let read = |name: header::HeaderName| {
        let text = headers.get(name)?.to_str().ok()?.trim();
        Some(match text {
            "*" => ETagCondition::Any,
            _ => ETagCondition::ETag(etag(text.trim_matches('"'))),
        })
    };
    condition(read(header::IF_MATCH), read(header::IF_NONE_MATCH))
}

fn range_of(range: Option<&dto::Range>, object: &Object) -> S3Result<std::ops::Range<u64>> {
    let Some(range) = range else {
        return Ok(0..object.size);
    };
    range.check(object.size).map_err(|_| {
        let mut error = of_store(Error::InvalidRange { size: object.size });
        if let Ok(value) = HeaderValue::from_str(&format!("bytes */{}", object.size)) {
            error.set_headers(http::HeaderMap::from_iter([(header::CONTENT_RANGE, value)]));
        }
        error
    })
}

/// The library wants streams that may be shared; nobody shares them, so that the lock is never
/// waited for.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let inner = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        inner.as_mut().poll_next(cx)
    }
}

fn streaming<S>(stream: S) -> StreamingBlob
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    StreamingBlob::wrap(Exclusive(Mutex::new(Box::pin(stream))))
}

impl Service {
    pub(crate) async fn put(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let caller = caller(&request)?;
        let trailing = trailers(&mut request);
        let headers = request.headers;
        let mut input = request.input;
        refuse_unsupported!(input);
        if input.write_offset_bytes.is_some() {
            return Err(unsupported("x-amz-write-offset-bytes"));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let acl = crate::acls::of_headers(crate::acls::headers!(input))?.unwrap_or_default();
        let condition = condition(input.if_match.take(), input.if_none_match.take())?;
        let writable = self
            .objects
            .check_writable(caller, &input.bucket, &input.key);
        writable.await.map_err(of_store)?;
        let given = checksums_of!(input).into_iter();
        let checksums = parse_checksums(given.filter_map(|(each, text)| Some((each, text?))))?;
        let attributes = attributes_of!(input);
        let payload = Payload {
            body: input.body.take(),
            content_length: input.content_length,
            content_md5: input.content_md5.as_deref(),
            checksums,
            declared: input
                .checksum_algorithm
                .as_ref()
                .map(|found| found.as_str()),
            headers: &headers,
            trailing,
            wanted: None,
        };
        let body = payload.receive(&self.objects).await?;
        let new = NewObject {
            bucket: input.bucket,
            key: input.key,
            acl,
            attributes,
            condition,
            now: self.now(),
        };
        let put = self.objects.put(caller, body, new).await;
        let object = put.map_err(of_store)?;
        let mut output = PutObjectOutput {
            e_tag: Some(etag(&object.etag)),
            checksum_type: object.checksum_kind.map(checksum_type),
            ..Default::default()
        };
        set_checksums!(output, object.checksums, "");
        Ok(S3Response::new(output))
    }

    pub(crate) async fn get(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        let overrides = [
            input.response_content_type.is_some(),
            input.response_content_language.is_some(),
            input.response_expires.is_some(),
            input.response_cache_control.is_some(),
            input.response_content_disposition.is_some(),
            input.response_content_encoding.is_some(),
        ];
        if caller.is_none() && overrides.contains(&true) {
            return Err(s3_error!(
                InvalidRequest,
                "Request specific response headers cannot be used for anonymous GET requests."
            ));
        }
        refuse_version(input.version_id.as_deref())?;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.get(caller, &input.bucket, &input.key).await;
        let body = found.map_err(of_store)?;
        let object = &body.object;
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions.check(object)?;
        let span = span(input.range.as_ref(), input.part_number, object)?;
        let range = span.range;
        let mut output = GetObjectOutput::default();
        describe!(output, object);
        output.content_length = Some(size(range.end - range.start));
        let is_partial = span.content_range.is_some();
        output.content_range = span.content_range;
        output.parts_count = span.parts_count;
        let is_wanted = input
            .checksum_mode
            .is_some_and(|mode| mode.as_str() == "ENABLED");
        if is_wanted && range == (0..object.size) {
            set_checksums!(output, object.checksums, checksum_suffix(object));
            output.checksum_type = object.checksum_kind.map(checksum_type);
        }
        let stream = body.stream(range).await.map_err(of_store)?;
        output.body = Some(streaming(stream));
        let mut response = S3Response::new(output);
        if is_partial {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    pub(crate) async fn head(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let found = self.objects.head(caller, &input.bucket, &input.key).await;
        let object = found.map_err(of_store)?;
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions.check(&object)?;
        let span = span(input.range.as_ref(), input.part_number, &object)?;
        let mut output = HeadObjectOutput::default();
        describe!(output, object);
        output.content_length = Some(size(span.range.end - span.range.start));
        let is_partial = span.content_range.is_some();
        output.content_range = span.content_range;
        output.parts_count = span.parts_count;
        if input
            .checksum_mode
            .is_some_and(|mode| mode.as_str() == "ENABLED")
        {
            set_checksums!(output, object.checksums, checksum_suffix(&object));
            output.checksum_type = object.checksum_kind.map(checksum_type);
        }
        let mut response = S3Response::new(output);
        if is_partial {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    pub(crate) async fn copy(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let caller = caller(&request)?;
        let condition = target_condition(&request.headers)?;
        let mut input = request.input;
        refuse_unsupported!(input);
        if input.copy_source_sse_customer_key.is_some() {
            return Err(unsupported("server-side encryption"));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let (bucket, key) = copy_source(&input.copy_source)?;
        self.check_owner(&bucket, input.expected_source_bucket_owner.as_deref())
            .await?;
        let source = self.objects.head(caller, &bucket, &key).await;
        let source = source.map_err(of_store)?;
        self.copy_conditions(
            &source,
            input.copy_source_if_match.as_ref(),
            input.copy_source_if_none_match.as_ref(),
            input.copy_source_if_modified_since.as_ref(),
            input.copy_source_if_unmodified_since.as_ref(),
        )?;
        let directive = input.metadata_directive.as_ref();
        let replaces = match directive.map(|directive| directive.as_str()) {
            None | Some("COPY") => false,
            Some("REPLACE") => true,
            Some(_) => return Err(invalid_argument("Unknown metadata directive.")),
        };
        if !replaces && (&bucket, &key) == (&input.bucket, &input.key) {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
            ));
        }
        let new = NewObject {
            acl: crate::acls::of_headers(crate::acls::headers!(input))?.unwrap_or_default(),
            attributes: attributes_of!(input),
            condition,
            now: self.now(),
            bucket: std::mem::take(&mut input.bucket),
            key: std::mem::take(&mut input.key),
        };
        let source = CopySource {
            bucket,
            key,
            etag: Some(source.etag),
        };
        let copied = self.objects.copy(caller, source, new, !replaces).await;
        let object = copied.map_err(of_store)?;
        let mut result = CopyObjectResult {
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified)),
            checksum_type: object.checksum_kind.map(checksum_type),
            ..Default::default()
        };
        set_checksums!(result, object.checksums, checksum_suffix(&object));
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..Default::default()
        }))
    }

    /// Conditions on a source; a source that is unchanged is refused as one that has changed.
    pub(crate) fn copy_conditions(
        &self,
        source: &Object,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
        if_modified_since: Option<&Timestamp>,
        if_unmodified_since: Option<&Timestamp>,
    ) -> S3Result<()> {
        let conditions = Conditions {
            if_match,
            if_none_match,
            if_modified_since,
            if_unmodified_since,
        };
        conditions
            .check(source)
            .map_err(|_| of_store(Error::PreconditionFailed))
    }

    pub(crate) async fn delete(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
            return Err(unsupported("conditions on size or date"));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let condition = condition(input.if_match, None)?;
        let done = self
            .objects
            .delete(caller, &input.bucket, &input.key, condition);
        done.await.map_err(of_store)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(crate) async fn delete_several(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        if !(1..=DELETE_KEYS_MAX).contains(&input.delete.objects.len()) {
            return Err(s3_error!(
                MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema"
            ));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let (mut keys, mut errors) = (vec![], vec![]);
        for object in input.delete.objects {
            let is_conditional = object.e_tag.is_some()
                || object.last_modified_time.is_some()
                || object.size.is_some();
            let refused = refuse_version(object.version_id.as_deref()).err();
            let refused = refused.or_else(|| is_conditional.then(|| unsupported("conditions")));
            match refused {
                None => keys.push(object.key),
                Some(error) => errors.push(dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: object.version_id,
                }),
            }
        }
        let done = self
            .objects
            .delete_many(caller, &input.bucket, keys.clone());
        done.await.map_err(of_store)?;
        let is_quiet = input.delete.quiet == Some(true);
        let deleted = keys
            .into_iter()
            .filter(|_| !is_quiet)
            .map(|key| DeletedObject {
                key: Some(key),
                ..Default::default()
            });
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted.collect()),
            errors: Some(errors).filter(|errors| !errors.is_empty()),
            ..Default::default()
        }))
    }
}
