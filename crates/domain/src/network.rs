//! Private addresses: one bitmap record per /24, so that a commit rewrites 32 bytes.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Net {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Ipv4Net {
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0);
        u32::from(address) & mask == u32::from(self.address) & mask
    }

    /// How many addresses of the range can be given out, as [`AddressBlock::new`] sets them aside.
    pub fn usable(self, gateway: Ipv4Addr) -> u64 {
        if self.prefix > 24 {
            return 0;
        }
        let blocks = 1u64 << (24 - u64::from(self.prefix));
        let last = gateway.octets()[3];
        let is_one_of_them = self.contains(gateway) && last != 0 && last != 255;
        blocks * 254 - u64::from(is_one_of_them)
    }

    /// The /24 blocks inside, each by its first address.  A range smaller than a /24 has none.
    pub fn blocks(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(self.address);
        let count = if self.prefix > 24 {
            0
        } else {
            1u32 << (24 - u32::from(self.prefix))
        };
        (0..count).map(move |index| Ipv4Addr::from(first + (index << 8)))
    }
}

/// Which addresses of one /24 are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBlock {
    pub base: Ipv4Addr,
    /// Bit `n % 64` of word `n / 64` says that `base + n` is taken.
    pub taken: [u64; 4],
    /// Where the next search begins, so that an address rests before it is given out again.
    pub next: u8,
}

impl AddressBlock {
    /// An empty block; `.0` and `.255` are never given out, nor is `gateway`.
    pub fn new(base: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let mut block = Self {
            base,
            taken: [0; 4],
            next: 1,
        };
        block.set(0, true);
        block.set(255, true);
        if base.octets()[..3] == gateway.octets()[..3] {
            block.set(gateway.octets()[3], true);
        }
        block
    }

    fn is_taken(&self, last: u8) -> bool {
        self.taken[usize::from(last / 64)] >> (last % 64) & 1 == 1
    }

    /// How many are left to be given out.
    pub fn free(&self) -> usize {
        let free = self.taken.iter().map(|word| word.count_zeros());
        usize::try_from(free.sum::<u32>()).unwrap_or(usize::MAX)
    }

    /// Whether nothing is left to be given out.
    pub fn is_full(&self) -> bool {
        self.taken.iter().all(|word| *word == u64::MAX)
    }

    fn set(&mut self, last: u8, taken: bool) {
        let bit = 1u64 << (last % 64);
        let word = &mut self.taken[usize::from(last / 64)];
        *word = if taken { *word | bit } else { *word & !bit };
    }

    /// Takes a free address, or `None` when all are taken.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let found = (0..=255u8)
            .map(|step| self.next.wrapping_add(step))
            .find(|last| !self.is_taken(*last))?;
        self.set(found, true);
        self.next = found.wrapping_add(1);
        let [a, b, c, _] = self.base.octets();
        Some(Ipv4Addr::new(a, b, c, found))
    }

    /// Takes this address; false if it is taken already, set aside or of another block.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let [.., last] = address.octets();
        let is_free = Self::base_of(address) == self.base && !self.is_taken(last);
        if is_free {
            self.set(last, true);
        }
        is_free
    }

    /// Gives `address` back; giving back twice changes nothing.
    pub fn release(&mut self, address: Ipv4Addr) {
        let last = address.octets()[3];
        if address.octets()[..3] == self.base.octets()[..3] && last != 0 && last != 255 {
            self.set(last, false);
        }
    }

    pub fn key(base: Ipv4Addr) -> String {
        base.to_string()
    }

    /// The block that `address` lies in.
    pub fn base_of(address: Ipv4Addr) -> Ipv4Addr {
        let [a, b, c, _] = address.octets();
        Ipv4Addr::new(a, b, c, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_out_each_address_once() {
        let gateway = Ipv4Addr::new(10, 9, 0, 1);
        let mut block = AddressBlock::new(Ipv4Addr::new(10, 9, 0, 0), gateway);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(address) = block.allocate() {
            assert!(seen.insert(address));
        }
        assert_eq!(seen.len(), 253);
        assert!(!seen.contains(&gateway));
        block.release(Ipv4Addr::new(10, 9, 0, 7));
        assert_eq!(block.allocate(), Some(Ipv4Addr::new(10, 9, 0, 7)));
        assert_eq!(block.allocate(), None);
        assert!(block.is_full());
    }

    #[test]
    fn a_released_address_rests() {
        let mut block = AddressBlock::new(Ipv4Addr::new(10, 9, 3, 0), Ipv4Addr::new(10, 9, 0, 1));
        let first = block.allocate().unwrap();
        block.release(first);
        assert_ne!(block.allocate().unwrap(), first);
    }

    #[test]
    fn an_address_that_is_asked_for_is_taken_once() {
        let gateway = Ipv4Addr::new(10, 9, 0, 1);
        let mut block = AddressBlock::new(Ipv4Addr::new(10, 9, 0, 0), gateway);
        let wanted = Ipv4Addr::new(10, 9, 0, 9);
        assert!(block.take(wanted) && !block.take(wanted));
        for other in [[10, 9, 0, 0], [10, 9, 0, 1], [10, 9, 0, 255], [10, 9, 1, 9]] {
            assert!(!block.take(Ipv4Addr::from(other)), "{other:?}");
        }
        let given_out: Vec<Ipv4Addr> = std::iter::from_fn(|| block.allocate()).collect();
        assert_eq!(given_out.len(), 252);
        assert!(!given_out.contains(&wanted));
        block.release(wanted);
        assert!(block.take(wanted));
    }

    #[test]
    fn what_is_usable_is_what_its_blocks_give_out() {
        let gateway = Ipv4Addr::new(10, 9, 0, 1);
        for prefix in [22, 24, 25] {
            let net = Ipv4Net {
                address: Ipv4Addr::new(10, 9, 0, 0),
                prefix,
            };
            let mut given_out = 0;
            for base in net.blocks() {
                let mut block = AddressBlock::new(base, gateway);
                given_out += std::iter::from_fn(|| block.allocate()).count();
            }
            assert_eq!(net.usable(gateway), given_out as u64, "/{prefix}");
        }
    }

    #[test]
    fn a_range_knows_its_blocks() {
        let net = Ipv4Net {
            address: Ipv4Addr::new(10, 9, 0, 0),
            prefix: 22,
        };
        assert_eq!(net.blocks().last(), Some(Ipv4Addr::new(10, 9, 3, 0)));
        assert!(
            net.contains(Ipv4Addr::new(10, 9, 3, 9)) && !net.contains(Ipv4Addr::new(10, 9, 4, 0))
        );
    }
}
