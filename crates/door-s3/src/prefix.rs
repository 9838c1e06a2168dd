//! The paths under which other clouds had their object store.
//!
//! Clients that were set up for one of those ask for `/services/Walrus/BUCKET/KEY`
//! and sign that path.  The library takes the first word of a path for the
//! bucket, and verifies over the path that it parses.  So such a request goes
//! through the library twice: a first service verifies it as it was sent and
//! decodes its body; a route of that service then takes the prefix away and
//! hands it, with the name of the key that signed it, to a second service, which
//! sees no credentials at all.
//!
//! The library measures a key together with the prefix: under one, keys of more
//! than about a thousand bytes are too long.

use async_trait::async_trait;
use http::{Extensions, HeaderMap, Method, Request, Uri, header};
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use crate::wall::{AUTH_PARAMETERS, parameters};

/// Each is followed by nothing or by a slash.
const PREFIXES: [&str; 3] = [
    "/services/Walrus",
    "/services/objectstorage",
    "/services/s3",
];

/// On a request whose path has a prefix that counts: under a host name that is a bucket's it is
/// part of a key.
#[derive(Clone, Copy)]
pub(crate) struct Prefixed;

/// The access key that the first service found to have signed.  Only this crate can put it there.
#[derive(Clone)]
pub(crate) struct Proven(pub(crate) String);

/// What stands behind a prefix; `None` for a path without one.
pub(crate) fn rest_of(path: &str) -> Option<&str> {
    let rest = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix));
    match rest? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// The address without its prefix, and without the parameters that `is_dropped` names.
pub(crate) fn without(uri: &Uri, is_dropped: impl Fn(&str) -> bool) -> Option<Uri> {
    let mut target = rest_of(uri.path())?.to_owned();
    let kept = uri.query().map(|query| {
        let kept = parameters(query).filter(|(name, _)| !is_dropped(name));
        let pairs: Vec<String> = kept
            .map(|(name, value)| match value {
                "" => name.to_owned(),
                _ => format!("{name}={value}"),
            })
            .collect();
        pairs.join("&")
    });
    if let Some(query) = kept.filter(|query| !query.is_empty()) {
        target.push('?');
        target.push_str(&query);
    }
    target.parse().ok()
}

/// Hands what the first service has verified to the second.
pub(crate) struct Strip(pub(crate) S3Service);

#[async_trait]
impl S3Route for Strip {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, extensions: &mut Extensions) -> bool {
        extensions.get::<Prefixed>().is_some()
    }

    /// Who may do what is asked by the second service, as always.
    async fn check_access(&self, _: &mut S3Request<Body>) -> S3Result<()> {
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let is_in_query = !request.headers.contains_key(header::AUTHORIZATION);
        let uri = without(&request.uri, |name| {
            is_in_query && AUTH_PARAMETERS.contains(&name)
        });
        let mut inner = Request::new(request.input);
        *inner.method_mut() = request.method;
        *inner.uri_mut() =
            uri.ok_or_else(|| s3_error!(InvalidURI, "Couldn't parse the specified URI."))?;
        *inner.headers_mut() = request.headers;
        inner.headers_mut().remove(header::AUTHORIZATION);
        *inner.extensions_mut() = request.extensions;
        inner.extensions_mut().remove::<Prefixed>();
        if let Some(credentials) = request.credentials {
            inner
                .extensions_mut()
                .insert(Proven(credentials.access_key));
        }
        if let Some(trailing) = request.trailing_headers {
            inner.extensions_mut().insert(trailing);
        }
        let answered = self.0.call(inner).await;
        let answered = answered.map_err(|cause| {
            tracing::error!(?cause, "the S3 library failed");
            s3_error!(InternalError, "{}", crate::errors::INTERNAL)
        })?;
        let (head, body) = answered.into_parts();
        let mut response = S3Response::new(body);
        response.status = Some(head.status);
        response.headers = head.headers;
        response.extensions = head.extensions;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_words() {
        for (path, rest) in [
            ("/services/Walrus", Some("/")),
            ("/services/Walrus/", Some("/")),
            ("/services/Walrus/b/k%20k", Some("/b/k%20k")),
            ("/services/objectstorage/b", Some("/b")),
            ("/services/s3/b", Some("/b")),
            ("/services/Walruses/b", None),
            ("/services/walrus/b", None),
            ("/services", None),
            ("/b/services/Walrus", None),
            ("/", None),
        ] {
            assert_eq!(rest_of(path), rest, "{path}");
        }
    }

    #[test]
    fn credentials_are_taken_out_of_the_query() {
        let uri: Uri =
            "/services/Walrus/b/k?acl&AWSAccessKeyId=A&Signature=x%3D&Expires=1&prefix=a%26b"
                .parse()
                .unwrap();
        let left = without(&uri, |name| AUTH_PARAMETERS.contains(&name)).unwrap();
        assert_eq!(left, "/b/k?acl&prefix=a%26b");
        assert_eq!(
            without(&"/services/s3?a=".parse().unwrap(), |_| true).unwrap(),
            "/"
        );
    }
}
