//! Ends the program at a named point of its work on the host, for tests of what
//! the next start makes of it.
//!
//! It cannot be on by accident: only a variable of the tests asks for it, a
//! point that is not in the list is refused, and a program that was built for
//! use refuses it at all.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;
use cumulet_domain::{Digest, InstanceId};
use cumulet_host::api::{
    Console, DiskSpec, Disks, Host, ImageSource, Progress, Result, Stop, StoredImage, VmSpec,
    VmState, Vms,
};
use cumulet_host::inventory::Inventory;

/// The variable that names the point.
const VARIABLE: &str = "CUMULET_TEST_STOP_AT";

/// A point at which the program may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The launch is committed, nothing is done on the host.
    BeforeDisk,
    /// Disk and tap are made, no keeper is started.
    BeforeStart,
    /// The guest runs, and no record says so.
    AfterStart,
    /// The guest that was to end has ended, everything else of it is there.
    AfterStop,
    /// An image's bytes have their name, and no record says so.
    AfterImage,
}

const POINTS: [(&str, Point); 5] = [
    ("before-disk", Point::BeforeDisk),
    ("before-start", Point::BeforeStart),
    ("after-start", Point::AfterStart),
    ("after-stop", Point::AfterStop),
    ("after-image", Point::AfterImage),
];

/// The host, or one that ends the program where the tests' variable says.
///
/// # Errors
/// When the variable is set and names no point, or this is no build for tests.
pub(crate) fn wrap(host: Host) -> anyhow::Result<Host> {
    let Some(name) = std::env::var_os(VARIABLE) else {
        return Ok(host);
    };
    if !cfg!(debug_assertions) {
        bail!("{VARIABLE} is set, and this program was not built for tests");
    }
    let Some((name, point)) = POINTS.iter().find(|(known, _)| name == *known) else {
        bail!("{VARIABLE} names no point: {}", name.to_string_lossy());
    };
    tracing::warn!(name, "the program will end itself, as a test asks");
    let stop = StopAt(*point);
    Ok(Host {
        vms: Arc::new(StoppingVms(host.vms, stop)),
        disks: Arc::new(StoppingDisks(host.disks, stop)),
        ..host
    })
}

#[derive(Clone, Copy)]
struct StopAt(Point);

impl StopAt {
    /// Ends the program as `kill -9` would, if this is the point.
    fn pass(self, point: Point) {
        if self.0 == point {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}

struct StoppingVms(Arc<dyn Vms>, StopAt);

#[async_trait]
impl Vms for StoppingVms {
    async fn ensure_started(&self, spec: &VmSpec, tap: OwnedFd) -> Result<()> {
        self.1.pass(Point::BeforeStart);
        self.0.ensure_started(spec, tap).await?;
        self.1.pass(Point::AfterStart);
        Ok(())
    }

    async fn observe(&self, instance: InstanceId) -> Result<VmState> {
        self.0.observe(instance).await
    }

    async fn is_out_of_room(&self, instance: InstanceId) -> Result<bool> {
        self.0.is_out_of_room(instance).await
    }

    async fn changed(&self) {
        self.0.changed().await;
    }

    async fn reboot(&self, instance: InstanceId, patience_ms: u64) -> Result<()> {
        self.0.reboot(instance, patience_ms).await
    }

    async fn ensure_stopped(&self, instance: InstanceId, how: Stop) -> Result<()> {
        self.0.ensure_stopped(instance, how).await?;
        self.1.pass(Point::AfterStop);
        Ok(())
    }

    async fn ensure_removed(&self, instance: InstanceId) -> Result<()> {
        self.0.ensure_removed(instance).await
    }

    async fn console(&self, instance: InstanceId) -> Result<Option<Console>> {
        self.0.console(instance).await
    }

    async fn forget_console(&self, instance: InstanceId) -> Result<()> {
        self.0.forget_console(instance).await
    }

    async fn vms(&self) -> Result<Vec<InstanceId>> {
        self.0.vms().await
    }
}

struct StoppingDisks(Arc<dyn Disks>, StopAt);

#[async_trait]
impl Disks for StoppingDisks {
    async fn store_image(
        &self,
        source: ImageSource,
        size_max_bytes: u64,
        progress: Progress,
    ) -> Result<StoredImage> {
        let stored = self.0.store_image(source, size_max_bytes, progress).await?;
        self.1.pass(Point::AfterImage);
        Ok(stored)
    }

    async fn has_image(&self, image: Digest) -> Result<bool> {
        self.0.has_image(image).await
    }

    async fn images(&self) -> Result<Vec<Digest>> {
        self.0.images().await
    }

    async fn ensure_image_absent(&self, image: Digest) -> Result<()> {
        self.0.ensure_image_absent(image).await
    }

    async fn unrecorded_images(&self) -> Result<Vec<Digest>> {
        self.0.unrecorded_images().await
    }

    async fn mark_image_recorded(&self, image: Digest) -> Result<()> {
        self.0.mark_image_recorded(image).await
    }

    async fn ensure_disk(&self, spec: &DiskSpec) -> Result<()> {
        self.1.pass(Point::BeforeDisk);
        self.0.ensure_disk(spec).await
    }

    async fn ensure_disk_absent(&self, instance: InstanceId) -> Result<()> {
        self.0.ensure_disk_absent(instance).await
    }

    async fn disks(&self) -> Result<Vec<InstanceId>> {
        self.0.disks().await
    }

    async fn inventory(&self) -> Result<Inventory> {
        self.0.inventory().await
    }
}
