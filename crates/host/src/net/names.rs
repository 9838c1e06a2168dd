//! Names on the host, each a function of an id alone.
//!
//! A link's name has at most 15 bytes.  An instance's id has 68 bits (or 32,
//! in the classic form), so a tap is named `t` and 14 digits of base 32: the
//! name says the id, and what lives on a host can be listed from the kernel
//! alone.  The id itself is also the link's alias, for the operator's eyes.

use cumulet_domain::InstanceId;

use crate::api::{HostError, Result};

/// Name of the namespace's end of the veth pair.
pub(super) const UPLINK: &str = "uplink";

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const DIGITS_COUNT: u32 = 14;
/// Says that the id is of the classic form, with 8 digits.
const CLASSIC: u128 = 1 << 69;

/// The eight hexadecimal digits that tell clouds on one host apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CloudId(String);

impl CloudId {
    /// # Errors
    /// When the text is not eight lower-case hexadecimal digits.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let is_hex = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if text.len() != 8 || !is_hex {
            return Err(HostError::permanent(
                format!("could not use the cloud id {text:?}"),
                "it is not eight lower-case hexadecimal digits",
                "Internal error on launch",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The cloud whose namespace has this name.
    pub(super) fn of_namespace(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("cumulet-")?).ok()
    }

    pub(super) fn namespace(&self) -> String {
        format!("cumulet-{}", self.0)
    }

    /// The host's end of the veth pair.
    pub(super) fn host_link(&self) -> String {
        format!("cu-{}", self.0)
    }

    /// The host's nftables table, of family `inet`.
    pub(super) fn host_table(&self) -> String {
        format!("cumulet_{}", self.0)
    }

    pub(super) fn number(&self) -> u32 {
        u32::from_str_radix(&self.0, 16).expect("parsed as eight hexadecimal digits")
    }
}

/// The name of the instance's tap.
pub(super) fn tap_of(instance: InstanceId) -> String {
    let text = instance.to_string();
    let digits = text.strip_prefix(InstanceId::PREFIX).unwrap_or(&text);
    let value =
        u128::from_str_radix(digits, 16).expect("an instance id ends in hexadecimal digits");
    let value = if digits.len() == 8 {
        value | CLASSIC
    } else {
        value
    };
    let mut name = String::from("t");
    for place in (0..DIGITS_COUNT).rev() {
        let digit = (value >> (5 * place)) & 31;
        let index = usize::try_from(digit).expect("five bits fit");
        name.push(char::from(DIGITS[index]));
    }
    name
}

/// The instance whose tap has this name; `None` for any other link.
pub(super) fn instance_of(tap: &str) -> Option<InstanceId> {
    let digits = tap.strip_prefix('t')?;
    if digits.len() != usize::try_from(DIGITS_COUNT).ok()? {
        return None;
    }
    let mut value = 0u128;
    for byte in digits.bytes() {
        let digit = DIGITS.iter().position(|known| *known == byte)?;
        value = value << 5 | u128::try_from(digit).ok()?;
    }
    let text = if value & CLASSIC == 0 {
        format!("{}{value:017x}", InstanceId::PREFIX)
    } else {
        format!("{}{:08x}", InstanceId::PREFIX, value & !CLASSIC)
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_name_fits_and_says_its_instance() {
        for text in [
            "i-0123456789abcdef0",
            "i-fffffffffffffffff",
            "i-00000000000000000",
            "i-2ba64342",
            "i-00000000",
        ] {
            let id: InstanceId = text.parse().unwrap();
            let tap = tap_of(id);
            assert!(tap.len() <= 15, "{tap}");
            assert_eq!(instance_of(&tap), Some(id), "{tap}");
        }
    }

    #[test]
    fn other_links_are_no_taps() {
        for name in [
            "lo",
            "uplink",
            "tap0",
            "t",
            "tzzzzzzzzzzzzzz",
            "t00000000000000z",
        ] {
            assert_eq!(instance_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_cloud_id_is_eight_digits() {
        assert_eq!(
            CloudId::parse("0a1b2c3d").unwrap().host_link(),
            "cu-0a1b2c3d"
        );
        for text in ["", "0a1b2c3", "0A1B2C3D", "../../et", "0a1b2c3d4"] {
            assert!(CloudId::parse(text).is_err(), "{text}");
        }
    }
}
