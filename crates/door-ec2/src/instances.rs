//! DescribeInstances, RebootInstances, TerminateInstances, GetConsoleOutput.

use cumulet_domain::instances::{Instance, InstanceState, Liveness, Reservation, StateReason};
use cumulet_domain::{Error, InstanceId, Resource, SubnetId, VpcId};
use cumulet_wire::base64;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::instance_ports::Port;
use crate::paging::{self, Page};
use crate::reservation::{self, Surroundings};
use crate::{images, tags, volumes};

const FILTERS: Known = Known {
    names: &[
        "architecture",
        "availability-zone",
        "block-device-mapping.attach-time",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.status",
        "block-device-mapping.volume-id",
        "capacity-reservation-specification.",
        "client-token",
        "dns-name",
        "ebs-optimized",
        "ena-support",
        "enclave-options.enabled",
        "group-id",
        "group-name",
        "hibernation-options.configured",
        "hypervisor",
        "image-id",
        "instance-id",
        "instance-state-code",
        "instance-state-name",
        "instance-type",
        "instance.group-id",
        "instance.group-name",
        "kernel-id",
        "key-name",
        "launch-index",
        "launch-time",
        "maintenance-options.auto-recovery",
        "metadata-options.http-endpoint",
        "metadata-options.http-put-response-hop-limit",
        "metadata-options.http-tokens",
        "monitoring-state",
        "network-interface.",
        "owner-id",
        "platform-details",
        "private-dns-name",
        "private-dns-name-options.",
        "private-ip-address",
        "product-code",
        "product-code.type",
        "reason",
        "reservation-id",
        "root-device-name",
        "root-device-type",
        "source-dest-check",
        "state-reason-code",
        "state-reason-message",
        "subnet-id",
        "tag-key",
        "tag-value",
        "tag:",
        "tenancy",
        "virtualization-type",
        "vpc-id",
    ],
    without_value: &[
        "affinity",
        "association.",
        "boot-mode",
        "capacity-reservation-id",
        "current-instance-boot-mode",
        "host-id",
        "iam-instance-profile.",
        "instance-lifecycle",
        "ip-address",
        "ipv6-address",
        "outpost-arn",
        "placement-group-name",
        "placement-partition-number",
        "platform",
        "ramdisk-id",
        "requester-id",
        "spot-instance-request-id",
        "usage-operation",
        "usage-operation-update-time",
    ],
};

/// What an instance usually takes of an answer; its reservation takes less.
const INSTANCE_BYTES: usize = 2_200;

/// Reads an instance id.
///
/// # Errors
/// `InvalidInstanceID.Malformed`.
pub(crate) fn parse_id(text: &str) -> Result<InstanceId, Error> {
    text.parse().map_err(|_| Error::Malformed {
        resource: Resource::Instance,
        id: text.chars().take(120).collect(),
        form: "i-...".into(),
    })
}

/// The ids of `InstanceId.n`.
pub(crate) fn ids(call: &Call<'_>) -> Result<Vec<InstanceId>, Refused> {
    let ids = call.request.list("InstanceId").into_iter().map(parse_id);
    Ok(ids.collect::<Result<_, _>>()?)
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let ids = ids(call)?;
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 5, "InstanceId")?;
    call.stop_if_dry_run()?;
    let surroundings = Surroundings::of(call.engine);
    let keep = |reservation: &Reservation, instance: &Instance| {
        filters.pass(|name| filter_values(&surroundings, (reservation, instance), name))
    };
    let (views, next) = if ids.is_empty() {
        let size = page.size().unwrap_or(usize::MAX);
        let page = call
            .engine
            .describe_instances_page(&call.caller, page.after()?, size, keep);
        (page.views, page.next)
    } else {
        let mut views = call.engine.describe_instances(&call.caller, &ids)?;
        for view in &mut views {
            let reservation = view.reservation.clone();
            view.instances.retain(|it| keep(&reservation, it));
        }
        views.retain(|view| !view.instances.is_empty());
        (views, None)
    };
    let mut answer = call.answer();
    let count: usize = views.iter().map(|view| 1 + view.instances.len()).sum();
    answer.reserve(count * INSTANCE_BYTES);
    answer.list("reservationSet", &views, |answer, view| {
        reservation::write(answer, &surroundings, view);
    });
    let operation = request.operation.name;
    answer.optional("nextToken", next.map(|id| paging::token_of(operation, id)));
    Ok(answer.finish())
}

pub(crate) async fn reboot(call: &Call<'_>) -> Result<String, Refused> {
    let ids = ids(call)?;
    call.stop_if_dry_run()?;
    call.engine.reboot(&call.caller, ids).await?;
    Ok(call.yes())
}

pub(crate) async fn terminate(call: &Call<'_>) -> Result<String, Refused> {
    let ids = ids(call)?;
    call.stop_if_dry_run()?;
    let changes = call.engine.terminate(&call.caller, ids).await?;
    let mut answer = call.answer();
    answer.list("instancesSet", changes, |answer, change| {
        answer.value("instanceId", change.id);
        // The new state is called shutdownState until 2009-08-15, and currentState since.
        reservation::write_state(answer, "shutdownState", change.current);
        reservation::write_state(answer, "currentState", change.current);
        reservation::write_state(answer, "previousState", change.previous);
    });
    Ok(answer.finish())
}

/// The documented parameter is `InstanceId`; boto has always sent `InstanceId.1`.
pub(crate) async fn console(call: &Call<'_>) -> Result<String, Refused> {
    let listed = call.request.list("InstanceId");
    let id = match (call.request.text("InstanceId"), listed.as_slice()) {
        (Some(id), []) => parse_id(id)?,
        (None, [id]) => parse_id(id)?,
        (None, []) => {
            return Err(Refused::new(
                400,
                "MissingParameter",
                "The request must contain the parameter InstanceId",
            ));
        }
        _ => {
            return Err(Refused::combination(
                "GetConsoleOutput takes one InstanceId",
            ));
        }
    };
    call.stop_if_dry_run()?;
    let console = call.engine.console_output(&call.caller, id).await?;
    let mut answer = call.answer();
    answer.value("instanceId", id);
    answer.leaf("timestamp", &format_iso8601(console.updated));
    answer.leaf("output", &base64::encode_lines(&console.bytes));
    Ok(answer.finish())
}

fn filter_values(
    surroundings: &Surroundings,
    (reservation, instance): (&Reservation, &Instance),
    name: &str,
) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    let reason = |pick: fn(&StateReason) -> &String| {
        let reason = surroundings.reason(instance);
        reason.iter().map(|reason| pick(reason).clone()).collect()
    };
    let is_running = instance.state() == InstanceState::Running;
    let if_running = |text: String| is_running.then_some(text).into_iter().collect();
    let is_alive = instance.liveness() == Liveness::Alive;
    let if_alive = |text: String| is_alive.then_some(text).into_iter().collect();
    let image = surroundings.image(instance);
    match name {
        "architecture" => one(surroundings.architecture(instance)),
        _ if name.starts_with("block-device-mapping.") => {
            let volume = surroundings.state.root_volume(instance);
            let device = images::root_device(image);
            let value = |volume: &_| volumes::mapping_value(volume, device, name);
            volume.iter().filter_map(value).collect()
        }
        "availability-zone" => one(&surroundings.zone),
        "client-token" => {
            let token = reservation.client_token.as_ref();
            token.iter().map(|token| token.token.clone()).collect()
        }
        "dns-name" => if_running(instance.address.to_string()),
        "group-id" | "instance.group-id" => {
            let groups = reservation.groups.iter();
            groups.map(|group| group.id.to_string()).collect()
        }
        "group-name" | "instance.group-name" => {
            let groups = reservation.groups.iter();
            groups.map(|group| group.name.clone()).collect()
        }
        "hypervisor" => one("xen"),
        "image-id" => vec![instance.image.to_string()],
        "instance-id" => vec![instance.id.to_string()],
        "instance-state-code" => vec![instance.state().code().to_string()],
        "instance-state-name" => one(instance.state().name()),
        "instance-type" => one(&instance.instance_type),
        "kernel-id" => surroundings
            .kernel(instance)
            .map(|id| id.to_string())
            .into_iter()
            .collect(),
        "key-name" => instance.key.iter().map(|key| key.name.clone()).collect(),
        "launch-index" => vec![instance.launch_index.to_string()],
        "launch-time" => vec![format_iso8601(instance.launched)],
        "metadata-options.http-endpoint" => one(reservation::endpoint_word(instance)),
        "metadata-options.http-put-response-hop-limit" => {
            vec![instance.metadata.hop_limit.to_string()]
        }
        "metadata-options.http-tokens" => one(reservation::tokens_word(instance)),
        "monitoring-state" => one("disabled"),
        "owner-id" => vec![instance.owner.to_string()],
        "platform-details" => one("Linux/UNIX"),
        "private-dns-name" => if_running(surroundings.private_name(instance)),
        "private-ip-address" => if_alive(instance.address.to_string()),
        "product-code" => instance.product_codes.clone(),
        "reason" | "state-reason-message" => reason(|reason| &reason.message),
        "state-reason-code" => reason(|reason| &reason.code),
        "reservation-id" => vec![reservation.id.to_string()],
        "root-device-name" => one(crate::images::root_device(image)),
        "root-device-type" => one("instance-store"),
        "tenancy" => one("default"),
        "virtualization-type" => one("hvm"),
        "capacity-reservation-specification.capacity-reservation-preference" => one("open"),
        "ebs-optimized"
        | "ena-support"
        | "enclave-options.enabled"
        | "hibernation-options.configured"
        | "private-dns-name-options.enable-resource-name-dns-a-record"
        | "private-dns-name-options.enable-resource-name-dns-aaaa-record" => one("false"),
        "maintenance-options.auto-recovery" => one("default"),
        "private-dns-name-options.hostname-type" => one("ip-name"),
        "product-code.type" => instance
            .product_codes
            .iter()
            .map(|_| "devpay".into())
            .collect(),
        "source-dest-check" => one("true"),
        "subnet-id" => if_alive(SubnetId::of(instance.owner).to_string()),
        "vpc-id" => if_alive(VpcId::of(instance.owner).to_string()),
        other => match other.strip_prefix("network-interface.") {
            Some(rest) => Port::of(surroundings, reservation, instance)
                .map_or(vec![], |port| port.filter_values(rest)),
            None => tags::filter_values(surroundings.tags(instance), other).unwrap_or_default(),
        },
    }
}
