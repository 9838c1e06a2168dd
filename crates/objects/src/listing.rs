//! Listings at the cost of a page: what a common prefix hides is skipped by
//! seeking, not by reading.

use std::ops::Bound;

use crate::access;
use crate::buckets::upload_name;
use crate::error::{Error, Result};
use crate::index::{Rows, key, successor};
use crate::records::{Object, Upload, decode};
use crate::{Caller, ObjectStore};

/// Entries of one page.
pub(crate) const PAGE_MAX: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub prefix: String,
    /// Keys that agree up to it are shown as one.
    pub delimiter: Option<String>,
    /// Only what comes after this key or common prefix.
    pub after: Option<String>,
    /// Cut to [`PAGE_MAX`].
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<T> {
    Item(T),
    Prefix(String),
}

/// A page, in the order of the keys' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<Entry<(String, Object)>>,
    /// What `after` is for the next page; `None` when this was the last.
    pub next: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadQuery {
    pub prefix: String,
    pub delimiter: Option<String>,
    /// Only uploads of keys after this one, or with an id, also those of the same key with a
    /// greater id.
    pub after: Option<(String, Option<String>)>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadEntry {
    pub key: String,
    pub id: String,
    pub upload: Upload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadsListing {
    pub entries: Vec<Entry<UploadEntry>>,
    /// Key and id of the last entry (of a common prefix: no id), when there is more.
    pub next: Option<(String, Option<String>)>,
}

struct Scan<'a> {
    bucket: &'a str,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    from: Bound<Vec<u8>>,
    limit: usize,
}

/// The common prefix that `name` is shown as.
fn common_prefix<'a>(name: &'a str, prefix: &str, delimiter: Option<&str>) -> Option<&'a str> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let found = name.get(prefix.len()..)?.find(delimiter)?;
    name.get(..prefix.len() + found + delimiter.len())
}

impl Scan<'_> {
    /// A page and whether there is more.  `read` gets the row's key and value and yields the item.
    fn page<T>(
        self,
        rows: &impl Rows,
        read: impl Fn(&[u8], &[u8]) -> Result<T>,
    ) -> Result<(Vec<Entry<T>>, bool)> {
        let limit = self.limit.min(PAGE_MAX);
        let first = key(&[self.bucket, self.prefix]);
        let end = successor(first.clone());
        let mut from = match self.from {
            Bound::Unbounded => Bound::Included(first),
            Bound::Included(at) | Bound::Excluded(at) if at < first => Bound::Included(first),
            later => later,
        };
        let mut entries = vec![];
        if limit == 0 {
            return Ok((entries, false));
        }
        loop {
            let start = from.as_ref().map(Vec::as_slice);
            let is_past =
                matches!(start, Bound::Included(at) | Bound::Excluded(at) if at >= end.as_slice());
            if is_past {
                return Ok((entries, false));
            }
            let mut skip_to = None;
            for row in rows.range::<&[u8]>((start, Bound::Excluded(end.as_slice())))? {
                let (row_key, value) = row?;
                if entries.len() == limit {
                    return Ok((entries, true));
                }
                let name = row_name(row_key.value())?;
                if let Some(common) = common_prefix(name, self.prefix, self.delimiter) {
                    skip_to = Some(successor(key(&[self.bucket, common])));
                    entries.push(Entry::Prefix(common.to_owned()));
                    break;
                }
                entries.push(Entry::Item(read(row_key.value(), value.value())?));
            }
            match skip_to {
                Some(next) => from = Bound::Included(next),
                None => return Ok((entries, false)),
            }
        }
    }
}

/// The object's key in a row's key of objects or uploads.
fn row_name(row: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(row).ok();
    text.and_then(|text| text.split('\0').nth(1))
        .ok_or_else(|| Error::Damaged("a key of the index".into()))
}

impl ObjectStore {
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn list(&self, caller: Caller, bucket: &str, query: ListQuery) -> Result<Listing> {
        let bucket = bucket.to_owned();
        self.read(move |tables| {
            let found = tables.bucket(&bucket)?;
            if !access::may_list(caller, &found) {
                return Err(Error::AccessDenied);
            }
            let delimiter = query.delimiter.as_deref();
            let from = query.after.as_deref().map_or(Bound::Unbounded, |after| {
                let at = key(&[&bucket, after]);
                if after.starts_with(&query.prefix)
                    && common_prefix(after, &query.prefix, delimiter) == Some(after)
                {
                    Bound::Included(successor(at))
                } else {
                    Bound::Excluded(at)
                }
            });
            let scan = Scan {
                bucket: &bucket,
                prefix: &query.prefix,
                delimiter,
                from,
                limit: query.limit,
            };
            let (entries, is_truncated) = scan.page(&tables.objects, |row, value| {
                Ok((row_name(row)?.to_owned(), decode::<Object>(value)?))
            })?;
            let last = entries.last().map(|entry| match entry {
                Entry::Item((name, _)) => name.clone(),
                Entry::Prefix(prefix) => prefix.clone(),
            });
            Ok(Listing {
                next: last.filter(|_| is_truncated),
                entries,
            })
        })
        .await
    }

    /// Multipart uploads that were begun and neither completed nor aborted.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`.
    pub async fn list_uploads(
        &self,
        caller: Caller,
        bucket: &str,
        query: UploadQuery,
    ) -> Result<UploadsListing> {
        let bucket = bucket.to_owned();
        self.read(move |tables| {
            let found = tables.bucket(&bucket)?;
            if !access::may_list(caller, &found) {
                return Err(Error::AccessDenied);
            }
            let delimiter = query.delimiter.as_deref();
            let from = match &query.after {
                None => Bound::Unbounded,
                Some((name, Some(id))) => Bound::Excluded(key(&[&bucket, name, id])),
                Some((name, None))
                    if name.starts_with(&query.prefix)
                        && common_prefix(name, &query.prefix, delimiter) == Some(name) =>
                {
                    Bound::Included(successor(key(&[&bucket, name])))
                }
                Some((name, None)) => Bound::Included(successor(key(&[&bucket, name, ""]))),
            };
            let scan = Scan {
                bucket: &bucket,
                prefix: &query.prefix,
                delimiter,
                from,
                limit: query.limit,
            };
            let (entries, is_truncated) = scan.page(&tables.uploads, |row, value| {
                let (key, id) = upload_name(row)?;
                let upload = decode(value)?;
                Ok(UploadEntry { key, id, upload })
            })?;
            let last = entries.last().map(|entry| match entry {
                Entry::Item(found) => (found.key.clone(), Some(found.id.clone())),
                Entry::Prefix(prefix) => (prefix.clone(), None),
            });
            Ok(UploadsListing {
                next: last.filter(|_| is_truncated),
                entries,
            })
        })
        .await
    }
}
