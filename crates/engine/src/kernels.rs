//! Kernels with their ramdisks: the operator's, one of them the default.

use std::sync::Arc;

use cumulet_domain::images::Kernel;
use cumulet_domain::{Error, KernelId, Resource};
use cumulet_store::{Change, Plan};

use crate::Engine;
use crate::records::Stored;

impl Engine {
    /// Records a kernel whose files lie on the host under `id` already, and makes it the default.
    ///
    /// # Errors
    /// Only those of the store.
    pub async fn add_kernel(&self, id: KernelId, version: String) -> Result<Kernel, Error> {
        let kernel = Kernel {
            id,
            version,
            created: self.environment().now(),
            is_default: true,
        };
        self.commit(move |state| {
            let mut changes: Vec<Change> = vec![];
            for other in state.kernels.values().filter(|other| other.is_default) {
                changes.push(
                    Kernel {
                        is_default: false,
                        ..Kernel::clone(other)
                    }
                    .put(),
                );
            }
            changes.push(kernel.put());
            Ok(Plan {
                changes,
                answer: kernel,
            })
        })
        .await
    }

    pub fn kernels(&self) -> Vec<Arc<Kernel>> {
        self.snapshot().kernels.values().cloned().collect()
    }

    /// # Errors
    /// `NotFound`; `IncorrectState` while a live instance boots with it.
    pub async fn delete_kernel(&self, id: KernelId) -> Result<(), Error> {
        self.commit(move |state| {
            let kernel = state
                .kernels
                .get(&id)
                .ok_or_else(|| Error::not_found(Resource::Kernel, id))?;
            let mut live = state
                .live_instances
                .iter()
                .filter_map(|live| state.instances.get(live));
            if live.any(|instance| instance.kernel == Some(id)) {
                let message = format!("The kernel {id} is used by an instance");
                return Err(Error::IncorrectState {
                    resource: Resource::Kernel,
                    message,
                });
            }
            Ok(Plan {
                changes: vec![kernel.delete()],
                answer: (),
            })
        })
        .await
    }
}
