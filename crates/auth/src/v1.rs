//! Signature versions 0 and 1 of 2006 and 2007.
//!
//! Both are forgeable in part and off until a key allows them.  Version 0 signs
//! the action and the time only.  Version 1 joins names and values without
//! separators, so that `AB=C` and `A=BC` sign alike; whoever knows what the service's
//! requests look like says whether a text could be read as other parameters
//! ([`Readings`](crate::Readings)).

use cumulet_wire::query::Params;

/// The value of `Action` (or `Operation`) followed by that of `Timestamp` or `Expires`.
pub(crate) fn string_to_sign_v0(action: &str, time: &str) -> String {
    format!("{action}{time}")
}

/// Names and values, sorted by name without regard to case, joined without separators.
pub(crate) fn string_to_sign_v1(params: &Params) -> String {
    let mut pairs: Vec<(&str, &str)> = params
        .iter()
        .filter(|(name, _)| *name != "Signature")
        .collect();
    pairs.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    pairs
        .into_iter()
        .flat_map(|(name, value)| [name, value])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the 2007 guide.
    #[test]
    fn the_guides_example_is_reproduced() {
        let query = "Action=DescribeImages&AWSAccessKeyId=10QMXFEV71ZS32XQFTR2&SignatureVersion=1\
                     &Timestamp=2006-12-08T07%3A48%3A03Z&Version=2007-01-03";
        let params = Params::parse(Some(query), None).unwrap();
        let text = string_to_sign_v1(&params);
        assert_eq!(
            text,
            "ActionDescribeImagesAWSAccessKeyId10QMXFEV71ZS32XQFTR2SignatureVersion1\
             Timestamp2006-12-08T07:48:03ZVersion2007-01-03"
        );
        let signature = crate::v2::signature(
            "HmacSHA1",
            "DMADSSfPfdaDjbK+RRUhS/aDrjsiZadgAUm8gRU2",
            &text,
        )
        .unwrap();
        assert_eq!(
            cumulet_wire::base64::encode(&signature),
            "GjH3941IBe6qsgQu+k7FpCJjpnc="
        );
    }
}
