//! Writing XML: one string, appended to, escaped here and nowhere else.
//!
//! Long answers are made of many short values, so nothing is allocated for one.

use std::fmt::{Display, Write as _};
use std::ops::Range;

/// An XML document under construction.
#[derive(Debug, Clone)]
pub struct Writer {
    text: String,
    /// Where the names of the open elements stand in the text.
    open: Vec<Range<usize>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A document with its declaration.
    pub fn new() -> Self {
        Self {
            text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".into(),
            open: vec![],
        }
    }

    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// Opens an element; `namespace` becomes its `xmlns`.
    pub fn open(&mut self, name: &str, namespace: Option<&str>) {
        self.text.push('<');
        let start = self.text.len();
        self.text.push_str(name);
        self.open.push(start..self.text.len());
        if let Some(namespace) = namespace {
            self.text.push_str(" xmlns=\"");
            escape(namespace, &mut self.text);
            self.text.push('"');
        }
        self.text.push('>');
    }

    /// Closes what was opened last.
    pub fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.text.push_str("</");
            self.text.extend_from_within(name);
            self.text.push('>');
        }
    }

    /// An element with text; an empty text gives `<name/>`.
    pub fn leaf(&mut self, name: &str, value: &str) {
        self.text.reserve(2 * name.len() + value.len() + 5);
        self.text.push('<');
        self.text.push_str(name);
        if value.is_empty() {
            self.text.push_str("/>");
            return;
        }
        self.text.push('>');
        escape(value, &mut self.text);
        self.close_leaf(name);
    }

    /// As [`Self::leaf`], with what `value` prints as.
    pub fn value(&mut self, name: &str, value: impl Display) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
        let start = self.text.len();
        // A string takes everything; a value that fails to print has printed what it could.
        let _ = write!(self.text, "{value}");
        if self.text.len() == start {
            self.text.truncate(start - 1);
            self.text.push_str("/>");
            return;
        }
        if !is_plain(&self.text[start..]) {
            let raw = self.text.split_off(start);
            escape(&raw, &mut self.text);
        }
        self.close_leaf(name);
    }

    fn close_leaf(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    /// Closes what is open and returns the document.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }
}

/// Printable ASCII that means nothing to XML; a table, since this is asked of every byte that is
/// answered.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'&' | b'<' | b'>' | b'"');
        byte += 1;
    }
    table
};

fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| PLAIN[usize::from(byte)])
}

/// Appends `value`, escaped for text and attributes.  Characters that XML 1.0 cannot carry are
/// dropped: a document that no parser reads would be worse.
pub fn escape(value: &str, out: &mut String) {
    // Nearly every value is plain, and long answers are made of them.
    if is_plain(value) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A bare carriage return would be read back as a line feed.
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(character),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_escaped_and_closed() {
        let mut writer = Writer::new();
        writer.open("A", Some("http://x/\"y\"/"));
        writer.leaf("b", "<&>\u{1}\r");
        writer.leaf("c", "");
        writer.value("d", "a&b");
        writer.value("e", "");
        writer.open("f", None);
        writer.value("g", 7);
        assert_eq!(
            writer.finish(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <A xmlns=\"http://x/&quot;y&quot;/\"><b>&lt;&amp;&gt;&#13;</b><c/>\
             <d>a&amp;b</d><e/><f><g>7</g></f></A>"
        );
    }
}
