//! The one member of a bundle's tar archive.
//!
//! Archives were made by GNU tar with `--sparse`, by bsdtar and by Python, so
//! that besides a plain file there are GNU's old sparse header (type `S`) and the
//! sparse maps 0.0, 0.1 and 1.0 in PAX headers.  Only a regular file without a
//! directory is taken: links, devices, directories, volumes and second members
//! are refused.  No name from an archive is ever used.

use std::io::Read;

use super::{Bounded, COPY_BYTES, Stream, UnbundleError};

pub(super) const BLOCK: usize = 512;
const BLOCK_U64: u64 = 512;
/// Largest PAX header or long name; a sparse map may be in it.
const EXTENSION_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Largest number of extension headers before the member.
const EXTENSIONS_MAX: usize = 8;
const SPARSE_ENTRIES_MAX: usize = 1_000_000;
/// Largest padding after the end of the archive.
const PADDING_BYTES_MAX: u64 = 16 * 1024 * 1024;

type Block = [u8; BLOCK];
type Result<T> = std::result::Result<T, UnbundleError>;

fn refused<T>(text: &str) -> Result<T> {
    Err(UnbundleError::refused(format!(
        "The archive in the bundle is refused: {text}"
    )))
}

/// Whether a block is the header of a tar member.
pub(super) fn is_header(block: &Block) -> bool {
    &block[257..262] == b"ustar"
}

/// Reads the archive from its first header, `first`, to the end of the stream.
pub(super) fn read_only_member<R: Read>(
    first: &Block,
    stream: &mut Stream<R>,
    image: &mut Bounded<'_>,
) -> Result<()> {
    let mut header = *first;
    let mut extension = Extension::default();
    for _ in 0..=EXTENSIONS_MAX {
        check_sum(&header)?;
        let size = number(&header[124..136])?;
        match header[156] {
            b'0' | 0 | b'7' | b'S' => {
                check_name(&header, &extension)?;
                let stored = extension.size.unwrap_or(size);
                let plan = Plan::read(&header, &extension, stored, stream)?;
                plan.copy(stream, image)?;
                skip_padding(stored, stream)?;
                return read_end(stream);
            }
            b'x' => extension.read(&read_extension(size, stream)?)?,
            b'g' => drop(read_extension(size, stream)?),
            // GNU's long name; the name itself is checked and not used.
            b'L' => {
                let name = read_extension(size, stream)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                extension.name = Some(name.to_vec());
            }
            _ => return refused("only a plain file may be in it"),
        }
        stream.fill_all(&mut header)?;
        if !is_header(&header) {
            return refused("a header is missing");
        }
    }
    refused("it has too many extension headers")
}

/// What PAX and GNU headers say of the member that follows.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    /// Name of a sparse member; the plain one is then made up by tar.
    sparse_name: Option<Vec<u8>>,
    /// Bytes stored in the archive.
    size: Option<u64>,
    /// Bytes of the file, holes included.
    real_size: Option<u64>,
    major: Option<u64>,
    /// Offsets and lengths in turn, as maps 0.0 and 0.1 list them.
    map: Option<Vec<u64>>,
}

impl Extension {
    /// Records of the form `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let record = text
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .and_then(|space| {
                    let length = decimal(&text[..space])?;
                    let length = usize::try_from(length).ok()?;
                    let (record, rest) = text.split_at_checked(length)?;
                    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
                    let equals = pair.iter().position(|byte| *byte == b'=')?;
                    Some((&pair[..equals], &pair[equals + 1..], rest))
                });
            let Some((key, value, rest)) = record else {
                return refused("a PAX header is not well formed");
            };
            text = rest;
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || match decimal(value) {
            Some(number) => Ok(number),
            None => refused("a number in a PAX header is wrong"),
        };
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.major" => self.major = Some(number()?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real_size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.map.get_or_insert_default();
                // Offsets stand at even places, lengths at odd ones.
                if map.len() % 2 != usize::from(key.ends_with(b"numbytes")) {
                    return refused("its sparse map is wrong");
                }
                push(map, number()?)?;
            }
            b"GNU.sparse.map" => {
                let map = self.map.insert(vec![]);
                if value.is_empty() {
                    return Ok(());
                }
                for text in value.split(|byte| *byte == b',') {
                    match decimal(text) {
                        Some(number) => push(map, number)?,
                        None => return refused("its sparse map is wrong"),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn push(map: &mut Vec<u64>, number: u64) -> Result<()> {
    if map.len() == 2 * SPARSE_ENTRIES_MAX {
        return refused("its sparse map is too long");
    }
    map.push(number);
    Ok(())
}

/// Where the stored bytes lie in the file.
struct Plan {
    /// Offset and length, ascending, without overlap, all within `real_size`.
    runs: Vec<(u64, u64)>,
    real_size: u64,
}

impl Plan {
    /// Reads what of the map is in the stream; `stored` is what the member takes there.
    fn read<R: Read>(
        header: &Block,
        extension: &Extension,
        stored: u64,
        stream: &mut Stream<R>,
    ) -> Result<Self> {
        if header[156] == b'S' {
            let real_size = number(&header[483..495])?;
            return Self::new(&read_old_map(header, stream)?, real_size, stored);
        }
        let is_sparse = extension.major.is_some() || extension.map.is_some();
        let Some(real_size) = extension.real_size.filter(|_| is_sparse) else {
            return Self::new(&[0, stored], stored, stored);
        };
        match (extension.major, &extension.map) {
            (None | Some(0), Some(map)) => Self::new(map, real_size, stored),
            (Some(1), None) => {
                let (map, length) = read_stored_map(stored, stream)?;
                Self::new(&map, real_size, stored - length)
            }
            _ => refused("its sparse map is of an unknown form"),
        }
    }

    fn new(map: &[u64], real_size: u64, stored: u64) -> Result<Self> {
        let (pairs, rest) = map.as_chunks::<2>();
        let mut runs = Vec::with_capacity(pairs.len());
        let (mut end, mut sum) = (0_u64, 0_u64);
        for [offset, length] in pairs {
            let next = offset
                .checked_add(*length)
                .filter(|next| *next <= real_size);
            let Some(next) = next.filter(|_| *offset >= end) else {
                return refused("its sparse map is wrong");
            };
            end = next;
            // Runs do not overlap, so that the sum is at most the size.
            sum += length;
            runs.push((*offset, *length));
        }
        if sum != stored || !rest.is_empty() {
            return refused("its sparse map is wrong");
        }
        Ok(Self { runs, real_size })
    }

    fn copy<R: Read>(&self, stream: &mut Stream<R>, image: &mut Bounded<'_>) -> Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        let mut position = 0;
        for (offset, length) in &self.runs {
            image.hole(offset - position)?;
            let mut left = *length;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
                stream.fill_all(&mut buffer[..now])?;
                image.data(&buffer[..now])?;
                left -= now as u64;
            }
            position = offset + length;
        }
        image.hole(self.real_size - position)
    }
}

/// The map of a type `S` header: four entries in it, 21 in each block that follows.
fn read_old_map<R: Read>(header: &Block, stream: &mut Stream<R>) -> Result<Vec<u64>> {
    let mut map = vec![];
    push_entries(&header[386..482], &mut map)?;
    let mut is_extended = header[482] != 0;
    while is_extended {
        let mut block = [0; BLOCK];
        stream.fill_all(&mut block)?;
        push_entries(&block[..504], &mut map)?;
        is_extended = block[504] != 0;
    }
    Ok(map)
}

fn push_entries(entries: &[u8], map: &mut Vec<u64>) -> Result<()> {
    for entry in entries.as_chunks::<24>().0 {
        if entry[0] == 0 && entry[12] == 0 {
            continue;
        }
        push(map, number(&entry[..12])?)?;
        push(map, number(&entry[12..])?)?;
    }
    Ok(())
}

/// The map 1.0: decimal lines at the beginning of the data, padded to a block.  Returns it and what
/// it took of the stored bytes.
fn read_stored_map<R: Read>(stored: u64, stream: &mut Stream<R>) -> Result<(Vec<u64>, u64)> {
    let mut numbers: Vec<u64> = vec![];
    let mut line: Vec<u8> = vec![];
    let mut length = 0;
    loop {
        length += BLOCK_U64;
        if length > stored {
            return refused("its sparse map is wrong");
        }
        let mut block = [0; BLOCK];
        stream.fill_all(&mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return refused("its sparse map is wrong");
                }
                continue;
            }
            let Some(number) = decimal(&line) else {
                return refused("its sparse map is wrong");
            };
            line.clear();
            numbers.push(number);
            let count = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
            if count > SPARSE_ENTRIES_MAX {
                return refused("its sparse map is too long");
            }
            if numbers.len() == 2 * count + 1 {
                numbers.remove(0);
                return Ok((numbers, length));
            }
        }
    }
}

fn read_extension<R: Read>(size: u64, stream: &mut Stream<R>) -> Result<Vec<u8>> {
    if size > EXTENSION_BYTES_MAX {
        return refused("a header is too long");
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    stream.fill_all(&mut bytes)?;
    skip_padding(size, stream)?;
    Ok(bytes)
}

fn skip_padding<R: Read>(size: u64, stream: &mut Stream<R>) -> Result<()> {
    let mut padding = [0; BLOCK];
    let length = usize::try_from(size.wrapping_neg() % BLOCK_U64).unwrap_or_default();
    stream.fill_all(&mut padding[..length])
}

/// After the member there are only zero blocks.
fn read_end<R: Read>(stream: &mut Stream<R>) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut total = 0;
    loop {
        let length = stream.fill(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        total += length as u64;
        if buffer[..length].iter().any(|byte| *byte != 0) || total > PADDING_BYTES_MAX {
            return refused("something follows the image");
        }
    }
}

fn check_sum(header: &Block) -> Result<()> {
    let stated = number(&header[148..156])?;
    let counted = |index: usize| {
        if (148..156).contains(&index) {
            b' '
        } else {
            header[index]
        }
    };
    let unsigned: u64 = (0..BLOCK).map(|index| u64::from(counted(index))).sum();
    // Some old programs added the bytes as signed ones.
    let high = (0..BLOCK).filter(|index| counted(*index) >= 0x80).count() as u64;
    if stated == unsigned || stated.checked_add(high * 256) == Some(unsigned) {
        return Ok(());
    }
    refused("the checksum of a header is wrong")
}

fn check_name(header: &Block, extension: &Extension) -> Result<()> {
    let short = header[..100]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let name = extension
        .sparse_name
        .as_deref()
        .or(extension.name.as_deref())
        .unwrap_or(short);
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let is_plain = !name.is_empty() && name != b".." && !name.contains(&b'/') && !name.contains(&0);
    // The `prefix` of a POSIX header is a directory too; GNU's header has other things there.
    let is_posix = &header[257..263] == b"ustar\0" && extension.name.is_none();
    if !is_plain || (is_posix && extension.sparse_name.is_none() && header[345] != 0) {
        return refused("the image must not be in a directory");
    }
    Ok(())
}

/// Octal text, or GNU's binary form when the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    let parsed = match field {
        [first, rest @ ..] if first & 0x80 != 0 => rest
            .iter()
            .try_fold(u64::from(first & 0x7f), |value, byte| {
                Some(value.checked_mul(256)? | u64::from(*byte))
            })
            // Sizes beyond this are nonsense and would only make later sums overflow.
            .filter(|value| *value < 1 << 62),
        _ => {
            let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
            text.trim_ascii()
                .iter()
                .try_fold(0_u64, |value, byte| match byte {
                    b'0'..=b'7' => Some(value.checked_mul(8)? + u64::from(byte - b'0')),
                    _ => None,
                })
        }
    };
    parsed.map_or_else(|| refused("a number in a header is wrong"), Ok)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_digits = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| is_digits)?
        .parse()
        .ok()
}
