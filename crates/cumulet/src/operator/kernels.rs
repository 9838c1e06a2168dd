//! Kernels with their ramdisks.

use cumulet_domain::images::Kernel;
use cumulet_domain::{Error, KernelId};
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The files are in their place already.
    Add {
        id: KernelId,
        version: String,
    },
    List,
    Delete {
        id: KernelId,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Add { id, version } => Ok(show_kernel(&engine.add_kernel(id, version).await?)),
        Request::List => Ok(engine
            .kernels()
            .iter()
            .map(|kernel| show_kernel(kernel))
            .collect()),
        Request::Delete { id } => {
            engine.delete_kernel(id).await?;
            Ok(json!({ "deleted": id }))
        }
    }
}

fn show_kernel(kernel: &Kernel) -> Value {
    json!({
        "id": kernel.id,
        "version": kernel.version,
        "created": when(kernel.created),
        "is_default": kernel.is_default,
    })
}
