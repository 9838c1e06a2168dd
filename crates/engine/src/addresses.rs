//! Private addresses that a plan takes from the cloud's range.
//!
//! The range is kept in blocks, each a record; a plan copies those that it touches and hands them
//! back changed, so that an address is taken in the commit that also records who has it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use cumulet_domain::network::{AddressBlock, Ipv4Net};
use cumulet_host::api::GroundPlan;
use cumulet_store::Change;

use crate::records::Stored;
use crate::state::State;

/// Addresses taken by this plan, block by block.
pub(crate) struct AddressPool<'a> {
    state: &'a State,
    net: Ipv4Net,
    gateway: Ipv4Addr,
    touched: BTreeMap<Ipv4Addr, AddressBlock>,
    /// Blocks at the beginning of the range that have nothing left.
    full: usize,
}

impl<'a> AddressPool<'a> {
    pub(crate) fn new(state: &'a State, ground: &GroundPlan) -> Self {
        let net = Ipv4Net {
            address: ground.guest_network,
            prefix: ground.guest_prefix,
        };
        Self {
            state,
            net,
            gateway: ground.gateway,
            touched: BTreeMap::new(),
            full: 0,
        }
    }

    /// As many as there are, up to `count`.
    pub(crate) fn allocate_up_to(&mut self, count: u32) -> Vec<Ipv4Addr> {
        (0..count).map_while(|_| self.allocate()).collect()
    }

    fn allocate(&mut self) -> Option<Ipv4Addr> {
        let Self {
            state,
            net,
            gateway,
            touched,
            full,
        } = self;
        for base in net.blocks().skip(*full) {
            let stored = state.address_blocks.get(&base);
            // Most blocks of a full cloud are; they need not be copied to be searched in vain.
            if stored.is_some_and(|block| block.is_full()) {
                *full += 1;
                continue;
            }
            let block = touched.entry(base).or_insert_with(|| match stored {
                Some(stored) => AddressBlock::clone(stored),
                None => AddressBlock::new(base, *gateway),
            });
            if let Some(address) = block.allocate() {
                return Some(address);
            }
            *full += 1;
        }
        None
    }

    /// The records of the blocks from which something was taken.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let is_changed = |block: &&AddressBlock| {
            self.state
                .address_blocks
                .get(&block.base)
                .is_none_or(|stored| **stored != **block)
        };
        self.touched
            .values()
            .filter(is_changed)
            .map(Stored::put)
            .collect()
    }
}
