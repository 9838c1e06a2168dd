//! The closed set of ways in which the cloud says no.
//!
//! Doors hold one table from this to their own codes and statuses.  The texts
//! are for users: they carry no paths, command lines or addresses of hosts.

use std::collections::BTreeSet;
use std::fmt;

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    Account,
    User,
    AccessKey,
    Certificate,
    Image,
    Instance,
    Reservation,
    KeyPair,
    Kernel,
    InstanceType,
    SecurityGroup,
    Bucket,
    Object,
    AvailabilityZone,
    Region,
    Vpc,
    Subnet,
    NetworkInterface,
    /// An address of a network interface.
    PrivateAddress,
    Volume,
    /// A rule of a security group.
    Permission,
    Product,
    Tag,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Account => "account",
            Resource::User => "user",
            Resource::AccessKey => "access key",
            Resource::Certificate => "certificate",
            Resource::Image => "image",
            Resource::Instance => "instance",
            Resource::Reservation => "reservation",
            Resource::KeyPair => "key pair",
            Resource::Kernel => "kernel",
            Resource::InstanceType => "instance type",
            Resource::SecurityGroup => "security group",
            Resource::Bucket => "bucket",
            Resource::Object => "object",
            Resource::AvailabilityZone => "availability zone",
            Resource::Region => "region",
            Resource::Vpc => "network",
            Resource::Subnet => "subnet",
            Resource::NetworkInterface => "network interface",
            Resource::PrivateAddress => "private address",
            Resource::Volume => "volume",
            Resource::Permission => "permission",
            Resource::Product => "product",
            Resource::Tag => "tag",
        })
    }
}

/// A refusal, in terms of the domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not an id (or a name) of this kind.
    #[error("Invalid id: {id:?} (expecting {form:?})")]
    Malformed {
        resource: Resource,
        id: String,
        form: String,
    },
    #[error("The {resource} {id:?} does not exist")]
    NotFound {
        resource: Resource,
        ids: Vec<String>,
        id: String,
    },
    #[error("The {resource} {id:?} already exists")]
    AlreadyExists { resource: Resource, id: String },
    /// The name is not free to be used so.
    #[error("The {resource} {id:?} is reserved")]
    Reserved { resource: Resource, id: String },
    /// Existed, and is no longer usable (a deregistered image), or never was, with the reason.
    #[error("The {resource} {id:?} is {}", unavailable_text(why.as_deref()))]
    Unavailable {
        resource: Resource,
        id: String,
        why: Option<String>,
    },
    #[error("{message}")]
    InvalidValue { parameter: String, message: String },
    #[error("{message}")]
    InvalidCombination { message: String },
    /// A value that an attribute of an image cannot hold.
    #[error("{message}")]
    InvalidItem { message: String },
    #[error("The request must contain the parameter {parameter}")]
    Missing { parameter: String },
    #[error("{message}")]
    Unsupported { message: String },
    #[error("{message}")]
    LimitExceeded { resource: Resource, message: String },
    #[error("{message}")]
    InsufficientCapacity { message: String },
    #[error("{message}")]
    Denied { message: String },
    /// An image has a product that the caller is not subscribed to.
    #[error("{message}")]
    NotSubscribed { message: String },
    /// The manifest of a bundle cannot be read, or lies.
    #[error("{message}")]
    InvalidManifest { message: String },
    /// A repeated client token with other parameters.
    #[error("{message}")]
    IdempotentParameterMismatch { message: String },
    /// The resource is in a state that does not admit the operation.
    #[error("{message}")]
    IncorrectState { resource: Resource, message: String },
    /// Nothing stands against what was asked, and nothing was done: it was to be tried only.
    #[error("Request would have succeeded, but DryRun flag is set.")]
    Rehearsed,
    /// Our fault; the log has the cause.
    #[error("An internal error has occurred")]
    Internal { log: String },
    /// Overloaded or stopping; a retry can help.
    #[error("The service is unavailable; retry later")]
    ServiceUnavailable { log: String },
}

/// Longest text of a caller's that a message repeats, in characters.
const SHOWN_LEN_MAX: usize = 120;

/// As much of a caller's text as a message repeats.
pub fn shown(text: &str) -> String {
    text.chars().take(SHOWN_LEN_MAX).collect()
}

fn unavailable_text(why: Option<&str>) -> String {
    match why {
        Some(why) => format!("not available: {why}"),
        None => "no longer available".to_owned(),
    }
}

impl Error {
    pub fn not_found(resource: Resource, id: impl ToString) -> Self {
        let id = id.to_string();
        Error::NotFound {
            resource,
            ids: vec![id.clone()],
            id,
        }
    }

    /// EC2 names all missing ids of a list in one message; each is named once.
    pub fn not_found_all(resource: Resource, ids: Vec<String>) -> Self {
        let mut seen = BTreeSet::new();
        let ids: Vec<String> = ids
            .into_iter()
            .filter(|id| seen.insert(id.clone()))
            .collect();
        Error::NotFound {
            resource,
            id: ids.join(", "),
            ids,
        }
    }

    pub fn invalid(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Error::InvalidValue {
            parameter: parameter.into(),
            message: message.into(),
        }
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Error::Denied {
            message: message.into(),
        }
    }

    pub fn internal(log: impl ToString) -> Self {
        Error::Internal {
            log: log.to_string(),
        }
    }

    /// What the log gets and the user does not.
    pub fn log(&self) -> Option<&str> {
        match self {
            Error::Internal { log } | Error::ServiceUnavailable { log } => Some(log),
            _ => None,
        }
    }
}
