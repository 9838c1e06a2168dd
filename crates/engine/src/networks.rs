//! What an account's network consists of: one default network, one subnet of
//! it in the only zone, and a port for each instance that is alive.
//!
//! None of it has a record.  Ids follow from the account and from the instance
//! ([`VpcId::of`], [`NetworkInterfaceId::of`]), and all accounts share one range
//! of addresses, that of the ground.  A port is the instance's own: what is
//! shown of it is what the instance's record says.

use std::sync::Arc;

use cumulet_domain::instances::{Instance, Liveness};
use cumulet_domain::network::Ipv4Net;
use cumulet_domain::{AccountId, Error, InstanceId, NetworkInterfaceId, Resource, SubnetId, VpcId};

use crate::state::State;
use crate::{Caller, Engine};

/// The default network of an account with its subnet, which is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkView {
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub range: Ipv4Net,
    /// Addresses that the next launches can get.  The range is shared: launches of other accounts
    /// take from it too.
    pub free: u64,
}

impl Engine {
    /// The caller's network.  Costs the same however many addresses and instances there are.
    pub fn describe_network(&self, caller: &Caller) -> NetworkView {
        let ground = &self.host().profile.ground;
        let range = Ipv4Net {
            address: ground.guest_network,
            prefix: ground.guest_prefix,
        };
        // An address is taken in the commit of its launch and given back in the one that removes
        // the instance: those of live instances are all that are taken.
        let taken = self.snapshot().instance_by_address.len();
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        NetworkView {
            vpc: VpcId::of(caller.account),
            subnet: SubnetId::of(caller.account),
            range,
            free: range.usable(ground.gateway).saturating_sub(taken),
        }
    }

    /// The instances that have the named ports, each once and in the order of the ports' ids.
    ///
    /// # Errors
    /// `NotFound` naming all that do not exist or are not the caller's.
    pub fn describe_ports(
        &self,
        caller: &Caller,
        ids: &[NetworkInterfaceId],
    ) -> Result<Vec<Arc<Instance>>, Error> {
        let owners: Vec<_> = ids
            .iter()
            .map(|id| (InstanceId::of_parts(id.parts()), id.to_string()))
            .collect();
        self.snapshot()
            .live_with(caller.account, owners, Resource::NetworkInterface)
    }

    /// The caller's live instances, each with what belongs to it, in the order of their ids and from
    /// after `after` on.
    pub fn live_instances(
        &self,
        caller: &Caller,
        after: Option<InstanceId>,
    ) -> impl Iterator<Item = Arc<Instance>> {
        let state = self.snapshot();
        let mut at = after;
        let account = caller.account;
        std::iter::from_fn(move || {
            let found = state.next_live(account, at)?;
            at = Some(found.id);
            Some(found)
        })
    }
}

impl State {
    /// The account's live instance with the least id beyond `after`.
    fn next_live(&self, owner: AccountId, after: Option<InstanceId>) -> Option<Arc<Instance>> {
        let least = (owner, after.unwrap_or(InstanceId::from_random(0)));
        let mut ids = self
            .live_by_owner
            .range(least..)
            .take_while(|(account, _)| *account == owner)
            .filter(|(_, id)| after.is_none_or(|after| after < *id));
        let (_, id) = ids.next()?;
        self.instances.get(id).cloned()
    }

    /// The live instances of an account to which something of these names belongs.
    ///
    /// # Errors
    /// `NotFound` naming all whose instance is gone or another's.
    pub(crate) fn live_with(
        &self,
        owner: AccountId,
        mut wanted: Vec<(InstanceId, String)>,
        resource: Resource,
    ) -> Result<Vec<Arc<Instance>>, Error> {
        let is_there = |id: &InstanceId| {
            let instance = self.instances.get(id);
            instance.is_some_and(|it| it.owner == owner && it.liveness() == Liveness::Alive)
        };
        let missing = wanted.iter().filter(|(id, _)| !is_there(id));
        let missing: Vec<String> = missing.map(|(_, name)| name.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::not_found_all(resource, missing));
        }
        wanted.sort();
        wanted.dedup();
        let found = wanted.iter().filter_map(|(id, _)| self.instances.get(id));
        Ok(found.cloned().collect())
    }
}
