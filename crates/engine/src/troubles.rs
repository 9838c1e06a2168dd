//! What ails instances that run, as their host said last.
//!
//! Kept in memory alone, unlike everything else that users see: the commonest
//! trouble is a full disk, on which no record could be written, and a server
//! that starts asks the host anew.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cumulet_domain::InstanceId;
use cumulet_domain::instances::{Instance, StateReason};

use crate::Engine;

/// Running instances that have one; few, if any.
#[derive(Default)]
pub(crate) struct Troubles(RwLock<Arc<BTreeMap<InstanceId, StateReason>>>);

impl Troubles {
    fn all(&self) -> Arc<BTreeMap<InstanceId, StateReason>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns whether this is news.
    pub(crate) fn set(&self, instance: InstanceId, trouble: Option<StateReason>) -> bool {
        if self.all().get(&instance) == trouble.as_ref() {
            return false;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let all = Arc::make_mut(&mut all);
        match trouble {
            Some(trouble) => all.insert(instance, trouble),
            None => all.remove(&instance),
        };
        true
    }
}

impl Engine {
    /// Troubles of running instances at this moment.
    pub fn troubles(&self) -> Arc<BTreeMap<InstanceId, StateReason>> {
        self.inner.troubles.all()
    }

    /// Why an instance is in its state, or what ails it while it runs.
    pub fn reason_of(&self, instance: &Instance) -> Option<StateReason> {
        let recorded = instance.state_reason().cloned();
        recorded.or_else(|| self.troubles().get(&instance.id).cloned())
    }
}
