//! Signatures of version 2, compared in constant time.
//!
//! The library checks them too, but stops at the first byte that differs.  So
//! this runs before it and lets pass only what is right already.

use aws_lc_rs::{constant_time, hmac};
use http::header;
use http::request::Parts;

/// Parameters that name another thing than the path alone, or change the answer: they are signed.
const SIGNED_PARAMETERS: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// Whether the signature in the header, or else in the query, is that of `secret`.  `bucket` is the
/// one that the host names, `parameters` those of the query, decoded.
pub(crate) fn is_right(
    parts: &Parts,
    bucket: Option<&str>,
    parameters: &[(String, String)],
    secret: &str,
) -> bool {
    let parameter = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().ok());
    let in_header = match text(header::AUTHORIZATION.as_str()) {
        None => None,
        Some(value) => match value.and_then(|value| value.split_once(':')) {
            Some((_, signature)) => Some(signature),
            None => return false,
        },
    };
    let date = match in_header {
        None => parameter("Expires"),
        Some(_) if parts.headers.contains_key("x-amz-date") => Some(""),
        Some(_) => text("date").flatten(),
    };
    let (Some(date), Some(given)) = (date, in_header.or_else(|| parameter("Signature"))) else {
        return false;
    };
    let Some(amz_headers) = amz_headers(parts) else {
        return false;
    };
    let mut signed = format!(
        "{}\n{}\n{}\n{date}\n{amz_headers}",
        parts.method,
        text("content-md5").flatten().unwrap_or_default(),
        text("content-type").flatten().unwrap_or_default(),
    );
    if let Some(bucket) = bucket {
        signed.push('/');
        signed.push_str(bucket);
    }
    signed.push_str(parts.uri.path());
    let mut separator = '?';
    for name in SIGNED_PARAMETERS {
        let Some(value) = parameter(name) else {
            continue;
        };
        signed.push(separator);
        signed.push_str(name);
        if !value.is_empty() {
            signed.push('=');
            signed.push_str(value);
        }
        separator = '&';
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let computed = cumulet_wire::base64::encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    constant_time::verify_slices_are_equal(computed.as_bytes(), given.as_bytes()).is_ok()
}

/// One line for each name, sorted; `None` for a value that is no text.
fn amz_headers(parts: &Parts) -> Option<String> {
    let mut names: Vec<&str> = parts
        .headers
        .keys()
        .map(header::HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-"))
        .collect();
    names.sort_unstable();
    let mut lines = String::new();
    for name in names {
        let values = parts.headers.get_all(name).iter();
        let values: Option<Vec<&str>> = values
            .map(|value| std::str::from_utf8(value.as_bytes()).ok().map(str::trim))
            .collect();
        lines.push_str(name);
        lines.push(':');
        lines.push_str(&values?.join(","));
        lines.push('\n');
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the examples in the S3 developer guide of those years.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn check(method: &str, uri: &str, headers: &[(&str, &str)], bucket: Option<&str>) -> bool {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let parameters: Vec<(String, String)> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| {
                let decode = |text| cumulet_wire::query::decode(text).unwrap();
                (decode(name), decode(value))
            })
            .collect();
        is_right(&parts, bucket, &parameters, SECRET)
    }

    #[test]
    fn published_examples_are_right() {
        let get = |signature: &'static str| {
            [
                ("date", "Tue, 27 Mar 2007 19:36:42 +0000"),
                ("authorization", signature),
            ]
        };
        let right = get("AWS AKIAIOSFODNN7EXAMPLE:bWq2s1WEIj+Ydj0vQ697zp+IXMU=");
        let path = "/photos/puppy.jpg";
        assert!(check("GET", path, &right, Some("johnsmith")));
        assert!(check("GET", "/johnsmith/photos/puppy.jpg", &right, None));
        assert!(!check("PUT", path, &right, Some("johnsmith")));
        assert!(!check(
            "GET",
            "/photos/puppy.jpg?acl",
            &right,
            Some("johnsmith")
        ));
        let wrong = get("AWS AKIAIOSFODNN7EXAMPLE:bWq2s1WEIj+Ydj0vQ697zp+IXMU");
        assert!(!check("GET", path, &wrong, Some("johnsmith")));

        let acl = [
            ("date", "Tue, 27 Mar 2007 19:44:46 +0000"),
            (
                "authorization",
                "AWS AKIAIOSFODNN7EXAMPLE:c2WLPFtWHVgbEmeEG93a4cG37dM=",
            ),
        ];
        assert!(check("GET", "/?acl", &acl, Some("johnsmith")));

        let upload = [
            ("date", "Tue, 27 Mar 2007 21:06:08 +0000"),
            ("x-amz-acl", "public-read"),
            ("content-type", "application/x-download"),
            ("content-md5", "4gJE4saaMU4BqNR0kLY+lw=="),
            ("x-amz-meta-reviewedby", "joe@johnsmith.net"),
            ("x-amz-meta-reviewedby", "jane@johnsmith.net"),
            ("x-amz-meta-filechecksum", "0x02661779"),
            ("x-amz-meta-checksumalgorithm", "crc32"),
            (
                "authorization",
                "AWS AKIAIOSFODNN7EXAMPLE:ilyl83RwaSoYIEdixDQcA4OnAnc=",
            ),
        ];
        assert!(check(
            "PUT",
            "/db-backup.dat.gz",
            &upload,
            Some("static.johnsmith.net")
        ));
        assert!(!check(
            "PUT",
            "/db-backup.dat.gz",
            &upload[2..],
            Some("static.johnsmith.net")
        ));

        let by_query = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1175139620&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D";
        assert!(check("GET", by_query, &[], Some("johnsmith")));
        assert!(!check(
            "GET",
            &by_query.replace("620", "621"),
            &[],
            Some("johnsmith")
        ));
    }
}
