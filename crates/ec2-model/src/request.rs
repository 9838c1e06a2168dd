//! Reading a request in the shape of the version that was asked for.

use cumulet_wire::base64;
use cumulet_wire::query::{Params, parse_index};
use cumulet_wire::shown;

use crate::Version;
use crate::model::{self, Found, Kind, Meaning, Operation, Parameter, Rule};

/// Why a request is refused before anybody looks at what it asks for.  The texts are EC2's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    #[error("The request is missing an action or operation parameter")]
    MissingAction,
    #[error("The request must contain the parameter {0}")]
    Missing(String),
    #[error("The requested version ({0}) of service AmazonEC2 does not exist")]
    UnknownVersion(String),
    /// `hint` says in which other versions it would be one.
    #[error("The action {action} is not valid for this web service.{hint}")]
    UnknownAction { action: String, hint: String },
    #[error("The operation {0} is not supported here")]
    UnsupportedAction(String),
    /// `hint` says in which other versions it would be one.
    #[error("The parameter {parameter} is not recognized{hint}")]
    UnknownParameter { parameter: String, hint: String },
    #[error("The parameter {parameter}, given as '{value}', is not supported here{hint}")]
    UnsupportedParameter {
        parameter: String,
        value: String,
        hint: String,
    },
    #[error("{message}")]
    InvalidValue { parameter: String, message: String },
    #[error("{message}")]
    InvalidCombination { message: String },
}

impl ModelError {
    /// For a name that is no operation of the version; tells of which version it is one.
    pub fn unknown_action(name: &str, asked: Version) -> Self {
        let hint = model::span(name).and_then(|(first, last)| version_hint(asked, first, last));
        ModelError::UnknownAction {
            action: shown(name),
            hint: hint.map_or_else(String::new, |it| format!(" It is not one {it}.")),
        }
    }
}

/// What to tell who asked in `asked` for something that came with `first` and went after `last`;
/// `None` where the version is not what is wrong.
pub(crate) fn version_hint(
    asked: Version,
    first: Version,
    last: Option<Version>,
) -> Option<String> {
    if asked.is_within(first, last) {
        return None;
    }
    let span = match last {
        Some(last) if first == last => format!("in version {first} only"),
        Some(last) => format!("in versions {first} to {last}"),
        None => format!("in versions from {first} on"),
    };
    Some(format!("in version {asked}; it is {span}"))
}

/// Parameters that say who asks for what, in which way; no operation sees them.
const COMMON: &[&str] = &[
    "AWSAccessKeyId",
    "Action",
    "Expires",
    "Operation",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureVersion",
    "Timestamp",
    "Version",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// A request whose every parameter is of the version, of the right type, and honoured.
#[derive(Debug)]
pub struct Request<'a> {
    pub operation: &'static Operation,
    pub version: Version,
    params: &'a Params,
}

/// The name that `Action` or, as EC2 allowed from the beginning, `Operation` gives.
///
/// # Errors
/// `MissingAction`; `InvalidCombination` when both are given and differ.
pub fn action(params: &Params) -> Result<&str, ModelError> {
    match (params.get("Action"), params.get("Operation")) {
        (Some(action), Some(operation)) if action != operation => {
            Err(ModelError::InvalidCombination {
                message: format!(
                    "The parameters Action and Operation name different operations: '{}' and '{}'",
                    shown(action),
                    shown(operation)
                ),
            })
        }
        (Some(name), _) | (None, Some(name)) if !name.is_empty() => Ok(name),
        _ => Err(ModelError::MissingAction),
    }
}

/// How a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Query,
    Soap,
}

/// Reads what is asked for, and in which version; then checks each parameter.
///
/// # Errors
/// See [`ModelError`].
pub fn check(params: &Params) -> Result<Request<'_>, ModelError> {
    check_as(Binding::Query, params)
}

/// As [`check`], for the parameters that [`soap::params`](crate::soap::params) made of a message.
///
/// # Errors
/// See [`ModelError`].
pub fn check_soap(params: &Params) -> Result<Request<'_>, ModelError> {
    check_as(Binding::Soap, params)
}

fn check_as(binding: Binding, params: &Params) -> Result<Request<'_>, ModelError> {
    let name = action(params)?;
    let version = params
        .get("Version")
        .ok_or_else(|| ModelError::Missing("Version".into()))?;
    let version =
        Version::parse(version).ok_or_else(|| ModelError::UnknownVersion(shown(version)))?;
    let operation = match model::find(name, version) {
        Found::Implemented(operation) => operation,
        Found::Known => return Err(ModelError::UnsupportedAction(shown(name))),
        Found::Unknown => return Err(ModelError::unknown_action(name, version)),
    };
    for (name, value) in params.iter() {
        if COMMON.binary_search(&name).is_err() {
            check_parameter(operation, version, binding, name, value)?;
        }
    }
    let request = Request {
        operation,
        version,
        params,
    };
    for parameter in operation.parameters {
        if parameter.rule == Rule::Required
            && is_sayable(operation, version, binding, parameter)
            && !request.is_given(parameter.name)
        {
            // EC2 names a missing list by its name without an index.
            let name = parameter.name.trim_end_matches(".n");
            return Err(ModelError::Missing(name.to_owned()));
        }
    }
    Ok(request)
}

/// Whether a message of the version has a place for a parameter.
fn is_sayable(
    operation: &Operation,
    version: Version,
    binding: Binding,
    parameter: &Parameter,
) -> bool {
    let says = |meaning: Meaning| match meaning {
        Meaning::Parameter(name) => name == parameter.name,
        Meaning::Always(_) => false,
        Meaning::Sets(name, others) => {
            name == Some(parameter.name) || others.iter().any(|(name, _)| *name == parameter.name)
        }
    };
    binding == Binding::Query
        || operation
            .soap
            .iter()
            .any(|it| says(it.meaning) && version.is_within(it.first, it.last))
}

fn check_parameter(
    operation: &Operation,
    version: Version,
    binding: Binding,
    name: &str,
    value: &str,
) -> Result<(), ModelError> {
    let unknown = |hint: String| ModelError::UnknownParameter {
        parameter: shown(name),
        hint,
    };
    let parameter = find(operation, name).ok_or_else(|| unknown(String::new()))?;
    // Messages got some of these earlier than the Query API did; which elements a version has was
    // seen when they were read.
    if binding == Binding::Query && !version.is_within(parameter.first, parameter.last) {
        let hint = version_hint(version, parameter.first, parameter.last);
        return Err(unknown(
            hint.map_or_else(String::new, |it| format!(" {it}")),
        ));
    }
    match parameter.rule {
        Rule::Soap if binding == Binding::Query => Err(unknown(String::new())),
        Rule::Refused => Err(unsupported(name, value, String::new())),
        Rule::Only(wanted) if is_same(parameter.kind, wanted, value) => Ok(()),
        Rule::Only(wanted) => {
            let hint = format!(", unless it is '{wanted}'");
            Err(unsupported(name, value, hint))
        }
        Rule::Honoured | Rule::Required | Rule::Soap => check_kind(parameter.kind, name, value),
    }
}

fn unsupported(name: &str, value: &str, hint: String) -> ModelError {
    ModelError::UnsupportedParameter {
        parameter: shown(name),
        value: shown(value),
        hint,
    }
}

fn is_same(kind: Kind, wanted: &str, value: &str) -> bool {
    match kind {
        Kind::Boolean => boolean(wanted) == boolean(value),
        Kind::Integer => wanted.parse::<i64>() == value.parse::<i64>(),
        _ => wanted == value,
    }
}

fn check_kind(kind: Kind, name: &str, value: &str) -> Result<(), ModelError> {
    let is_good = match kind {
        Kind::Integer => value.parse::<i64>().is_ok(),
        Kind::Boolean => boolean(value).is_some(),
        // Read where it is used: its size limit is known there.
        Kind::Text | Kind::Base64 | Kind::Time => true,
    };
    if is_good {
        return Ok(());
    }
    let expected = if kind == Kind::Integer {
        "an integer"
    } else {
        "a boolean"
    };
    Err(ModelError::InvalidValue {
        parameter: shown(name),
        message: format!(
            "Invalid value '{}' for {}. It must be {expected}.",
            shown(value),
            shown(name)
        ),
    })
}

/// `true` and `false` in any case (boto sent both), `1` and `0`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// The parameter that a name on the wire stands for: its indexes become `n`.
fn find(operation: &Operation, name: &str) -> Option<&'static Parameter> {
    let mut pattern = String::with_capacity(name.len());
    for (position, part) in name.split('.').enumerate() {
        if position > 0 {
            pattern.push('.');
            let is_index = parse_index(part).is_some();
            pattern.push_str(if is_index { "n" } else { part });
        } else {
            pattern.push_str(part);
        }
    }
    // A literal `n` in the request is not an index.
    if name.split('.').any(|part| part == "n") {
        return None;
    }
    exactly(operation, &pattern).or_else(|| bare_list(operation, name))
}

fn exactly(operation: &Operation, pattern: &str) -> Option<&'static Parameter> {
    let index = operation
        .parameters
        .binary_search_by(|parameter| parameter.name.cmp(pattern))
        .ok()?;
    operation.parameters.get(index)
}

/// The list that a name without a number stands for: old clients sent a single value so.
pub(crate) fn bare_list(operation: &Operation, name: &str) -> Option<&'static Parameter> {
    if name.contains('.') || exactly(operation, name).is_some() {
        return None;
    }
    exactly(operation, &format!("{name}.n"))
}

impl<'a> Request<'a> {
    fn is_given(&self, pattern: &str) -> bool {
        match pattern.strip_suffix(".n") {
            Some(list) => !self.list(list).is_empty(),
            None => self.params.contains(pattern),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// `Missing`.
    pub fn required(&self, name: &str) -> Result<&'a str, ModelError> {
        self.text(name)
            .ok_or_else(|| ModelError::Missing(name.to_owned()))
    }

    /// The values of `name.1`, `name.2` … in order, after that of a bare `name`.
    pub fn list(&self, name: &str) -> Vec<&'a str> {
        let bare = bare_list(self.operation, name).and_then(|_| self.params.get(name));
        bare.into_iter().chain(self.params.list(name)).collect()
    }

    /// The values of `list.1.member`, `list.2.member` … in order; items without the member are skipped.
    pub fn members(&self, list: &str, member: &str) -> Vec<&'a str> {
        let indexes = self.params.indexes(list);
        indexes
            .into_iter()
            .filter_map(|index| self.text(&format!("{list}.{index}.{member}")))
            .collect()
    }

    /// Whether there is a parameter of this name, or any item of such a list.
    pub fn has_any(&self, name: &str) -> bool {
        self.params.contains(name) || !self.params.indexes(name).is_empty()
    }

    /// The numbers that occur in `name.n.…`, in order.
    pub fn indexes(&self, name: &str) -> Vec<u32> {
        self.params.indexes(name)
    }

    /// A number; those that do not fit are refused by name.
    ///
    /// # Errors
    /// `InvalidValue`.
    pub fn number<N: TryFrom<i64>>(&self, name: &str) -> Result<Option<N>, ModelError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text.parse::<i64>().ok().and_then(|it| N::try_from(it).ok());
        number.map(Some).ok_or_else(|| ModelError::InvalidValue {
            parameter: name.to_owned(),
            message: format!("Invalid value '{}' for {name}.", shown(text)),
        })
    }

    /// Whether a boolean is given and true.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name).and_then(boolean) == Some(true)
    }

    /// Bytes that were sent in base64.
    ///
    /// # Errors
    /// `InvalidValue` for what is no base64, or longer than `bytes_max`.
    pub fn base64(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, ModelError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        base64::decode(text, bytes_max)
            .map(Some)
            .map_err(|cause| ModelError::InvalidValue {
                parameter: name.to_owned(),
                message: match cause {
                    base64::Base64Error::Malformed => {
                        // Of the value nothing: scripts for instances hold passwords.
                        format!("Invalid BASE64 encoding of {name}: {}", base64::fault(text))
                    }
                    base64::Base64Error::TooLong(limit) => format!(
                        "{name} is limited to {limit} bytes, and more are given: {} characters of base64",
                        text.len()
                    ),
                },
            })
    }

    /// The filters: name and accepted values, as `Filter.n.Name` and `Filter.n.Value.m` give them.
    ///
    /// # Errors
    /// `Missing` name or values.
    pub fn filters(&self) -> Result<Vec<(&'a str, Vec<&'a str>)>, ModelError> {
        let mut filters = vec![];
        for index in self.params.indexes("Filter") {
            let name = self.required(&format!("Filter.{index}.Name"))?;
            let values = self.list(&format!("Filter.{index}.Value"));
            if values.is_empty() {
                return Err(ModelError::Missing(format!("Filter.{index}.Value")));
            }
            filters.push((name, values));
        }
        Ok(filters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates;

    fn refusal(query: &str) -> ModelError {
        let params = Params::parse(Some(query), None).unwrap();
        check(&params)
            .map(|request| request.operation.name)
            .unwrap_err()
    }

    const RUN: &str = "Action=RunInstances&ImageId=ami-12345678&MinCount=1&MaxCount=1";

    #[test]
    fn what_versions_know_is_read_and_the_rest_refused() {
        let params = Params::parse(
            Some(&format!("{RUN}&Version=2007-03-01&SecurityGroup.1=default")),
            None,
        );
        let params = params.unwrap();
        let request = check(&params).unwrap();
        assert_eq!(request.list("SecurityGroup"), ["default"]);
        assert_eq!(request.number::<u32>("MinCount").unwrap(), Some(1));

        let text = |query: &str| refusal(query).to_string();
        assert_eq!(text(RUN), "The request must contain the parameter Version");
        assert_eq!(
            text(&format!("{RUN}&Version=2007-03-01&InstanceType=m1.small")),
            "The parameter InstanceType is not recognized in version 2007-03-01; it is in versions from \
             2007-08-29 on"
        );
        assert_eq!(
            text(&format!("{RUN}&Version=2016-11-15&Foo=1")),
            "The parameter Foo is not recognized"
        );
        assert_eq!(
            text(&format!(
                "{RUN}&Version=2016-11-15&TagSpecification.n.Tag.1.Key=1"
            )),
            "The parameter TagSpecification.n.Tag.1.Key is not recognized"
        );
        assert_eq!(
            text("Action=RunInstances&Version=2007-03-01&ImageId=x&MinCount=1"),
            "The request must contain the parameter MaxCount"
        );
        assert_eq!(
            text("Action=TerminateInstances&Version=2007-03-01"),
            "The request must contain the parameter InstanceId"
        );
        assert_eq!(
            refusal("Action=CreateKeyPair&Version=2006-01-01"),
            ModelError::UnknownVersion("2006-01-01".into())
        );
        assert_eq!(
            refusal("Action=ImportKeyPair&Version=2007-03-01"),
            ModelError::unknown_action("ImportKeyPair", dates::V2007_03_01)
        );
        assert_eq!(
            text("Action=ImportKeyPair&Version=2007-03-01"),
            "The action ImportKeyPair is not valid for this web service. It is not one in version \
             2007-03-01; it is in versions from 2010-08-31 on."
        );
        assert_eq!(
            text("Action=Nonsense&Version=2007-03-01"),
            "The action Nonsense is not valid for this web service."
        );
        assert_eq!(
            text("Action=RunInstances&Operation=Other&Version=2007-03-01"),
            "The parameters Action and Operation name different operations: 'RunInstances' and 'Other'"
        );
        assert_eq!(
            refusal("Operation=CreateVpc&Version=2016-11-15"),
            ModelError::UnsupportedAction("CreateVpc".into())
        );
        assert_eq!(refusal("Version=2016-11-15"), ModelError::MissingAction);
    }

    #[test]
    fn what_is_not_honoured_passes_only_with_the_value_that_is_true() {
        let run = |rest: &str| {
            let params =
                Params::parse(Some(&format!("{RUN}&Version=2016-11-15&{rest}")), None).unwrap();
            check(&params)
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(run("Monitoring.Enabled=False"), Ok(()));
        assert_eq!(
            run("Monitoring.Enabled=true"),
            Err(
                "The parameter Monitoring.Enabled, given as 'true', is not supported here, unless it is 'false'"
                    .into()
            )
        );
        assert_eq!(
            run("RamdiskId=ari-1"),
            Err("The parameter RamdiskId, given as 'ari-1', is not supported here".into())
        );
        assert_eq!(
            run("DryRun=perhaps"),
            Err("Invalid value 'perhaps' for DryRun. It must be a boolean.".into())
        );
    }

    #[test]
    fn data_that_cannot_be_read_is_not_repeated() {
        let query = format!("{RUN}&Version=2016-11-15&UserData=my-hunter22");
        let params = Params::parse(Some(&query), None).unwrap();
        let refused = check(&params).unwrap().base64("UserData", 16).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Invalid BASE64 encoding of UserData: character 3 is not of its alphabet"
        );
    }

    #[test]
    fn filters_are_names_with_values() {
        let params = Params::parse(
            Some("Action=DescribeImages&Version=2016-11-15&Filter.2.Name=b&Filter.2.Value.1=x&Filter.1.Name=a&Filter.1.Value.1=y&Filter.1.Value.2=z"),
            None,
        )
        .unwrap();
        let request = check(&params).unwrap();
        assert_eq!(
            request.filters().unwrap(),
            [("a", vec!["y", "z"]), ("b", vec!["x"])]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_parameter_is_read_or_refused(name in "[A-Za-z.0-9n]{0,40}", value in ".{0,20}") {
            let text = format!(
                "{RUN}&Version=2016-11-15&{}={}",
                cumulet_wire::query::encode(&name),
                cumulet_wire::query::encode(&value)
            );
            if let Ok(params) = Params::parse(Some(&text), None)
                && let Ok(request) = check(&params)
            {
                // What passes is what the model knows and does not refuse.
                let known = find(request.operation, &name).map(|it| it.rule);
                proptest::prop_assert!(known.is_none_or(|rule| rule != Rule::Refused));
                proptest::prop_assert!(known.is_some() || COMMON.contains(&name.as_str()));
                let _ = request.filters();
                let _ = request.base64("UserData", 16);
            }
        }
    }

    #[test]
    fn common_parameters_are_sorted() {
        assert!(COMMON.is_sorted());
    }
}
