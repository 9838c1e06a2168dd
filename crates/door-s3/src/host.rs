//! Which bucket a `Host` header names.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};
use s3s::validation::NameValidation;
use std::sync::Arc;

/// The configured domains, in lower case, longest first.
#[derive(Clone)]
pub(crate) struct Domains(Arc<[String]>);

impl Domains {
    pub(crate) fn new(domains: &[String]) -> Self {
        let mut domains: Vec<String> = domains
            .iter()
            .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
            .filter(|domain| !domain.is_empty())
            .collect();
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        Self(domains.into())
    }

    /// The label in front of a configured domain; the port does not count.
    pub(crate) fn bucket(&self, host: &str) -> Option<String> {
        let host = without_port(host).to_ascii_lowercase();
        if self.0.contains(&host) {
            return None;
        }
        self.0.iter().find_map(|domain| {
            let label = host.strip_suffix(domain.as_str())?.strip_suffix('.')?;
            (!label.is_empty()).then(|| label.to_owned())
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl S3Host for Domains {
    /// A name that is not ours leaves the bucket in the path: clients reach us by whatever name.
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(without_port(host));
        Ok(match self.bucket(host) {
            Some(bucket) => found.with_bucket(bucket),
            None => found,
        })
    }
}

/// Names are judged where buckets are made; any other name is a bucket that is not there.
pub(crate) struct AnyBucketName;

impl NameValidation for AnyBucketName {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty() && !name.contains('\0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_found_in_front_of_domains() {
        let domains = Domains::new(&["s3.test".into(), "s3.deep.s3.test".into()]);
        for (host, bucket) in [
            ("s3.test", None),
            ("s3.test:8773", None),
            ("b.s3.test:8773", Some("b")),
            ("My.Bucket.S3.test", Some("my.bucket")),
            ("b.s3.deep.s3.test", Some("b")),
            ("s3.deep.s3.test", None),
            ("xs3.test", None),
            ("other.example", None),
            ("127.0.0.1:8773", None),
            ("", None),
        ] {
            assert_eq!(domains.bucket(host).as_deref(), bucket, "{host}");
        }
    }
}
