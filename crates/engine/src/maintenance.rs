//! Forgetting what has been shown long enough, and telling of orphans.

use std::collections::BTreeSet;

use cumulet_domain::instances::Reservation;
use cumulet_domain::tags::TaggedId;
use cumulet_domain::{Digest, Error, InstanceId};
use cumulet_store::{Change, Plan};

use crate::Engine;
use crate::image_bytes::digest_of;
use crate::records::Stored;
use crate::records::USER_DATA;
use crate::state::State;
use crate::tags;

/// Instances forgotten in one round.
const FORGET_MAX: usize = 30;
/// Instances forgotten in one commit: each may have six other records, of which three hold tags.
const SLICE: usize = 14;

impl Engine {
    /// One round: forget terminated instances and deregistered images, delete files nobody needs.
    /// What fails is tried again in the next round.
    pub(crate) async fn maintain(&self) {
        if let Err(error) = self.forget_instances().await {
            tracing::warn!(%error, log = error.log(), "could not forget terminated instances");
        }
        self.forget_images().await;
        self.maintain_usage().await;
        self.settle_all_bytes().await;
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
            .collect();
        let mut cleaned = vec![];
        for id in old {
            // One console that cannot be removed keeps its own record and no other.
            match self.host().vms.forget_console(id).await {
                Ok(()) => cleaned.push(id),
                Err(error) => {
                    tracing::warn!(instance = %id, %error, "could not remove a console");
                }
            }
            if cleaned.len() == FORGET_MAX {
                break;
            }
        }
        for slice in cleaned.chunks(SLICE) {
            let slice = slice.to_vec();
            self.commit(move |state| {
                Ok(Plan {
                    changes: plan_forget(state, &slice),
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
        let before = self.snapshot();
        let vms = host.vms.vms().await.map_err(Error::internal)?;
        let ports = host.network.ports().await.map_err(Error::internal)?;
        let unrecorded = host.disks.unrecorded_images().await;
        let unrecorded = unrecorded.map_err(Error::internal)?;
        let files = host.disks.inventory().await.map_err(Error::internal)?;
        // What has a record before or after was recorded or forgotten meanwhile.
        let states = [before, self.snapshot()];
        let images = states.iter().flat_map(|state| state.images.values());
        // Bytes that were just stored, or are about to be removed, are nobody's loss.
        let digests: BTreeSet<Digest> = images
            .filter_map(|image| digest_of(image))
            .chain(unrecorded)
            .collect();
        let is_live = |id: &_| states.iter().any(|it| it.live_instances.contains(id));
        let is_known = |id: &_| states.iter().any(|it| it.instances.contains_key(id));
        let has_kernel = |id: &_| states.iter().any(|it| it.kernels.contains_key(id));
        let has_image = |digest: &_| digests.contains(digest);
        let mut orphans = vec![];
        tell("virtual machine of", &vms, is_live, &mut orphans);
        tell("port of", &ports, is_live, &mut orphans);
        tell("disk of", &files.overlays, is_live, &mut orphans);
        tell("console of", &files.consoles, is_known, &mut orphans);
        tell("image", &files.images, has_image, &mut orphans);
        tell(
            "prepared disk of image",
            &files.bases,
            has_image,
            &mut orphans,
        );
        tell("kernel", &files.kernels, has_kernel, &mut orphans);
        Ok(orphans)
    }
}

/// Adds a line for each of `found` that has no record, once.
fn tell<T: ToString>(
    what: &str,
    found: &[T],
    has_record: impl Fn(&T) -> bool,
    orphans: &mut Vec<String>,
) {
    let lines: BTreeSet<String> = found
        .iter()
        .filter(|id| !has_record(id))
        .map(|id| format!("{what} {}", id.to_string()))
        .collect();
    orphans.extend(lines);
}

fn plan_forget(state: &State, ids: &[InstanceId]) -> Vec<Change> {
    let gone: BTreeSet<InstanceId> = ids.iter().copied().collect();
    let mut changes = vec![];
    let mut reservations = BTreeSet::new();
    for id in ids {
        if let Some(instance) = state.instances.get(id) {
            changes.push(instance.delete());
            changes.extend(tags::forget(state, TaggedId::of_instance(*id)));
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
            let launch_tags = state.launch_tags.get(&reservation.id);
            changes.extend(launch_tags.map(|tags| tags.delete()));
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
