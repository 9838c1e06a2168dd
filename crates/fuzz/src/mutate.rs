//! Making new inputs of known ones.

/// Repeatable numbers (SplitMix64).
pub(crate) struct Random(u64);

/// Numbers at the edges of what parsers store them in.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fe00,
    u64::MAX,
];

/// Mutations of one input.
const STEPS_MAX: usize = 8;

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ it >> 31
    }

    /// A number below `end`; 0 when there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn edge(&mut self) -> u64 {
        let near = self.next() % 3;
        EDGES[self.below(EDGES.len())]
            .wrapping_add(near)
            .wrapping_sub(1)
    }

    /// A part of `length` bytes, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let left = length - start;
        let most = if self.below(4) == 0 {
            left
        } else {
            left.min(16)
        };
        start..start + self.below(most + 1)
    }
}

/// A child of `parent`; `other` lends parts of itself.
pub(crate) fn mutate(
    random: &mut Random,
    parent: &[u8],
    other: &[u8],
    dictionary: &[&[u8]],
    length_max: usize,
) -> Vec<u8> {
    let mut child = parent.to_vec();
    for _ in 0..=random.below(STEPS_MAX) {
        step(random, &mut child, other, dictionary);
        child.truncate(length_max);
    }
    child
}

fn step(random: &mut Random, child: &mut Vec<u8>, other: &[u8], dictionary: &[&[u8]]) {
    let at = random.below(child.len());
    match random.below(13) {
        0 => {
            let bit = random.below(8);
            if let Some(byte) = child.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let new = random.byte();
            if let Some(byte) = child.get_mut(at) {
                *byte = new;
            }
        }
        2 => overwrite_number(random, child, at),
        3 => overwrite_decimal(random, child, at),
        4 => {
            let range = random.range(child.len());
            child.drain(range);
        }
        5 => {
            let range = random.range(child.len());
            let piece = child[range].to_vec();
            insert(child, at, &piece);
        }
        6 | 7 if !dictionary.is_empty() => {
            let token = dictionary[random.below(dictionary.len())];
            insert(child, at, token);
        }
        8 if !dictionary.is_empty() => {
            let token = dictionary[random.below(dictionary.len())];
            overwrite(child, at, token);
        }
        9 => {
            let piece = &other[random.range(other.len())];
            insert(child, at, piece);
        }
        10 => {
            // The head of one and the tail of the other.
            child.truncate(at);
            child.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        11 => child.truncate(at),
        _ => {
            let count = 1 << random.below(17);
            let byte = match random.below(3) {
                0 => random.byte(),
                _ => child.get(at).copied().unwrap_or_default(),
            };
            insert(child, at, &vec![byte; count]);
        }
    }
}

fn insert(child: &mut Vec<u8>, at: usize, piece: &[u8]) {
    child.splice(at..at, piece.iter().copied());
}

fn overwrite(child: &mut [u8], at: usize, piece: &[u8]) {
    for (to, from) in child.iter_mut().skip(at).zip(piece) {
        *to = *from;
    }
}

fn overwrite_number(random: &mut Random, child: &mut [u8], at: usize) {
    let edge = random.edge();
    let width = [1, 2, 4, 8][random.below(4)];
    if random.below(2) == 0 {
        overwrite(child, at, &edge.to_le_bytes()[..width]);
    } else {
        overwrite(child, at, &edge.to_be_bytes()[8 - width..]);
    }
}

/// Replaces the next run of digits by a number at an edge.
fn overwrite_decimal(random: &mut Random, child: &mut Vec<u8>, at: usize) {
    let Some(start) = child[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let end = child[start..]
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .map_or(child.len(), |length| start + length);
    let edge = random.edge();
    let text = match random.below(4) {
        0 => format!("-{edge}"),
        1 => format!("{edge:o}"),
        2 => format!("{edge}0"),
        _ => edge.to_string(),
    };
    child.splice(start..end, text.bytes());
}
