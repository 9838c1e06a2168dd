//! Backups: everything that a cloud knows, as text and as files beside it.
//!
//! ```text
//!   backup.jsonl            header, one line per record and per file, trailer
//!   objects/<group>/<id>    bodies of objects
//!   images/<sha256>         images as raw bytes, sparse
//!   kernels/<aki>/…         kernels and their ramdisks
//! ```
//!
//! [`format`] has the lines, [`save`] writes a backup while the cloud runs,
//! [`restore`] makes a data directory of one, and [`adapt`] is what changes for
//! a cloud that has no machine any more.  The file of lines gets its name last:
//! a directory without it is no backup.

mod adapt;
mod files;
mod format;
mod restore;
mod save;

use std::sync::Arc;

use cumulet_engine::State;
use cumulet_objects::ObjectStore;
use cumulet_store::Store;

use crate::data_dir::DataDir;

pub(crate) use restore::{Key, Restore, restore};
pub(crate) use save::{Choice, save};

/// Name of the file of lines.
const LINES: &str = "backup.jsonl";

/// What a backup is made of.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) store: Store<State>,
    pub(crate) objects: ObjectStore,
}
