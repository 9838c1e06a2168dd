//! New ids, which nothing else has that the state still shows.
//!
//! A use case draws random bits before it plans, some more than it needs.
//! The planner compares each new id with the newest state, so that no two
//! requests get the same one, and takes further bits for one that is taken.
//! With 17 digits that never happens; with 8 it will.

use std::sync::Arc;

use cumulet_domain::ids::IdFormat;
use cumulet_domain::tags::TaggedId;
use cumulet_domain::{Error, ImageId, InstanceId, KeyPairId, ReservationId, SecurityGroupId};

use crate::Engine;
use crate::state::State;

/// Further draws of one request.  With a million ids of a kind in use one draw of 4,000 is taken:
/// that so many in a row are does not happen.
pub(crate) const SPARE: usize = 16;

/// Random bits that a request may make ids of.
pub(crate) struct Draws {
    format: IdFormat,
    bits: std::vec::IntoIter<u128>,
}

impl Engine {
    /// Bits for `count` ids, and [`SPARE`] draws for those that are taken.
    pub(crate) fn draw(&self, count: usize) -> Draws {
        let bits = (0..count + SPARE).map(|_| self.environment().random());
        Draws {
            format: self.config().id_format,
            bits: bits.collect::<Vec<_>>().into_iter(),
        }
    }
}

impl Draws {
    /// An id of which nobody knows yet whether it is taken.
    ///
    /// # Errors
    /// `ServiceUnavailable` when all draws are used up.
    pub(crate) fn next<I>(&mut self, mint: fn(u128, IdFormat) -> I) -> Result<I, Error> {
        let bits = self.bits.next().ok_or_else(|| Error::ServiceUnavailable {
            log: format!(
                "there is no new id: those of {SPARE} further draws are all in use; `ids.format = \"long\"` has room for more"
            ),
        })?;
        Ok(mint(bits, self.format))
    }

    /// Puts another in the place of an id that is taken.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) fn settle<I: Copy>(
        &mut self,
        id: &mut I,
        mint: fn(u128, IdFormat) -> I,
        is_taken: impl Fn(I) -> bool,
    ) -> Result<(), Error> {
        while is_taken(*id) {
            *id = self.next(mint)?;
        }
        Ok(())
    }
}

/// Whether an id is shown anywhere: what is gone may still be named by what is not.
impl State {
    /// Instances name their image longer than it is there.
    pub(crate) fn shows_image(&self, id: ImageId) -> bool {
        self.images.contains_key(&id)
            || self.bundle_sources.contains_key(&id)
            || self.tags.contains_key(&TaggedId::from(id))
            || self.instances.values().any(|it| it.image == id)
    }

    /// Hours that were used of a product are kept longer than the instance, and than the product.
    pub(crate) fn shows_instance(&self, id: InstanceId) -> bool {
        self.instances.contains_key(&id)
            || self.tags.contains_key(&TaggedId::from(id))
            || self.has_usage_by(id)
    }

    fn has_usage_by(&self, id: InstanceId) -> bool {
        let least = InstanceId::from_random(0);
        let mut from = (Arc::<str>::from(""), least);
        // From code to code, of which there are few; instances there may be many.
        while let Some(((code, _), _)) = self.product_usage.range(from..).next() {
            if self.product_usage.contains_key(&(code.clone(), id)) {
                return true;
            }
            from = (format!("{code}\0").into(), least);
        }
        false
    }

    pub(crate) fn shows_reservation(&self, id: ReservationId) -> bool {
        self.reservations.contains_key(&id)
            || self.user_data.contains_key(&id)
            || self.launch_tags.contains_key(&id)
    }

    pub(crate) fn shows_key_pair(&self, id: KeyPairId) -> bool {
        self.key_pair_names.contains_key(&id) || self.tags.contains_key(&TaggedId::from(id))
    }

    /// Launches name their groups, and rules of other accounts their sources, longer than these are
    /// there; a new group must not be let in by an old rule.
    pub(crate) fn shows_security_group(&self, id: SecurityGroupId) -> bool {
        self.security_groups.contains_key(&id)
            || self.tags.contains_key(&TaggedId::from(id))
            || self.has_launches_in(id)
            || self.security_groups.values().any(|it| it.names(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cumulet_domain::AccountId;
    use cumulet_domain::products::Usage;
    use cumulet_domain::security_groups::SecurityGroup;

    #[test]
    fn what_used_a_product_is_shown_by_its_hours_alone() {
        let mut state = State::default();
        let ids = [1, 2, 3].map(|number| InstanceId::mint(number, IdFormat::Short));
        for (code, id) in [("A", ids[0]), ("A", ids[2]), ("B", ids[1]), ("C", ids[2])] {
            let usage = Usage {
                code: code.into(),
                instance: id,
                seller: AccountId::from_random(1),
                account: AccountId::from_random(2),
                launched: cumulet_domain::Timestamp(0),
                next_hour: 1,
                hours: vec![],
            };
            let key = (Arc::from(code), id);
            state.product_usage.insert(key, Arc::new(usage));
        }
        assert!(ids.iter().all(|id| state.shows_instance(*id)));
        for other in [
            InstanceId::from_random(1),
            InstanceId::mint(4, IdFormat::Short),
        ] {
            assert!(!state.shows_instance(other), "{other}");
        }
    }

    #[test]
    fn a_group_is_shown_by_a_rule_that_names_it() {
        let mut state = State::default();
        let owner = AccountId::from_random(1);
        let named = SecurityGroupId::of(owner);
        let other = SecurityGroupId::mint(1, IdFormat::Short);
        let group = SecurityGroup {
            id: other,
            ..SecurityGroup::default_of(owner)
        };
        assert!(!state.shows_security_group(named) && !state.shows_security_group(other));
        state.security_groups.insert(other, Arc::new(group));
        assert!(state.shows_security_group(named) && state.shows_security_group(other));
    }
}
