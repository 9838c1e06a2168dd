//! A SOAP request as parameters: the same checks and the same operations follow.

use cumulet_wire::query::Params;
use cumulet_wire::shown;
use cumulet_wire::soap::Leaf;

use crate::Version;
use crate::dates::V2013_08_15;
use crate::model::{Meaning, Operation, SoapField};
use crate::request::{ModelError, version_hint};

/// The last version with a SOAP binding whose shape is known.
pub const LAST: Version = V2013_08_15;

/// The version that a namespace names, with its last slash or, as the guide prints it, without.
pub fn version_of(namespace: &str) -> Option<Version> {
    let date = namespace.strip_prefix("http://ec2.amazonaws.com/doc/")?;
    Version::parse(date.strip_suffix('/').unwrap_or(date))
}

/// The parameters that the elements of a request stand for, with `Action` and `Version`.
///
/// # Errors
/// `UnknownParameter` for an element that the version does not have; `UnsupportedParameter` for what
/// has no parameter; `InvalidValue` for an attribute that is not what it always is.
pub fn params(
    operation: &Operation,
    version: Version,
    leaves: &[Leaf],
) -> Result<Params, ModelError> {
    let mut params = Params::default();
    add(&mut params, "Action", operation.name)?;
    add(&mut params, "Version", version.as_str())?;
    for leaf in leaves {
        let Some(field) = find(operation, version, &leaf.path) else {
            let is_empty = leaf.text.is_empty() && is_container(operation, version, &leaf.path);
            // A list may be empty; an item of it says something.
            if is_empty && !leaf.path.ends_with("item") {
                continue;
            }
            let path = shown(&leaf.path);
            return Err(if is_empty {
                ModelError::Missing(path)
            } else {
                ModelError::UnknownParameter {
                    parameter: path,
                    hint: hint(operation, version, &leaf.path),
                }
            });
        };
        match field.meaning {
            Meaning::Parameter(pattern) => add(&mut params, &numbered(pattern, leaf)?, &leaf.text)?,
            Meaning::Always(value) => check_text(leaf, value)?,
            Meaning::Sets(pattern, values) => {
                for (name, value) in values {
                    choose(&mut params, name, value, leaf)?;
                }
                match pattern {
                    Some(pattern) => add(&mut params, &numbered(pattern, leaf)?, &leaf.text)?,
                    None => check_text(leaf, "")?,
                }
            }
        }
    }
    check_attributes(operation, version, leaves)?;
    Ok(params)
}

fn add(params: &mut Params, name: &str, value: &str) -> Result<(), ModelError> {
    params
        .insert(name.to_owned(), value.to_owned())
        .map_err(|cause| ModelError::InvalidCombination {
            message: cause.to_string(),
        })
}

/// Sets a parameter that other elements may have set to the same.
fn choose(params: &mut Params, name: &str, value: &str, leaf: &Leaf) -> Result<(), ModelError> {
    match params.get(name) {
        Some(chosen) if chosen == value => Ok(()),
        Some(chosen) => Err(ModelError::InvalidCombination {
            message: format!("{} cannot be given beside {chosen}", shown(&leaf.path)),
        }),
        None => add(params, name, value),
    }
}

fn check_text(leaf: &Leaf, wanted: &str) -> Result<(), ModelError> {
    if leaf.text == wanted {
        return Ok(());
    }
    let wanted = if wanted.is_empty() { "empty" } else { wanted };
    Err(ModelError::InvalidValue {
        parameter: shown(&leaf.path),
        message: format!(
            "Invalid value '{}' for {}. It must be {wanted}.",
            shown(&leaf.text),
            shown(&leaf.path)
        ),
    })
}

/// An attribute that says always the same must be there if its element is.
fn check_attributes(
    operation: &Operation,
    version: Version,
    leaves: &[Leaf],
) -> Result<(), ModelError> {
    for field in operation.soap {
        let Some((element, attribute)) = field.path.split_once("/@") else {
            continue;
        };
        let is_below = |leaf: &&Leaf| {
            let rest = leaf.path.strip_prefix(element);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if version.is_within(field.first, field.last)
            && leaves.iter().any(|leaf| is_below(&leaf))
            && !leaves.iter().any(|leaf| leaf.path == field.path)
        {
            return Err(ModelError::InvalidValue {
                parameter: field.path.to_owned(),
                message: format!("The element {element} must have the attribute {attribute}."),
            });
        }
    }
    Ok(())
}

fn find(operation: &Operation, version: Version, path: &str) -> Option<&'static SoapField> {
    let start = operation.soap.partition_point(|it| it.path < path);
    let fields = operation.soap.get(start..)?;
    fields
        .iter()
        .take_while(|it| it.path == path)
        .find(|it| version.is_within(it.first, it.last))
}

/// Which other versions have an element of this path.
fn hint(operation: &Operation, version: Version, path: &str) -> String {
    let spans = operation.soap.iter().filter(|it| it.path == path);
    let first = spans.clone().map(|it| it.first).min();
    let last = spans.filter_map(|it| it.last).max();
    let hint = first.and_then(|first| version_hint(version, first, last));
    hint.map_or_else(String::new, |it| format!(" {it}"))
}

/// Whether elements of the version lie below this one.
fn is_container(operation: &Operation, version: Version, path: &str) -> bool {
    let is_below = |it: &&SoapField| {
        let rest = it.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with('/')) && version.is_within(it.first, it.last)
    };
    operation.soap.iter().any(|it| is_below(&it))
}

/// The name of the parameter with the numbers of the leaf's items.
fn numbered(pattern: &str, leaf: &Leaf) -> Result<String, ModelError> {
    let mut numbers = leaf.numbers.iter();
    let mut name = String::new();
    for (position, part) in pattern.split('.').enumerate() {
        if position > 0 {
            name.push('.');
        }
        match part {
            "n" => name.push_str(&numbers.next().copied().unwrap_or(1).to_string()),
            _ => name.push_str(part),
        }
    }
    // A list that the Query API does not have, and nothing here has a name for.
    if numbers.any(|number| *number > 1) {
        return Err(ModelError::UnsupportedParameter {
            parameter: shown(&leaf.path),
            value: shown(&leaf.text),
            hint: " more than once".into(),
        });
    }
    Ok(name)
}
