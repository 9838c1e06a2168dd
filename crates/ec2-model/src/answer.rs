//! Writing an answer in the shape of the version that was asked for.
//!
//! A door says everything that it knows, in the newest shape and in the order
//! of the WSDLs; elements that the version does not have are left out with all
//! that is below them.

use std::cell::Cell;
use std::fmt::Display;

use cumulet_wire::xml::Writer;

use crate::Version;
use crate::model::{Operation, Shape};

/// An answer under construction.
pub struct Answer {
    writer: Writer,
    version: Version,
    /// What may stand at the place where we write; the last is the innermost.
    open: Vec<&'static [Shape]>,
    /// Shapes that were found before, by [`place`]: a long list asks for the same ones again and
    /// again, and searching was a third of its cost.
    found: Vec<Cell<Option<Found>>>,
}

/// Among which shapes, and which of them.
type Found = (&'static [Shape], &'static Shape);

/// Places in [`Answer::found`]; an instance has some 60 elements.
const FOUND_MAX: usize = 256;

/// Where a shape of this name is remembered; others may want the same place.
fn place(shapes: &[Shape], name: &str) -> usize {
    let bytes = name.as_bytes();
    let [first, middle, last] = [0, bytes.len() / 2, bytes.len().saturating_sub(1)]
        .map(|index| bytes.get(index).map_or(0, |byte| usize::from(*byte)));
    (name.len() * 37 + shapes.len() * 101 + first * 7 + middle * 17 + last * 29) % FOUND_MAX
}

impl Answer {
    /// Opens the answer's root; `requestId` is its first child from 2008-08-08 on.
    pub fn new(operation: &Operation, version: Version, request_id: &str) -> Self {
        let mut writer = Writer::new();
        writer.open(
            &format!("{}Response", operation.name),
            Some(&version.namespace()),
        );
        let mut answer = Self {
            writer,
            version,
            open: vec![operation.answer],
            found: vec![Cell::new(None); FOUND_MAX],
        };
        answer.leaf("requestId", request_id);
        answer
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The shape of a child of this name, whatever the version.
    fn any_shape(&self, name: &str) -> Option<&'static Shape> {
        let shapes = self.open.last().copied().unwrap_or_default();
        let remembered = self.found.get(place(shapes, name))?;
        if let Some((among, shape)) = remembered.get()
            && std::ptr::eq(among, shapes)
            && shape.name == name
        {
            return Some(shape);
        }
        let index = shapes.binary_search_by(|shape| shape.name.cmp(name)).ok()?;
        let shape = shapes.get(index)?;
        remembered.set(Some((shapes, shape)));
        Some(shape)
    }

    /// The shape of a child of this name, if this version has it.  A name that no version has is a
    /// mistake of the caller; it is left out.
    fn shape(&self, name: &str) -> Option<&'static Shape> {
        let shape = self.any_shape(name);
        debug_assert!(
            shape.is_some() || name == "requestId",
            "no version has an element {name} here"
        );
        shape.filter(|shape| shape.is_in(self.version))
    }

    /// Whether an element of this name can be written here.
    pub fn has(&self, name: &str) -> bool {
        self.any_shape(name)
            .is_some_and(|shape| shape.is_in(self.version))
    }

    /// An element with text.
    pub fn leaf(&mut self, name: &str, value: &str) {
        if self.shape(name).is_some() {
            self.writer.leaf(name, value);
        }
    }

    /// An element with what `value` prints as.
    pub fn value(&mut self, name: &str, value: impl Display) {
        if self.shape(name).is_some() {
            self.writer.leaf(name, &value.to_string());
        }
    }

    /// An element that is left out when there is nothing to say.
    pub fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    /// An element with children, which `fill` writes.
    pub fn structure(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        let Some(shape) = self.shape(name) else {
            return;
        };
        self.writer.open(name, None);
        self.open.push(shape.children);
        fill(self);
        self.open.pop();
        self.writer.close();
    }

    /// A list: a container with an `item` for each, which `fill` writes.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.structure(name, |answer| {
            for item in items {
                answer.structure("item", |answer| fill(answer, item));
            }
        });
    }

    /// The document.
    pub fn finish(self) -> String {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::operation;
    use crate::version::dates::*;

    fn terminated(version: Version) -> String {
        let mut answer = Answer::new(operation("TerminateInstances").unwrap(), version, "id-1");
        answer.list("instancesSet", ["i-1"], |answer, id| {
            answer.leaf("instanceId", id);
            for name in ["currentState", "shutdownState"] {
                answer.structure(name, |answer| answer.value("code", 32));
            }
        });
        answer.finish()
    }

    #[test]
    fn answers_have_what_the_version_had() {
        assert_eq!(
            terminated(V2007_03_01),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\">\
             <instancesSet><item><instanceId>i-1</instanceId><shutdownState><code>32</code></shutdownState>\
             </item></instancesSet></TerminateInstancesResponse>"
        );
        assert_eq!(
            terminated(V2016_11_15),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>id-1</requestId>\
             <instancesSet><item><instanceId>i-1</instanceId><currentState><code>32</code></currentState>\
             </item></instancesSet></TerminateInstancesResponse>"
        );
    }
}
