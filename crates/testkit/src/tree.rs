//! XML answers as a tree that tests can ask.

use quick_xml::Reader;
use quick_xml::events::Event;

/// One element: its local name, its text and its children in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub name: String,
    pub text: String,
    pub children: Vec<Tree>,
}

impl Tree {
    /// Reads a document; namespaces prefixes are dropped.
    ///
    /// # Panics
    /// When the text is not well-formed, with the text: a test wants to see it.
    pub fn parse(xml: &str) -> Self {
        let mut reader = Reader::from_str(xml);
        let mut open = vec![Tree::default()];
        loop {
            let event = reader
                .read_event()
                .unwrap_or_else(|cause| panic!("not XML ({cause}): {xml}"));
            let local = |name: &[u8]| {
                let name = String::from_utf8_lossy(name).into_owned();
                name.rsplit(':').next().unwrap_or_default().to_owned()
            };
            match event {
                Event::Start(start) => open.push(Tree {
                    name: local(start.name().as_ref()),
                    ..Tree::default()
                }),
                Event::Empty(start) => {
                    let empty = Tree {
                        name: local(start.name().as_ref()),
                        ..Tree::default()
                    };
                    open.last_mut()
                        .expect("the root stays")
                        .children
                        .push(empty);
                }
                Event::End(_) => {
                    let done = open.pop().expect("ends match starts");
                    open.last_mut()
                        .expect("ends match starts")
                        .children
                        .push(done);
                }
                Event::Text(text) => {
                    let text = text.decode().expect("UTF-8");
                    open.last_mut()
                        .expect("the root stays")
                        .text
                        .push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().expect("UTF-8").into_owned();
                    let character = reference.resolve_char_ref().expect("a character");
                    let text = character.map(String::from).unwrap_or_else(|| {
                        quick_xml::escape::resolve_predefined_entity(&name)
                            .unwrap_or_else(|| panic!("the entity {name}"))
                            .to_owned()
                    });
                    open.last_mut()
                        .expect("the root stays")
                        .text
                        .push_str(&text);
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let mut root = open.swap_remove(0);
        assert_eq!(root.children.len(), 1, "one root element: {xml}");
        root.children.swap_remove(0)
    }

    /// The elements at a path of names below this one, as `instancesSet/item/instanceId`.
    pub fn at(&self, path: &str) -> Vec<&Tree> {
        let mut found = vec![self];
        for name in path.split('/') {
            found = found
                .into_iter()
                .flat_map(|it| it.children.iter().filter(|child| child.name == name))
                .collect();
        }
        found
    }

    /// Their texts.
    pub fn texts(&self, path: &str) -> Vec<String> {
        self.at(path)
            .into_iter()
            .map(|it| it.text.clone())
            .collect()
    }

    /// The one text at the path.
    ///
    /// # Panics
    /// When there is none, with the tree.
    pub fn text(&self, path: &str) -> String {
        let mut texts = self.texts(path);
        assert_eq!(texts.len(), 1, "one {path} in {self:?}");
        texts.swap_remove(0)
    }
}
