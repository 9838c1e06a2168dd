//! How answers are printed: JSON as it is, or plain aligned text.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

/// Whether something that was to be printed could not be.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Writes to standard output.  A reader that has gone (`| head`) is no news; anything else is said
/// once, and both end the program with 1, see [`has_failed`].
pub(crate) fn say(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(cause) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return;
    };
    let is_news = cause.kind() != io::ErrorKind::BrokenPipe;
    if !HAS_FAILED.swap(true, Ordering::Relaxed) && is_news {
        eprintln!("cumulet: it is done, but the answer cannot be printed: {cause}");
    }
}

/// Whether [`say`] failed.
pub(crate) fn has_failed() -> bool {
    HAS_FAILED.load(Ordering::Relaxed)
}

/// The chosen form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
}

impl Output {
    /// Prints an answer on stdout.
    pub(crate) fn print(self, value: &Value) {
        if self.is_json {
            say(format_args!("{value:#}\n"));
        } else {
            say(format_args!("{}", text(value)));
        }
    }
}

/// Objects as lines of name and value, lists of objects as columns.
fn text(value: &Value) -> String {
    match value {
        Value::Array(rows) if rows.iter().all(Value::is_object) => {
            table(rows.iter().filter_map(Value::as_object))
        }
        Value::Object(object) => fields(object),
        other => cell(other) + "\n",
    }
}

/// What names a row comes first, what explains it last.
fn rank(name: &str) -> usize {
    const FIRST: &[&str] = &[
        "id",
        "access_key_id",
        "fingerprint",
        "code",
        "setting",
        "name",
        "value",
    ];
    const LAST: &[&str] = &["meaning", "orphans", "reason"];
    match (
        FIRST.iter().position(|it| *it == name),
        LAST.contains(&name),
    ) {
        (Some(position), _) => position,
        (None, false) => FIRST.len(),
        (None, true) => FIRST.len() + 1,
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn fields(object: &Map<String, Value>) -> String {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    let (long, short): (Vec<_>, Vec<_>) = object
        .iter()
        .partition(|(_, value)| value.as_str().is_some_and(|it| it.contains('\n')));
    for (name, value) in short {
        out.push_str(&format!("{name:width$}  {}\n", cell(value)));
    }
    // Certificates and keys: as they are, so that they can be cut out.
    for (_, value) in long {
        out.push_str(&cell(value));
    }
    out
}

fn table<'a>(rows: impl Iterator<Item = &'a Map<String, Value>>) -> String {
    let rows: Vec<_> = rows.collect();
    let Some(first) = rows.first() else {
        return String::new();
    };
    let mut names: Vec<&String> = first.keys().collect();
    names.sort_by_key(|name| rank(name));
    let mut lines: Vec<Vec<String>> = vec![names.iter().map(|name| name.to_uppercase()).collect()];
    lines.extend(rows.iter().map(|row| {
        names
            .iter()
            .map(|name| row.get(*name).map_or("-".into(), cell))
            .collect()
    }));
    let widths: Vec<usize> = (0..names.len())
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_columns_and_objects_are_lines() {
        let rows = json!([{ "id": "a", "size": 1 }, { "id": "long", "size": null }]);
        assert_eq!(text(&rows), "ID    SIZE\na     1\nlong  -\n");
        assert_eq!(
            text(&json!({ "a": true, "bcd": [1, 2] })),
            "a    yes\nbcd  1,2\n"
        );
        assert_eq!(text(&json!([])), "");
        assert_eq!(text(&json!({ "pem": "x\ny\n", "a": 1 })), "a    1\nx\ny\n");
    }
}
