//! The WSDLs, for whoever asks: no signature is wanted, as EC2 wanted none.

use cumulet_domain::shown;
use cumulet_ec2_model::soap::LAST;
use cumulet_ec2_model::{Version, wsdl};
use http::{Method, Request};

use crate::error::Refused;

/// Whether a request asks for a document, and not for an operation.
pub(crate) fn is_asked<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    is_read && (path == "/doc" || path.starts_with("/doc/"))
}

/// The document of a path below `/doc`; `host` is what the client reached us by, and where the
/// document sends it.
///
/// # Errors
/// 404 for what is no document; 400 if the client did not say whom it reached.
pub(crate) fn answer(path: &str, host: &str, is_https: bool) -> Result<String, Refused> {
    let asked = path.strip_prefix("/doc").unwrap_or(path);
    let version = version_of(asked).ok_or_else(|| missing(asked))?;
    if host.is_empty() {
        return Err(Refused::new(
            400,
            "InvalidRequest",
            "The request has no Host header, which the address in the WSDL is made of",
        ));
    }
    let scheme = if is_https { "https" } else { "http" };
    wsdl(version, &format!("{scheme}://{host}/")).ok_or_else(|| missing(asked))
}

/// `/VERSION/AmazonEC2.wsdl` and `/VERSION/ec2.wsdl`, `/VERSION.ec2.wsdl` as files of it are called,
/// and without a version the last one that has the binding.
fn version_of(asked: &str) -> Option<Version> {
    let asked = asked.strip_prefix('/')?;
    let is_name = |name: &str| {
        name.eq_ignore_ascii_case("AmazonEC2.wsdl") || name.eq_ignore_ascii_case("ec2.wsdl")
    };
    if is_name(asked) {
        return Some(LAST);
    }
    let version = match asked.split_once('/') {
        Some((version, name)) if is_name(name) => version,
        Some(_) => return None,
        None => asked.strip_suffix(".ec2.wsdl")?,
    };
    Version::parse(version).filter(|version| *version <= LAST)
}

fn missing(asked: &str) -> Refused {
    let shown = shown(asked);
    let versions: Vec<&str> = Version::all()
        .filter(|version| *version <= LAST)
        .map(Version::as_str)
        .collect();
    Refused::new(
        404,
        "NoSuchDocument",
        format!(
            "There is no document /doc{shown}. The WSDL of a version is /doc/VERSION/AmazonEC2.wsdl, and these versions have one: {}",
            versions.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_had_by_each_of_its_names() {
        for path in [
            "/doc/2007-03-01/AmazonEC2.wsdl",
            "/doc/2007-03-01/ec2.wsdl",
            "/doc/2007-03-01.ec2.wsdl",
        ] {
            let text = answer(path, "cloud.test:8773", false).unwrap();
            assert!(
                text.contains("http://ec2.amazonaws.com/doc/2007-03-01/"),
                "{path}"
            );
            assert!(text.contains("<soap:address location=\"http://cloud.test:8773/\"/>"));
        }
        let latest = answer("/doc/AmazonEC2.wsdl", "cloud.test", true).unwrap();
        assert!(latest.contains("http://ec2.amazonaws.com/doc/2013-08-15/"));
        assert!(latest.contains("<soap:address location=\"https://cloud.test/\"/>"));
    }

    #[test]
    fn what_is_no_document_is_told_what_there_is() {
        for path in [
            "/doc",
            "/doc/",
            "/doc/2007-03-01",
            "/doc/2007-03-02/AmazonEC2.wsdl",
            "/doc/2014-02-01/AmazonEC2.wsdl",
            "/doc/2007-03-01/AmazonS3.wsdl",
            "/doc/2007-03-01/AmazonEC2.wsdl/",
            "/doc/2007-03-01/../AmazonEC2.wsdl",
        ] {
            let refused = answer(path, "cloud.test", false).unwrap_err();
            assert_eq!(refused.status, 404, "{path}");
            assert!(refused.message.contains("2007-03-01, 2007-08-29"), "{path}");
            assert!(!refused.message.contains("2014-02-01,"), "{path}");
        }
        let nameless = answer("/doc/AmazonEC2.wsdl", "", false).unwrap_err();
        assert_eq!(nameless.status, 400);
    }
}
