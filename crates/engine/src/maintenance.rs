//! Forgetting what has been shown long enough, and telling of orphans.

use std::collections::BTreeSet;

use cumulet_domain::images::{Image, ImageState, Preparation};
use cumulet_domain::instances::Reservation;
use cumulet_domain::{Digest, Error, ImageId, InstanceId};
use cumulet_store::{Change, Plan};

use crate::Engine;
use crate::records::{Stored, USER_DATA};
use crate::state::State;

/// Records forgotten in one commit.
const FORGET_MAX: usize = 30;

impl Engine {
    /// One round: forget terminated instances and deregistered images, delete files nobody needs.
    pub(crate) async fn maintain(&self) {
        if let Err(error) = self.forget_instances().await {
            tracing::warn!(%error, log = error.log(), "could not forget terminated instances");
        }
        if let Err(error) = self.forget_images().await {
            tracing::warn!(%error, log = error.log(), "could not forget deregistered images");
        }
    }

    async fn forget_instances(&self) -> Result<(), Error> {
        let now = self.environment().now();
        let visible_ms = self.config().terminated_visible_ms;
        let state = self.snapshot();
        let old: Vec<InstanceId> = state
            .instances
            .values()
            .filter(|instance| instance.is_forgettable(now, visible_ms))
            .map(|instance| instance.id)
            .take(FORGET_MAX)
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        for id in &old {
            self.host()
                .vms
                .forget_console(*id)
                .await
                .map_err(Error::internal)?;
        }
        self.commit(move |state| {
            Ok(Plan {
                changes: plan_forget(state, &old),
                answer: (),
            })
        })
        .await
    }

    /// A deregistered image goes when it has been shown long enough and no instance needs it; the
    /// stored bytes go with the last image that has them.
    async fn forget_images(&self) -> Result<(), Error> {
        let now = self.environment().now();
        let visible_ms = self.config().terminated_visible_ms;
        let state = self.snapshot();
        let used: BTreeSet<ImageId> = state
            .live_instances
            .iter()
            .filter_map(|id| state.instances.get(id))
            .map(|instance| instance.image)
            .collect();
        let is_old = |image: &Image| match image.state {
            ImageState::Available => false,
            ImageState::Deregistered { at } => {
                now.millis_since(at) >= visible_ms && !used.contains(&image.id)
            }
        };
        let old: Vec<_> = state
            .images
            .values()
            .filter(|image| is_old(image))
            .take(FORGET_MAX)
            .cloned()
            .collect();
        for image in old {
            if let Preparation::Ready { digest, .. } = image.preparation
                && !is_shared(&state, image.id, digest)
            {
                self.host()
                    .disks
                    .ensure_image_absent(digest)
                    .await
                    .map_err(Error::internal)?;
            }
            self.commit(move |state| {
                let mut changes = vec![image.delete()];
                changes.extend(
                    state
                        .bundle_sources
                        .get(&image.id)
                        .map(|source| source.delete()),
                );
                Ok(Plan {
                    changes,
                    answer: (),
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Things on the host that carry our names and have no record.  They are told, never removed:
    /// losing a record must not kill a guest.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn orphans(&self) -> Result<Vec<String>, Error> {
        let host = self.host();
        let vms = host.vms.vms().await.map_err(Error::internal)?;
        let ports = host.network.ports().await.map_err(Error::internal)?;
        let disks = host.disks.disks().await.map_err(Error::internal)?;
        let state = self.snapshot();
        let is_orphan = |id: &&InstanceId| !state.live_instances.contains(*id);
        let name = |what: &'static str| move |id: &InstanceId| format!("{what} of {id}");
        let mut orphans: Vec<String> = vms
            .iter()
            .filter(is_orphan)
            .map(name("virtual machine"))
            .collect();
        orphans.extend(ports.iter().filter(is_orphan).map(name("port")));
        orphans.extend(disks.iter().filter(is_orphan).map(name("disk")));
        Ok(orphans)
    }
}

fn is_shared(state: &State, image: ImageId, digest: Digest) -> bool {
    state.images.values().any(|other| {
        other.id != image
            && matches!(other.preparation, Preparation::Ready { digest: theirs, .. } if theirs == digest)
    })
}

fn plan_forget(state: &State, ids: &[InstanceId]) -> Vec<Change> {
    let gone: BTreeSet<InstanceId> = ids.iter().copied().collect();
    let mut changes = vec![];
    let mut reservations = BTreeSet::new();
    for id in ids {
        if let Some(instance) = state.instances.get(id) {
            changes.push(instance.delete());
            reservations.insert(instance.reservation);
        }
    }
    for reservation in reservations
        .iter()
        .filter_map(|id| state.reservations.get(id))
    {
        let left: Vec<InstanceId> = reservation
            .instances
            .iter()
            .copied()
            .filter(|id| !gone.contains(id) && state.instances.contains_key(id))
            .collect();
        if left.is_empty() {
            changes.push(reservation.delete());
            if reservation.has_user_data {
                changes.push(Change::delete(USER_DATA, reservation.id.to_string()));
            }
        } else {
            changes.push(
                Reservation {
                    instances: left,
                    ..Reservation::clone(reservation)
                }
                .put(),
            );
        }
    }
    changes
}
