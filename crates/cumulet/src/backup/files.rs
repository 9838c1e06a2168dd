//! Copies of files that are hashed on the way and keep their holes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context as _;
use aws_lc_rs::digest::{Context as Hash, SHA256};

/// Blocks of this size are left out when they hold only zeros.
const BLOCK: usize = 4096;
const BUFFER: usize = 256 * BLOCK;

/// What was copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    /// In hex.
    pub(super) sha256: String,
}

/// Copies to a new file, whose directory is made.  It is durable after [`settle`].
///
/// # Errors
/// Those of the file system.
pub(super) fn copy(from: &mut File, to: &Path, mode: u32) -> anyhow::Result<Copied> {
    let parent = to.parent().context("a file has a directory")?;
    let mut work = || -> io::Result<Copied> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(to)?;
        let mut hash = Hash::new(&SHA256);
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        loop {
            let count = filled(from, &mut buffer)?;
            let piece = &buffer[..count];
            hash.update(piece);
            let mut place = at;
            for block in piece.chunks(BLOCK) {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, place)?;
                }
                place += block.len() as u64;
            }
            at = place;
            if count < BUFFER {
                break;
            }
        }
        file.set_len(at)?;
        Ok(Copied {
            bytes: at,
            sha256: hex::encode(hash.finish()),
        })
    };
    work().with_context(|| format!("{} cannot be written", to.display()))
}

/// Reads until the buffer is full or the file ends.
fn filled(from: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match from.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(count)
}

/// Makes all that was written on the file system of `directory` durable, names too.
///
/// # Errors
/// Those of the file system.
pub(super) fn settle(directory: &Path) -> anyhow::Result<()> {
    let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(File::open(directory)?)?) };
    sync().with_context(|| format!("{} cannot be synced", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("from");
        let from = File::create(&path).unwrap();
        from.write_all_at(b"first", 3).unwrap();
        from.write_all_at(b"last", 20_000_000).unwrap();
        from.set_len(30_000_001).unwrap();
        let to = directory.path().join("deep/to");
        let copied = copy(&mut File::open(&path).unwrap(), &to, 0o600).unwrap();
        assert_eq!(copied.bytes, 30_000_001);
        assert!(fs::read(&path).unwrap() == fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() <= 64);
        let again = copy(
            &mut File::open(&to).unwrap(),
            &path.with_extension("2"),
            0o600,
        );
        assert_eq!(again.unwrap(), copied);
        settle(directory.path()).unwrap();
        assert!(copy(&mut from.try_clone().unwrap(), &to, 0o600).is_err());
    }
}
