//! The form of the tables, and looking things up in them.

use crate::Version;
use crate::generated::OPERATIONS;
use crate::generated::known::KNOWN;

/// An operation that is implemented here.
#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    pub first: Version,
    /// Sorted by name.
    pub parameters: &'static [Parameter],
    /// Elements below the root of the answer, sorted by name, as are the children of each.
    pub answer: &'static [Shape],
    /// Elements of the SOAP request that hold a value, and attributes that must have one, sorted by
    /// path.
    pub soap: &'static [SoapField],
}

/// A parameter of a request.
#[derive(Debug)]
pub struct Parameter {
    /// Name on the wire; `n` stands for the index of a list.
    pub name: &'static str,
    pub kind: Kind,
    pub first: Version,
    pub last: Option<Version>,
    pub rule: Rule,
}

/// An element or attribute of a SOAP request, by its path below the operation's element.
#[derive(Debug)]
pub struct SoapField {
    pub path: &'static str,
    pub meaning: Meaning,
    pub first: Version,
    pub last: Option<Version>,
}

/// What an element or attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The Query parameter of this name; each `n` is the number of an `item` of the path, in their
    /// order.
    Parameter(&'static str),
    /// Nothing that is not known: it has this value.
    Always(&'static str),
    /// As `Parameter`, if one is named, else the element is empty; that it is there at all gives these
    /// parameters these values.  What two elements say differently is a choice, made twice.
    Sets(
        Option<&'static str>,
        &'static [(&'static str, &'static str)],
    ),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    /// `true` or `false`, in any case, `1` or `0`.
    Boolean,
    Base64,
    Time,
}

/// What is done with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Honoured,
    /// Honoured, and the request must carry it.
    Required,
    /// Passes with this value, which describes what happens anyway.
    Only(&'static str),
    /// Known and not honoured.
    Refused,
    /// Honoured, and said by SOAP alone: the Query API never had it.
    Soap,
}

/// An element of an answer.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub first: Version,
    pub last: Option<Version>,
    pub is_container: bool,
    pub children: &'static [Shape],
}

impl Shape {
    pub fn is_in(&self, version: Version) -> bool {
        version.is_within(self.first, self.last)
    }
}

/// What a name of an operation means in one version.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    Implemented(&'static Operation),
    /// EC2 had or has it in this version; we do not.
    Known,
    /// EC2 never had it, or not in this version.
    Unknown,
}

/// Operations implemented here, by name.
pub fn operations() -> &'static [&'static Operation] {
    OPERATIONS
}

/// The operation of this name, whatever the version.
pub fn operation(name: &str) -> Option<&'static Operation> {
    let index = OPERATIONS
        .binary_search_by(|operation| operation.name.cmp(name))
        .ok()?;
    OPERATIONS.get(index).copied()
}

/// The first and the last version of an operation that EC2 has or had; `None`: of none.
pub(crate) fn span(name: &str) -> Option<(Version, Option<Version>)> {
    let index = KNOWN.binary_search_by(|(known, _, _)| (*known).cmp(name));
    let (_, first, last) = KNOWN.get(index.ok()?)?;
    Some((*first, *last))
}

/// What `name` means to a caller who speaks `version`.
pub fn find(name: &str, version: Version) -> Found {
    match (span(name), operation(name)) {
        (Some((first, last)), found) if version.is_within(first, last) => {
            found.map_or(Found::Known, Found::Implemented)
        }
        _ => Found::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::dates::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(KNOWN.is_sorted_by_key(|(name, _, _)| *name));
        assert!(OPERATIONS.is_sorted_by_key(|operation| operation.name));
        for operation in OPERATIONS {
            assert!(
                operation.parameters.is_sorted_by_key(|it| it.name),
                "{}",
                operation.name
            );
        }
    }

    #[test]
    fn elements_are_sorted_at_every_depth() {
        fn check(shapes: &[Shape]) {
            assert!(shapes.is_sorted_by_key(|shape| shape.name));
            shapes.iter().for_each(|shape| check(shape.children));
        }
        for operation in OPERATIONS {
            check(operation.answer);
        }
    }

    #[test]
    fn operations_are_of_their_versions() {
        assert!(matches!(
            find("RunInstances", V2006_06_26),
            Found::Implemented(_)
        ));
        assert!(matches!(find("ImportKeyPair", V2007_03_01), Found::Unknown));
        assert!(matches!(
            find("ImportKeyPair", V2016_11_15),
            Found::Implemented(_)
        ));
        assert!(matches!(find("CreateVpc", V2016_11_15), Found::Known));
        assert!(matches!(find("CreateVpc", V2007_03_01), Found::Unknown));
        assert!(matches!(find("Runinstances", V2016_11_15), Found::Unknown));
    }
}
