//! Users' images: manifests, bundles, disk headers, qcow2 files.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::iv::FixedLength;
use cumulet_bundle::manifest;
use cumulet_bundle::unbundle::{Expected, ImageSink, unbundle};
use cumulet_host::image::format::classify;
use cumulet_host::image::qcow2::Qcow2;
use flate2::{Compression, Crc, write::GzEncoder};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Runner, Target};
use crate::harness::shape;

pub(crate) static MANIFEST: Target = Target {
    name: "manifest",
    dictionary: &[
        b"<manifest>",
        b"</manifest>",
        b"<version>2007-10-10</version>",
        b"<version>3</version>",
        b"<image>",
        b"</image>",
        b"<parts count=\"1\">",
        b"</parts>",
        b"<part index=\"0\">",
        b"</part>",
        b"<filename>",
        b"</filename>",
        b"<digest algorithm=\"SHA1\">",
        b"<size>",
        b"</size>",
        b"<machine_configuration>",
        b"</machine_configuration>",
        b"<!DOCTYPE x [",
        b"<!ENTITY a \"b\">",
        b"]>",
        b"&a;",
        b"&lt;",
        b"&#0;",
        b"&#x10FFFF;",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"-->",
        b"<?",
        b"?>",
        b"../",
        b"/",
        b"<a>",
        b"</a>",
        b"<a/>",
        b" x=\"\"",
        b"\x01\x80",
        b"\x02\x01\0",
    ],
    length_max: 64 * 1024,
    prepare: prepare_manifest,
};

pub(crate) static UNBUNDLE: Target = Target {
    name: "unbundle",
    dictionary: &[
        b"ustar\x0000",
        b"ustar  \0",
        b"00000000000\0",
        b"77777777777\0",
        b"\x80\0\0\0\0\0\0\0\0\0\x10\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"19 GNU.sparse.size=1\n",
        b"22 GNU.sparse.major=1\n",
        b"22 GNU.sparse.minor=0\n",
        b"22 GNU.sparse.map=0,1\n",
        b"26 GNU.sparse.realsize=512\n",
        b"25 GNU.sparse.offset=512\n",
        b"25 GNU.sparse.numbytes=1\n",
        b"23 GNU.sparse.name=name\n",
        b"12 path=a/b\n",
        b"11 size=512\n",
        b"1\n0\n512\n",
        b"../x",
        b"S",
        b"x",
        b"g",
        b"L",
        b"2",
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    ],
    length_max: 64 * 1024,
    prepare: prepare_unbundle,
};

pub(crate) static DISK: Target = Target {
    name: "disk-headers",
    dictionary: &[
        b"EFI PART",
        b"\x55\xaa",
        b"\x80\0\0\0\x83\0\0\0",
        b"\xee",
        b"XFSB",
        b"_BHRfS_M",
        b"ReIsEr2Fs",
        b"JFS1",
        b"\x53\xef",
        b"QFI\xfb",
        b"\0\x02\0\0\0\x01",
        b"\0\x04\0\0\0\x01",
        b"\xbe\x01\0\0\x10\0",
    ],
    length_max: 16 * 1024,
    prepare: prepare_disk,
};

pub(crate) static QCOW2: Target = Target {
    name: "qcow2",
    dictionary: &[
        b"QFI\xfb\0\0\0\x02",
        b"QFI\xfb\0\0\0\x03",
        b"\0\0\0\x09",
        b"\0\0\0\x15",
        b"\0\0\0\0\0\0\x02\0",
        b"\0\0\0\0\0\0\x04\0",
        b"\x80\0\0\0\0\0\x04\0",
        b"\x80\0\0\0\0\0\x06\0",
        b"\x40\0\0\0\0\0\x08\0",
        b"\0\0\0\0\0\0\0\x01",
    ],
    length_max: 16 * 1024,
    prepare: prepare_qcow2,
};

/// Largest image that the targets allow.
const SIZE_MAX: u64 = 1 << 20;
const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"fedcba9876543210";
const BLOCK: usize = 512;
/// Where tables of partitions lie.
const TABLE_BYTES: usize = 16 * 1024;

/// Counts what would be written.
#[derive(Default)]
struct Counting {
    data: u64,
    holes: u64,
}

impl ImageSink for Counting {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        self.holes = self.holes.checked_add(length).expect("a sane hole");
        Ok(())
    }
}

fn prepare_manifest() -> Runner {
    let key = cumulet_auth::keys::generate_rsa().expect("a key");
    let certificate = cumulet_auth::certificates::issue("fuzz", "Cumulet", 1_790_000_000_000)
        .expect("a certificate");
    Box::new(move |input| {
        let opened = match manifest::decrypt(input, &key.pkcs8) {
            Ok(text) => manifest::parse(&text),
            Err(error) => Err(error),
        };
        match opened {
            Err(error) => shape(&error.0),
            Ok(manifest) => {
                assert!((1..=manifest::PARTS_MAX).contains(&manifest.parts.len()));
                for part in &manifest.parts {
                    let name = &part.filename;
                    assert!(!name.is_empty() && !name.contains('/') && name != "..");
                }
                let pem = certificate.certificate_pem.as_str();
                assert!(!manifest::verify(&manifest, [pem]), "believed");
                let _ = manifest.open_for_cloud(&key.pkcs8);
                shape(&format!(
                    "{:?} {:?}",
                    manifest.version, manifest.architecture
                ))
            }
        }
    })
}

/// The first byte says what the rest is: an archive (`t`; `T` with a small size), a compressed
/// stream (`g`) or the encrypted bytes themselves (anything else).
fn prepare_unbundle() -> Runner {
    Box::new(|input| {
        let (mode, rest) = input.split_first().unwrap_or((&0, &[]));
        let mut plain = rest.to_vec();
        let size = if *mode == b'T' { 1000 } else { SIZE_MAX };
        let encrypted = match mode {
            b't' | b'T' => {
                repair_checksums(&mut plain);
                let mut gzip = GzEncoder::new(vec![], Compression::fast());
                gzip.write_all(&plain).expect("memory");
                encrypt(gzip.finish().expect("memory"))
            }
            b'g' => encrypt(plain.clone()),
            _ => plain.clone(),
        };
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, &plain);
        let expected = Expected {
            key: KEY,
            iv: IV,
            sha1: sha1.as_ref().try_into().expect("20 bytes"),
            size,
        };
        let mut sink = Counting::default();
        let result = unbundle(encrypted.as_slice(), &expected, &mut sink);
        assert!(sink.data + sink.holes <= size, "more than was allowed");
        if let Ok(length) = &result {
            assert_eq!(*length, sink.data + sink.holes);
        }
        let has_holes = sink.holes > 0;
        shape(&format!(
            "{} {has_holes}",
            result.map_or_else(|error| error.to_string(), |_| "ok".into())
        ))
    })
}

fn encrypt(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = UnboundCipherKey::new(&AES_128, &KEY).expect("a key");
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).expect("a key");
    let context = EncryptionContext::Iv128(FixedLength::from(&IV));
    key.less_safe_encrypt(&mut bytes, context)
        .expect("encrypted");
    bytes
}

/// Makes the sum of every header right, so that what is behind it is looked at.
fn repair_checksums(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<BLOCK>().0 {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn memory_file() -> File {
    File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory"))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// A first byte of flags (1: checksums are made right), the disk's size in sectors, and pieces:
/// where, how long, which bytes.  So a file of a few bytes reaches every place of a disk.
fn prepare_disk() -> Runner {
    let file = memory_file();
    Box::new(move |input| {
        let (flags, rest) = input.split_first().unwrap_or((&0, &[]));
        let sectors = u64::from(le32(rest, 0).unwrap_or_default()) % (1 << 20);
        file.set_len(0).expect("memory");
        file.set_len(sectors * 512).expect("memory");
        let mut disk = vec![];
        let mut rest = rest.get(4..).unwrap_or_default();
        while let (Some(place), Some([low, high])) = (le32(rest, 0), rest.get(4..6)) {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let bytes = &rest[6..rest.len().min(6 + length)];
            rest = rest.get(6 + length..).unwrap_or_default();
            let place = usize::try_from(place).unwrap_or_default() % (1 << 17);
            disk.resize(disk.len().max(place + bytes.len()), 0);
            disk[place..place + bytes.len()].copy_from_slice(bytes);
        }
        if flags & 1 == 1 {
            disk.resize(disk.len().max(TABLE_BYTES), 0);
            repair_table(&mut disk);
        }
        file.write_all_at(&disk, 0).expect("memory");
        let size = file.metadata().expect("memory").len();
        shape(&format!("{:?}", classify(&file, size)).replace('"', ""))
    })
}

/// The two checksums of a GPT.
fn repair_table(disk: &mut [u8]) {
    let crc = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    let number = |disk: &[u8], at: usize| {
        usize::try_from(le32(disk, at).unwrap_or_default()).unwrap_or_default()
    };
    if !disk
        .get(512..)
        .is_some_and(|rest| rest.starts_with(b"EFI PART"))
        || disk.len() < 1024
    {
        return;
    }
    let (place, count, bytes) = (
        number(disk, 584) % (1 << 10),
        number(disk, 592) % (1 << 10),
        number(disk, 596) % (1 << 10),
    );
    if let Some(entries) = disk.get(place * 512..place * 512 + count * bytes) {
        let sum = crc(entries);
        disk[600..604].copy_from_slice(&sum);
    }
    let length = number(disk, 524);
    disk[528..532].fill(0);
    if let Some(header) = disk.get(512..512 + length.min(512)) {
        let sum = crc(header);
        disk[528..532].copy_from_slice(&sum);
    }
}

fn prepare_qcow2() -> Runner {
    let file = memory_file();
    Box::new(move |input| {
        file.set_len(0).expect("memory");
        file.write_all_at(input, 0).expect("memory");
        let mut sink = Counting::default();
        let result = Qcow2::open(&file, SIZE_MAX).and_then(|image| {
            image.read(&mut sink)?;
            assert_eq!(sink.data + sink.holes, image.size());
            Ok("whole")
        });
        assert!(sink.data + sink.holes <= SIZE_MAX, "more than was allowed");
        let has_data = sink.data > 0;
        shape(&format!("{result:?} {has_data}").replace('"', ""))
    })
}
