//! Which names buckets and objects may have.  Pure.

use crate::error::{Error, Result};

/// Longest key, in bytes of UTF-8.
pub const KEY_LEN_MAX: usize = 1024;
/// Most bytes of user metadata, names and values together.
pub const METADATA_LEN_MAX: usize = 2048;

/// First segments of paths that lead to other services at the same address.
const RESERVED: [&str; 5] = ["services", "doc", "adapters", "identity", "image"];

/// The rules of S3 for new buckets: 3 to 63 of `a-z0-9.-`, beginning and ending with a letter or
/// digit, no empty label, not like an IP address, not reserved.
///
/// # Errors
/// `InvalidBucketName`.
pub fn check_bucket(name: &str) -> Result<()> {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let is_valid = (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|&byte| is_alphanumeric(byte) || byte == b'.' || byte == b'-')
        && bytes.first().copied().is_some_and(is_alphanumeric)
        && bytes.last().copied().is_some_and(is_alphanumeric)
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !is_dotted_quad(name)
        && !["xn--", "sthree-"].iter().any(|bad| name.starts_with(bad))
        && !["-s3alias", "--ol-s3"]
            .iter()
            .any(|bad| name.ends_with(bad))
        && !RESERVED.contains(&name);
    if is_valid {
        Ok(())
    } else {
        Err(Error::InvalidBucketName)
    }
}

fn is_dotted_quad(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    labels.len() == 4
        && labels
            .iter()
            .all(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

/// # Errors
/// `KeyTooLong`; `InvalidKey` when empty or with a NUL, which no listing could show.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::InvalidKey("it is empty"));
    }
    if key.len() > KEY_LEN_MAX {
        return Err(Error::KeyTooLong);
    }
    if key.contains('\0') {
        return Err(Error::InvalidKey("it contains a NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules() {
        for good in [
            "abc",
            "my-bucket",
            "my.bucket.1",
            "ec2",
            "0ab",
            &"a".repeat(63),
        ] {
            assert_eq!(check_bucket(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "ab",
            &"a".repeat(64),
            "My-bucket",
            "a_b",
            "-abc",
            "abc-",
            "a..b",
            "a.-b",
            "1.2.3.4",
            "300.2.3.4",
            "services",
            "doc",
            "adapters",
            "identity",
            "image",
            "xn--abc",
            "a/b",
            "a\0b",
        ] {
            assert_eq!(check_bucket(bad), Err(Error::InvalidBucketName), "{bad}");
        }
    }

    #[test]
    fn keys_are_bounded() {
        assert_eq!(check_key(&"k".repeat(1024)), Ok(()));
        assert_eq!(check_key(&"k".repeat(1025)), Err(Error::KeyTooLong));
        assert!(check_key("").is_err());
        assert!(check_key("a\0b").is_err());
        assert_eq!(
            check_key("../../etc/passwd"),
            Ok(()),
            "keys are never paths"
        );
    }
}
