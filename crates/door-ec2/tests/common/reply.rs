//! Answers, and what tests ask of them.

use std::collections::BTreeSet;

use cumulet_door_ec2::Handled;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) handled: Handled,
}
impl Reply {
    /// The answer, which must be a good one.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }

    /// The code of the error, which must be one of this status.
    pub(crate) fn code(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let code = self.value("Code").expect("an error document");
        assert_eq!(self.handled.code.as_ref(), Some(&code));
        code
    }

    /// Path below the root and text of every element, in order.
    pub(crate) fn elements(&self) -> Vec<(String, String)> {
        use quick_xml::events::Event;
        let mut reader = quick_xml::Reader::from_str(&self.text);
        let mut open: Vec<(String, String)> = vec![];
        let mut found = vec![];
        let path_of = |open: &[(String, String)], name: &str| {
            let mut parts: Vec<&str> = open.iter().skip(1).map(|(name, _)| name.as_str()).collect();
            parts.push(name);
            parts.join("/")
        };
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Start(tag) => {
                    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                    if !open.is_empty() {
                        found.push((path_of(&open, &name), String::new()));
                    }
                    open.push((name, String::new()));
                }
                Event::Empty(tag) => {
                    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                    found.push((path_of(&open, &name), String::new()));
                }
                Event::Text(text) => {
                    if let Some((_, value)) = open.last_mut() {
                        value.push_str(&text.decode().expect("UTF-8"));
                    }
                }
                Event::End(_) => {
                    let (name, value) = open.pop().expect("open");
                    if !open.is_empty() {
                        let path = path_of(&open, &name);
                        if let Some(entry) = found
                            .iter_mut()
                            .rev()
                            .find(|(known, text)| *known == path && text.is_empty())
                        {
                            entry.1 = value;
                        }
                    }
                }
                Event::Eof => return found,
                _ => {}
            }
        }
    }

    pub(crate) fn paths(&self) -> BTreeSet<String> {
        self.elements().into_iter().map(|(path, _)| path).collect()
    }

    /// Texts of all elements of this name.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let is_named = |path: &str| path == name || path.ends_with(&format!("/{name}"));
        self.elements()
            .into_iter()
            .filter(|(path, _)| is_named(path))
            .map(|(_, text)| text)
            .collect()
    }

    /// Texts of this element of the instances that the answer lists.
    pub(crate) fn of_instance(&self, name: &str) -> Vec<String> {
        self.values(&format!("instancesSet/item/{name}"))
    }

    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }
}
