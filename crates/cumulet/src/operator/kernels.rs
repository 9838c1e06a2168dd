//! Kernels with their ramdisks.

use std::path::{Path, PathBuf};

use cumulet_domain::images::Kernel;
use cumulet_domain::{Error, KernelId};
use cumulet_engine::Engine;
use cumulet_engine::environment::Entropy;
use cumulet_host::api::HostError;
use cumulet_host::kernel::KernelStore;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when;
use crate::surroundings::SystemEntropy;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Takes files of this machine, as the default.
    Import {
        kernel: PathBuf,
        ramdisk: PathBuf,
        version: String,
    },
    List,
    Delete {
        id: KernelId,
    },
}

/// Files are kept by who has the data directory's lock, so that nobody sweeps what is half made.
pub(super) async fn perform(
    engine: &Engine,
    data_dir: &Path,
    request: Request,
) -> Result<Value, Error> {
    let place = data_dir.to_path_buf();
    match request {
        Request::Import {
            kernel,
            ramdisk,
            version,
        } => {
            let mut bytes = [0; 16];
            SystemEntropy.fill(&mut bytes);
            let id = KernelId::from_random(u128::from_le_bytes(bytes));
            // Files first, then the record: a record never names files that are not there.
            let taken = files(move || KernelStore::open(&place)?.import(id, &kernel, &ramdisk));
            let added = match taken.await {
                Ok(()) => engine.add_kernel(id, version).await,
                // It may have failed after the files had their names.
                Err(refused) => Err(refused),
            };
            match added {
                Ok(kernel) => Ok(show_kernel(&kernel)),
                Err(refused) => {
                    let place = data_dir.to_path_buf();
                    let _ = files(move || KernelStore::open(&place)?.ensure_absent(id)).await;
                    Err(refused)
                }
            }
        }
        Request::List => Ok(engine
            .kernels()
            .iter()
            .map(|kernel| show_kernel(kernel))
            .collect()),
        Request::Delete { id } => {
            engine.delete_kernel(id).await?;
            files(move || KernelStore::open(&place)?.ensure_absent(id)).await?;
            Ok(json!({ "deleted": id }))
        }
    }
}

/// Runs work on files off the async threads.
async fn files(work: impl FnOnce() -> Result<(), HostError> + Send + 'static) -> Result<(), Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(Error::internal)?.map_err(|error| {
        if error.is_retryable {
            Error::internal(error)
        } else {
            Error::invalid("kernel", error.user_reason)
        }
    })
}

fn show_kernel(kernel: &Kernel) -> Value {
    json!({
        "id": kernel.id,
        "version": kernel.version,
        "created": when(kernel.created),
        "is_default": kernel.is_default,
    })
}
