//! RunInstances.

use bytes::Bytes;
use cumulet_domain::disks::{DeviceClaim, Holds};
use cumulet_domain::instances::{MetadataOptions, USER_DATA_LEN_MAX};
use cumulet_domain::tags::TaggedKind;
use cumulet_domain::{Error, KernelId, Resource, shown};
use cumulet_ec2_model::{ModelError, Request, dates};
use cumulet_engine::claims::Claims;
use cumulet_engine::launch::{Launch, Part};

use crate::call::Call;
use crate::error::Refused;
use crate::images;
use crate::instance_ports;
use crate::products;
use crate::regions::zone_id;
use crate::reservation::{self, Surroundings};
use crate::tags;

/// Furthest that an answer of the metadata service may be asked to go.
const HOP_LIMIT_MAX: u8 = 64;

/// Longest name of a device.
const DEVICE_LEN_MAX: usize = 32;

/// What a launch makes that can be written on.
const TAGGED: [TaggedKind; 3] = [
    TaggedKind::Instance,
    TaggedKind::NetworkInterface,
    TaggedKind::Volume,
];

pub(crate) async fn run(call: &Call<'_>) -> Result<String, Refused> {
    let launch = decode(call)?;
    let launched = call.engine.launch(&call.caller, launch).await;
    let view = launched.map_err(|error| products::launch_refused(call.version(), error))?;
    let surroundings = Surroundings::of(&call.engine);
    let mut answer = call.answer();
    reservation::write(&mut answer, &surroundings, &view);
    Ok(answer.finish())
}

/// Addresses are `public` ones: a private one that is the guest's own.  `direct`, the other kind of
/// 2007, would be one address that is not translated.
fn check_addressing(asked: Option<&str>) -> Result<(), Refused> {
    match asked {
        None | Some("public") => Ok(()),
        Some("direct") => Err(Refused::new(
            400,
            "UnsupportedOperation",
            "AddressingType direct is not supported here. It is public.",
        )),
        Some(other) => {
            let other = shown(other);
            Err(Refused::invalid(format!(
                "Invalid value '{other}' for AddressingType. It is public or direct."
            )))
        }
    }
}

/// There is one zone, which has a name and an id.
fn check_zone_id(call: &Call<'_>) -> Result<(), Refused> {
    let only = zone_id(&call.engine.config().region);
    let asked = call.request.text("Placement.AvailabilityZoneId");
    match asked.filter(|asked| !asked.is_empty() && *asked != only) {
        None => Ok(()),
        Some(other) => {
            let other = shown(other);
            Err(Refused::invalid(format!(
                "Invalid availability zone-id: [{other}]. The zone here is {only}."
            )))
        }
    }
}

/// What the request says of processors and devices.
fn claims(request: &Request<'_>) -> Result<Claims, Refused> {
    let numbers = request.indexes("BlockDeviceMapping").into_iter();
    Ok(Claims {
        cores: request.number("CpuOptions.CoreCount")?,
        threads_per_core: request.number("CpuOptions.ThreadsPerCore")?,
        devices: numbers
            .map(|number| device(request, number))
            .collect::<Result<_, _>>()?,
        kernel: kernel(request)?,
    })
}

fn kernel(request: &Request<'_>) -> Result<Option<KernelId>, Error> {
    let given = request.text("KernelId").filter(|text| !text.is_empty());
    let parsed = given.map(|text| {
        text.parse().map_err(|_| Error::Malformed {
            resource: Resource::Kernel,
            id: shown(text),
            form: "aki-...".into(),
        })
    });
    parsed.transpose()
}

/// One of `BlockDeviceMapping`: a volume, a device by its name, or none.
fn device(request: &Request<'_>, number: u32) -> Result<DeviceClaim, Refused> {
    let at = |name: &str| format!("BlockDeviceMapping.{number}.{name}");
    let given = |name: &str| request.text(&at(name)).filter(|text| !text.is_empty());
    let device = given("DeviceName").ok_or_else(|| ModelError::Missing(at("DeviceName")))?;
    let is_plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-./".contains(&it);
    if device.len() > DEVICE_LEN_MAX || !device.bytes().all(is_plain) {
        let device = shown(device);
        return Err(Refused::invalid(format!(
            "Invalid device name {device} for {}",
            at("DeviceName")
        )));
    }
    let size_gib: Option<u64> = request.number(&at("Ebs.VolumeSize"))?;
    let is_volume = [
        "VolumeSize",
        "DeleteOnTermination",
        "VolumeType",
        "Encrypted",
    ]
    .iter()
    .any(|name| given(&format!("Ebs.{name}")).is_some());
    // An empty element is how messages and today's clients say that there is none.
    let is_none = request.text(&at("NoDevice")).is_some();
    let holds = match (is_volume, given("VirtualName"), is_none) {
        (true, None, false) => Holds::Root { size_gib },
        (false, Some(name), false) => Holds::Named(name.to_owned()),
        (false, None, true) => Holds::Nothing,
        _ => {
            return Err(Refused::combination(format!(
                "{} is for a volume (Ebs), for a VirtualName or for NoDevice, and for one of them",
                at("DeviceName")
            )));
        }
    };
    Ok(DeviceClaim {
        parameter: format!("BlockDeviceMapping.{number}"),
        device: device.to_owned(),
        holds,
    })
}

fn decode(call: &Call<'_>) -> Result<Launch, Refused> {
    let request = &call.request;
    check_addressing(request.text("AddressingType"))?;
    let text = |name: &str| request.text(name).map(str::to_owned);
    check_zone_id(call)?;
    let port = instance_ports::wanted(request)?;
    // The digest of user data is compared by clients: what is not whole is refused, never cut.
    let user_data = request.base64("UserData", USER_DATA_LEN_MAX)?;
    Ok(Launch {
        parts: parts(call)?,
        // Clients made from a WSDL send what they do not mean to say as an empty element.
        instance_type: text("InstanceType").filter(|name| !name.is_empty()),
        user_data: user_data.map(Bytes::from),
        // aws-cli and boto always send a token, some clients an empty one, which is none.
        client_token: text("ClientToken").filter(|token| !token.is_empty()),
        security_groups: port.groups,
        zone: text("Placement.AvailabilityZone").filter(|zone| !zone.is_empty()),
        metadata: metadata(call)?,
        subnet: port.subnet,
        address: port.address,
        port_description: port.description,
        claims: claims(request)?,
        tags: tags::specifications(request, &TAGGED)?,
    })
}

/// One image, or those that SOAP lists in the versions up to 2007-03-01.
fn parts(call: &Call<'_>) -> Result<Vec<Part>, Refused> {
    let request = &call.request;
    if request.text("ImageId").is_some() {
        return Ok(vec![part(call, "")?]);
    }
    let numbers = request.indexes("InstancesSet");
    if numbers.is_empty() {
        return Err(ModelError::Missing("instancesSet".into()).into());
    }
    let parts = numbers
        .into_iter()
        .map(|number| part(call, &format!("InstancesSet.{number}.")));
    parts.collect()
}

fn part(call: &Call<'_>, prefix: &str) -> Result<Part, Refused> {
    let request = &call.request;
    let name = |name: &str| format!("{prefix}{name}");
    let count = |word: &str| -> Result<u32, Refused> {
        let count = request.number(&name(word))?;
        Ok(count.ok_or_else(|| ModelError::Missing(name(word)))?)
    };
    let part = Part {
        image: images::parse_id(request.required(&name("ImageId"))?)?,
        min_count: count("MinCount")?,
        max_count: count("MaxCount")?,
        key_name: request
            .text(&name("KeyName"))
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
    };
    // The first guides name both counts 0 and a minimum above the maximum alone; later ones say that
    // the minimum is at least 1.
    if part.min_count == 0 && call.version() > dates::V2007_03_01 {
        return Err(Refused::combination(format!(
            "{} must be at least 1, not 0",
            name("MinCount")
        )));
    }
    Ok(part)
}

/// `None` if the request says nothing, so that the operator's default holds.
fn metadata(call: &Call<'_>) -> Result<Option<MetadataOptions>, Refused> {
    let request = &call.request;
    let tokens = request.text("MetadataOptions.HttpTokens");
    let hops = request.number::<u8>("MetadataOptions.HttpPutResponseHopLimit")?;
    let endpoint = request.text("MetadataOptions.HttpEndpoint");
    if tokens.is_none() && hops.is_none() && endpoint.is_none() {
        return Ok(None);
    }
    let default = MetadataOptions {
        is_token_required: call.engine.config().is_metadata_token_required,
        ..MetadataOptions::default()
    };
    let word = |name: &str, given: Option<&str>, yes: &str, no: &str, default: bool| match given {
        None => Ok(default),
        Some(given) if given == yes => Ok(true),
        Some(given) if given == no => Ok(false),
        Some(other) => {
            let other = shown(other);
            Err(Refused::invalid(format!(
                "Invalid value '{other}' for {name}. It is {yes} or {no}."
            )))
        }
    };
    let hop_limit = hops.unwrap_or(default.hop_limit);
    if !(1..=HOP_LIMIT_MAX).contains(&hop_limit) {
        return Err(Refused::invalid(format!(
            "MetadataOptions.HttpPutResponseHopLimit ({hop_limit}) lies between 1 and {HOP_LIMIT_MAX}"
        )));
    }
    Ok(Some(MetadataOptions {
        is_token_required: word(
            "MetadataOptions.HttpTokens",
            tokens,
            "required",
            "optional",
            default.is_token_required,
        )?,
        hop_limit,
        is_enabled: word(
            "MetadataOptions.HttpEndpoint",
            endpoint,
            "enabled",
            "disabled",
            default.is_enabled,
        )?,
    }))
}
