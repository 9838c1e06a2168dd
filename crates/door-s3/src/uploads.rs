//! Uploads in parts.

use cumulet_objects::{
    Algorithm, ChecksumKind, Checksums, CompletedPart, Entry, NewUpload, Part, Upload, UploadQuery,
};
use futures::StreamExt as _;
use s3s::dto::{
    self, AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeSet;

use crate::convert::{
    algorithm, attributes_of, checksum_suffix, checksum_type, checksums_of, condition, copy_source,
    etag, initiator, owner, part_number, refuse_unsupported, set_checksums, size, timestamp,
};
use crate::errors::{of_store, unsupported};
use crate::identity::{caller, trailers};
use crate::lists::{Encoding, page};
use crate::payload::{Payload, parse_checksum, parse_checksums};
use crate::service::Service;

/// How the object's checksum will come about: CRC64NVME only over all bytes, SHA only over the
/// parts', the others over the parts' unless asked otherwise.
fn checksum_of(
    given: Option<&dto::ChecksumAlgorithm>,
    kind: Option<&dto::ChecksumType>,
) -> S3Result<Option<(Algorithm, ChecksumKind)>> {
    let Some(given) = given else {
        return Ok(None);
    };
    let algorithm = algorithm(given.as_str())?;
    let kind = match kind.map(|kind| kind.as_str()) {
        Some("FULL_OBJECT") => ChecksumKind::FullObject,
        Some("COMPOSITE") => ChecksumKind::Composite,
        None if algorithm == Algorithm::Crc64Nvme => ChecksumKind::FullObject,
        None => ChecksumKind::Composite,
        Some(_) => {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-type header is invalid."
            ));
        }
    };
    let is_possible = match kind {
        ChecksumKind::FullObject => algorithm.is_crc(),
        ChecksumKind::Composite => algorithm != Algorithm::Crc64Nvme,
    };
    if !is_possible {
        return Err(s3_error!(
            InvalidRequest,
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            checksum_type(kind).as_str(),
            algorithm
        ));
    }
    Ok(Some((algorithm, kind)))
}

fn listed_part(part: dto::CompletedPart) -> S3Result<CompletedPart> {
    let number = part.part_number.ok_or_else(malformed)?;
    let mut checksums = Checksums::new();
    for (algorithm, text) in checksums_of!(part) {
        if let Some(text) = text {
            checksums.insert(algorithm, parse_checksum(algorithm, text)?);
        }
    }
    Ok(CompletedPart {
        number: part_number(number)?,
        etag: part.e_tag.ok_or_else(malformed)?.into_value(),
        checksums,
    })
}

fn malformed() -> s3s::S3Error {
    s3_error!(
        MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema"
    )
}

impl Service {
    pub(crate) async fn begin_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        refuse_unsupported!(input);
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let checksum = checksum_of(
            input.checksum_algorithm.as_ref(),
            input.checksum_type.as_ref(),
        )?;
        let new = NewUpload {
            acl: crate::acls::of_headers(crate::acls::headers!(input))?.unwrap_or_default(),
            attributes: attributes_of!(input),
            checksum,
            now: self.now(),
            bucket: input.bucket.clone(),
            key: input.key.clone(),
        };
        let id = self.objects.create_upload(caller, new).await;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id.map_err(of_store)?),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: checksum.map(|(_, kind)| checksum_type(kind)),
            ..Default::default()
        }))
    }

    pub(crate) async fn put_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let caller = caller(&request)?;
        let trailing = trailers(&mut request);
        let headers = request.headers;
        let mut input = request.input;
        if input.sse_customer_key.is_some() {
            return Err(unsupported("server-side encryption"));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let number = part_number(input.part_number)?;
        let at = (&*input.bucket, &*input.key, &*input.upload_id);
        let upload = self.objects.upload(caller, at.0, at.1, at.2).await;
        let upload = upload.map_err(of_store)?;
        let given = checksums_of!(input).into_iter();
        let checksums = parse_checksums(given.filter_map(|(each, text)| Some((each, text?))))?;
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
            wanted: upload.checksum.map(|(algorithm, _)| algorithm),
        };
        let body = payload.receive(&self.objects).await?;
        let part = self.objects.put_part(caller, at, number, body, self.now());
        let part = part.await.map_err(of_store)?;
        let mut output = UploadPartOutput {
            e_tag: Some(etag(&part.etag())),
            ..Default::default()
        };
        set_checksums!(output, part.checksums, "");
        Ok(S3Response::new(output))
    }

    /// A part from another object's bytes, which are read and hashed for its ETag.
    pub(crate) async fn copy_part(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        let has_key = input.sse_customer_key.is_some();
        if has_key || input.copy_source_sse_customer_key.is_some() {
            return Err(unsupported("server-side encryption"));
        }
        let number = part_number(input.part_number)?;
        let at = (&*input.bucket, &*input.key, &*input.upload_id);
        let upload = self.objects.upload(caller, at.0, at.1, at.2).await;
        let upload = upload.map_err(of_store)?;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let (bucket, key) = copy_source(&input.copy_source)?;
        self.check_owner(&bucket, input.expected_source_bucket_owner.as_deref())
            .await?;
        let source = self.objects.get(caller, &bucket, &key).await;
        let source = source.map_err(of_store)?;
        self.copy_conditions(
            &source.object,
            input.copy_source_if_match.as_ref(),
            input.copy_source_if_none_match.as_ref(),
            input.copy_source_if_modified_since.as_ref(),
            input.copy_source_if_unmodified_since.as_ref(),
        )?;
        let all = source.object.size;
        let range = match input.copy_source_range.as_deref() {
            None => 0..all,
            Some(text) => source_range(text, all)?,
        };
        let algorithms: BTreeSet<Algorithm> =
            upload.checksum.into_iter().map(|(each, _)| each).collect();
        let mut writer = self
            .objects
            .begin_body(&algorithms, cumulet_objects::OBJECT_BYTES_MAX);
        let stream = source.stream(range).await.map_err(of_store)?;
        let mut stream = Box::pin(stream);
        while let Some(block) = stream.next().await {
            let block = block.map_err(|cause| {
                of_store(cumulet_objects::Error::Damaged(format!(
                    "a source ({cause})"
                )))
            })?;
            writer.write(block).await.map_err(of_store)?;
        }
        let body = writer.finish(Default::default()).await.map_err(of_store)?;
        let part = self.objects.put_part(caller, at, number, body, self.now());
        let part = part.await.map_err(of_store)?;
        let mut result = CopyPartResult {
            e_tag: Some(etag(&part.etag())),
            last_modified: Some(timestamp(part.modified)),
            ..Default::default()
        };
        set_checksums!(result, part.checksums, "");
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..Default::default()
        }))
    }

    pub(crate) async fn complete(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let parts = input
            .multipart_upload
            .as_ref()
            .and_then(|list| list.parts.clone());
        let parts = parts
            .filter(|parts| !parts.is_empty())
            .ok_or_else(malformed)?;
        let parts = parts
            .into_iter()
            .map(listed_part)
            .collect::<S3Result<Vec<_>>>()?;
        let condition = condition(input.if_match.clone(), input.if_none_match.clone())?;
        // A value over the parts' checksums has the number of parts behind it.
        let whole = |text: &'_ str| text.split('-').next().unwrap_or_default().to_owned();
        let given = checksums_of!(input).into_iter();
        let given: Vec<(Algorithm, String)> = given
            .filter_map(|(each, text)| Some((each, whole(text?))))
            .collect();
        let expected = parse_checksums(given.iter().map(|(each, text)| (*each, text.as_str())))?;
        let at = (&*input.bucket, &*input.key, &*input.upload_id);
        let done = self
            .objects
            .complete_upload(caller, at, parts, expected, condition, self.now());
        let object = done.await.map_err(of_store)?;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            e_tag: Some(etag(&object.etag)),
            checksum_type: object.checksum_kind.map(checksum_type),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        };
        set_checksums!(output, object.checksums, checksum_suffix(&object));
        Ok(S3Response::new(output))
    }

    pub(crate) async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        if input.if_match_initiated_time.is_some() {
            return Err(unsupported("conditions on the date of an upload"));
        }
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let at = (&*input.bucket, &*input.key, &*input.upload_id);
        self.objects
            .abort_upload(caller, at)
            .await
            .map_err(of_store)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(crate) async fn parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let (max_parts, limit) = page(input.max_parts, "max-parts")?;
        let after = input.part_number_marker.unwrap_or(0);
        let after = u16::try_from(after.max(0)).unwrap_or(u16::MAX);
        let at = (&*input.bucket, &*input.key, &*input.upload_id);
        let found = self.objects.list_parts(caller, at, after, limit).await;
        let (upload, parts, is_truncated) = found.map_err(of_store)?;
        let next = parts.last().map(|part| i32::from(part.number));
        let Upload {
            checksum,
            initiator: by,
            ..
        } = upload;
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(i32::from(after)),
            next_part_number_marker: next.filter(|_| is_truncated),
            max_parts: Some(max_parts),
            is_truncated: Some(is_truncated),
            parts: Some(parts.into_iter().map(shown_part).collect()),
            owner: Some(owner(by)),
            initiator: Some(initiator(by)),
            storage_class: Some("STANDARD".to_owned().into()),
            checksum_algorithm: checksum.map(|(algorithm, _)| algorithm.to_string().into()),
            checksum_type: checksum.map(|(_, kind)| checksum_type(kind)),
            ..Default::default()
        }))
    }

    pub(crate) async fn uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        self.check_owner(&input.bucket, input.expected_bucket_owner.as_deref())
            .await?;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let (max_uploads, limit) = page(input.max_uploads, "max-uploads")?;
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
        let id_marker = input.upload_id_marker.clone().filter(|id| !id.is_empty());
        let query = UploadQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone(),
            after: marker.map(|key| (key, id_marker)),
            limit,
        };
        let listing = self
            .objects
            .list_uploads(caller, &input.bucket, query)
            .await;
        let listing = listing.map_err(of_store)?;
        let (mut uploads, mut prefixes) = (vec![], vec![]);
        for entry in listing.entries {
            match entry {
                Entry::Prefix(prefix) => prefixes.push(CommonPrefix {
                    prefix: Some(encoding.write(prefix)),
                }),
                Entry::Item(found) => uploads.push(MultipartUpload {
                    key: Some(encoding.write(found.key)),
                    upload_id: Some(found.id),
                    initiated: Some(timestamp(found.upload.started)),
                    initiator: Some(initiator(found.upload.initiator)),
                    owner: Some(owner(found.upload.initiator)),
                    storage_class: Some("STANDARD".to_owned().into()),
                    ..Default::default()
                }),
            }
        }
        let is_truncated = listing.next.is_some();
        let (next_key, next_id) = listing.next.unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encoding.write(prefix)),
            delimiter: delimiter.map(|delimiter| encoding.write(delimiter)),
            key_marker: Some(encoding.write(input.key_marker.unwrap_or_default())),
            upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
            next_key_marker: next_key.map(|next| encoding.write(next)),
            next_upload_id_marker: next_id.flatten(),
            max_uploads: Some(max_uploads),
            is_truncated: Some(is_truncated),
            uploads: Some(uploads),
            common_prefixes: Some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

fn shown_part(part: Part) -> dto::Part {
    let mut shown = dto::Part {
        part_number: Some(i32::from(part.number)),
        size: Some(size(part.size)),
        e_tag: Some(etag(&part.etag())),
        last_modified: Some(timestamp(part.modified)),
        ..Default::default()
    };
    set_checksums!(shown, part.checksums, "");
    shown
}

/// `bytes=first-last`, both given and within the source.
fn source_range(text: &str, all: u64) -> S3Result<std::ops::Range<u64>> {
    let refused = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy"
        )
    };
    let (first, last) = text
        .strip_prefix("bytes=")
        .and_then(|text| text.split_once('-'))
        .ok_or_else(refused)?;
    let first: u64 = first.parse().map_err(|_| refused())?;
    let last: u64 = last.parse().map_err(|_| refused())?;
    if first > last || last >= all {
        return Err(of_store(cumulet_objects::Error::InvalidRange { size: all }));
    }
    Ok(first..last + 1)
}
