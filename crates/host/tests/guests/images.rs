//! Images become disks, and the proof of acceleration.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cumulet_host::api::{
    Boot, Disks, FileFormat, ImageKind, ImageSource, Layout, Result, Stop, StoredImage, Vms,
};
use cumulet_host::inventory::inventory;
use cumulet_host::vm::{Acceleration, find_qemu, probe_acceleration, prove};

use crate::support::{Cloud, Place};

const MIB: u64 = 1024 * 1024;

fn import(cloud: &Cloud, file: File, format: FileFormat) -> Result<StoredImage> {
    let source = ImageSource::File { file, format };
    let progress = Arc::new(|_| {});
    cloud
        .runtime
        .block_on(cloud.disks().store_image(source, 64 * MIB, progress))
}

/// A disk whose boot sector prints on the serial port and then rests.
fn disk_with_boot_sector(directory: &Path) -> File {
    const CODE: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x16, 0x7c, // mov si, 0x7c16: the text
        0xfc, // cld
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz rest
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp next
        0xf4, // rest: hlt
        0xeb, 0xfd, // jmp rest
    ];
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(CODE);
    let text = b"guest: the firmware found me\r\n";
    sector[CODE.len()..CODE.len() + text.len()].copy_from_slice(text);
    // One bootable Linux partition of two mebibytes, at one.
    sector[446] = 0x80;
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&4096_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(directory.join("boot.img"))
        .expect("a file");
    file.set_len(3 * MIB).expect("its length");
    file.write_all_at(&sector, 0).expect("its first sector");
    file
}

pub(crate) fn disk_boots_through_firmware(place: &Place) {
    let mut cloud = Cloud::without_disk(place, "none");
    let file = disk_with_boot_sector(cloud.data.path());
    let stored = import(&cloud, file, FileFormat::Raw).expect("the disk is imported");
    assert_eq!(stored.kind, ImageKind::Disk);
    assert_eq!(stored.size_bytes, 3 * MIB);
    cloud.spec.boot = Boot::Firmware;
    cloud.spec.disk.image = stored.digest;
    // Grown: the layer below is smaller than the disk.
    cloud.spec.disk.layout = Layout::Whole { size_mib: 100 };
    let disks = cloud.disks();
    for _ in 0..2 {
        cloud
            .runtime
            .block_on(disks.ensure_disk(&cloud.spec.disk))
            .expect("a disk");
    }
    let server = cloud.server();
    cloud.start(&server);
    cloud.await_console(&server, "guest: the firmware found me", 1);
    let id = cloud.spec.instance;
    cloud
        .runtime
        .block_on(server.ensure_stopped(id, Stop::Now))
        .expect("the guest stops");
    assert_eq!(cloud.runtime.block_on(disks.disks()).unwrap(), [id]);

    let found = inventory(cloud.data.path()).expect("the inventory is read");
    assert_eq!((found.run, found.overlays), (vec![id], vec![id]));
    assert_eq!(
        (found.images, found.consoles),
        (vec![stored.digest], vec![id])
    );
    cloud
        .runtime
        .block_on(disks.ensure_disk_absent(id))
        .expect("the disk goes");
    assert_eq!(cloud.runtime.block_on(disks.disks()).unwrap(), []);
}

pub(crate) fn stored_whole_or_not_at_all(place: &Place) {
    let cloud = Cloud::without_disk(place, "none");
    let disks = cloud.disks();
    let images = cloud.data.path().join("images");
    let rootfs = || File::open(&place.image).expect("the image");
    for _ in 0..2 {
        let stored = import(&cloud, rootfs(), FileFormat::Raw).expect("the image is stored");
        assert_eq!(stored.kind, ImageKind::Rootfs);
        let path = images.join(stored.digest.to_string());
        let facts = fs::metadata(&path).expect("its file");
        assert_eq!(facts.permissions().mode() & 0o777, 0o444);
        assert_eq!(facts.uid(), 0);
        assert!(facts.blocks() * 512 < facts.len(), "holes are kept");
        assert!(fs::read(&path).unwrap() == fs::read(&place.image).unwrap());
        assert_eq!(
            cloud.runtime.block_on(disks.images()).unwrap(),
            [stored.digest]
        );
        assert!(
            cloud
                .runtime
                .block_on(disks.has_image(stored.digest))
                .unwrap()
        );
    }
    // Marked until a record is known to name it; stored again it is marked no more.
    let unrecorded = || cloud.runtime.block_on(disks.unrecorded_images()).unwrap();
    let [marked] = unrecorded()[..] else {
        panic!("one image is unrecorded");
    };
    let recorded = disks.mark_image_recorded(marked);
    cloud.runtime.block_on(recorded).expect("the mark goes");
    import(&cloud, rootfs(), FileFormat::Raw).expect("the image is stored");
    assert_eq!(unrecorded(), []);

    let mut nonsense = tempfile::tempfile().expect("a file");
    nonsense.write_all(&[7; 70_000]).expect("its bytes");
    nonsense.rewind().expect("its start");
    let refused = import(&cloud, nonsense, FileFormat::Raw).expect_err("it is no image");
    assert!(!refused.is_retryable);
    let refused = import(&cloud, rootfs(), FileFormat::Qcow2).expect_err("it is not qcow2");
    assert!(!refused.is_retryable);
    assert_eq!(fs::read_dir(&images).unwrap().count(), 1);

    // What a crash left is swept when the server comes up.
    fs::write(images.join(".tmp-incoming-0"), b"half").expect("a file");
    let disks = cloud.disks();
    assert_eq!(fs::read_dir(&images).unwrap().count(), 1);
    let [digest] = cloud.runtime.block_on(disks.images()).unwrap()[..] else {
        panic!("one image is stored");
    };
    let mut spec = cloud.spec.disk.clone();
    spec.image = digest;
    cloud
        .runtime
        .block_on(disks.ensure_disk(&spec))
        .expect("a disk");
    cloud
        .runtime
        .block_on(disks.ensure_image_absent(digest))
        .expect("the image goes");
    import(&cloud, rootfs(), FileFormat::Raw).expect("the image is stored");
    assert_eq!(
        cloud.runtime.block_on(disks.unrecorded_images()).unwrap(),
        [digest]
    );
    cloud
        .runtime
        .block_on(disks.ensure_image_absent(digest))
        .expect("the image goes");
    assert_eq!(fs::read_dir(&images).unwrap().count(), 0, "with its mark");
    let found = inventory(cloud.data.path()).expect("the inventory is read");
    assert!(found.images.is_empty() && found.bases.is_empty());
    let refused = cloud.runtime.block_on(disks.ensure_disk(&spec));
    assert!(!refused.expect_err("its image is gone").is_retryable);
}

pub(crate) fn acceleration_is_proven(place: &Place) {
    const UID: u32 = 0x1fff_fffe;
    let qemu = find_qemu().expect("QEMU is installed");
    let emulated = ("tcg", "qemu64");
    let patient = Duration::from_secs(180);
    prove(&qemu, emulated, &place.kernel, (UID, UID), patient).expect("emulation works");
    let hasty = Duration::from_millis(1);
    let cause = prove(&qemu, emulated, &place.kernel, (UID, UID), hasty).expect_err("no time");
    assert!(cause.to_string().contains("did not come up"), "{cause}");

    let directory = tempfile::tempdir().expect("a directory");
    let device = directory.path().join("kvm");
    let probe = || probe_acceleration(&qemu, &device, &place.kernel, UID, patient);
    let reason = || match probe() {
        Acceleration::Emulated { reason } => reason,
        Acceleration::Kvm { .. } => panic!("there is no such device"),
    };
    assert!(reason().contains("there is no"));
    fs::write(&device, b"").expect("a file");
    fs::set_permissions(&device, fs::Permissions::from_mode(0o600)).expect("its mode");
    assert!(reason().contains("for root only"));
}
