//! DescribeInstanceAttribute and DescribeInstanceCreditSpecifications.

use cumulet_domain::instances::{Instance, Reservation};
use cumulet_domain::{Error, Resource, shown};
use cumulet_ec2_model::Answer;
use cumulet_wire::base64;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::images::{root_device, write_product_codes};
use crate::instances::{ids, parse_id};
use crate::paging::Page;
use crate::reservation::{Surroundings, write_groups};
use crate::volumes::write_mapping;

/// In EC2's words; the version that is asked decides which of them it has.
const ATTRIBUTES: &[&str] = &[
    "instanceType",
    "kernel",
    "ramdisk",
    "userData",
    "disableApiTermination",
    "instanceInitiatedShutdownBehavior",
    "rootDeviceName",
    "blockDeviceMapping",
    "sourceDestCheck",
    "groupSet",
    "productCodes",
    "ebsOptimized",
    "sriovNetSupport",
    "enaSupport",
    "enclaveOptions",
    "disableApiStop",
];

const CREDIT_FILTERS: Known = Known {
    names: &["instance-id"],
    without_value: &[],
};

/// Least page of credit specifications.
const RESULTS_MIN: usize = 5;

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let id = parse_id(call.request.required("InstanceId")?)?;
    let asked = call.request.required("Attribute")?;
    let mut answer = call.answer();
    let known = ATTRIBUTES
        .iter()
        .find(|name| **name == asked && answer.has(name));
    let Some(attribute) = known else {
        let asked = shown(asked);
        return Err(Refused::invalid(format!(
            "Value ({asked}) for parameter attribute is invalid. Unknown attribute."
        )));
    };
    let views = call.engine.describe_instances(&call.caller, &[id])?;
    // Somebody else's is left out there; here there is nothing else to answer.
    let view = views
        .first()
        .ok_or_else(|| Error::not_found(Resource::Instance, id))?;
    let instance = view
        .instances
        .first()
        .ok_or_else(|| Error::not_found(Resource::Instance, id))?;
    answer.value("instanceId", id);
    write(&mut answer, call, attribute, &view.reservation, instance);
    Ok(answer.finish())
}

/// One attribute.  What an instance here never has is an empty element, as EC2 says it.
fn write(
    answer: &mut Answer,
    call: &Call<'_>,
    attribute: &'static str,
    reservation: &Reservation,
    instance: &Instance,
) {
    let surroundings = Surroundings::of(&call.engine);
    let image = surroundings.image(instance);
    let value = |answer: &mut Answer, value: Option<String>| {
        answer.structure(attribute, |answer| answer.optional("value", value));
    };
    match attribute {
        "instanceType" => value(answer, Some(instance.instance_type.clone())),
        "kernel" => value(
            answer,
            surroundings.kernel(instance).map(|id| id.to_string()),
        ),
        "userData" => {
            let data = call.engine.user_data(instance);
            value(answer, data.map(|data| base64::encode(&data)));
        }
        "disableApiTermination" | "disableApiStop" | "ebsOptimized" | "enaSupport" => {
            value(answer, Some("false".to_owned()));
        }
        "instanceInitiatedShutdownBehavior" => value(answer, Some("terminate".to_owned())),
        "rootDeviceName" => value(answer, Some(root_device(image).to_owned())),
        "blockDeviceMapping" => {
            let volume = call.engine.snapshot().root_volume(instance);
            write_mapping(answer, root_device(image), volume.as_ref());
        }
        // A guest may send from its own address only, and receive for it only.
        "sourceDestCheck" => value(answer, Some("true".to_owned())),
        "groupSet" => write_groups(answer, reservation),
        "productCodes" => {
            if instance.product_codes.is_empty() {
                answer.structure("productCodes", |_| {});
            }
            write_product_codes(answer, &instance.product_codes);
        }
        "enclaveOptions" => answer.structure(attribute, |answer| {
            answer.leaf("enabled", "false");
        }),
        other => answer.structure(other, |_| {}),
    }
}

/// No instance borrows processor time, which is what `standard` says.  Without ids EC2 lists those
/// that may borrow without limit: none.
pub(crate) fn describe_credits(call: &Call<'_>) -> Result<String, Refused> {
    let ids = ids(call)?;
    let filters = Filters::of(&call.request, &CREDIT_FILTERS)?;
    // Its pages are never more than one; the request is read all the same.
    Page::of(&call.request, RESULTS_MIN, "InstanceId")?;
    let views = if ids.is_empty() {
        vec![]
    } else {
        call.engine.describe_instances(&call.caller, &ids)?
    };
    let instances: Vec<&Instance> = views
        .iter()
        .flat_map(|view| &view.instances)
        .map(|instance| &**instance)
        .collect();
    if let Some(id) = ids
        .iter()
        .find(|id| !instances.iter().any(|it| it.id == **id))
    {
        return Err(Error::not_found(Resource::Instance, id).into());
    }
    let shown = instances
        .into_iter()
        .filter(|it| filters.pass(|_| vec![it.id.to_string()]));
    let mut answer = call.answer();
    answer.list("instanceCreditSpecificationSet", shown, |answer, it| {
        answer.value("instanceId", it.id);
        answer.leaf("cpuCredits", "standard");
    });
    Ok(answer.finish())
}
