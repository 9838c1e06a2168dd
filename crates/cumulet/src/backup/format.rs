//! The lines of a backup: JSON, one value a line, UTF-8.
//!
//! ```text
//!   {"cumulet_backup":1,"program":…,"created":…,"cloud_id":…,"is_simulated":…,"has_objects":…,"has_images":…}
//!   {"kind":…,"key":…,"revision":…,"value":{"v":1,"r":{…}}}     a record; `base64` instead of `value` for opaque bytes
//!   {"file":"objects/…","bytes":…,"sha256":…}                   a file beside this one
//!   {"lines":…,"revision":…,"sha256":…}                         the last line: how many come before it, and their digest
//! ```
//!
//! A reader refuses a file whose last line is missing or does not fit, whose
//! number is higher than its own, or that holds a line it does not know.

use std::io::{self, BufRead, Read, Write};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use bytes::Bytes;
use cumulet_engine::records::USER_DATA;
use cumulet_store::VALUE_LEN_MAX;
use cumulet_wire::base64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format that this program writes; it reads this and lower ones.
pub(super) const FORMAT: u32 = 1;

/// Longest line: an object of the most parts fits.
const LINE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) cumulet_backup: u32,
    /// The version of the program that wrote it.
    pub(super) program: String,
    pub(super) created: String,
    pub(super) cloud_id: String,
    pub(super) is_simulated: bool,
    pub(super) has_objects: bool,
    pub(super) has_images: bool,
}

/// A record, of the store or of the objects' index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) kind: String,
    pub(super) key: String,
    /// The revision that wrote it; rows of objects have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Record {
    pub(super) fn new(
        kind: &str,
        key: &str,
        revision: Option<u64>,
        value: &[u8],
    ) -> anyhow::Result<Self> {
        let (value, base64) = if kind == USER_DATA.name() {
            (None, Some(base64::encode(value)))
        } else {
            let parsed = serde_json::from_slice(value);
            let parsed = parsed.with_context(|| format!("the record {kind} {key} is damaged"))?;
            (Some(parsed), None)
        };
        Ok(Self {
            kind: kind.to_owned(),
            key: key.to_owned(),
            revision,
            value,
            base64,
        })
    }

    /// The value as it is stored.
    pub(super) fn bytes(&self) -> anyhow::Result<Bytes> {
        let (kind, key) = (&self.kind, &self.key);
        match (&self.value, &self.base64) {
            (Some(value), None) => Ok(serde_json::to_vec(value)?.into()),
            (None, Some(text)) => match base64::decode(text, VALUE_LEN_MAX) {
                Ok(bytes) => Ok(bytes.into()),
                Err(_) => bail!("the record {kind} {key} is no base64"),
            },
            _ => bail!("the record {kind} {key} has no value, or two"),
        }
    }
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLine {
    /// Below the directory of the backup.
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    /// Lines before this one.
    pub(super) lines: u64,
    /// The newest revision of the records.
    pub(super) revision: u64,
    /// Of all bytes before this line.
    pub(super) sha256: String,
}

/// Writes lines.
pub(super) struct Writer<W: Write> {
    out: W,
    hash: Hash,
    lines: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            hash: Hash::new(&SHA256),
            lines: 0,
        }
    }

    pub(super) fn line<T: Serialize>(&mut self, line: &T) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.hash.update(&bytes);
        self.lines += 1;
        self.out.write_all(&bytes)?;
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(mut self, revision: u64) -> anyhow::Result<W> {
        let trailer = Trailer {
            lines: self.lines,
            revision,
            sha256: hex::encode(self.hash.finish()),
        };
        serde_json::to_writer(&mut self.out, &trailer)?;
        self.out.write_all(b"\n")?;
        Ok(self.out)
    }
}

/// A line between the first and the last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Record(Record),
    File(FileLine),
}

/// Reads a whole backup and hands out its lines.  Nothing may be done with them before this has
/// returned: only the last line tells whether they are what was written.
///
/// # Errors
/// Those of `sink`; a file that is cut, altered, of a newer format or no backup.
pub(super) fn read(
    mut input: impl BufRead,
    mut sink: impl FnMut(Line) -> anyhow::Result<()>,
) -> anyhow::Result<(Header, Trailer)> {
    let mut hash = Hash::new(&SHA256);
    let mut lines = 0;
    let mut line = vec![];
    next(&mut input, &mut line)?;
    let header = header(&line)?;
    loop {
        hash.update(&line);
        lines += 1;
        next(&mut input, &mut line)?;
        ensure!(
            line.last() == Some(&b'\n'),
            "the backup is cut off: its last line is missing"
        );
        let unreadable = || format!("line {} of the backup cannot be understood", lines + 1);
        let value: Value = serde_json::from_slice(&line).with_context(unreadable)?;
        if value.get("lines").is_some() {
            let trailer: Trailer = serde_json::from_value(value).with_context(unreadable)?;
            let found = hex::encode(hash.finish());
            ensure!(
                trailer.lines == lines && trailer.sha256 == found,
                "the backup was altered or is damaged: its lines do not fit the digest at its end"
            );
            ensure!(
                input.fill_buf()?.is_empty(),
                "the backup was altered: something follows its last line"
            );
            return Ok((header, trailer));
        }
        let parsed = if value.get("file").is_some() {
            Line::File(serde_json::from_value(value).with_context(unreadable)?)
        } else {
            Line::Record(serde_json::from_value(value).with_context(unreadable)?)
        };
        sink(parsed)?;
    }
}

fn header(line: &[u8]) -> anyhow::Result<Header> {
    let found: Value = serde_json::from_slice(line).unwrap_or_default();
    let Some(format) = found.get("cumulet_backup").and_then(Value::as_u64) else {
        bail!("this is no backup of a cloud");
    };
    ensure!(
        format <= u64::from(FORMAT),
        "the backup is of format {format}; this program reads up to {FORMAT}: it was written by a newer version"
    );
    serde_json::from_value(found).context("the first line of the backup cannot be understood")
}

fn next(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    input
        .by_ref()
        .take(LINE_LEN_MAX)
        .read_until(b'\n', line)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of_a_test() -> Header {
        Header {
            cumulet_backup: FORMAT,
            program: "0".into(),
            created: "2026-01-01T00:00:00.000Z".into(),
            cloud_id: "00000000".into(),
            is_simulated: true,
            has_objects: true,
            has_images: true,
        }
    }

    fn written(header: &Header) -> Vec<u8> {
        let mut writer = Writer::new(vec![]);
        writer.line(header).unwrap();
        let record = Record::new("account", "1", Some(7), br#"{"v":1,"r":{"name":"\n"}}"#);
        writer.line(&record.unwrap()).unwrap();
        let opaque = Record::new("user-data", "r-1", Some(8), b"\xff\n{}").unwrap();
        assert_eq!(opaque.bytes().unwrap().as_ref(), b"\xff\n{}");
        writer.line(&opaque).unwrap();
        let file = FileLine {
            file: "images/0".into(),
            bytes: 3,
            sha256: "0".into(),
        };
        writer.line(&file).unwrap();
        writer.finish(8).unwrap()
    }

    fn count(bytes: &[u8]) -> anyhow::Result<usize> {
        let mut count = 0;
        read(bytes, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written(&header_of_a_test());
        let mut lines = vec![];
        let (header, trailer) = read(bytes.as_slice(), |line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        assert_eq!(header, header_of_a_test());
        assert_eq!((trailer.lines, trailer.revision), (4, 8));
        assert_eq!(lines.len(), 3);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 5);
    }

    #[test]
    fn every_cut_and_every_altered_byte_is_noticed() {
        let bytes = written(&header_of_a_test());
        assert_eq!(count(&bytes).unwrap(), 3);
        for length in 0..bytes.len() {
            assert!(count(&bytes[..length]).is_err(), "cut after {length} bytes");
        }
        let trailer = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap();
        for place in 0..trailer {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            assert!(count(&altered).is_err(), "altered at {place}");
        }
        let mut longer = bytes;
        longer.extend(b"{}\n");
        assert!(count(&longer).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let bytes = written(&Header {
            cumulet_backup: FORMAT + 1,
            ..header_of_a_test()
        });
        let error = count(&bytes).unwrap_err().to_string();
        assert!(error.contains("newer version"), "{error}");
        assert!(
            count(b"{}\n")
                .unwrap_err()
                .to_string()
                .contains("no backup")
        );
    }
}
