//! RegisterImage, DescribeImages, DeregisterImage.

use cumulet_domain::images::{
    Architecture, BootKind, Image, ImageState, Preparation, check_description,
};
use cumulet_domain::tags::{TagMap, TaggedKind};
use cumulet_domain::{AccountId, Error, ImageId, Resource, shown};
use cumulet_ec2_model::Answer;
use cumulet_engine::images::{ExecutableFilter, ImagesQuery, OwnerFilter, RegisterImage};
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::paging::Page;
use crate::tags;

const FILTERS: Known = Known {
    names: &[
        "architecture",
        "creation-date",
        "description",
        "ena-support",
        "hypervisor",
        "image-id",
        "image-type",
        "is-public",
        "manifest-location",
        "name",
        "owner-alias",
        "owner-id",
        "product-code",
        "product-code.type",
        "root-device-name",
        "root-device-type",
        "state",
        "state-reason-code",
        "state-reason-message",
        "tag-key",
        "tag-value",
        "tag:",
        "virtualization-type",
    ],
    without_value: &[
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.device-name",
        "block-device-mapping.encrypted",
        "block-device-mapping.snapshot-id",
        "block-device-mapping.volume-size",
        "block-device-mapping.volume-type",
        "boot-mode",
        "free-tier-eligible",
        "image-allowed",
        "image-watermark.source-image-creation-time",
        "image-watermark.source-image-id",
        "image-watermark.source-image-region",
        "image-watermark.watermark-creation-time",
        "image-watermark.watermark-key",
        "instance-type-specification.supported-instance-type",
        "instance-type-specification.unsupported-instance-type",
        "kernel-id",
        "platform",
        "public-ssm-parameter-name",
        "ramdisk-id",
        "scan-result.critical-fix-available-since",
        "scan-result.finding-scan-date",
        "scan-result.high-fix-available-since",
        "scan-result.highest-finding-severity-label",
        "scan-result.informational-fix-available-since",
        "scan-result.low-fix-available-since",
        "scan-result.medium-fix-available-since",
        "source-image-id",
        "source-image-region",
        "source-instance-id",
        "sriov-net-support",
    ],
};

/// What every image holds, in EC2's words, and their word for launching such a one.
pub(crate) const PLATFORM: &str = "Linux/UNIX";
pub(crate) const USAGE_OPERATION: &str = "RunInstances";
/// How products are sold here, in EC2's words: by the operator, and on no market place.
const PRODUCT_TYPE: &str = "devpay";

/// Reads an image id.
///
/// # Errors
/// `InvalidAMIID.Malformed`.
pub(crate) fn parse_id(text: &str) -> Result<ImageId, Error> {
    text.parse().map_err(|_| Error::Malformed {
        resource: Resource::Image,
        id: shown(text),
        form: "ami-...".into(),
    })
}

pub(crate) async fn register(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let architecture = match request.text("Architecture") {
        None => None,
        Some("i386") => Some(Architecture::I386),
        Some("x86_64") => Some(Architecture::X86_64),
        Some(other) => {
            let other = shown(other);
            return Err(Refused::invalid(format!(
                "Invalid value '{other}' for Architecture. It is i386 or x86_64."
            )));
        }
    };
    let description = request.text("Description").map(str::to_owned);
    if let Some(text) = &description {
        check_description(text)?;
    }
    let register = RegisterImage {
        location: request.required("ImageLocation")?.to_owned(),
        name: request.text("Name").map(str::to_owned),
        description,
        architecture,
        tags: tags::specification(request, TaggedKind::Image)?,
    };
    let id = call.engine.register_image(&call.caller, register).await?;
    let mut answer = call.answer();
    answer.value("imageId", id);
    Ok(answer.finish())
}

pub(crate) async fn deregister(call: &Call<'_>) -> Result<String, Refused> {
    let id = parse_id(call.request.required("ImageId")?)?;
    call.engine.deregister_image(&call.caller, id).await?;
    Ok(call.yes())
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let ids = request.list("ImageId").into_iter().map(parse_id);
    let query = ImagesQuery {
        ids: ids.collect::<Result<_, _>>()?,
        owners: request.list("Owner").into_iter().map(parse_owner).collect(),
        executable_by: request
            .list("ExecutableBy")
            .into_iter()
            .map(parse_executable)
            .collect::<Result<_, _>>()?,
    };
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 1, "ImageId")?;
    let images = call.engine.describe_images(&call.caller, &query)?;
    let aliases = call.engine.owner_aliases();
    let state = call.engine.snapshot();
    // Tags are their owner's: nobody else sees them.
    let none = TagMap::new();
    let beside = |image: &Image| Beside {
        alias: aliases.of_image(image),
        tags: if image.owner == call.caller.account {
            state.tags_of(image.id)
        } else {
            &none
        },
    };
    let passing = images
        .into_iter()
        .filter(|image| filters.pass(|name| filter_values(image, &beside(image), name)));
    let (images, next) = page.cut(request.operation.name, passing, |image| {
        image.id.to_string()
    });
    let mut answer = call.answer();
    answer.list("imagesSet", &images, |answer, image| {
        write(answer, image, &beside(image));
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

fn parse_account(text: &str) -> Result<AccountId, Error> {
    text.parse().map_err(|_| Error::Malformed {
        resource: Resource::Account,
        id: shown(text),
        form: "an account id of 12 digits, self or all".into(),
    })
}

fn parse_owner(text: &str) -> OwnerFilter {
    match text {
        "self" => OwnerFilter::Caller,
        other => match other.parse() {
            Ok(account) => OwnerFilter::Account(account),
            Err(_) => OwnerFilter::Alias(shown(other)),
        },
    }
}

fn parse_executable(text: &str) -> Result<ExecutableFilter, Error> {
    match text {
        "self" => Ok(ExecutableFilter::Caller),
        "all" => Ok(ExecutableFilter::All),
        other => parse_account(other).map(ExecutableFilter::Account),
    }
}

/// What became of the image.  One whose preparation failed for good is `failed`, a value of the
/// versions that have a reason to go with it; before them it reads as `available`, and launches say why not.
fn state_of(image: &Image, has_reason: bool) -> &'static str {
    match (image.state, &image.preparation) {
        (ImageState::Deregistered { .. }, _) => "deregistered",
        (ImageState::Available, Preparation::Failed { .. }) if has_reason => "failed",
        (ImageState::Available, _) => "available",
    }
}

/// Where the root file system is, as the guest's kernel names it.
pub(crate) fn root_device(image: Option<&Image>) -> &'static str {
    match image.map(|image| &image.preparation) {
        Some(Preparation::Ready {
            kind: BootKind::Disk,
            ..
        }) => "/dev/sda",
        _ => "/dev/sda1",
    }
}

/// What an image's record does not hold and its description shows.
struct Beside<'a> {
    alias: Option<&'a str>,
    tags: &'a TagMap,
}

/// One image, in the order of the newest WSDL.  Until aliases had a place of their own, they stood for
/// the number.
fn write(answer: &mut Answer, image: &Image, beside: &Beside<'_>) {
    answer.value("imageId", image.id);
    answer.leaf("imageLocation", &image.location);
    let state = state_of(image, answer.has("stateReason"));
    answer.leaf("imageState", state);
    match beside.alias.filter(|_| !answer.has("imageOwnerAlias")) {
        Some(alias) => answer.leaf("imageOwnerId", alias),
        None => answer.value("imageOwnerId", image.owner),
    }
    answer.value("isPublic", image.is_public);
    write_product_codes(answer, &image.product_codes);
    answer.leaf("architecture", image.architecture.as_str());
    answer.leaf("imageType", "machine");
    if let Some(failure) = image.preparation.failure() {
        answer.structure("stateReason", |answer| {
            answer.leaf("code", &failure.code);
            answer.leaf("message", &failure.message);
        });
    }
    answer.optional("imageOwnerAlias", beside.alias);
    answer.optional("name", image.name.as_deref());
    answer.optional("description", image.description.as_deref());
    answer.leaf("rootDeviceType", "instance-store");
    answer.leaf("rootDeviceName", root_device(Some(image)));
    answer.structure("blockDeviceMapping", |_| {});
    answer.leaf("virtualizationType", "hvm");
    tags::write(answer, beside.tags);
    // What EC2 says of its own KVM hosts, too; the API has no other word for them.
    answer.leaf("hypervisor", "xen");
    answer.value("creationDate", format_iso8601(image.created));
    answer.leaf("enaSupport", "false");
    answer.leaf("platformDetails", PLATFORM);
    answer.leaf("usageOperation", USAGE_OPERATION);
    answer.leaf("deregistrationProtection", "disabled");
}

/// Codes of an image or an instance; in 2007 the element is there only when there are any.
pub(crate) fn write_product_codes(answer: &mut Answer, codes: &[String]) {
    if !codes.is_empty() {
        answer.list("productCodes", codes, |answer, code| {
            answer.leaf("productCode", code);
            answer.leaf("type", PRODUCT_TYPE);
        });
    }
}

fn filter_values(image: &Image, beside: &Beside<'_>, name: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match name {
        "architecture" => one(image.architecture.as_str()),
        "creation-date" => vec![format_iso8601(image.created)],
        "description" => image.description.iter().cloned().collect(),
        "ena-support" => one("false"),
        "hypervisor" => one("xen"),
        "image-id" => vec![image.id.to_string()],
        "image-type" => one("machine"),
        "is-public" => vec![image.is_public.to_string()],
        "manifest-location" => one(&image.location),
        "name" => image.name.iter().cloned().collect(),
        "owner-alias" => beside.alias.map(str::to_owned).into_iter().collect(),
        "owner-id" => vec![image.owner.to_string()],
        "product-code" => image.product_codes.clone(),
        "product-code.type" => image
            .product_codes
            .first()
            .map(|_| PRODUCT_TYPE.to_owned())
            .into_iter()
            .collect(),
        "root-device-name" => one(root_device(Some(image))),
        "root-device-type" => one("instance-store"),
        "state" => one(state_of(image, true)),
        "state-reason-code" => image
            .preparation
            .failure()
            .map(|it| it.code)
            .into_iter()
            .collect(),
        "state-reason-message" => image
            .preparation
            .failure()
            .map(|it| it.message)
            .into_iter()
            .collect(),
        "virtualization-type" => one("hvm"),
        other => tags::filter_values(beside.tags, other).unwrap_or_default(),
    }
}
