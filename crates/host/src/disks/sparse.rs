//! Copies that keep holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

/// Copies all data of `from` to `to`, moved by `offset`; holes and blocks of zeros stay holes.
/// `to` must be empty there.
pub(super) fn copy(from: &File, to: &File, offset: u64) -> io::Result<()> {
    let length = from.metadata()?.len();
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length)? {
        copy_range(from, to, start, end, offset)?;
        at = end;
    }
    Ok(())
}

/// Blocks of this size are left out when they hold only zeros.
const BLOCK: usize = 4096;
const BUFFER: usize = 256 * BLOCK;

fn copy_range(from: &File, to: &File, start: u64, end: u64, offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
        let piece = &mut buffer[..wanted];
        from.read_exact_at(piece, at)?;
        let mut place = at + offset;
        for block in piece.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, place)?;
            }
            place += block.len() as u64;
        }
        at += wanted as u64;
    }
    Ok(())
}

/// The next stretch of data at or behind `at`.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(length))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(b"first", 3).unwrap();
        from.write_all_at(b"last", 50_000_000).unwrap();
        from.write_all_at(&[0; 100_000], 10_000_000).unwrap();
        let to = tempfile::tempfile().unwrap();
        copy(&from, &to, 1_048_576).unwrap();
        let mut read = [0; 5];
        to.read_exact_at(&mut read, 1_048_576 + 3).unwrap();
        assert_eq!(&read, b"first");
        to.read_exact_at(&mut read[..4], 1_048_576 + 50_000_000)
            .unwrap();
        assert_eq!(&read[..4], b"last");
        assert!(to.metadata().unwrap().blocks() <= 64);
    }
}
