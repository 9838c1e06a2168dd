//! The dated versions of the service.
//!
//! They are not quite the API's versions: 2007-10-10 and 2007-12-15 exist here
//! only.  A version that is not in the list is not found, which is what makes
//! cloud-init try an older one.

/// A version that exists, by its place in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(usize);

/// All versions, oldest first.  `1.0` is of a numbering before the dates.
const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
];

/// Always the newest version.
pub(crate) const LATEST: &str = "latest";

impl Version {
    /// The version that a path begins with.
    pub(crate) fn find(text: &str) -> Option<Self> {
        if text == LATEST {
            return Some(Self(VERSIONS.len() - 1));
        }
        VERSIONS.iter().position(|known| *known == text).map(Self)
    }

    /// Whether what appeared in `since` is shown in this version.
    pub(crate) fn has(self, since: &str) -> bool {
        Self::find(since).is_some_and(|since| since <= self)
    }
}

/// The listing at the root.
pub(crate) fn list() -> String {
    let mut names = VERSIONS.to_vec();
    names.push(LATEST);
    names.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_time() {
        assert!(VERSIONS.is_sorted());
        let old = Version::find("2007-03-01").unwrap();
        assert!(old.has("1.0") && old.has("2007-03-01") && !old.has("2007-08-29"));
        assert_eq!(Version::find("latest"), Version::find("2021-03-23"));
        for unknown in ["", "2007-03-02", "1", "Latest", "2049-01-01"] {
            assert_eq!(Version::find(unknown), None, "{unknown}");
        }
    }
}
