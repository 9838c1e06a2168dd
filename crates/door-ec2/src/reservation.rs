//! How a reservation and its instances read, in the newest shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use cumulet_domain::images::{BootKind, Image, Preparation};
use cumulet_domain::instances::{Instance, InstanceState, Liveness, Reservation, StateReason};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{InstanceId, KernelId, SubnetId, VpcId};
use cumulet_ec2_model::Answer;
use cumulet_ec2_model::dates::V2011_01_01;
use cumulet_engine::instances::ReservationView;
use cumulet_engine::{Engine, State};
use cumulet_wire::time::format_iso8601;

use crate::images;
use crate::instance_ports::Port;
use crate::regions::zone_id;
use crate::tags;
use crate::volumes;

/// Every machine has a BIOS, whatever its image brings; images ask for no mode.
pub(crate) const BOOT_MODE: &str = "legacy-bios";

/// What an instance's record does not hold and its description shows.
pub(crate) struct Surroundings {
    pub(crate) state: Arc<State>,
    troubles: Arc<BTreeMap<InstanceId, StateReason>>,
    pub(crate) zone: String,
    pub(crate) zone_id: String,
    pub(crate) region: String,
    /// What an instance says that has nothing weightier to say, where none is real.
    simulated: Option<StateReason>,
}

impl Surroundings {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self {
            state: engine.snapshot(),
            troubles: engine.troubles(),
            zone: engine.config().zone.clone(),
            zone_id: zone_id(&engine.config().region),
            region: engine.config().region.clone(),
            simulated: engine.host().profile.is_simulated.then(|| {
                StateReason::new(
                    "Server.SimulatedCompute",
                    "Server.SimulatedCompute: This cloud runs with --compute simulated; no machine was started",
                )
            }),
        }
    }

    /// The image, while it is remembered.
    pub(crate) fn image(&self, instance: &Instance) -> Option<&Image> {
        self.state.images.get(&instance.image).map(|it| &**it)
    }

    pub(crate) fn architecture(&self, instance: &Instance) -> &'static str {
        self.image(instance)
            .map_or("x86_64", |image| image.architecture.as_str())
    }

    pub(crate) fn tags(&self, instance: &Instance) -> &TagMap {
        self.state.tags_of(instance.id)
    }

    /// The kernel that a root file system boots with; a disk brings its own.
    pub(crate) fn kernel(&self, instance: &Instance) -> Option<KernelId> {
        let image = self.image(instance)?;
        let is_rootfs = matches!(
            image.preparation,
            Preparation::Ready {
                kind: BootKind::Rootfs,
                ..
            }
        );
        instance.kernel.filter(|_| is_rootfs)
    }

    /// The name that the guests' resolver knows.
    pub(crate) fn private_name(&self, instance: &Instance) -> String {
        format!("{}.{}.compute.internal", instance.host_name(), self.region)
    }

    /// Why the instance is in its state, or what ails it while it runs.  That a cloud only simulates is said wherever nothing
    /// weightier is: nobody shall take such an instance for a machine.
    pub(crate) fn reason<'a>(&'a self, instance: &'a Instance) -> Option<&'a StateReason> {
        let recorded = instance.state_reason();
        let trouble = || self.troubles.get(&instance.id);
        recorded.or_else(trouble).or(self.simulated.as_ref())
    }
}

/// The body of a reservation: below the root of RunInstances, below an item of DescribeInstances.
pub(crate) fn write(answer: &mut Answer, surroundings: &Surroundings, view: &ReservationView) {
    let reservation = &view.reservation;
    answer.value("reservationId", reservation.id);
    answer.value("ownerId", reservation.owner);
    write_groups(answer, reservation);
    answer.list("instancesSet", &view.instances, |answer, instance| {
        write_instance(answer, surroundings, reservation, instance);
    });
}

/// `groupId` holds the group's name before 2011-01-01; since then it is an id, and the name has an
/// element of its own.
pub(crate) fn write_groups(answer: &mut Answer, reservation: &Reservation) {
    let is_id_name = answer.version() < V2011_01_01;
    answer.list("groupSet", &reservation.groups, |answer, group| {
        if is_id_name {
            answer.leaf("groupId", &group.name);
        } else {
            answer.value("groupId", group.id);
        }
        answer.leaf("groupName", &group.name);
    });
}

pub(crate) fn write_state(answer: &mut Answer, name: &'static str, state: InstanceState) {
    answer.structure(name, |answer| {
        answer.value("code", state.code());
        answer.leaf("name", state.name());
    });
}

pub(crate) fn tokens_word(instance: &Instance) -> &'static str {
    if instance.metadata.is_token_required {
        "required"
    } else {
        "optional"
    }
}

pub(crate) fn endpoint_word(instance: &Instance) -> &'static str {
    if instance.metadata.is_enabled {
        "enabled"
    } else {
        "disabled"
    }
}

/// One instance, in the order of the newest WSDL.
fn write_instance(
    answer: &mut Answer,
    surroundings: &Surroundings,
    reservation: &Reservation,
    instance: &Instance,
) {
    let reason = surroundings.reason(instance);
    answer.value("instanceId", instance.id);
    answer.value("imageId", instance.image);
    write_state(answer, "instanceState", instance.state());
    // Both names are empty until the instance runs.  There is no public name while there are no
    // public addresses: the private address stands for it, so that clients of the versions that
    // show nothing else can connect.
    if instance.state() == InstanceState::Running {
        let host = instance.host_name();
        let region = &surroundings.region;
        answer.value(
            "privateDnsName",
            format_args!("{host}.{region}.compute.internal"),
        );
        answer.value("dnsName", instance.address);
    } else {
        answer.leaf("privateDnsName", "");
        answer.leaf("dnsName", "");
    }
    answer.optional("reason", reason.map(|reason| &reason.message));
    answer.optional("keyName", instance.key.as_ref().map(|key| &key.name));
    answer.value("amiLaunchIndex", instance.launch_index);
    images::write_product_codes(answer, &instance.product_codes);
    answer.leaf("instanceType", &instance.instance_type);
    answer.leaf("launchTime", &format_iso8601(instance.launched));
    answer.structure("placement", |answer| {
        answer.leaf("availabilityZone", &surroundings.zone);
        answer.leaf("groupName", "");
        answer.leaf("tenancy", "default");
        answer.leaf("availabilityZoneId", &surroundings.zone_id);
    });
    answer.optional("kernelId", surroundings.kernel(instance));
    answer.structure("monitoring", |answer| answer.leaf("state", "disabled"));
    // Once the instance is gone it is nowhere, and its address may be another's.
    if instance.liveness() == Liveness::Alive {
        answer.value("subnetId", SubnetId::of(instance.owner));
        answer.value("vpcId", VpcId::of(instance.owner));
        answer.value("privateIpAddress", instance.address);
    }
    // A guest may send from its own address only, and receive for it only.
    answer.leaf("sourceDestCheck", "true");
    write_groups(answer, reservation);
    if let Some(reason) = reason {
        answer.structure("stateReason", |answer| {
            answer.leaf("code", &reason.code);
            answer.leaf("message", &reason.message);
        });
    }
    let image = surroundings.image(instance);
    answer.leaf("architecture", surroundings.architecture(instance));
    answer.leaf("rootDeviceType", "instance-store");
    answer.leaf("rootDeviceName", images::root_device(image));
    let volume = surroundings.state.root_volume(instance);
    volumes::write_mapping(answer, images::root_device(image), volume.as_ref());
    answer.leaf("virtualizationType", "hvm");
    let token = reservation.client_token.as_ref();
    answer.leaf(
        "clientToken",
        token.map_or("", |token| token.token.as_str()),
    );
    tags::write(answer, surroundings.tags(instance));
    // What EC2 says of its own KVM hosts, too; the API has no other word for them.
    answer.leaf("hypervisor", "xen");
    let port = Port::of(surroundings, reservation, instance);
    answer.list("networkInterfaceSet", port, |answer, port| {
        port.write(answer)
    });
    answer.leaf("ebsOptimized", "false");
    answer.leaf("enaSupport", "false");
    write_newest(answer, instance);
}

/// What only 2016-11-15, as it was amended over the years, has.
fn write_newest(answer: &mut Answer, instance: &Instance) {
    answer.structure("cpuOptions", |answer| {
        answer.value("coreCount", instance.vcpus);
        answer.leaf("threadsPerCore", "1");
    });
    // There are none to be launched into, so that every instance may.
    answer.structure("capacityReservationSpecification", |answer| {
        answer.leaf("capacityReservationPreference", "open");
    });
    answer.structure("hibernationOptions", |answer| {
        answer.leaf("configured", "false");
    });
    answer.structure("metadataOptions", |answer| {
        answer.leaf("state", "applied");
        answer.leaf("httpTokens", tokens_word(instance));
        answer.value("httpPutResponseHopLimit", instance.metadata.hop_limit);
        answer.leaf("httpEndpoint", endpoint_word(instance));
        answer.leaf("httpProtocolIpv6", "disabled");
        answer.leaf("instanceMetadataTags", "disabled");
    });
    answer.structure("enclaveOptions", |answer| answer.leaf("enabled", "false"));
    answer.leaf("platformDetails", images::PLATFORM);
    // From the launch on: nothing changes it.
    answer.leaf("usageOperation", images::USAGE_OPERATION);
    answer.leaf(
        "usageOperationUpdateTime",
        &format_iso8601(instance.launched),
    );
    answer.structure("privateDnsNameOptions", |answer| {
        answer.leaf("hostnameType", "ip-name");
        answer.leaf("enableResourceNameDnsARecord", "false");
        answer.leaf("enableResourceNameDnsAAAARecord", "false");
    });
    answer.structure("maintenanceOptions", |answer| {
        answer.leaf("autoRecovery", "default");
    });
    answer.leaf("currentInstanceBootMode", BOOT_MODE);
    answer.structure("networkPerformanceOptions", |answer| {
        answer.leaf("bandwidthWeighting", "default");
    });
}
