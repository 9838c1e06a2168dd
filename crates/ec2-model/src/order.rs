//! Whether an answer keeps to the schema of its version, for tests.
//!
//! SOAP clients of the time read answers as XML Schema has them: in order, and with every element
//! that is not optional.  A door writes one order for all versions; that it is each version's own is
//! checked while it writes, in builds with debug assertions, so that every test of an answer tests
//! this too.  Versions after the last one with a schema are free.

use crate::Version;
use crate::soap_types::{self, Kind, Member, Occurs, Type};

/// Where an answer stands.
pub(crate) struct Order {
    version: Version,
    /// The innermost is the last; one without a schema has nothing to be checked.
    open: Vec<Option<Level>>,
}

struct Level {
    name: &'static str,
    members: Vec<&'static Member>,
    /// The member that was written last.
    last: Option<usize>,
}

impl Level {
    fn of(it: &'static Type, version: Version) -> Self {
        Self {
            name: it.name,
            members: it.members_in(version).collect(),
            last: None,
        }
    }

    /// Steps to an element; says what is wrong with that.
    fn step(&mut self, name: &str) -> Result<Kind, String> {
        let may_repeat =
            |member: &Member| matches!(member.occurs, Occurs::Any | Occurs::AtLeastOnce);
        let place = self.members.iter().position(|it| it.name == name);
        let Some(place) = place else {
            return Err(format!("{} has no {name}", self.name));
        };
        let member = self.members[place];
        match self.last {
            Some(last) if last == place && may_repeat(member) => return Ok(member.kind),
            Some(last) if last >= place => {
                let before = self.members[last].name;
                return Err(format!("{} has {name} before {before}", self.name));
            }
            _ => {}
        }
        self.check_skipped(place)?;
        self.last = Some(place);
        Ok(member.kind)
    }

    /// What lies between the last member and the one at `place` must be optional.
    fn check_skipped(&self, place: usize) -> Result<(), String> {
        let first = self.last.map_or(0, |last| last + 1);
        let skipped = self.members.get(first..place).unwrap_or_default();
        let is_choice = |index: usize| {
            let member = self.members.get(index);
            member.is_some_and(|it| it.occurs == Occurs::Choice)
        };
        for (index, member) in (first..).zip(skipped) {
            let is_missing = match member.occurs {
                Occurs::Once | Occurs::AtLeastOnce => true,
                Occurs::AtMostOnce | Occurs::Any => false,
                // One of its neighbours on either side is there instead.
                Occurs::Choice => {
                    let run_start = (0..=index).rev().take_while(|it| is_choice(*it)).last();
                    let run_end = (index..).take_while(|it| is_choice(*it)).last();
                    let is_before = self.last.is_some_and(|last| Some(last) >= run_start);
                    !is_before && run_end < Some(place)
                }
            };
            if is_missing {
                return Err(format!("{} lacks {}", self.name, member.name));
            }
        }
        match self.last {
            Some(last) if is_choice(last) && is_choice(place) && place < self.members.len() => {
                if (last..=place).all(is_choice) {
                    return Err(format!("{} has two of a choice", self.name));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Order {
    pub(crate) fn new(operation: &str, version: Version) -> Self {
        let message = soap_types::messages(version).find(|it| it.operation == operation);
        let level = message.map(|it| Level::of(it.response_in(version), version));
        Self {
            version,
            open: vec![level],
        }
    }

    /// An element is written; one with children stays open until [`close`](Self::close).
    ///
    /// # Panics
    /// When it must not stand here: a mistake of the door that writes.
    pub(crate) fn element(&mut self, name: &str, has_children: bool) {
        let is_root = self.open.len() == 1;
        let level = match self.open.last_mut() {
            Some(Some(_)) if is_root && name == "requestId" => None,
            Some(Some(level)) => match level.step(name) {
                Ok(Kind::Typed(it)) => Some(Level::of(it, self.version)),
                Ok(Kind::Plain(_)) => None,
                Err(what) => panic!("in {}: {what}", self.version),
            },
            Some(None) | None => None,
        };
        if has_children {
            self.open.push(level);
        }
    }

    /// The innermost element ends.
    ///
    /// # Panics
    /// When an element that it must have was not written.
    pub(crate) fn close(&mut self) {
        let Some(Some(level)) = self.open.pop() else {
            return;
        };
        if let Err(what) = level.check_skipped(level.members.len()) {
            panic!("in {}: {what}", self.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates::*;

    fn walk(operation: &str, version: Version, names: &[&str]) {
        let mut order = Order::new(operation, version);
        for name in names {
            match name.strip_suffix('/') {
                _ if *name == "." => order.close(),
                Some(name) => order.element(name, true),
                None => order.element(name, false),
            }
        }
        order.close();
    }

    #[test]
    fn the_order_of_the_schema_passes() {
        walk(
            "CreateKeyPair",
            V2007_03_01,
            &["keyName", "keyFingerprint", "keyMaterial"],
        );
        let names = ["requestId", "keyName", "keyFingerprint", "keyMaterial"];
        walk("CreateKeyPair", V2008_08_08, &names);
        let names = [
            "keySet/",
            "item/",
            "keyName",
            "keyFingerprint",
            ".",
            "item/",
            "keyName",
            "keyFingerprint",
            ".",
            ".",
        ];
        walk("DescribeKeyPairs", V2007_03_01, &names);
        walk("CreateKeyPair", V2016_11_15, &["keyMaterial", "keyName"]);
    }

    #[test]
    #[should_panic(expected = "has keyName before keyFingerprint")]
    fn another_order_does_not() {
        walk(
            "CreateKeyPair",
            V2007_03_01,
            &["keyName", "keyFingerprint", "keyName"],
        );
    }

    #[test]
    #[should_panic(expected = "lacks keyFingerprint")]
    fn what_is_missing_in_between_does_not() {
        walk("CreateKeyPair", V2007_03_01, &["keyName", "keyMaterial"]);
    }

    #[test]
    #[should_panic(expected = "lacks keyMaterial")]
    fn what_is_missing_at_the_end_does_not() {
        walk("CreateKeyPair", V2007_03_01, &["keyName", "keyFingerprint"]);
    }

    #[test]
    #[should_panic(expected = "DescribeKeyPairsResponseItemType has no keyPairId")]
    fn what_the_schema_has_not_does_not() {
        walk(
            "DescribeKeyPairs",
            V2007_03_01,
            &["keySet/", "item/", "keyPairId"],
        );
    }

    #[test]
    fn one_of_a_choice_is_there() {
        walk(
            "DescribeImageAttribute",
            V2007_03_01,
            &["imageId", "productCodes/", "."],
        );
        walk(
            "DescribeImageAttribute",
            V2007_03_01,
            &["imageId", "launchPermission/", "."],
        );
    }

    #[test]
    #[should_panic(expected = "lacks launchPermission")]
    fn none_of_a_choice_does_not() {
        walk("DescribeImageAttribute", V2007_03_01, &["imageId"]);
    }

    #[test]
    #[should_panic(expected = "has two of a choice")]
    fn two_of_a_choice_do_not() {
        let names = ["imageId", "launchPermission/", ".", "productCodes/", "."];
        walk("DescribeImageAttribute", V2007_03_01, &names);
    }
}
