//! Bundles and manifests that are small and say they are large, or are large and say they are
//! small: refused before anything of that size is written, read or held.

use std::io::{self, Read, Write};

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use cumulet_bundle::manifest::{PARTS_MAX, parse};
use cumulet_bundle::unbundle::{Expected, ImageSink, UnbundleError, unbundle};
use flate2::Compression;
use flate2::write::GzEncoder;

const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"fedcba9876543210";
const MIB: u64 = 1 << 20;

/// Counts what would reach the disk.
#[derive(Default)]
struct Counting {
    data: u64,
    holes: u64,
}

impl ImageSink for Counting {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data += bytes.len() as u64;
        Ok(())
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        self.holes += length;
        Ok(())
    }
}

/// Some bytes, many times.
struct Repeated<'a> {
    bytes: &'a [u8],
    left: u64,
}

impl Read for Repeated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.bytes.len().min(buffer.len());
        let length = length.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..length].copy_from_slice(&self.bytes[..length]);
        self.left -= length as u64;
        Ok(length)
    }
}

fn gzip(mut stream: impl Read) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    io::copy(&mut stream, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn encrypt(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = UnboundCipherKey::new(&AES_128, &KEY).unwrap();
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
    let context = EncryptionContext::Iv128((&IV).into());
    key.less_safe_encrypt(&mut bytes, context).unwrap();
    bytes
}

/// Unbundles what was compressed, for an image of `size` bytes.  The digest is wrong: whatever gets
/// so far was read to its end.
fn open(compressed: Vec<u8>, size: u64) -> (String, Counting) {
    let expected = Expected {
        key: KEY,
        iv: IV,
        sha1: [0; 20],
        size,
    };
    let mut sink = Counting::default();
    let result = unbundle(encrypt(compressed).as_slice(), &expected, &mut sink);
    match result {
        Err(UnbundleError::Refused(text)) => (text, sink),
        other => panic!("{other:?}"),
    }
}

/// A header of GNU tar with a right checksum.
fn header(kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..5].copy_from_slice(b"image");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    block
}

fn summed(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn a_gzip_bomb_stops_at_the_declared_size() {
    let block = [b'A'; 4096];
    let bomb = gzip(Repeated {
        bytes: &block,
        left: 256 * MIB,
    });
    assert!((bomb.len() as u64) < MIB / 2, "{}", bomb.len());
    let (text, sink) = open(bomb, MIB);
    assert!(text.contains("larger than its manifest"), "{text}");
    assert!(sink.data <= MIB);
}

#[test]
fn a_bomb_behind_the_image_or_before_it_stops_too() {
    // A good member of one block, then zeros that are no image.
    let member = [summed(header(b'0', 512)), vec![7; 512]].concat();
    let zeros = Repeated {
        bytes: &[0; 4096],
        left: 256 * MIB,
    };
    let (text, sink) = open(gzip(member.as_slice().chain(zeros)), MIB);
    assert!(text.contains("something follows the image"), "{text}");
    assert_eq!(sink.data, 512);
    // Headers that hold more than a header may.
    let (text, sink) = open(gzip(summed(header(b'x', 64 * MIB)).as_slice()), MIB);
    assert!(text.contains("a header is too long"), "{text}");
    assert_eq!(sink.data, 0);
    // Many of those that are allowed: more than the stream may have beside the image.
    let one = summed(header(b'g', 16 * MIB - 512));
    let mut stream: Box<dyn Read> = Box::new(io::empty());
    for _ in 0..8 {
        let zeros = Repeated {
            bytes: &[0; 4096],
            left: 16 * MIB - 512,
        };
        stream = Box::new(stream.chain(io::Cursor::new(one.clone())).chain(zeros));
    }
    let (text, sink) = open(gzip(stream), MIB);
    assert!(text.contains("more than its manifest says"), "{text}");
    assert_eq!(sink.data, 0);
}

#[test]
fn empty_members_of_gzip_end() {
    let mut bytes = vec![];
    let empty = gzip(io::empty());
    for _ in 0..20_000 {
        bytes.write_all(&empty).unwrap();
    }
    let (text, sink) = open(bytes, MIB);
    assert!(text.contains("digest"), "{text}");
    assert_eq!(sink.data + sink.holes, 0);
}

#[test]
fn a_sparse_bomb_writes_nothing() {
    // Type S: its four entries are empty, and its size is all holes.
    let mut block = header(b'S', 0);
    block[483..495].copy_from_slice(b"\x80\0\0\0\x0f\xff\xff\xff\xff\xff\xff\0");
    let (text, sink) = open(gzip(summed(block).as_slice()), 10 * MIB);
    assert!(text.contains("larger than its manifest"), "{text}");
    assert_eq!((sink.data, sink.holes), (0, 0));
    // A map without an end.
    let mut block = header(b'S', 0);
    block[482] = 1;
    block[483..495].copy_from_slice(format!("{:011o}\0", 1024).as_bytes());
    let mut more = vec![];
    for _ in 0..21 {
        more.extend_from_slice(format!("{:011o}\0{:011o}\0", 0, 0).as_bytes());
    }
    more.resize(512, 1);
    let map = Repeated {
        bytes: &more,
        left: 50_000 * 512,
    };
    let (text, sink) = open(gzip(summed(block).as_slice().chain(map)), 10 * MIB);
    assert!(text.contains("sparse map is too long"), "{text}");
    assert_eq!((sink.data, sink.holes), (0, 0));
}

/// Holes are no bomb: they cost the disk nothing and count as size, so that an image which is
/// nearly all hole is taken whatever its ratio.
#[test]
fn an_honest_image_of_zeros_has_any_ratio() {
    let plain = Repeated {
        bytes: &[0; 4096],
        left: 64 * MIB,
    };
    let mut all = vec![];
    let mut copy = Repeated {
        bytes: &[0; 4096],
        left: 64 * MIB,
    };
    copy.read_to_end(&mut all).unwrap();
    let compressed = gzip(plain);
    assert!(64 * MIB / compressed.len() as u64 > 900);
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, &all);
    let expected = Expected {
        key: KEY,
        iv: IV,
        sha1: sha1.as_ref().try_into().unwrap(),
        size: 64 * MIB,
    };
    let mut sink = Counting::default();
    let size = unbundle(encrypt(compressed).as_slice(), &expected, &mut sink).unwrap();
    assert_eq!(size, 64 * MIB);
}

fn refusal(manifest: &str) -> String {
    parse(manifest.as_bytes()).unwrap_err().0
}

#[test]
fn manifests_of_millions_are_refused() {
    let parts = "<part index=\"0\"/>".repeat(1_000_000);
    let text =
        format!("<manifest><image><parts count=\"1000000\">{parts}</parts></image></manifest>");
    assert_eq!(refusal(&text), format!("More than {PARTS_MAX} parts"));
    let few = "<manifest><version>3</version><image><parts count=\"18446744073709551615\"></parts></image></manifest>";
    assert!(refusal(few).contains("holds 0 parts"));
    let elements = format!("<manifest>{}</manifest>", "<a/>".repeat(1_000_000));
    assert!(refusal(&elements).contains("too many elements"));
    let deep = "<a>".repeat(1_000_000);
    assert!(refusal(&deep).contains("too many elements"));
    let long = format!(
        "<manifest><version>{}</version></manifest>",
        "3".repeat(4_000_000)
    );
    assert!(refusal(&long).contains("too long"));
    let name = format!("<{}>", "a".repeat(1_000_000));
    assert!(refusal(&name).contains("too long"));
}

#[test]
fn manifests_that_define_things_are_refused() {
    let entities = "<!DOCTYPE m [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><manifest><version>&b;</version></manifest>";
    for text in [entities.to_owned(), entities.replace("DOCTYPE", "doctype")] {
        assert!(refusal(&text).contains("DOCTYPE"), "{text}");
    }
    assert!(refusal("<manifest><version>&b;</version></manifest>").contains("not known"));
    let attributes: String = (0..50_000).map(|it| format!(" a{it}=\"\"")).collect();
    let text = format!("<manifest><image><parts{attributes}></parts></image></manifest>");
    assert!(!refusal(&text).is_empty());
}
