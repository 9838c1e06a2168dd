//! What becomes of records whose machine is gone.
//!
//! A restored cloud holds nothing on any host: its instances have ended, and
//! with them goes what they took (memory, places, addresses, the network's own
//! range).  An image without bytes is prepared again from its bundle, or says
//! why it cannot be.

use std::collections::BTreeSet;

use cumulet_domain::images::{BundleSource, Image, Kernel, Preparation};
use cumulet_domain::instances::{Instance, StateReason, Vm};
use cumulet_domain::{Digest, ImageId, InstanceId, KernelId, Timestamp};
use cumulet_engine::records::{
    ACCESS_KEY, ACCOUNT_USAGE, ADDRESS_BLOCK, BUNDLE_SOURCE, CLOUD, GROUND, HOST_USAGE, IMAGE,
    INSTANCE, KERNEL, RecordError, Stored,
};
use cumulet_store::Change;
use serde_json::json;

/// What there is besides the records.
pub(super) struct Found {
    pub(super) images: BTreeSet<Digest>,
    pub(super) kernels: BTreeSet<KernelId>,
    /// No image ever had bytes, and none needs any.
    pub(super) is_simulated: bool,
    /// Without objects bundles have no parts.
    pub(super) has_objects: bool,
    /// Without the sealing key nothing that it sealed is of use.
    pub(super) has_sealing_key: bool,
    pub(super) now: Timestamp,
}

/// What was changed, for the operator.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) instances_ended: Vec<InstanceId>,
    /// Will be made again from their bundles.
    pub(super) images_pending: Vec<ImageId>,
    pub(super) images_lost: Vec<ImageId>,
    pub(super) kernels_lost: Vec<KernelId>,
    pub(super) access_keys_dropped: Vec<String>,
}

/// The records of the restored cloud.
///
/// # Errors
/// A record that cannot be read.
pub(super) fn adapt(
    records: Vec<Change>,
    found: &Found,
) -> Result<(Vec<Change>, Changed), RecordError> {
    let mut changed = Changed::default();
    let bundled: BTreeSet<String> = records
        .iter()
        .filter(|record| record.kind == BUNDLE_SOURCE)
        .map(|record| record.key.to_string())
        .collect();
    let mut kept = vec![];
    for record in records {
        let Some(value) = &record.value else { continue };
        match record.kind {
            GROUND | HOST_USAGE | ACCOUNT_USAGE | ADDRESS_BLOCK => {}
            CLOUD if !found.has_sealing_key => {}
            ACCESS_KEY if !found.has_sealing_key => {
                changed.access_keys_dropped.push(record.key.to_string());
            }
            INSTANCE => {
                let mut instance = Instance::read(value)?;
                if end(&mut instance, found.now) {
                    changed.instances_ended.push(instance.id);
                }
                kept.push(instance.put());
            }
            IMAGE => {
                let mut image = Image::read(value)?;
                let is_bundled = bundled.contains(record.key.as_ref())
                    && found.has_sealing_key
                    && found.has_objects;
                prepare(&mut image, found, is_bundled, &mut changed)?;
                kept.push(image.put());
            }
            BUNDLE_SOURCE => {
                BundleSource::read(value)?;
                kept.push(record);
            }
            KERNEL => {
                let kernel = Kernel::read(value)?;
                if found.kernels.contains(&kernel.id) {
                    kept.push(record);
                } else {
                    changed.kernels_lost.push(kernel.id);
                }
            }
            _ => kept.push(record),
        }
    }
    Ok((kept, changed))
}

/// Ends what still held something; whether it did.
fn end(instance: &mut Instance, now: Timestamp) -> bool {
    if instance.observed.is_removed {
        return false;
    }
    instance.terminate(
        now,
        StateReason::new(
            "Server.InternalError",
            "Server.InternalError: The machine of this instance was lost, and the cloud restored from a backup, which has no disks of instances",
        ),
    );
    instance.observed.vm = Vm::Ended;
    instance.observed.retry_at = None;
    instance.observed.is_removed = true;
    instance.observed.removed_at = Some(now);
    true
}

fn prepare(
    image: &mut Image,
    found: &Found,
    is_bundled: bool,
    changed: &mut Changed,
) -> Result<(), RecordError> {
    let Preparation::Ready { digest, .. } = image.preparation else {
        return Ok(());
    };
    if found.is_simulated || found.images.contains(&digest) {
        return Ok(());
    }
    image.preparation = if is_bundled {
        changed.images_pending.push(image.id);
        begun_again()?
    } else {
        changed.images_lost.push(image.id);
        Preparation::Failed {
            reason: "The cloud was restored from a backup without the bytes of this image".into(),
            is_our_fault: true,
        }
    };
    Ok(())
}

/// A preparation that has not begun, as the oldest records have it: what came later has defaults.
fn begun_again() -> Result<Preparation, RecordError> {
    Ok(serde_json::from_value(
        json!({ "pending": { "percent": 0 } }),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preparation_begins_again() {
        let begun = begun_again().unwrap();
        assert!(matches!(begun, Preparation::Pending { percent: 0, .. }));
    }
}
