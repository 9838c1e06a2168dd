//! Ids as distinct types.
//!
//! A resource id prints as users see it: a prefix and 17 hexadecimal digits,
//! the form EC2 gives out today, or the 8 of the classic era, if the operator
//! wants new ids so ([`IdFormat`]).  Parsing takes both always.  Parsing and lookup are
//! kept apart because the reference API tells malformed and unknown ids apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::shown;

/// How many digits new ids have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdFormat {
    /// 17 digits, as EC2 gives out today.
    #[default]
    Long,
    /// 8 digits, as in 2007: so few that two draws may well be the same.
    Short,
}

/// The text was not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {form}")]
pub struct IdError {
    pub text: String,
    pub form: &'static str,
}

fn parse_hex_id(
    text: &str,
    prefix: &'static str,
    form: &'static str,
) -> Result<(u128, u8), IdError> {
    let bad = || IdError {
        text: shown(text),
        form,
    };
    let digits = text.strip_prefix(prefix).ok_or_else(bad)?;
    let is_hex = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hex || !matches!(digits.len(), 8 | 17) {
        return Err(bad());
    }
    let value = u128::from_str_radix(digits, 16).map_err(|_| bad())?;
    Ok((value, if digits.len() == 8 { 8 } else { 17 }))
}

macro_rules! resource_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { value: u128, digits: u8 }

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// An id of 17 digits from 68 bits of randomness; higher bits are dropped.
            pub fn from_random(bits: u128) -> Self {
                Self { value: bits & ((1 << 68) - 1), digits: 17 }
            }

            /// An id of this form from randomness; bits that it has no room for are dropped.
            /// A short one is never 0: lists begin with the long 0, after which it would not come.
            pub fn mint(bits: u128, format: IdFormat) -> Self {
                match format {
                    IdFormat::Long => Self::from_random(bits),
                    IdFormat::Short => Self { value: (bits & 0xffff_ffff).max(1), digits: 8 },
                }
            }

            /// The number and how many digits it is printed with, for ids that follow from this one.
            pub fn parts(self) -> (u128, u8) {
                (self.value, self.digits)
            }

            /// The id with the digits of another.
            pub fn of_parts((value, digits): (u128, u8)) -> Self {
                Self { value, digits }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:0width$x}"), self.value, width = usize::from(self.digits))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let (value, digits) = parse_hex_id(text, $prefix, concat!($prefix, "..."))?;
                Ok(Self { value, digits })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

resource_id!(
    /// A virtual machine, `i-…`.
    InstanceId, "i-");
resource_id!(
    /// A machine image, `ami-…`.
    ImageId, "ami-");
resource_id!(
    /// The instances of one launch, `r-…`.
    ReservationId, "r-");
resource_id!(
    /// A key pair of one account, `key-…`.
    KeyPairId, "key-");
resource_id!(
    /// A kernel with its ramdisk, `aki-…`.
    KernelId, "aki-");

resource_id!(
    /// A security group, `sg-…`.
    SecurityGroupId, "sg-");
resource_id!(
    /// A rule of a security group, `sgr-…`.
    SecurityGroupRuleId, "sgr-");
resource_id!(
    /// The default network of an account, `vpc-…`.
    VpcId, "vpc-");
resource_id!(
    /// What an account's network has in one zone, `subnet-…`.
    SubnetId, "subnet-");
resource_id!(
    /// The port of an instance, `eni-…`.
    NetworkInterfaceId, "eni-");
resource_id!(
    /// The disk of an instance, `vol-…`.
    VolumeId, "vol-");

/// What exists by itself, once for each account or instance, has no record: its id follows from
/// that of its owner.
macro_rules! derived_id {
    ($name:ident of $owner:ident, $salt:literal) => {
        impl $name {
            #[doc = concat!("The one that belongs to this `", stringify!($owner), "`.")]
            pub fn of(owner: $owner) -> Self {
                let high = mix(owner.0 ^ $salt);
                let low = mix(high);
                Self::from_random(u128::from(high) << 64 | u128::from(low))
            }
        }
    };
    ($name:ident with the digits of $owner:ident) => {
        impl $name {
            #[doc = concat!("The one that belongs to this `", stringify!($owner), "`: it has its digits.")]
            pub fn of(owner: $owner) -> Self {
                Self::of_parts(owner.parts())
            }
        }
    };
}

derived_id!(VpcId of AccountId, 0x7670_6300_0000_0000);
derived_id!(SubnetId of AccountId, 0x7375_6200_0000_0000);
derived_id!(SecurityGroupId of AccountId, 0x7367_0000_0000_0000);
derived_id!(NetworkInterfaceId with the digits of InstanceId);
derived_id!(VolumeId with the digits of InstanceId);

impl SecurityGroupRuleId {
    /// The one that belongs to a rule which these numbers tell from the others of its group.
    pub fn of(group: SecurityGroupId, rule: &[u128]) -> Self {
        let words = std::iter::once(group.parts().0).chain(rule.iter().copied());
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        let halves = words.flat_map(|word| [half(word), half(word >> 64)]);
        let first = halves.fold(0x7367_7200_0000_0000, |mixed, half| mix(mixed ^ half));
        Self::from_random(u128::from(first) << 64 | u128::from(mix(first)))
    }
}

/// A permutation of 64-bit numbers that leaves no pattern of its argument (the output function of
/// the SplitMix64 generator).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Twelve decimal digits that name an account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

impl AccountId {
    /// An account number from randomness; never zero and never the service's own.
    pub fn from_random(bits: u64) -> Self {
        Self(100_000_000_000 + bits % 900_000_000_000)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}", self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccountId {
    type Err = IdError;
    /// Dashes are accepted, as AWS prints account numbers with them.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError {
            text: shown(text),
            form: "<12 digits>",
        };
        let digits = if text.len() == 14 && text.as_bytes()[4] == b'-' && text.as_bytes()[9] == b'-'
        {
            text.replace('-', "")
        } else {
            text.to_owned()
        };
        if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        digits.parse().map(Self).map_err(|_| bad())
    }
}

impl Serialize for AccountId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of an image's bytes; names its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError {
            text: shown(text),
            form: "<64 hexadecimal digits>",
        };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_they_parse() {
        for text in ["i-0123456789abcdef0", "i-2ba64342"] {
            assert_eq!(text.parse::<InstanceId>().unwrap().to_string(), text);
        }
        assert_eq!(
            InstanceId::from_random(u128::MAX).to_string(),
            "i-fffffffffffffffff"
        );
    }

    #[test]
    fn new_ids_have_the_form_that_is_wanted() {
        let minted = |bits, format| {
            let id = InstanceId::mint(bits, format);
            assert_eq!(id.to_string().parse(), Ok(id));
            id.to_string()
        };
        assert_eq!(minted(u128::MAX, IdFormat::Short), "i-ffffffff");
        assert_eq!(minted(1 << 32, IdFormat::Short), "i-00000001");
        assert_eq!(minted(0xa, IdFormat::Long), "i-0000000000000000a");
        // What lists begin with comes before all of them.
        assert!(InstanceId::mint(0, IdFormat::Short) > InstanceId::from_random(0));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "i-",
            "i-123",
            "ami-2ba64342",
            "i-2BA64342",
            "i-0123456789abcdef01",
            "i-../../../etc/pw",
            "i-+ba64342",
        ] {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn derived_ids_follow_from_their_owners() {
        let one: AccountId = "111111111111".parse().unwrap();
        let other: AccountId = "111111111112".parse().unwrap();
        assert_eq!(VpcId::of(one), VpcId::of(one));
        assert_ne!(VpcId::of(one), VpcId::of(other));
        assert_ne!(
            VpcId::of(one).to_string().strip_prefix("vpc-"),
            SubnetId::of(one).to_string().strip_prefix("subnet-")
        );
        // Stored nowhere, so they may never change.
        assert_eq!(VpcId::of(one).to_string(), "vpc-42dc8c4258a919430");
        assert_eq!(SubnetId::of(one).to_string(), "subnet-3015286f79d55ac5a");
        for text in ["2ba64342", "0123456789abcdef0"] {
            let id: InstanceId = format!("i-{text}").parse().unwrap();
            assert_eq!(
                NetworkInterfaceId::of(id).to_string(),
                format!("eni-{text}")
            );
            assert_eq!(VolumeId::of(id).to_string(), format!("vol-{text}"));
        }
    }

    #[test]
    fn account_numbers_keep_their_zeros() {
        assert_eq!(
            "000000000012".parse::<AccountId>().unwrap().to_string(),
            "000000000012"
        );
        assert_eq!(
            "4952-1993-3132".parse::<AccountId>().unwrap().to_string(),
            "495219933132"
        );
        assert!("12345678901".parse::<AccountId>().is_err());
        assert!("amazon".parse::<AccountId>().is_err());
    }
}
