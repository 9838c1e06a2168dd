//! All buckets and objects as rows of JSON, for backups, and back.
//!
//! An [`Export`] is one moment: its rows come from one transaction, and the
//! bodies that they name stay on the disk until it is dropped.  Writing goes on
//! meanwhile.  Multipart uploads that are under way are no objects yet and are
//! left out.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use redb::ReadableTable as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ObjectStore;
use crate::bodies::{BodyId, Pin};
use crate::error::{Error, Result};
use crate::index::{ReadRows, Tables};
use crate::records::{Bucket, Object, decode};

/// Kind of the rows of buckets; their key is the bucket's name.
pub const BUCKET: &str = "s3-bucket";
/// Kind of the rows of objects; their key is `bucket/key`.
pub const OBJECT: &str = "s3-object";

/// Version of the rows.
const VERSION: u32 = 1;

/// A bucket or an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// [`BUCKET`] or [`OBJECT`].
    pub kind: String,
    pub key: String,
    /// JSON.
    pub value: Vec<u8>,
}

#[derive(Serialize)]
struct Writing<'a, T> {
    v: u32,
    r: &'a T,
}

#[derive(Deserialize)]
struct Reading<T> {
    v: u32,
    r: T,
}

/// The name of a body; shown and parsed as `<group>/<id>`, which is also where it lies below the
/// directory of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyName(BodyId);

impl fmt::Display for BodyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.group(), self.0)
    }
}

impl FromStr for BodyName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let id = text.split_once('/').map_or("", |(_, id)| id);
        let name = BodyName(id.parse()?);
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(format!("{text:?} does not name a body"))
        }
    }
}

impl BodyName {
    /// Where the body lies in the object store of `dir`.
    pub fn path_in(self, dir: &Path) -> PathBuf {
        dir.join("bodies").join(self.to_string())
    }
}

/// Everything in the store at one moment.
pub struct Export {
    tables: Tables<ReadRows>,
    pin: Pin,
}

impl Export {
    /// Hands out every row, buckets first, and returns the bodies that they name.
    ///
    /// # Errors
    /// Those of the disk, and those of `sink`.
    pub fn rows<E: From<Error>>(
        &self,
        mut sink: impl FnMut(Row) -> std::result::Result<(), E>,
    ) -> std::result::Result<HashSet<BodyName>, E> {
        let mut bodies = HashSet::new();
        for row in self.tables.buckets.iter().map_err(Error::from)? {
            let (key, value) = row.map_err(Error::from)?;
            let bucket: Bucket = decode(value.value())?;
            sink(row_of(BUCKET, text(key.value())?, &bucket))?;
        }
        for row in self.tables.objects.iter().map_err(Error::from)? {
            let (key, value) = row.map_err(Error::from)?;
            let object: Object = decode(value.value())?;
            bodies.extend(object.segments.iter().map(|part| BodyName(part.body)));
            sink(row_of(
                OBJECT,
                text(key.value())?.replacen('\0', "/", 1),
                &object,
            ))?;
        }
        Ok(bodies)
    }

    /// # Errors
    /// Those of the file system.
    pub fn open_body(&self, name: BodyName) -> io::Result<File> {
        self.pin.open_body(name.0)
    }
}

fn text(key: &[u8]) -> Result<String> {
    String::from_utf8(key.to_vec()).map_err(|_| Error::Damaged("a key".into()))
}

fn row_of<T: Serialize>(kind: &str, key: String, record: &T) -> Row {
    let value = serde_json::to_vec(&Writing {
        v: VERSION,
        r: record,
    })
    .expect("records have only string keys and memory takes every write");
    Row {
        kind: kind.to_owned(),
        key,
        value,
    }
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T> {
    let unreadable =
        |cause: &dyn fmt::Display| Error::Damaged(format!("{} {:?} ({cause})", row.kind, row.key));
    let reading: Reading<T> =
        serde_json::from_slice(&row.value).map_err(|cause| unreadable(&cause))?;
    if reading.v != VERSION {
        return Err(unreadable(&format!("it has version {}", reading.v)));
    }
    Ok(reading.r)
}

/// A row that was read back.
enum Parsed {
    Bucket(Bucket),
    Object(String, String, Box<Object>),
}

impl Row {
    fn parse(&self) -> Result<Parsed> {
        match self.kind.as_str() {
            BUCKET => Ok(Parsed::Bucket(read(self)?)),
            OBJECT => {
                let (bucket, key) = self
                    .key
                    .split_once('/')
                    .ok_or_else(|| Error::Damaged(format!("the key {:?}", self.key)))?;
                Ok(Parsed::Object(bucket.into(), key.into(), read(self)?))
            }
            other => Err(Error::Damaged(format!("a row of the kind {other:?}"))),
        }
    }

    /// Whether it can be read.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn check(&self) -> Result<()> {
        self.parse().map(drop)
    }
}

impl ObjectStore {
    /// Blocking.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn export_blocking(&self) -> Result<Export> {
        let lookup = || {
            let tables = self.index.tables()?;
            let mut ids = vec![];
            for row in tables.bodies.iter()? {
                let (key, _) = row?;
                let id = BodyId::from_bytes(key.value());
                ids.push(id.ok_or_else(|| Error::Damaged("a body's id".into()))?);
            }
            Ok((tables, ids))
        };
        let (tables, pin) = self.bodies.pinned(lookup)?;
        Ok(Export { tables, pin })
    }

    /// Takes rows of an [`Export`] in one commit.  The bodies that they name must lie at
    /// [`BodyName::path_in`], durably, since after [`Self::swept`].
    ///
    /// # Errors
    /// `Damaged` for a row that cannot be read or lacks a body; those of the disk.
    pub async fn import(&self, rows: Vec<Row>) -> Result<()> {
        let bodies = self.bodies.clone();
        let work = move || {
            let mut parsed = vec![];
            for row in rows {
                let row = row.parse()?;
                if let Parsed::Object(bucket, key, object) = &row {
                    for segment in &object.segments {
                        let found = bodies.open_body(segment.body).and_then(|it| it.metadata());
                        if !found.is_ok_and(|found| found.len() >= segment.length) {
                            return Err(Error::Damaged(format!("the body of {bucket}/{key}")));
                        }
                    }
                }
                parsed.push(row);
            }
            Ok(parsed)
        };
        let parsed = crate::writer::joined(tokio::task::spawn_blocking(work)).await?;
        let write = move |tx: &mut crate::index::Tx<'_>| {
            for row in parsed {
                match row {
                    Parsed::Bucket(bucket) => tx.put_bucket(&bucket)?,
                    Parsed::Object(bucket, key, object) => {
                        for segment in &object.segments {
                            tx.add_use(segment.body)?;
                        }
                        tx.put_object(&bucket, &key, &object)?;
                    }
                }
            }
            Ok(())
        };
        self.index.write(vec![], write).await
    }
}
