//! Writing a backup while the cloud runs.
//!
//! Records come from one moment between two commits, objects from one
//! transaction a little later; neither waits for the other or stops writers.
//! So an image's objects may have been deleted in between, never the other way
//! round.  Images and kernels are files that do not change.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use cumulet_domain::images::{Image, Preparation};
use cumulet_domain::{Digest, ImageId};
use cumulet_durable::Temporary;
use cumulet_engine::records::{IMAGE, KERNEL, Stored};
use cumulet_store::{Frozen, StoreError};
use cumulet_wire::time;
use serde_json::{Value, json};

use super::files::{copy, settle};
use super::format::{FORMAT, FileLine, Header, Record, Writer};
use super::{LINES, Source};
use crate::data_dir::{LOST_AND_FOUND, make_private};
use crate::surroundings;

/// What is copied besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) objects: bool,
    /// Kernels too.
    pub(crate) images: bool,
}

/// Writes a backup to a new or empty directory, and says what is in it.
///
/// # Errors
/// A target that cannot be used; those of the disks.  The target is then empty.
pub(crate) async fn save(
    source: &Source,
    target: PathBuf,
    choice: Choice,
) -> anyhow::Result<Value> {
    let records = source.store.frozen().await?;
    let source = source.clone();
    let work = move || {
        let target = prepare(&source, &target)?;
        let written = write(&source, records.as_ref(), &target, choice);
        if written.is_err() {
            for name in ["objects", "images", "kernels"] {
                let _ = fs::remove_dir_all(target.join(name));
            }
        }
        written
    };
    tokio::task::spawn_blocking(work)
        .await
        .context("the backup ended badly")?
}

/// Makes the directory, and refuses one that something else uses.
fn prepare(source: &Source, target: &Path) -> anyhow::Result<PathBuf> {
    let shown = target.display();
    match fs::read_dir(target) {
        Ok(entries) => {
            for entry in entries {
                let name = entry
                    .with_context(|| format!("{shown} cannot be read"))?
                    .file_name();
                ensure!(
                    name == LOST_AND_FOUND,
                    "{shown} is not empty: give a new directory"
                );
            }
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause).with_context(|| format!("{shown} cannot be used")),
    }
    make_private(target).with_context(|| format!("{shown} cannot be made"))?;
    let target = target
        .canonicalize()
        .with_context(|| format!("{shown} cannot be opened"))?;
    if target.starts_with(source.dir.path()) {
        let _ = fs::remove_dir(&target);
        bail!("{shown} lies in the data directory, and would be lost with it");
    }
    Ok(target)
}

/// What lies in files and is named by records.
#[derive(Default)]
struct Named {
    /// Those that have bytes.
    images: Vec<(ImageId, Digest)>,
    kernels: Vec<String>,
}

/// A backup that is being written.
struct Saving<'a> {
    out: Writer<BufWriter<File>>,
    source: &'a Source,
    target: &'a Path,
    records: u64,
    files: u64,
    bytes: u64,
    is_simulated: bool,
    images_missing: Vec<ImageId>,
    kernels_missing: Vec<String>,
}

/// Whether the cloud never had a machine: neither a network nor the bytes of any image.  Settings
/// are those of the moment, and may be another's.
fn is_simulated(source: &Source) -> anyhow::Result<bool> {
    if source.store.snapshot().ground.is_some() {
        return Ok(false);
    }
    let entries = match fs::read_dir(source.dir.join("images")) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(cause) => return Err(cause).context("the images cannot be read"),
    };
    for entry in entries {
        let name = entry.context("the images cannot be read")?.file_name();
        if name.to_str().is_some_and(|it| it.parse::<Digest>().is_ok()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write(
    source: &Source,
    records: &dyn Frozen,
    target: &Path,
    choice: Choice,
) -> anyhow::Result<Value> {
    let is_simulated = is_simulated(source)?;
    let doing = || format!("the backup in {} cannot be written", target.display());
    let lines = Temporary::create(target, LINES).with_context(doing)?;
    let out = lines.file().try_clone().with_context(doing)?;
    let mut saving = Saving {
        out: Writer::new(BufWriter::new(out)),
        source,
        target,
        records: 0,
        files: 0,
        bytes: 0,
        is_simulated,
        images_missing: vec![],
        kernels_missing: vec![],
    };
    saving.out.line(&Header {
        cumulet_backup: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created: time::format_iso8601(surroundings::now()),
        cloud_id: source.dir.cloud_id().to_owned(),
        is_simulated,
        has_objects: choice.objects,
        has_images: choice.images,
    })?;
    let (revision, named) = saving.records(records)?;
    if choice.objects {
        saving.objects()?;
    }
    if choice.images {
        saving.images(named.images)?;
        saving.kernels(named.kernels)?;
    }
    let answer = json!({
        "backup": target.display().to_string(),
        "revision": revision,
        "records": saving.records,
        "files": saving.files,
        "file_bytes": saving.bytes,
        "images_missing": saving.images_missing,
        "kernels_missing": saving.kernels_missing,
        "sealing_key": format!(
            "not in the backup: keep {} apart; without it no secret of the backup can be opened",
            source.dir.join("sealing.key").display()
        ),
    });
    saving.out.finish(revision)?.into_inner()?;
    settle(target)?;
    lines
        .publish(&target.join(LINES), 0o600)
        .with_context(doing)?;
    Ok(answer)
}

impl Saving<'_> {
    /// Writes the records; returns their revision and what they name.
    fn records(&mut self, records: &dyn Frozen) -> anyhow::Result<(u64, Named)> {
        let mut named = Named::default();
        let mut failure = None;
        let mut one = |revision, change: &cumulet_store::Change| -> anyhow::Result<()> {
            let Some(value) = &change.value else {
                return Ok(());
            };
            if change.kind == IMAGE {
                let image = Image::read(value)?;
                if let Preparation::Ready { digest, .. } = image.preparation {
                    named.images.push((image.id, digest));
                }
            }
            if change.kind == KERNEL {
                named.kernels.push(change.key.to_string());
            }
            let line = Record::new(change.kind.name(), &change.key, Some(revision), value)?;
            self.records += 1;
            self.out.line(&line)
        };
        let read = records.read(&mut |revision, change| {
            one(revision, &change).map_err(|cause| {
                failure = Some(cause);
                StoreError::Closed
            })
        });
        match failure {
            Some(cause) => Err(cause),
            None => Ok((read?, named)),
        }
    }

    fn objects(&mut self) -> anyhow::Result<()> {
        let export = self.source.objects.export_blocking()?;
        let bodies = export.rows(|row| -> anyhow::Result<()> {
            self.records += 1;
            self.out
                .line(&Record::new(&row.kind, &row.key, None, &row.value)?)
        })?;
        for body in bodies {
            let from = export
                .open_body(body)
                .with_context(|| format!("the body {body} of an object cannot be read"))?;
            self.copy(&format!("objects/{body}"), from)?;
        }
        Ok(())
    }

    fn images(&mut self, mut images: Vec<(ImageId, Digest)>) -> anyhow::Result<()> {
        // Several images may have the same bytes.
        images.sort_by_key(|(_, digest)| digest.to_string());
        let mut last = None;
        for (id, digest) in images {
            if last == Some(digest) {
                continue;
            }
            match File::open(self.source.dir.join("images").join(digest.to_string())) {
                Ok(from) => {
                    self.copy(&format!("images/{digest}"), from)?;
                    last = Some(digest);
                }
                // Deregistered meanwhile, or lost before: the records say what they say.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    if !self.is_simulated {
                        self.images_missing.push(id);
                    }
                }
                Err(cause) => return Err(cause).context("an image cannot be read"),
            }
        }
        Ok(())
    }

    /// Kernels whose two files are both there; what was lost before must not keep the rest from
    /// being saved.
    fn kernels(&mut self, kernels: Vec<String>) -> anyhow::Result<()> {
        for id in kernels {
            let mut files = vec![];
            for file in ["vmlinuz", "ramdisk"] {
                let name = format!("kernels/{id}/{file}");
                let path = self.source.dir.join(&name);
                match File::open(&path) {
                    Ok(from) => files.push((name, from)),
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                    Err(cause) => {
                        return Err(cause)
                            .with_context(|| format!("{} cannot be read", path.display()));
                    }
                }
            }
            if files.len() < 2 {
                self.kernels_missing.push(id);
                continue;
            }
            for (name, from) in files {
                self.copy(&name, from)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, name: &str, mut from: File) -> anyhow::Result<()> {
        let copied = copy(&mut from, &self.target.join(name), 0o600)?;
        self.files += 1;
        self.bytes += copied.bytes;
        self.out.line(&FileLine {
            file: name.to_owned(),
            bytes: copied.bytes,
            sha256: copied.sha256,
        })
    }
}
