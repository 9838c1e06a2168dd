//! What the header parser and the qcow2 reader make of good, bad and random bytes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use cumulet_bundle::unbundle::ImageSink;
use cumulet_host::image::format::{FormatError, classify};
use cumulet_host::image::qcow2::{Qcow2, Qcow2Error};
use cumulet_host::image::sink::FileSink;
use cumulet_host::image::{Contents, FileSystem, TableKind};
use proptest::prelude::*;

fn shell(directory: &Path, command: &str) {
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

fn classify_file(directory: &Path, name: &str) -> Result<Contents, String> {
    let file = File::open(directory.join(name)).unwrap();
    let size = file.metadata().unwrap().len();
    classify(&file, size).map_err(|error| match error {
        FormatError::Refused(text) => text,
        FormatError::Io(error) => panic!("{error}"),
    })
}

fn classify_bytes(size: u64, pieces: &[(u64, &[u8])]) -> Result<Contents, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("image")).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset).unwrap();
    }
    classify_file(directory.path(), "image")
}

#[test]
fn file_systems_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("ext2", FileSystem::Ext2),
        ("ext3", FileSystem::Ext3),
        ("ext4", FileSystem::Ext4),
    ] {
        shell(directory.path(), &format!("mke2fs -q -t {name} {name} 8M"));
        assert_eq!(
            classify_file(directory.path(), name),
            Ok(Contents::Rootfs(expected))
        );
    }
    // The oldest that were made: no features at all.
    shell(directory.path(), "mke2fs -q -t ext2 -O none -r 0 old 8M");
    let old = classify_file(directory.path(), "old");
    assert_eq!(old, Ok(Contents::Rootfs(FileSystem::Ext2)));
    shell(directory.path(), "truncate -s 7M ext4");
    assert!(
        classify_file(directory.path(), "ext4")
            .unwrap_err()
            .contains("the end is missing")
    );
    let size: u64 = 64 << 20;
    let rootfs = |file_system| Ok(Contents::Rootfs(file_system));
    let xfs = [
        &b"XFSB"[..],
        &4096_u32.to_be_bytes(),
        &(size / 4096).to_be_bytes(),
    ]
    .concat();
    assert_eq!(classify_bytes(size, &[(0, &xfs)]), rootfs(FileSystem::Xfs));
    assert!(classify_bytes(size / 2, &[(0, &xfs)]).is_err());
    let btrfs: [(u64, &[u8]); 2] = [(0x1_0040, b"_BHRfS_M"), (0x1_0070, &size.to_le_bytes())];
    assert_eq!(classify_bytes(size, &btrfs), rootfs(FileSystem::Btrfs));
    let reiserfs: [(u64, &[u8]); 3] = [
        (0x1_0034, b"ReIsEr2Fs"),
        (0x1_0000, &1000_u32.to_le_bytes()),
        (0x1_002c, &4096_u16.to_le_bytes()),
    ];
    assert_eq!(
        classify_bytes(size, &reiserfs),
        rootfs(FileSystem::Reiserfs)
    );
}

/// A table with one partition of Linux.
fn mbr(flag: u8, kind: u8, start: u32, length: u32) -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[446] = flag;
    sector[450] = kind;
    sector[454..458].copy_from_slice(&start.to_le_bytes());
    sector[458..462].copy_from_slice(&length.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn an_mbr_with_sane_entries_is_a_disk() {
    let size = 4 << 20;
    let disk = Ok(Contents::Disk(TableKind::Mbr));
    assert_eq!(
        classify_bytes(size, &[(0, &mbr(0x80, 0x83, 2048, 6144))]),
        disk
    );
    for (table, why) in [
        (mbr(0x80, 0x83, 2048, 6145), "ends after the image"),
        (mbr(0x80, 0x83, u32::MAX, u32::MAX), "ends after the image"),
        (mbr(0x81, 0x83, 2048, 100), "neither"),
        (mbr(0, 0x83, 0, 100), "neither"),
        (mbr(0, 0xee, 1, 8191), "missing or damaged"),
        (mbr(0, 0, 0, 0), "neither"),
    ] {
        let text = classify_bytes(size, &[(0, &table)]).unwrap_err();
        assert!(text.contains(why), "{text}");
    }
    let mut two = mbr(0, 0x83, 2048, 2048);
    let second = mbr(0, 0x82, 4095, 10);
    two[462..478].copy_from_slice(&second[446..462]);
    assert!(
        classify_bytes(size, &[(0, &two)])
            .unwrap_err()
            .contains("overlap")
    );
}

#[test]
fn what_is_both_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    shell(directory.path(), "mke2fs -q -t ext4 image 8M");
    let file = File::options()
        .write(true)
        .open(directory.path().join("image"))
        .unwrap();
    file.write_all_at(&mbr(0, 0x83, 2048, 2048), 0).unwrap();
    assert!(
        classify_file(directory.path(), "image")
            .unwrap_err()
            .contains("both")
    );
    // A boot sector inside a file system is no partition table.
    file.write_all_at(&mbr(0x12, 0x34, 5, 6), 0).unwrap();
    let found = classify_file(directory.path(), "image");
    assert_eq!(found, Ok(Contents::Rootfs(FileSystem::Ext4)));
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Header and entries of a table with one partition, for an image of 4 MiB.
fn gpt(start: u64, end: u64, last_usable: u64) -> (Vec<u8>, Vec<u8>) {
    let mut entries = vec![0; 128 * 128];
    entries[..16].fill(7);
    entries[32..40].copy_from_slice(&start.to_le_bytes());
    entries[40..48].copy_from_slice(&end.to_le_bytes());
    let mut header = vec![0; 92];
    let pieces: [(usize, &[u8]); 9] = [
        (0, b"EFI PART"),
        (8, &[0, 0, 1, 0]),
        (12, &92_u32.to_le_bytes()),
        (24, &1_u64.to_le_bytes()),
        (40, &34_u64.to_le_bytes()),
        (48, &last_usable.to_le_bytes()),
        (72, &2_u64.to_le_bytes()),
        (80, &128_u32.to_le_bytes()),
        (84, &128_u32.to_le_bytes()),
    ];
    for (place, bytes) in pieces {
        header[place..place + bytes.len()].copy_from_slice(bytes);
    }
    header[88..92].copy_from_slice(&crc(&entries));
    let sum = crc(&header);
    header[16..20].copy_from_slice(&sum);
    (header, entries)
}

#[test]
fn a_gpt_is_believed_with_its_checksums() {
    let protective = mbr(0, 0xee, 1, 8191);
    let read = |(header, entries): (Vec<u8>, Vec<u8>), size: u64| {
        classify_bytes(size, &[(0, &protective), (512, &header), (1024, &entries)])
    };
    let size = 4 << 20;
    assert_eq!(
        read(gpt(2048, 4095, 8000), size),
        Ok(Contents::Disk(TableKind::Gpt))
    );
    assert!(
        read(gpt(2048, 4095, 8000), 3 << 20)
            .unwrap_err()
            .contains("the end is missing")
    );
    assert!(
        read(gpt(2048, 8001, 8000), size)
            .unwrap_err()
            .contains("damaged")
    );
    assert!(
        read(gpt(20, 30, 8000), size)
            .unwrap_err()
            .contains("damaged")
    );
    for place in [8, 40, 80] {
        let (mut header, entries) = gpt(2048, 4095, 8000);
        header[place] ^= 1;
        assert!(
            read((header, entries), size)
                .unwrap_err()
                .contains("damaged")
        );
    }
    let (header, mut entries) = gpt(2048, 4095, 8000);
    entries[40] ^= 1;
    assert!(
        read((header, entries), size)
            .unwrap_err()
            .contains("damaged")
    );
}

/// Counts, and refuses nothing.
#[derive(Default)]
struct Counting(u64);

impl ImageSink for Counting {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        self.0 += length;
        Ok(())
    }
}

fn read_qcow2(bytes: &[u8], size_max: u64) -> Result<u64, String> {
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(bytes).unwrap();
    let mut counting = Counting::default();
    let result = Qcow2::open(&file, size_max).and_then(|disk| {
        disk.read(&mut counting)?;
        Ok(disk.size())
    });
    match result {
        Ok(size) => {
            assert_eq!(size, counting.0);
            Ok(size)
        }
        Err(Qcow2Error::Refused(text)) => Err(text),
        Err(Qcow2Error::Io(error)) => panic!("{error}"),
    }
}

fn qcow2(options: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let command = format!(
        "head -c 300000 /dev/zero | tr '\\0' 'x' > image; truncate -s 4M image; \
         qemu-img convert -f raw -O qcow2 {options} image disk"
    );
    shell(directory.path(), &command);
    std::fs::read(directory.path().join("disk")).unwrap()
}

fn be64(bytes: &[u8], place: usize) -> u64 {
    u64::from_be_bytes(bytes[place..place + 8].try_into().unwrap())
}

#[test]
fn one_cluster_stands_for_one_place() {
    for options in ["", "-c"] {
        let mut bytes = qcow2(options);
        assert_eq!(read_qcow2(&bytes, 4 << 20), Ok(4 << 20));
        let l1 = usize::try_from(be64(&bytes, 40)).unwrap();
        let l2 = usize::try_from(be64(&bytes, l1) & 0x00ff_ffff_ffff_fe00).unwrap();
        let entry = bytes[l2..l2 + 8].to_vec();
        assert_ne!(entry, [0; 8]);
        for index in 0..64 {
            bytes[l2 + 8 * index..][..8].copy_from_slice(&entry);
        }
        let result = read_qcow2(&bytes, 4 << 20);
        if options.is_empty() {
            assert!(result.unwrap_err().contains("same cluster"));
        } else {
            // Sixty-four times a hundred bytes are still fewer than the file has.
            assert_eq!(result, Ok(4 << 20));
        }
    }
}

#[test]
fn places_outside_of_the_file_are_refused() {
    let good = qcow2("");
    let l1 = usize::try_from(be64(&good, 40)).unwrap();
    let l2 = usize::try_from(be64(&good, l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    for (place, value) in [
        (40, 1 << 40),
        (40, 513),
        (l1, 1 << 63 | 1 << 40),
        (l1, 1),
        (l2, 1 << 63 | 1 << 40),
        (l2, 1 << 62 | 1 << 40),
        (l2, 1 << 60),
        (24, 0),
        (24, 4 << 30),
        (24, u64::MAX),
        (8, 4096),
        (72, 1 << 63),
    ] {
        let mut bytes = good.clone();
        bytes[place..place + 8].copy_from_slice(&u64::to_be_bytes(value));
        assert!(read_qcow2(&bytes, 1 << 40).is_err(), "{place}: {value:#x}");
    }
}

#[test]
fn the_sink_writes_holes_and_the_digest_of_all() {
    let file = tempfile::tempfile().unwrap();
    let mut seen = 0;
    let mut progress = |done| seen = done;
    let mut sink = FileSink::new(&file, &mut progress);
    let mut image = vec![];
    for (byte, length) in [
        (1, 5),
        (0, 10_000),
        (2, 300_000),
        (0, 1 << 20),
        (0, 3),
        (3, 1),
        (0, 9),
    ] {
        let piece = vec![byte; length];
        image.extend_from_slice(&piece);
        if byte == 0 {
            sink.hole(length as u64).unwrap();
        } else {
            sink.data(&piece).unwrap();
        }
    }
    let (digest, size) = sink.finish().unwrap();
    assert_eq!((size, seen), (image.len() as u64, image.len() as u64));
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &image);
    assert_eq!(digest.0, expected.as_ref());
    let mut written = vec![0; image.len()];
    file.read_exact_at(&mut written, 0).unwrap();
    assert!(written == image);
    use std::os::unix::fs::MetadataExt;
    assert!(file.metadata().unwrap().blocks() * 512 < 400_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_prefix_is_classified_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..1500),
        magic in 0..6_usize,
        size in 0..10_000_000_u64,
    ) {
        let (place, magic): (u64, &[u8]) = [
            (1080, &b"\x53\xef"[..]), (0, b"XFSB"), (510, b"\x55\xaa"),
            (512, b"EFI PART"), (0x1_0040, b"_BHRfS_M"), (0, b""),
        ][magic];
        let _ = classify_bytes(size, &[(0, &bytes), (place, magic)]);
    }

    #[test]
    fn changed_qcow2_files_never_panic(
        which in 0..3_usize,
        changes in prop::collection::vec((0..200_usize, any::<u8>()), 1..6),
        tables in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        static FILES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let files = FILES.get_or_init(|| {
            ["-o cluster_size=512", "-c -o cluster_size=4k", "-o compat=0.10,cluster_size=4k"]
                .map(qcow2)
                .to_vec()
        });
        let mut bytes = files[which].clone();
        // The size stays as it is, or there would be little else to see.
        for (place, byte) in changes.into_iter().filter(|(place, _)| *place > 32) {
            bytes[place] = byte;
        }
        for (index, byte) in tables {
            let place = 512 + index.index(bytes.len() - 512);
            bytes[place] = byte;
        }
        if let Ok(size) = read_qcow2(&bytes, 64 << 20) {
            prop_assert!(size <= 64 << 20);
        }
    }
}
