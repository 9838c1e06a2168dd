//! Power lost at every sync while images, disks and kernels are made: what was acknowledged is
//! there and whole, nothing half has a name, and no overlay is without the layer below it.  Needs
//! root, since images are read by another user.
//!
//! Has its own `main`, because the program under test starts itself again as the image worker.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock};

use cumulet_domain::{Digest, InstanceId, KernelId};
use cumulet_durable::power::{Power, Unsynced};
use cumulet_host::api::{DiskSpec, Disks as _, FileFormat, ImageSource, Layout, Result};
use cumulet_host::disks::LocalDisks;
use cumulet_host::image::{WorkerProgram, worker_main};
use cumulet_host::kernel::KernelStore;

const NOBODY: u32 = 65534;
const SEED: &str = "TEST_SEED";
const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// Two of one image: they share the layer below their overlays.
static INSTANCES: LazyLock<[InstanceId; 2]> = LazyLock::new(|| [7, 8].map(InstanceId::from_random));

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("image-worker") => worker_main(),
        Some("--list") | None => {
            two_stores_of_the_same_bytes_are_one_image();
            eprintln!("test two_stores_of_the_same_bytes_are_one_image ... ok");
            power_lost_at_any_sync_leaves_whole_files();
            eprintln!("test power_lost_at_any_sync_leaves_whole_files ... ok");
            ExitCode::SUCCESS
        }
        // A filter for tests elsewhere.
        Some(_) => ExitCode::SUCCESS,
    }
}

/// What the files are made of.
struct Material {
    image: Vec<u8>,
    kernel: Vec<u8>,
    ramdisk: Vec<u8>,
}

/// What was acknowledged before the power failed.
#[derive(Debug, Default)]
struct Done {
    is_kernel_kept: bool,
    image: Option<Digest>,
    disks_made: usize,
    /// From here on they may be gone.
    disks_ending: usize,
    disks_removed: usize,
    is_image_removed: bool,
}

fn kernel() -> KernelId {
    KernelId::from_random(7)
}

fn spec(image: Digest, instance: InstanceId) -> DiskSpec {
    DiskSpec {
        instance,
        image,
        layout: Layout::Classic {
            ephemeral_mib: 64,
            swap_mib: 1,
        },
    }
}

/// An ext4 file system, something that looks like a kernel, and a ramdisk.
fn prepare(scratch: &Path) -> Material {
    let done = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "image", "2M"])
        .stdout(std::process::Stdio::null())
        .current_dir(scratch)
        .status();
    assert!(done.expect("mke2fs").success());
    let mut head = vec![0; 1024];
    head[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(scratch.join("kernel"), &head).expect("written");
    fs::write(scratch.join("ramdisk"), [5; 3000]).expect("written");
    let read = |name: &str| fs::read(scratch.join(name)).expect("read");
    Material {
        image: read("image"),
        kernel: read("kernel"),
        ramdisk: read("ramdisk"),
    }
}

fn open(root: &Path) -> Result<LocalDisks> {
    Ok(LocalDisks::open(root)?.with_worker(WorkerProgram::own(NOBODY, NOBODY)))
}

async fn work(scratch: &Path, root: &Path, done: &mut Done) -> Result<()> {
    let kernels = KernelStore::open(root)?;
    kernels.import(kernel(), &scratch.join("kernel"), &scratch.join("ramdisk"))?;
    done.is_kernel_kept = true;
    let disks = open(root)?;
    let source = ImageSource::File {
        file: File::open(scratch.join("image")).expect("opened"),
        format: FileFormat::Raw,
    };
    let stored = disks.store_image(source, IMAGE_BYTES_MAX, Arc::new(|_| {}));
    let image = stored.await?.digest;
    done.image = Some(image);
    for instance in *INSTANCES {
        disks.ensure_disk(&spec(image, instance)).await?;
        done.disks_made += 1;
    }
    for instance in *INSTANCES {
        done.disks_ending += 1;
        disks.ensure_disk_absent(instance).await?;
        done.disks_removed += 1;
    }
    disks.ensure_image_absent(image).await?;
    done.is_image_removed = true;
    Ok(())
}

/// Opens what is left, as the next start does, and compares.
async fn check(left: &Path, material: &Material, done: &Done) {
    let kernels = KernelStore::open(left).expect("kernels open");
    let kept = kernels.find(kernel());
    assert!(!done.is_kernel_kept || kept.is_some(), "the kernel is lost");
    if let Some((bytes, ramdisk)) = kept {
        assert!(fs::read(bytes).expect("read") == material.kernel);
        assert!(fs::read(ramdisk).expect("read") == material.ramdisk);
    }

    let disks = open(left).expect("disks open");
    let images = disks.images().await.expect("listed");
    for image in &images {
        let bytes = fs::read(left.join("images").join(image.to_string()));
        assert!(bytes.expect("read") == material.image, "half an image");
    }
    if let Some(image) = done.image
        && done.disks_removed < INSTANCES.len()
    {
        assert_eq!(images, [image], "the image is lost");
    }
    assert!(!done.is_image_removed || images.is_empty());

    let overlays = disks.disks().await.expect("listed");
    assert!(overlays.iter().all(|it| INSTANCES.contains(it)));
    for (place, instance) in INSTANCES.iter().enumerate() {
        let is_there = overlays.contains(instance);
        assert!(is_there || done.disks_made <= place || done.disks_ending > place);
        assert!(!is_there || done.disks_removed <= place);
    }
    if overlays.is_empty() {
        return;
    }
    let bases: Vec<_> = fs::read_dir(left.join("disks"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [base] = bases.as_slice() else {
        panic!("an overlay without its base: {bases:?}");
    };
    // The first partition is the image.
    let bytes = fs::read(base).expect("read");
    let length = material.image.len();
    assert!(
        bytes
            .windows(length)
            .step_by(512)
            .any(|it| it == material.image),
        "half a base"
    );
}

fn two_stores_of_the_same_bytes_are_one_image() {
    let runtime = runtime();
    let scratch = tempfile::tempdir().expect("a directory");
    prepare(scratch.path());
    let disks = open(&scratch.path().join("root")).expect("disks open");
    let store = || {
        let source = ImageSource::File {
            file: File::open(scratch.path().join("image")).expect("opened"),
            format: FileFormat::Raw,
        };
        disks.store_image(source, IMAGE_BYTES_MAX, Arc::new(|_| {}))
    };
    for _ in 0..10 {
        runtime.block_on(async {
            let (one, other) = tokio::join!(store(), store());
            let image = one.expect("stored").digest;
            assert_eq!(other.expect("stored too").digest, image);
            assert_eq!(disks.unrecorded_images().await.expect("listed"), [image]);
            disks.ensure_image_absent(image).await.expect("removed");
        });
    }
    let left = fs::read_dir(scratch.path().join("root/images")).expect("listed");
    assert_eq!(left.count(), 0);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn power_lost_at_any_sync_leaves_whole_files() {
    let runtime = runtime();
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_070_301);
    eprintln!("{SEED}={seed}");
    let scratch = tempfile::tempdir().expect("a directory");
    let scratch = scratch.path().canonicalize().expect("a path");
    let material = prepare(&scratch);
    let mut cut_at = 1;
    loop {
        let root = scratch.join("root");
        fs::create_dir(&root).expect("made");
        let power = Power::serve(&root, cut_at);
        let mut done = Done::default();
        let outcome = runtime.block_on(work(&scratch, &root, &mut done));
        Power::forget(&root);
        fs::remove_dir_all(&root).expect("removed");
        if !power.is_off() {
            outcome.expect("all is done");
            break;
        }
        let torn = Unsynced::Torn(seed.wrapping_add(cut_at as u64));
        for unsynced in [Unsynced::Lost, torn, Unsynced::Kept] {
            eprintln!("cut at sync {cut_at}, {unsynced:?}: {done:?}");
            let left = scratch.join("left");
            power.restore(&left, unsynced).expect("restored");
            runtime.block_on(check(&left, &material, &done));
            fs::remove_dir_all(&left).expect("removed");
        }
        cut_at += 1;
    }
    assert!(cut_at > 15, "the work has many syncs, not {cut_at}");
}
