//! Disks: stored images, prepared bases, one overlay per instance.
//!
//! ```text
//! images/<sha256>                        raw bytes of an image, sparse, read-only
//! images/<sha256>.unrecorded             mark: no record is known to name these bytes
//! disks/<sha256>-<ephemeral>-<swap>      the 2007 disk made of it, sparse, read-only
//! overlays/<instance>                    qcow2, what the instance wrote
//! ```
//!
//! All are named by what they are, written durably and never changed but for
//! overlays, which are the user's.  An overlay has exactly one layer below it,
//! named when QEMU starts and never read from the overlay's header.  The host
//! never mounts or repairs anything in here.

mod classic;
mod overlay;
mod sparse;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cumulet_domain::{Digest, InstanceId};

use crate::api::{DiskSpec, Disks, HostError, ImageSource, Layout, Progress, Result, StoredImage};
use crate::image::{WorkerJob, WorkerProgram, run_worker};
use crate::inventory::{Inventory, inventory};
use cumulet_durable::{self as durable, Temporary};

const MIB: u64 = 1024 * 1024;
/// Suffix of the empty file that marks an image.
const UNRECORDED: &str = ".unrecorded";

/// User and group of image workers: below the instances' ids, above those that people and
/// services have.
const WORKER_ID: u32 = 0x0fff_fffe;
/// Images that are unpacked at once.
const UNPACKING_MAX: usize = 2;

/// Where the files of a data directory lie.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    data_directory: PathBuf,
    images: PathBuf,
    bases: PathBuf,
    overlays: PathBuf,
    /// Held while bytes get or lose their name and their mark, which must not be told apart.
    naming: Arc<Mutex<()>>,
}

impl Places {
    pub(crate) fn new(data_directory: &Path) -> Self {
        Self {
            data_directory: data_directory.to_owned(),
            images: data_directory.join("images"),
            bases: data_directory.join("disks"),
            overlays: data_directory.join("overlays"),
            naming: Arc::default(),
        }
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        // It guards files, which a panic does not change.
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn image(&self, image: Digest) -> PathBuf {
        self.images.join(image.to_string())
    }

    fn mark(&self, image: Digest) -> PathBuf {
        self.images.join(format!("{image}{UNRECORDED}"))
    }

    /// The one layer below an overlay.
    pub(crate) fn base_of(&self, spec: &DiskSpec) -> PathBuf {
        match spec.layout {
            Layout::Whole { .. } => self.image(spec.image),
            Layout::Classic {
                ephemeral_mib,
                swap_mib,
            } => self
                .bases
                .join(format!("{}-{ephemeral_mib}-{swap_mib}", spec.image)),
        }
    }

    pub(crate) fn overlay_of(&self, instance: InstanceId) -> PathBuf {
        self.overlays.join(instance.to_string())
    }
}

/// Disks below a data directory.
pub struct LocalDisks {
    places: Arc<Places>,
    /// One base is made at a time; they are made once per image.
    bases_turn: tokio::sync::Mutex<()>,
    unpacking: tokio::sync::Semaphore,
    worker: WorkerProgram,
    /// How many images were begun, so that each has a temporary file of its own.
    stored: AtomicU64,
}

impl LocalDisks {
    /// Opens (and creates) the directories and sweeps what a crash left half written.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(data_directory: &Path) -> Result<Self> {
        let places = Places::new(data_directory);
        for directory in [&places.images, &places.bases, &places.overlays] {
            durable::ensure_directory(directory, 0o700)
                .and_then(|()| durable::sweep(directory))
                .map_err(|cause| HostError::new("opening the directory of disks", cause))?;
        }
        Ok(Self {
            places: Arc::new(places),
            bases_turn: tokio::sync::Mutex::new(()),
            unpacking: tokio::sync::Semaphore::new(UNPACKING_MAX),
            worker: WorkerProgram::own(WORKER_ID, WORKER_ID),
            stored: AtomicU64::new(0),
        })
    }

    /// The same with another program as image worker.
    #[must_use]
    pub fn with_worker(self, worker: WorkerProgram) -> Self {
        Self { worker, ..self }
    }

    async fn blocking<T, F>(&self, doing: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Places) -> Result<T> + Send + 'static,
    {
        let places = self.places.clone();
        tokio::task::spawn_blocking(move || work(&places))
            .await
            .map_err(|cause| HostError::new(doing, cause))?
    }
}

#[async_trait]
impl Disks for LocalDisks {
    async fn store_image(
        &self,
        source: ImageSource,
        size_max_bytes: u64,
        progress: Progress,
    ) -> Result<StoredImage> {
        let _turn = self
            .unpacking
            .acquire()
            .await
            .map_err(|cause| HostError::new("storing an image", cause))?;
        let worker = self.worker.clone();
        let number = self.stored.fetch_add(1, Ordering::Relaxed);
        self.blocking("storing an image", move |places| {
            store(places, &worker, source, size_max_bytes, &progress, number)
        })
        .await
    }

    async fn has_image(&self, image: Digest) -> Result<bool> {
        self.blocking("looking for an image", move |places| {
            places
                .image(image)
                .try_exists()
                .map_err(|cause| HostError::new(format!("looking for image {image}"), cause))
        })
        .await
    }

    async fn images(&self) -> Result<Vec<Digest>> {
        self.blocking("listing images", |places| {
            Ok(names(&places.images)
                .map_err(|cause| HostError::new("listing images", cause))?
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect())
        })
        .await
    }

    async fn ensure_image_absent(&self, image: Digest) -> Result<()> {
        let _turn = self.bases_turn.lock().await;
        self.blocking("removing an image", move |places| {
            let remove = || -> io::Result<()> {
                let prefix = format!("{image}-");
                for name in names(&places.bases)? {
                    if name.starts_with(&prefix) {
                        durable::remove(&places.bases.join(name))?;
                    }
                }
                let _naming = places.naming();
                durable::remove(&places.image(image))?;
                durable::remove(&places.mark(image))
            };
            remove().map_err(|cause| HostError::new(format!("removing image {image}"), cause))
        })
        .await
    }

    async fn unrecorded_images(&self) -> Result<Vec<Digest>> {
        self.blocking("listing unrecorded images", |places| {
            let found = names(&places.images)
                .map_err(|cause| HostError::new("listing unrecorded images", cause))?;
            let marked = found
                .iter()
                .filter_map(|name| name.strip_suffix(UNRECORDED));
            Ok(marked.filter_map(|name| name.parse().ok()).collect())
        })
        .await
    }

    async fn mark_image_recorded(&self, image: Digest) -> Result<()> {
        self.blocking("marking an image", move |places| {
            let _naming = places.naming();
            durable::remove(&places.mark(image))
                .map_err(|cause| HostError::new(format!("marking image {image}"), cause))
        })
        .await
    }

    async fn ensure_disk(&self, spec: &DiskSpec) -> Result<()> {
        let overlay = self.places.overlay_of(spec.instance);
        let base = self.places.base_of(spec);
        let is_there = self
            .blocking("looking for a disk", move |_| {
                Ok(overlay.is_file() && base.is_file())
            })
            .await?;
        if is_there {
            return Ok(());
        }
        let _turn = self.bases_turn.lock().await;
        let spec = spec.clone();
        self.blocking("making a disk", move |places| make_disk(places, &spec))
            .await
    }

    async fn ensure_disk_absent(&self, instance: InstanceId) -> Result<()> {
        self.blocking("removing a disk", move |places| {
            durable::remove(&places.overlay_of(instance))
                .map_err(|cause| HostError::new(format!("removing the disk of {instance}"), cause))
        })
        .await
    }

    async fn disks(&self) -> Result<Vec<InstanceId>> {
        self.blocking("listing disks", |places| {
            Ok(names(&places.overlays)
                .map_err(|cause| HostError::new("listing disks", cause))?
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect())
        })
        .await
    }

    async fn inventory(&self) -> Result<Inventory> {
        self.blocking("listing what is there", |places| {
            inventory(&places.data_directory)
                .map_err(|cause| HostError::new("listing what is there", cause))
        })
        .await
    }
}

fn store(
    places: &Places,
    worker: &WorkerProgram,
    source: ImageSource,
    size_max_bytes: u64,
    progress: &Progress,
    number: u64,
) -> Result<StoredImage> {
    let failed = |cause| disk_error("storing an image".into(), &cause);
    let incoming =
        Temporary::create(&places.images, &format!("incoming-{number}")).map_err(failed)?;
    let job = WorkerJob {
        source,
        output: incoming.file().try_clone().map_err(failed)?,
        size_max_bytes,
    };
    let outcome = run_worker(worker, job, progress)?;
    let path = places.image(outcome.sha256);
    let _naming = places.naming();
    // The same image from another bundle: the bytes are there.
    if !path.is_file() {
        // First, so that whatever happens next the bytes are found again.
        durable::write(&places.mark(outcome.sha256), &[], 0o600).map_err(failed)?;
        incoming.publish(&path, 0o444).map_err(failed)?;
    }
    Ok(StoredImage {
        digest: outcome.sha256,
        size_bytes: outcome.size,
        kind: outcome.kind(),
    })
}

fn make_disk(places: &Places, spec: &DiskSpec) -> Result<()> {
    let instance = spec.instance;
    let failed = |cause| disk_error(format!("making the disk of {instance}"), &cause);
    let image = places.image(spec.image);
    if !image.is_file() {
        return Err(HostError::permanent(
            format!("making the disk of {instance}"),
            format!("image {} is not stored", spec.image),
            "The image is no longer available",
        ));
    }
    let base = places.base_of(spec);
    let size_bytes = match spec.layout {
        Layout::Whole { size_mib } => {
            let image_bytes = fs::metadata(&image).map_err(failed)?.len();
            image_bytes.max(size_mib.saturating_mul(MIB))
        }
        Layout::Classic {
            ephemeral_mib,
            swap_mib,
        } => {
            if !base.is_file() {
                classic::make(&image, &base, spec.image, ephemeral_mib, swap_mib)
                    .map_err(failed)?;
            }
            fs::metadata(&base).map_err(failed)?.len()
        }
    };
    let overlay = places.overlay_of(instance);
    if overlay.is_file() {
        return Ok(());
    }
    overlay::create(&overlay, size_bytes).map_err(failed)
}

/// A full disk is told to the user and may pass.
fn disk_error(doing: String, cause: &io::Error) -> HostError {
    let mut error = HostError::new(doing, cause);
    if cause.kind() == io::ErrorKind::StorageFull || cause.kind() == io::ErrorKind::QuotaExceeded {
        error.user_reason = "The host has no room for the disk".into();
    }
    error
}

/// Names of finished files in a directory.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut found = vec![];
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with(durable::TEMPORARY_PREFIX)
        {
            found.push(name);
        }
    }
    Ok(found)
}
