//! The types of the SOAP binding's schema: which elements, in which order, in which version.
//!
//! Clients of that binding were generated from it, and read answers as strictly as it says: the
//! tables below `generated` are what [`wsdl`](crate::wsdl) writes.

use crate::Version;
use crate::dates::V2008_08_08;
use crate::generated::soap_types::MESSAGES;
use crate::model::{self, Found};
use crate::soap::LAST;

/// What an operation takes and what it answers.
#[derive(Debug)]
pub struct Message {
    pub operation: &'static str,
    pub request: &'static Type,
    pub response: &'static Type,
    /// What was answered at first, and the last version with that type.
    pub early: Option<(&'static Type, Version)>,
}

impl Message {
    /// The type of the answer in a version.
    pub fn response_in(&self, version: Version) -> &'static Type {
        match self.early {
            Some((early, last)) if version <= last => early,
            _ => self.response,
        }
    }
}

/// A complex type.
#[derive(Debug)]
pub struct Type {
    pub name: &'static str,
    /// Text may stand between its elements.
    pub is_mixed: bool,
    /// Each must be there, with the one value.
    pub attributes: &'static [(&'static str, &'static str)],
    /// In the order in which they stand.
    pub members: &'static [Member],
}

/// An element of a type.
#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    pub kind: Kind,
    pub occurs: Occurs,
    pub first: Option<Version>,
    pub last: Option<Version>,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A type of XML Schema, without prefix.
    Plain(&'static str),
    Typed(&'static Type),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurs {
    Once,
    AtMostOnce,
    Any,
    AtLeastOnce,
    /// One of several neighbours, of which exactly one is there.
    Choice,
}

impl Type {
    /// The elements of one version.
    pub fn members_in(&self, version: Version) -> impl Iterator<Item = &'static Member> {
        self.members.iter().filter(move |it| {
            it.first.is_none_or(|first| first <= version)
                && it.last.is_none_or(|last| version <= last)
        })
    }
}

/// Whether answers begin with `requestId`.
pub fn has_request_id(version: Version) -> bool {
    version >= V2008_08_08
}

/// The operations that a version has by SOAP, by name; none after the last version with that binding.
pub fn messages(version: Version) -> impl Iterator<Item = &'static Message> {
    MESSAGES.iter().filter(move |message| {
        version <= LAST
            && matches!(
                model::find(message.operation, version),
                Found::Implemented(_)
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_with_the_binding_has_messages() {
        for version in Version::all() {
            let count = messages(version).count();
            assert_eq!(count > 0, version <= LAST, "{version} has {count}");
        }
    }
}
