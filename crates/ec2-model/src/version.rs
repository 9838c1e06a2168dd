//! API versions: dated, ordered, and the only thing that decides shapes.

use std::fmt;

use crate::generated::versions::NAMES;

/// One of the dated versions that EC2 has published.  Later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(crate) u8);

/// Constants such as `V2007_03_01`.
pub mod dates {
    pub use crate::generated::versions::*;
}

impl Version {
    /// `None` for a text that is no version of EC2's.
    pub fn parse(text: &str) -> Option<Self> {
        let index = NAMES.binary_search(&text).ok()?;
        u8::try_from(index).ok().map(Self)
    }

    /// Every version, oldest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Version> {
        (0..NAMES.len()).filter_map(|index| u8::try_from(index).ok().map(Self))
    }

    /// `2007-03-01`.
    pub fn as_str(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// The namespace of this version's documents, with the trailing slash that the WSDLs have and
    /// the guide's samples lack.
    pub fn namespace(self) -> String {
        format!("http://ec2.amazonaws.com/doc/{}/", self.as_str())
    }

    /// Whether this version lies in a span that begins with `first` and ends with `last`, or not at all.
    pub fn is_within(self, first: Version, last: Option<Version>) -> bool {
        first <= self && last.is_none_or(|last| self <= last)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_date() {
        assert!(NAMES.is_sorted());
        let classic = Version::parse("2007-03-01").unwrap();
        assert_eq!(classic, dates::V2007_03_01);
        assert!(classic < dates::V2016_11_15);
        assert_eq!(
            classic.namespace(),
            "http://ec2.amazonaws.com/doc/2007-03-01/"
        );
        assert_eq!(Version::parse("2007-03-02"), None);
        assert_eq!(Version::all().count(), NAMES.len());
    }
}
