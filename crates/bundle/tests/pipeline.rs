//! Both directions of the byte pipeline, with `tar`, `gzip` and `openssl` as the other side.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use cumulet_bundle::bundle::{Bundled, Directory, Form, Options, PART_BYTES, bundle};
use cumulet_bundle::unbundle::{
    Expected, ImageSink, PartSource, PartsReader, UnbundleError, unbundle,
};
use proptest::prelude::*;

const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"fedcba9876543210";

/// Collects an image, and how much of it came as holes.
#[derive(Default)]
struct Memory {
    image: Vec<u8>,
    holes: u64,
}

impl ImageSink for Memory {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.image.extend_from_slice(bytes);
        Ok(())
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        self.image
            .resize(self.image.len() + usize::try_from(length).unwrap(), 0);
        self.holes += length;
        Ok(())
    }
}

fn shell(directory: &Path, command: &str) -> Vec<u8> {
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    output.stdout
}

/// Bytes that compress badly.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A sparse file: noise at each of the places, holes elsewhere.
fn write_sparse(path: &Path, size: u64, noisy: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, length) in noisy {
        file.write_all_at(&noise(*length, *offset), *offset)
            .unwrap();
    }
}

fn make(directory: &Path, form: Form) -> Bundled {
    let image = File::open(directory.join("image")).unwrap();
    let options = Options {
        prefix: "image",
        form,
        key: &KEY,
        iv: &IV,
        threads: 3,
        level: 1,
    };
    bundle(&image, &options, &mut Directory::new(directory)).unwrap()
}

fn sources(directory: &Path, bundled: &Bundled) -> Vec<PartSource> {
    let parts = bundled.parts.iter().map(|part| {
        let path = directory.join(&part.filename);
        PartSource {
            open: Box::new(move || Ok(Box::new(File::open(path)?))),
            sha1: part.sha1,
        }
    });
    parts.collect()
}

fn expected(sha1: [u8; 20], size: usize) -> Expected {
    Expected {
        key: KEY,
        iv: IV,
        sha1,
        size: size as u64,
    }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes)
        .as_ref()
        .try_into()
        .unwrap()
}

/// Compresses and encrypts with other programs, and takes the image out with ours.
fn unbundle_stream(stream: &[u8], size: usize) -> Result<Memory, UnbundleError> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("stream"), stream).unwrap();
    let command = format!(
        "gzip -9 < stream | openssl enc -e -aes-128-cbc -K {} -iv {}",
        hex::encode(KEY),
        hex::encode(IV)
    );
    let encrypted = shell(directory.path(), &command);
    let mut memory = Memory::default();
    let length = unbundle(&encrypted[..], &expected(sha1(stream), size), &mut memory)?;
    assert_eq!(length, memory.image.len() as u64);
    Ok(memory)
}

fn refusal(result: Result<Memory, UnbundleError>) -> String {
    match result {
        Err(UnbundleError::Refused(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn what_is_bundled_is_unbundled() {
    for form in [Form::Tar, Form::Raw] {
        let directory = tempfile::tempdir().unwrap();
        let noisy = [(0, 5000), (3 << 20, 11 << 20), ((25 << 20) - 700, 700)];
        write_sparse(&directory.path().join("image"), 25 << 20, &noisy);
        let bundled = make(directory.path(), form);
        assert_eq!(bundled.parts.len(), 2);
        let first = fs::metadata(directory.path().join("image.part.00")).unwrap();
        assert_eq!(first.len(), PART_BYTES as u64);
        assert_eq!(bundled.size, 25 << 20);
        let mut memory = Memory::default();
        let reader = PartsReader::new(sources(directory.path(), &bundled));
        unbundle(reader, &expected(bundled.digest, 25 << 20), &mut memory).unwrap();
        assert_eq!(
            memory.image,
            fs::read(directory.path().join("image")).unwrap()
        );
    }
}

#[test]
fn other_programs_read_our_bundle() {
    let directory = tempfile::tempdir().unwrap();
    write_sparse(
        &directory.path().join("image"),
        12_345_678,
        &[(4096, 2_000_000)],
    );
    let bundled = make(directory.path(), Form::Tar);
    let decrypt = format!(
        "cat image.part.* | openssl enc -d -aes-128-cbc -K {} -iv {} | gunzip",
        hex::encode(KEY),
        hex::encode(IV)
    );
    let stream = shell(directory.path(), &decrypt);
    assert_eq!(sha1(&stream), bundled.digest);
    let list = shell(
        directory.path(),
        &format!("{decrypt} | tar tv --numeric-owner"),
    );
    let list = String::from_utf8(list).unwrap();
    assert!(
        list.starts_with("-rw------- 0/0") && list.trim_end().ends_with(" image"),
        "{list}"
    );
    shell(
        directory.path(),
        &format!("{decrypt} | tar xO | cmp - image"),
    );
    let sizes = shell(directory.path(), "cat image.part.* | wc -c");
    assert_eq!(
        String::from_utf8(sizes).unwrap().trim(),
        bundled.bundled_size.to_string()
    );
    let sums = shell(directory.path(), "sha1sum image.part.* | cut -d' ' -f1");
    let ours: Vec<String> = bundled
        .parts
        .iter()
        .map(|part| hex::encode(part.sha1))
        .collect();
    assert_eq!(
        String::from_utf8(sums).unwrap().lines().collect::<Vec<_>>(),
        ours
    );
}

#[test]
fn archives_of_other_programs_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    // Enough runs for extended sparse headers and maps of more than a block.
    let noisy: Vec<(u64, usize)> = (0..90).map(|it| (it * 131_072, 4096)).collect();
    for (size, noisy) in [
        (90 * 131_072 + 17, &noisy[..]),
        (1 << 20, &noisy[1..2]),
        (700_001, &[(0, 700_001)][..]),
        (500_000, &[]),
    ] {
        write_sparse(&path, size, noisy);
        let image = fs::read(&path).unwrap();
        for options in [
            "--format=gnu --sparse",
            "--format=gnu",
            "--format=oldgnu --sparse",
            "--format=ustar",
            "--format=v7",
            "--format=posix",
            "--format=posix --sparse --sparse-version=0.0",
            "--format=posix --sparse --sparse-version=0.1",
            "--format=posix --sparse --sparse-version=1.0",
        ] {
            let command = format!("tar c {options} --owner=0 --group=0 ./image");
            let stream = shell(directory.path(), &command);
            if options == "--format=v7" {
                // It has no mark by which it could be known, so that it is a raw image.
                assert_eq!(
                    unbundle_stream(&stream, stream.len()).unwrap().image,
                    stream
                );
                continue;
            }
            let memory = unbundle_stream(&stream, image.len()).unwrap();
            assert!(memory.image == image, "{options}, {size}");
            if options.contains("--sparse") && noisy.len() == 90 {
                assert!(memory.holes > size / 2, "{options}: {}", memory.holes);
            }
        }
        assert_eq!(unbundle_stream(&image, image.len()).unwrap().image, image);
    }
}

#[test]
fn archives_with_anything_else_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    shell(
        path,
        "mkdir d; echo hello > image; cp image d/; ln -s /etc/passwd link; ln image hard",
    );
    for (files, why) in [
        ("image d/image", "something follows"),
        ("d/image", "directory"),
        ("--format=posix d/image", "directory"),
        ("link", "plain file"),
        ("image hard", "something follows"),
        ("d", "plain file"),
        ("-P /dev/null", "plain file"),
        ("--format=posix -V label image", ""),
    ] {
        let stream = shell(path, &format!("tar c {files} 2>/dev/null"));
        let result = unbundle_stream(&stream, 1 << 20);
        if why.is_empty() {
            assert_eq!(result.unwrap().image, b"hello\n");
        } else {
            let text = result.map_or_else(|error| error.to_string(), |_| "taken".into());
            assert!(text.contains(why), "{files}: {text}");
        }
    }
}

#[test]
fn more_than_the_declared_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_sparse(&directory.path().join("image"), 1 << 40, &[]);
    let stream = shell(directory.path(), "tar c --sparse image");
    assert!(stream.len() < 100_000);
    assert!(refusal(unbundle_stream(&stream, 1 << 30)).contains("larger than its manifest"));
    assert!(refusal(unbundle_stream(&[7; 1001], 1000)).contains("larger than its manifest"));
}

#[test]
fn a_tampered_part_is_named() {
    let directory = tempfile::tempdir().unwrap();
    write_sparse(&directory.path().join("image"), 25 << 20, &[(0, 25 << 20)]);
    let bundled = make(directory.path(), Form::Raw);
    let file = File::options()
        .write(true)
        .open(directory.path().join("image.part.01"))
        .unwrap();
    file.write_all_at(b"x", 5_000_000).unwrap();
    let read = || {
        let reader = PartsReader::new(sources(directory.path(), &bundled));
        unbundle(
            reader,
            &expected(bundled.digest, 25 << 20),
            &mut Memory::default(),
        )
    };
    let text = read().unwrap_err().to_string();
    assert!(
        text.contains("cannot be decrypted") || text.contains("Part 1"),
        "{text}"
    );
    let alone = io::copy(
        &mut PartsReader::new(sources(directory.path(), &bundled)),
        &mut io::sink(),
    );
    assert!(
        alone
            .unwrap_err()
            .to_string()
            .starts_with("Part 1 of the bundle is damaged")
    );
    fs::remove_file(directory.path().join("image.part.02")).unwrap();
    file.write_all_at(&[], 0).unwrap();
    let fresh = make(directory.path(), Form::Raw);
    fs::remove_file(directory.path().join("image.part.02")).unwrap();
    let reader = PartsReader::new(sources(directory.path(), &fresh));
    let gone = unbundle(
        reader,
        &expected(fresh.digest, 25 << 20),
        &mut Memory::default(),
    );
    assert_eq!(
        gone.unwrap_err().to_string(),
        "Part 2 of the bundle is missing"
    );
}

#[test]
fn wrong_key_digest_and_cut_streams_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_sparse(&directory.path().join("image"), 300_000, &[(0, 300_000)]);
    let bundled = make(directory.path(), Form::Tar);
    let encrypted = fs::read(directory.path().join("image.part.00")).unwrap();
    let right = expected(bundled.digest, 300_000);
    let read = |bytes: &[u8], expected: &Expected| {
        let mut memory = Memory::default();
        unbundle(bytes, expected, &mut memory).map(|_| memory)
    };
    assert!(read(&encrypted, &right).is_ok());
    refusal(read(
        &encrypted,
        &Expected {
            key: IV,
            ..right.clone()
        },
    ));
    let other = Expected {
        sha1: [0; 20],
        ..right.clone()
    };
    assert!(refusal(read(&encrypted, &other)).contains("SHA-1"));
    for length in [0, 16, 17, 1000, encrypted.len() - 16, encrypted.len() - 1] {
        refusal(read(&encrypted[..length], &right));
    }
    let twice = [&encrypted[..], &encrypted].concat();
    refusal(read(&twice, &right));
}

#[test]
fn failures_of_reading_are_not_the_bundles_fault() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }
    let result = unbundle(Broken, &expected([0; 20], 1), &mut Memory::default());
    assert!(matches!(result, Err(UnbundleError::Io(_))));
}

#[test]
fn prefixes_that_are_no_names_are_refused() {
    let image = tempfile::tempfile().unwrap();
    (&image).write_all(b"x").unwrap();
    for prefix in ["", ".", "..", "a/b", "a\nb", &"a".repeat(200)] {
        let options = Options {
            prefix,
            form: Form::Tar,
            key: &KEY,
            iv: &IV,
            threads: 1,
            level: 1,
        };
        assert!(bundle(&image, &options, &mut Directory::new("/nonexistent")).is_err());
    }
}

/// Without the work of encryption: random bytes would hardly ever get through it.
fn seal(stream: &[u8]) -> Vec<u8> {
    use aws_lc_rs::cipher::{
        AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
    };
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(stream).unwrap();
    let mut bytes = gzip.finish().unwrap();
    let key = UnboundCipherKey::new(&AES_128, &KEY).unwrap();
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
    let context = EncryptionContext::Iv128((&IV).into());
    key.less_safe_encrypt(&mut bytes, context).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Archives with bytes changed anywhere either give an image within its size or are refused.
    #[test]
    fn changed_archives_never_panic(
        which in 0..4_usize,
        changes in prop::collection::vec((0..3000_usize, any::<u8>()), 0..12),
        fix in any::<bool>(),
    ) {
        static ARCHIVES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let archives = ARCHIVES.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let runs: Vec<(u64, usize)> = (0..9).map(|it| (it * 65536, 512)).collect();
            write_sparse(&directory.path().join("image"), 9 * 65536, &runs);
            ["--format=gnu", "--format=posix --sparse-version=0.0",
             "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"]
                .iter()
                .map(|it| shell(directory.path(), &format!("tar c --sparse {it} image")))
                .collect()
        });
        let mut stream = archives[which].clone();
        for (place, byte) in changes {
            stream[place] = byte;
        }
        if fix {
            for header in [0, 1024, 2048] {
                let block = &mut stream[header..header + 512];
                if &block[257..262] == b"ustar" {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
        }
        let mut memory = Memory::default();
        let result = unbundle(&seal(&stream)[..], &expected(sha1(&stream), 1 << 20), &mut memory);
        prop_assert!(memory.image.len() <= 1 << 20);
        if let Ok(size) = result {
            prop_assert_eq!(size, memory.image.len() as u64);
        }
    }
}
