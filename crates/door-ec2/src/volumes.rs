//! DescribeVolumes: the root disks of instances that are alive.
//!
//! In the versions before 2009-10-31 no root disk was a volume, and none is listed
//! (`docs/decisions/0011-root-disks.md`).

use std::sync::Arc;

use cumulet_domain::{AccountId, Error, Resource};
use cumulet_ec2_model::Answer;
use cumulet_ec2_model::dates::V2009_10_31;
use cumulet_engine::State;
use cumulet_engine::volumes::Volume;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::images::root_device;
use crate::paging::Page;
use crate::regions::zone_id;
use crate::tags;

const FILTERS: Known = Known {
    names: &[
        "attachment.attach-time",
        "attachment.delete-on-termination",
        "attachment.device",
        "attachment.instance-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "create-time",
        "encrypted",
        "fast-restored",
        "multi-attach-enabled",
        "operator.managed",
        "size",
        "status",
        "tag-key",
        "tag-value",
        "tag:",
        "volume-id",
        "volume-type",
    ],
    without_value: &["operator.principal", "snapshot-id", "source-volume-id"],
};

/// Least page.
const RESULTS_MIN: usize = 5;

/// The type that promises the least, and the only one of the first versions.
const VOLUME_TYPE: &str = "standard";

/// What is said of a volume and not in it.
struct Around {
    state: Arc<State>,
    owner: AccountId,
    zone: String,
    zone_id: String,
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let mut ids = vec![];
    for text in call.request.list("VolumeId") {
        let id = text
            .parse()
            .map_err(|error: cumulet_domain::IdError| Error::Malformed {
                resource: Resource::Volume,
                id: error.text,
                form: error.form.to_owned(),
            })?;
        ids.push(id);
    }
    let filters = Filters::of(&call.request, &FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "VolumeId")?;
    let are_disks_volumes = call.version() >= V2009_10_31;
    if let Some(id) = ids.first().filter(|_| !are_disks_volumes) {
        return Err(Error::not_found(Resource::Volume, id).into());
    }
    let config = call.engine.config();
    let around = Around {
        state: call.engine.snapshot(),
        owner: call.caller.account,
        zone: config.zone.clone(),
        zone_id: zone_id(&config.region),
    };
    let keep = |volume: &Volume| filters.pass(|name| around.values(volume, name));
    let (shown, next) = if !ids.is_empty() {
        let found = call.engine.describe_volumes(&call.caller, &ids)?;
        (found.into_iter().filter(keep).collect(), None)
    } else if are_disks_volumes {
        let all = call.engine.volumes(&call.caller, page.after()?);
        page.take(call.request.operation.name, all.filter(keep), |volume| {
            volume.id.to_string()
        })
    } else {
        (vec![], None)
    };
    let mut answer = call.answer();
    answer.list("volumeSet", &shown, |answer, volume| {
        around.write(answer, volume);
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

/// A disk is attached once its instance has run with it.
pub(crate) fn attachment_status(volume: &Volume) -> &'static str {
    if volume.is_made {
        "attached"
    } else {
        "attaching"
    }
}

/// The `blockDeviceMapping` of an instance: its root disk, if it has one.
pub(crate) fn write_mapping(answer: &mut Answer, device: &str, volume: Option<&Volume>) {
    answer.list("blockDeviceMapping", volume, |answer, volume| {
        answer.leaf("deviceName", device);
        answer.structure("ebs", |answer| {
            answer.value("volumeId", volume.id);
            answer.leaf("status", attachment_status(volume));
            answer.leaf("attachTime", &format_iso8601(volume.created));
            answer.leaf("deleteOnTermination", "true");
        });
    });
}

/// What [`write_mapping`] shows, by the name of DescribeInstances' filter.
pub(crate) fn mapping_value(volume: &Volume, device: &str, name: &str) -> Option<String> {
    match name.strip_prefix("block-device-mapping.")? {
        "attach-time" => Some(format_iso8601(volume.created)),
        "delete-on-termination" => Some("true".to_owned()),
        "device-name" => Some(device.to_owned()),
        "status" => Some(attachment_status(volume).to_owned()),
        "volume-id" => Some(volume.id.to_string()),
        _ => None,
    }
}

fn status(volume: &Volume) -> &'static str {
    if volume.is_made { "in-use" } else { "creating" }
}

impl Around {
    fn device(&self, volume: &Volume) -> &'static str {
        let instance = self.state.instances.get(&volume.instance);
        let image = instance.and_then(|it| self.state.images.get(&it.image));
        root_device(image.map(|it| &**it))
    }

    fn write(&self, answer: &mut Answer, volume: &Volume) {
        let created = format_iso8601(volume.created);
        answer.value("volumeId", volume.id);
        answer.value("size", volume.size_gib);
        // A disk is made from an image, never from a snapshot.
        answer.leaf("snapshotId", "");
        answer.leaf("availabilityZone", &self.zone);
        answer.leaf("status", status(volume));
        answer.leaf("createTime", &created);
        answer.list("attachmentSet", [()], |answer, ()| {
            answer.value("volumeId", volume.id);
            answer.value("instanceId", volume.instance);
            answer.leaf("device", self.device(volume));
            answer.leaf("status", attachment_status(volume));
            answer.leaf("attachTime", &created);
            answer.leaf("deleteOnTermination", "true");
        });
        tags::write(answer, self.state.tags_of(volume.id));
        answer.leaf("volumeType", VOLUME_TYPE);
        answer.leaf("encrypted", "false");
        answer.leaf("availabilityZoneId", &self.zone_id);
        answer.leaf("fastRestored", "false");
        answer.leaf("multiAttachEnabled", "false");
        answer.structure("operator", |answer| answer.leaf("managed", "false"));
        answer.value("ownerId", self.owner);
    }

    fn values(&self, volume: &Volume, name: &str) -> Vec<String> {
        if let Some(values) = tags::filter_values(self.state.tags_of(volume.id), name) {
            return values;
        }
        vec![match name {
            "attachment.attach-time" | "create-time" => format_iso8601(volume.created),
            "attachment.delete-on-termination" => "true".to_owned(),
            "attachment.device" => self.device(volume).to_owned(),
            "attachment.instance-id" => volume.instance.to_string(),
            "attachment.status" => attachment_status(volume).to_owned(),
            "availability-zone" => self.zone.clone(),
            "availability-zone-id" => self.zone_id.clone(),
            "encrypted" | "fast-restored" | "multi-attach-enabled" | "operator.managed" => {
                "false".to_owned()
            }
            "size" => volume.size_gib.to_string(),
            "status" => status(volume).to_owned(),
            "volume-id" => volume.id.to_string(),
            "volume-type" => VOLUME_TYPE.to_owned(),
            _ => return vec![],
        }]
    }
}
