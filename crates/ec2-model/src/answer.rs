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
use crate::order::Order;

/// An answer under construction.
///
/// Names of elements are literals, so that where one was found can be
/// remembered by where it and its siblings lie in memory.
pub struct Answer {
    writer: Writer,
    version: Version,
    /// What may stand at the place where we write; the last is the innermost.
    open: Vec<&'static [Shape]>,
    /// With debug assertions only.
    order: Option<Order>,
}

/// A name, among which shapes it was looked for, and which of them it is.
type Found = (&'static str, &'static [Shape], &'static Shape);

/// Places in [`FOUND`]; an instance has some 60 elements.
const FOUND_MAX: usize = 512;

thread_local! {
    /// Shapes that were found before, by [`place`], of all answers of this thread: each asks for
    /// the same ones again, and searching by name was a third of the cost of a long one.
    static FOUND: [Cell<Option<Found>>; FOUND_MAX] = const { [const { Cell::new(None) }; FOUND_MAX] };
}

/// Where a shape of this name is remembered; others may want the same place.
fn place(shapes: &'static [Shape], name: &'static str) -> usize {
    let mixed = shapes
        .as_ptr()
        .addr()
        .wrapping_add(name.as_ptr().addr().wrapping_mul(31))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) % FOUND_MAX
}

/// The shape of this name, whatever the version.
fn find(shapes: &'static [Shape], name: &'static str) -> Option<&'static Shape> {
    FOUND.with(|found| {
        let remembered = found.get(place(shapes, name))?;
        if let Some((known, among, shape)) = remembered.get()
            && std::ptr::eq(known, name)
            && std::ptr::eq(among, shapes)
        {
            return Some(shape);
        }
        let index = shapes.binary_search_by(|shape| shape.name.cmp(name)).ok()?;
        let shape = shapes.get(index)?;
        remembered.set(Some((name, shapes, shape)));
        Some(shape)
    })
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
            order: cfg!(debug_assertions).then(|| Order::new(operation.name, version)),
        };
        answer.leaf("requestId", request_id);
        answer
    }

    /// Makes room for so many bytes more, for an answer that will be long.
    pub fn reserve(&mut self, bytes: usize) {
        self.writer.reserve(bytes);
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The shape of a child of this name, whatever the version.
    fn any_shape(&self, name: &'static str) -> Option<&'static Shape> {
        find(self.open.last().copied().unwrap_or_default(), name)
    }

    /// The shape of a child of this name, if this version has it.  A name that no version has is a
    /// mistake of the caller; it is left out.
    fn shape(&self, name: &'static str) -> Option<&'static Shape> {
        let shape = self.any_shape(name);
        debug_assert!(
            shape.is_some() || name == "requestId",
            "no version has an element {name} here"
        );
        shape.filter(|shape| shape.is_in(self.version))
    }

    /// Whether an element of this name can be written here.
    pub fn has(&self, name: &'static str) -> bool {
        self.any_shape(name)
            .is_some_and(|shape| shape.is_in(self.version))
    }

    /// An element with text.
    pub fn leaf(&mut self, name: &'static str, value: &str) {
        if self.shape(name).is_some() {
            self.step(name, false);
            self.writer.leaf(name, value);
        }
    }

    /// An element with what `value` prints as.
    pub fn value(&mut self, name: &'static str, value: impl Display) {
        if self.shape(name).is_some() {
            self.step(name, false);
            self.writer.value(name, value);
        }
    }

    /// An element that is left out when there is nothing to say.
    pub fn optional(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    /// An element with children, which `fill` writes.
    pub fn structure(&mut self, name: &'static str, fill: impl FnOnce(&mut Self)) {
        let Some(shape) = self.shape(name) else {
            return;
        };
        self.step(name, true);
        self.writer.open(name, None);
        self.open.push(shape.children);
        fill(self);
        self.open.pop();
        self.close_step();
        self.writer.close();
    }

    /// A list: a container with an `item` for each, which `fill` writes.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.structure(name, |answer| {
            for item in items {
                answer.structure("item", |answer| fill(answer, item));
            }
        });
    }

    fn step(&mut self, name: &str, has_children: bool) {
        if let Some(order) = &mut self.order {
            order.element(name, has_children);
        }
    }

    fn close_step(&mut self) {
        if let Some(order) = &mut self.order {
            order.close();
        }
    }

    /// The document.
    pub fn finish(mut self) -> String {
        self.close_step();
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
            for name in ["currentState", "shutdownState", "previousState"] {
                answer.structure(name, |answer| {
                    answer.value("code", 32);
                    answer.leaf("name", "s");
                });
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
             <instancesSet><item><instanceId>i-1</instanceId><shutdownState><code>32</code><name>s</name></shutdownState>\
             <previousState><code>32</code><name>s</name></previousState>\
             </item></instancesSet></TerminateInstancesResponse>"
        );
        assert_eq!(
            terminated(V2016_11_15),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>id-1</requestId>\
             <instancesSet><item><instanceId>i-1</instanceId><currentState><code>32</code><name>s</name></currentState>\
             <previousState><code>32</code><name>s</name></previousState>\
             </item></instancesSet></TerminateInstancesResponse>"
        );
    }
}
