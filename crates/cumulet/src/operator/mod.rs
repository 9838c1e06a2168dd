//! What an operator can ask, as values: the control socket carries them as
//! JSON, and commands run them in-process when no server runs.
//!
//! One file a subject, each with what can be asked of it and how it is shown.
//! `account` is a number or a name everywhere; without it the only account is
//! meant.

pub(crate) mod accounts;
pub(crate) mod certificates;
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod kernels;
pub(crate) mod keys;
pub(crate) mod products;
pub(crate) mod quotas;
pub(crate) mod users;

use std::path::PathBuf;

use cumulet_domain::{Error, Timestamp};
use cumulet_engine::Engine;
use cumulet_wire::time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backup::{self, Choice, Source};

/// One request of an operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    Account(accounts::Request),
    Quota(quotas::Request),
    User(users::Request),
    Key(keys::Request),
    Certificate(certificates::Request),
    Kernel(kernels::Request),
    Image(images::Request),
    Instance(instances::Request),
    Product(products::Request),
    /// Writes a backup to a new directory on this machine.
    Backup {
        path: PathBuf,
        objects: bool,
        images: bool,
    },
}

impl Request {
    /// Whether this makes something that was not there.
    pub(crate) fn makes(&self) -> bool {
        matches!(
            self,
            Request::Account(accounts::Request::Create { .. })
                | Request::Quota(quotas::Request::Set { .. })
                | Request::User(users::Request::Create { .. })
                | Request::Key(keys::Request::Create { .. })
                | Request::Certificate(certificates::Request::Create { .. })
                | Request::Kernel(kernels::Request::Import { .. })
                | Request::Image(images::Request::Import(_))
                | Request::Product(products::Request::Create { .. })
        )
    }
}

/// Does what is asked.  Everything that it answers may be shown to the operator; secrets are in it
/// only when they were just made.
///
/// # Errors
/// The engine's.
pub(crate) async fn perform(
    engine: &Engine,
    source: &Source,
    request: Request,
) -> Result<Value, Error> {
    match request {
        Request::Status => status(engine).await,
        Request::Account(request) => accounts::perform(engine, request).await,
        Request::Quota(request) => quotas::perform(engine, request).await,
        Request::User(request) => users::perform(engine, request).await,
        Request::Key(request) => keys::perform(engine, request).await,
        Request::Certificate(request) => certificates::perform(engine, request).await,
        Request::Kernel(request) => kernels::perform(engine, source.dir.path(), request).await,
        Request::Image(request) => images::perform(engine, request).await,
        Request::Instance(request) => instances::perform(engine, request).await,
        Request::Product(request) => products::perform(engine, request).await,
        Request::Backup {
            path,
            objects,
            images,
        } => backup::save(source, path, Choice { objects, images })
            .await
            .map_err(|cause| Error::invalid("backup", format!("{cause:#}"))),
    }
}

async fn status(engine: &Engine) -> Result<Value, Error> {
    let state = engine.snapshot();
    let profile = &engine.host().profile;
    Ok(json!({
        "server": "running",
        "compute": if profile.is_simulated { "simulated" } else { "qemu" },
        "acceleration": profile.acceleration,
        "machine": profile.machine,
        "memory_mib": profile.memory_mib,
        "memory_used_mib": state.host_usage.memory_mib,
        "accounts": state.accounts.len(),
        "images": state.images.len(),
        "instances_live": state.live_instances.len(),
        "default_kernel": state.default_kernel().map(|kernel| kernel.id),
        "orphans": engine.orphans().await?,
    }))
}

fn when(at: Timestamp) -> String {
    time::format_iso8601(at)
}

/// The text that an operator sees: with what users do not see.
pub(crate) fn error_text(error: &Error) -> String {
    match error.log() {
        Some(log) => format!("{error}: {log}"),
        None => error.to_string(),
    }
}
