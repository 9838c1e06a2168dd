//! Private addresses that a plan takes from the cloud's range.
//!
//! The range is kept in blocks, each a record; a plan copies those that it touches and hands them
//! back changed, so that an address is taken in the commit that also records who has it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use cumulet_domain::instances::LAUNCH_COUNT_MAX;
use cumulet_domain::network::{AddressBlock, Ipv4Net};
use cumulet_domain::{Error, Resource};
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, PLAN_CHANGES_MAX};

use crate::records::Stored;
use crate::state::State;

/// Most blocks of one plan: beside them it holds the instances of a launch, and the launch itself.
const BLOCKS_MAX: usize = 15;
/// What a launch commits beside instances and blocks: what host and account have, the reservation,
/// user data and tags.
const OTHERS: usize = 5;
const _: () = assert!(LAUNCH_COUNT_MAX as usize + BLOCKS_MAX + OTHERS <= PLAN_CHANGES_MAX);

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

    /// As many as there are, up to `most`.
    ///
    /// # Errors
    /// `InsufficientCapacity` when they are fewer than `least`, saying how many a launch may have.
    pub(crate) fn allocate_between(
        &mut self,
        least: u32,
        most: u32,
    ) -> Result<Vec<Ipv4Addr>, Error> {
        let found = self.allocate_up_to(most);
        let count = found.len();
        if u32::try_from(count).is_ok_and(|count| count < least) {
            let free: usize = self.net.blocks().map(|base| self.free_of(base)).sum();
            let left = if free > count {
                format!(
                    "of the {free} that are left one launch can have {count}, as it takes them from at most {BLOCKS_MAX} blocks of 256"
                )
            } else {
                format!("{count} are left")
            };
            return Err(Error::InsufficientCapacity {
                message: format!(
                    "There are not enough free private addresses for {least} instance(s): {left}."
                ),
            });
        }
        Ok(found)
    }

    /// As many as there are, up to `count`.  Of a range in which each block has few left, those
    /// blocks are searched that have the most: a commit holds so many and no more.
    fn allocate_up_to(&mut self, count: u32) -> Vec<Ipv4Addr> {
        let found: Vec<Ipv4Addr> = (0..count).map_while(|_| self.allocate()).collect();
        let is_whole = u32::try_from(found.len()) == Ok(count);
        if is_whole || self.touched.len() < BLOCKS_MAX {
            return found;
        }
        self.touched.clear();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut found = vec![];
        for base in self.roomiest() {
            let block = block_of(self.state, &mut self.touched, base, self.gateway);
            let missing = count - found.len();
            found.extend(std::iter::from_fn(|| block.allocate()).take(missing));
        }
        found
    }

    /// The blocks with the most left, as many as a commit holds.
    fn roomiest(&self) -> Vec<Ipv4Addr> {
        let mut blocks: Vec<Ipv4Addr> = self.net.blocks().collect();
        blocks.sort_by_cached_key(|base| std::cmp::Reverse(self.free_of(*base)));
        blocks.truncate(BLOCKS_MAX);
        blocks
    }

    /// How many a block had left before this plan.
    fn free_of(&self, base: Ipv4Addr) -> usize {
        match self.state.address_blocks.get(&base) {
            Some(stored) => stored.free(),
            None => AddressBlock::new(base, self.gateway).free(),
        }
    }

    /// This one and no other.
    ///
    /// # Errors
    /// `InvalidValue` for one that is not of the range, or set aside; `AlreadyExists` when an
    /// instance has it.
    pub(crate) fn take(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        let Self {
            state,
            net,
            gateway,
            touched,
            ..
        } = self;
        let invalid = |what: String| Err(Error::invalid("PrivateIpAddress", what));
        if net.prefix > 24 || !net.contains(address) {
            return invalid(format!(
                "Address {address} does not fall within the subnet's address range {net}"
            ));
        }
        if state.instance_by_address.contains_key(&address) {
            return Err(Error::AlreadyExists {
                resource: Resource::PrivateAddress,
                id: address.to_string(),
            });
        }
        let base = AddressBlock::base_of(address);
        let block = block_of(state, touched, base, *gateway);
        if block.take(address) {
            Ok(())
        } else {
            invalid(format!(
                "Address {address} is reserved in the subnet {net} and cannot be an instance's"
            ))
        }
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
            if touched.len() >= BLOCKS_MAX && !touched.contains_key(&base) {
                return None;
            }
            let block = block_of(state, touched, base, *gateway);
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

/// The plan's own copy of a block.
fn block_of<'t>(
    state: &State,
    touched: &'t mut BTreeMap<Ipv4Addr, AddressBlock>,
    base: Ipv4Addr,
    gateway: Ipv4Addr,
) -> &'t mut AddressBlock {
    touched
        .entry(base)
        .or_insert_with(|| match state.address_blocks.get(&base) {
            Some(stored) => AddressBlock::clone(stored),
            None => AddressBlock::new(base, gateway),
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    /// A range of 64 blocks, of which each has as many left as is said, and the rest none.
    fn state(left: &[usize]) -> (State, GroundPlan) {
        let host = cumulet_host::simulated::host(1, Arc::new(|| cumulet_domain::Timestamp(0)));
        let mut ground = host.profile.ground.clone();
        ground.guest_prefix = 18;
        let net = Ipv4Net {
            address: ground.guest_network,
            prefix: ground.guest_prefix,
        };
        let mut state = State::default();
        for (index, base) in net.blocks().enumerate() {
            let mut block = AddressBlock::new(base, ground.gateway);
            let left = left.get(index).copied().unwrap_or(0);
            while block.free() > left {
                block.allocate();
            }
            state.address_blocks.insert(base, Arc::new(block));
        }
        (state, ground)
    }

    #[test]
    fn a_launch_fits_in_a_commit_however_few_each_block_has_left() {
        let mut left = vec![3; 40];
        left[20] = 9;
        left[39] = 40;
        let (state, ground) = state(&left);
        let mut pool = AddressPool::new(&state, &ground);
        let found = pool.allocate_up_to(LAUNCH_COUNT_MAX);
        // 40, 9 and 13 times 3 are 88.
        assert_eq!(found.len(), 80);
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 80);
        assert!(pool.changes().len() <= BLOCKS_MAX);
        // A small one takes the first that there are, as ever.
        let mut pool = AddressPool::new(&state, &ground);
        let found = pool.allocate_up_to(4);
        let first: BTreeSet<Ipv4Addr> = found.into_iter().map(AddressBlock::base_of).collect();
        let blocks = [Ipv4Addr::new(10, 192, 0, 0), Ipv4Addr::new(10, 192, 1, 0)];
        assert_eq!(first, BTreeSet::from(blocks));
    }

    #[test]
    fn there_is_as_much_as_fits_in_a_commit() {
        let (state, ground) = state(&[2; 40]);
        let mut pool = AddressPool::new(&state, &ground);
        assert_eq!(pool.allocate_up_to(80).len(), 30);
        assert_eq!(pool.changes().len(), BLOCKS_MAX);
    }

    #[test]
    fn a_launch_is_told_how_many_addresses_it_may_have() {
        let told = |left: &[usize], least, most| {
            let (state, ground) = state(left);
            let found = AddressPool::new(&state, &ground).allocate_between(least, most);
            match found {
                Ok(found) => found.len().to_string(),
                Err(Error::InsufficientCapacity { message }) => message,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(
            told(&[2; 40], 80, 80),
            "There are not enough free private addresses for 80 instance(s): of the 80 that are left one launch can have 30, as it takes them from at most 15 blocks of 256."
        );
        assert_eq!(told(&[2; 40], 30, 80), "30");
        assert_eq!(
            told(&[2; 3], 7, 80),
            "There are not enough free private addresses for 7 instance(s): 6 are left."
        );
        assert_eq!(
            told(&[], 1, 1),
            "There are not enough free private addresses for 1 instance(s): 0 are left."
        );
    }
}
