//! ModifyImageAttribute, DescribeImageAttribute, ResetImageAttribute.
//!
//! An attribute is named by `Attribute`; from 2010-06-15 on a parameter that belongs to one
//! names it too.  SOAP requests arrive with `Attribute` and `OperationType` set, see `models/ec2-soap.txt`.

use cumulet_domain::images::{Image, LaunchPermissions};
use cumulet_domain::{AccountId, Error, shown};
use cumulet_ec2_model::request::ModelError;
use cumulet_ec2_model::{Answer, Request, dates};
use cumulet_engine::image_attributes::Modification;

use crate::call::Call;
use crate::error::Refused;
use crate::images::{parse_id, write_product_codes};

const LAUNCH_PERMISSION: &str = "launchPermission";
const PRODUCT_CODES: &str = "productCodes";
const DESCRIPTION: &str = "description";

/// Attributes for which there is an answer: that there is none such of this image, or what it is.
const ANSWERED: &[&str] = &[
    LAUNCH_PERMISSION,
    PRODUCT_CODES,
    "kernel",
    "ramdisk",
    "blockDeviceMapping",
    DESCRIPTION,
    "sriovNetSupport",
    "bootMode",
    "tpmSupport",
    "uefiData",
    "imdsSupport",
    "deregistrationProtection",
];

/// Attributes that EC2 has and for which nothing here is recorded.
const NOT_RECORDED: &[&str] = &["lastLaunchedTime"];

/// The group of everybody, the only one that may launch.
const EVERYBODY: &str = "all";

fn invalid_attribute(name: &str) -> Refused {
    Refused::invalid(format!("Invalid attribute: {}", shown(name)))
}

fn unsupported_attribute(name: &str) -> Refused {
    Refused::new(
        400,
        "UnsupportedOperation",
        format!("The attribute {name} is not supported here"),
    )
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let id = parse_id(call.request.required("ImageId")?)?;
    let mut answer = call.answer();
    let attribute = describable(call, &answer)?;
    let image = call.engine.image_attributes(&call.caller, id)?;
    answer.value("imageId", id);
    write(&mut answer, attribute, &image);
    Ok(answer.finish())
}

/// The attribute that is asked for, if the version has it and something is known of it.
fn describable(call: &Call<'_>, answer: &Answer) -> Result<&'static str, Refused> {
    let asked = call.request.required("Attribute")?;
    let is_asked = |name: &&&'static str| **name == asked && answer.has(name);
    if let Some(found) = ANSWERED.iter().find(is_asked) {
        return Ok(found);
    }
    // Of the WSDLs since 2012-03-01, whose answers never had it.
    let is_unknown_answer = asked == "instanceTypeCategory" && call.version() >= dates::V2012_03_01;
    if is_unknown_answer || NOT_RECORDED.iter().any(|name| is_asked(&name)) {
        return Err(unsupported_attribute(asked));
    }
    Err(invalid_attribute(asked))
}

/// One attribute.  What an image here never has is an empty element, as EC2 says it.
fn write(answer: &mut Answer, attribute: &'static str, image: &Image) {
    match attribute {
        LAUNCH_PERMISSION => answer.structure(LAUNCH_PERMISSION, |answer| {
            if image.is_public {
                answer.structure("item", |answer| answer.leaf("group", EVERYBODY));
            }
            for account in &image.launch_accounts {
                answer.structure("item", |answer| answer.value("userId", account));
            }
        }),
        PRODUCT_CODES => {
            if image.product_codes.is_empty() {
                answer.structure(PRODUCT_CODES, |_| {});
            }
            write_product_codes(answer, &image.product_codes);
        }
        DESCRIPTION => answer.structure(DESCRIPTION, |answer| {
            answer.optional("value", image.description.as_deref());
        }),
        "deregistrationProtection" => {
            answer.structure(attribute, |answer| answer.leaf("value", "disabled"));
        }
        other => answer.structure(other, |_| {}),
    }
}

pub(crate) async fn modify(call: &Call<'_>) -> Result<String, Refused> {
    let id = parse_id(call.request.required("ImageId")?)?;
    let modification = match modifiable(call)? {
        LAUNCH_PERMISSION => launch_permission(&call.request)?,
        PRODUCT_CODES => product_code(&call.request)?,
        _ => description(&call.request)?,
    };
    call.engine
        .modify_image_attribute(&call.caller, id, modification)
        .await?;
    Ok(call.yes())
}

/// Parameters that belong to one attribute alone.
const BELONGING: &[(&str, &str)] = &[
    ("UserId", LAUNCH_PERMISSION),
    ("UserGroup", LAUNCH_PERMISSION),
    ("Group", LAUNCH_PERMISSION),
    ("LaunchPermission.Add", LAUNCH_PERMISSION),
    ("LaunchPermission.Remove", LAUNCH_PERMISSION),
    ("ProductCode", PRODUCT_CODES),
    ("Description.Value", DESCRIPTION),
    ("Value", DESCRIPTION),
];

/// The attribute that is to be changed: the one that is named, or to which what is given belongs.
fn modifiable(call: &Call<'_>) -> Result<&'static str, Refused> {
    let request = &call.request;
    let version = call.version();
    let mut given: Vec<(&str, &'static str)> = vec![];
    for (parameter, attribute) in BELONGING {
        if request.has_any(parameter) {
            given.push((parameter, attribute));
        }
    }
    let attribute = match request.text("Attribute") {
        Some(LAUNCH_PERMISSION) => LAUNCH_PERMISSION,
        Some(PRODUCT_CODES) if version >= dates::V2007_03_01 => PRODUCT_CODES,
        Some(DESCRIPTION) if version >= dates::V2009_10_31 => DESCRIPTION,
        Some("imdsSupport") if version >= dates::V2016_11_15 => {
            return Err(unsupported_attribute("imdsSupport"));
        }
        Some(other) => return Err(invalid_attribute(other)),
        None if version < dates::V2010_06_15 => {
            return Err(ModelError::Missing("Attribute".into()).into());
        }
        None => match given.first() {
            Some((_, attribute)) => attribute,
            None => return Err(Refused::combination("No attributes specified.")),
        },
    };
    match given.iter().find(|(_, other)| *other != attribute) {
        Some((parameter, _)) => Err(Refused::combination(format!(
            "The parameter {parameter} cannot be given for the attribute {attribute}"
        ))),
        None => Ok(attribute),
    }
}

/// `OperationType`, which old clients also send where it says nothing.
fn is_removal(request: &Request<'_>) -> Result<Option<bool>, Refused> {
    match request.text("OperationType") {
        None => Ok(None),
        Some("add") => Ok(Some(false)),
        Some("remove") => Ok(Some(true)),
        Some(other) => Err(Refused::invalid(format!(
            "Invalid value '{}' for OperationType. It is add or remove.",
            shown(other)
        ))),
    }
}

fn launch_permission(request: &Request<'_>) -> Result<Modification, Refused> {
    let mut add = permissions(
        &request.members("LaunchPermission.Add", "UserId"),
        &request.members("LaunchPermission.Add", "Group"),
    )?;
    let mut remove = permissions(
        &request.members("LaunchPermission.Remove", "UserId"),
        &request.members("LaunchPermission.Remove", "Group"),
    )?;
    let groups = [request.list("UserGroup"), request.list("Group")].concat();
    let plain = permissions(&request.list("UserId"), &groups)?;
    let side = match is_removal(request)? {
        Some(true) => &mut remove,
        Some(false) => &mut add,
        // Some tools say in both forms what they add, and give an operation in neither.
        None if is_within(&plain, &add) => &mut add,
        None => return Err(ModelError::Missing("OperationType".into()).into()),
    };
    side.everybody |= plain.everybody;
    side.accounts.extend(plain.accounts);
    let nothing = LaunchPermissions::default();
    if add == nothing && remove == nothing {
        return Err(Refused::combination(
            "No launch permissions specified: UserId or UserGroup must be given",
        ));
    }
    let is_both = (add.everybody && remove.everybody)
        || add.accounts.iter().any(|it| remove.accounts.contains(it));
    if is_both {
        return Err(Refused::combination(
            "A launch permission cannot be added and removed at once",
        ));
    }
    Ok(Modification::LaunchPermission { add, remove })
}

/// Whether all that `part` names is in `whole`.
fn is_within(part: &LaunchPermissions, whole: &LaunchPermissions) -> bool {
    (whole.everybody || !part.everybody) && part.accounts.is_subset(&whole.accounts)
}

/// # Errors
/// `InvalidAMIAttributeItemValue`.
fn permissions(users: &[&str], groups: &[&str]) -> Result<LaunchPermissions, Refused> {
    let invalid = |text: &str, kind: &str| {
        Refused::from(Error::InvalidItem {
            message: format!(
                "Invalid attribute item value '{}' for {kind} item type.",
                shown(text)
            ),
        })
    };
    let mut permissions = LaunchPermissions::default();
    for text in users {
        let account: AccountId = text.parse().map_err(|_| invalid(text, "userId"))?;
        permissions.accounts.insert(account);
    }
    for text in groups {
        if *text != EVERYBODY {
            return Err(invalid(text, "group"));
        }
        permissions.everybody = true;
    }
    Ok(permissions)
}

fn product_code(request: &Request<'_>) -> Result<Modification, Refused> {
    if is_removal(request)? == Some(true) {
        return Err(Refused::invalid(
            "Invalid value 'remove' for OperationType. A product code cannot be removed.",
        ));
    }
    let mut codes = request.list("ProductCode");
    codes.dedup();
    match codes.as_slice() {
        [] => Err(ModelError::Missing("ProductCode".into()).into()),
        [code] => Ok(Modification::ProductCode((*code).to_owned())),
        several => Err(Error::InvalidItem {
            message: format!(
                "Invalid attribute item value '{}': an image has one product code",
                shown(&several.join(", "))
            ),
        }
        .into()),
    }
}

fn description(request: &Request<'_>) -> Result<Modification, Refused> {
    is_removal(request)?;
    match (request.text("Description.Value"), request.text("Value")) {
        (Some(_), Some(_)) => Err(Refused::combination(
            "The parameters Description.Value and Value cannot be given together",
        )),
        (Some(text), None) | (None, Some(text)) => Ok(Modification::Description(text.to_owned())),
        (None, None) => Err(ModelError::Missing("Value".into()).into()),
    }
}

pub(crate) async fn reset(call: &Call<'_>) -> Result<String, Refused> {
    let id = parse_id(call.request.required("ImageId")?)?;
    match call.request.required("Attribute")? {
        LAUNCH_PERMISSION => {}
        PRODUCT_CODES if call.version() >= dates::V2007_03_01 => {
            return Err(Refused::invalid(
                "Invalid attribute: productCodes cannot be reset",
            ));
        }
        other => return Err(invalid_attribute(other)),
    }
    call.engine
        .reset_launch_permission(&call.caller, id)
        .await?;
    Ok(call.yes())
}
