//! Images, as an operator imports and sees them.

use std::path::PathBuf;

use cumulet_domain::images::{BootKind, Image, ImageState, Preparation};
use cumulet_domain::{Error, ImageId, Resource};
use cumulet_engine::Engine;
use cumulet_engine::image_bytes::ImportImage;
use cumulet_host::api::FileFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;
use super::when;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    List,
    Show {
        id: ImageId,
    },
    Import(Import),
    /// Deregisters it.
    Delete {
        id: ImageId,
    },
}

/// A file on this machine that becomes an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    pub(crate) account: Option<String>,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// What it is said to hold; what it holds is looked for in any case.
    pub(crate) kind: Option<ImportKind>,
    pub(crate) format: ImportFormat,
    pub(crate) is_public: bool,
}

/// What a file is said to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImportKind {
    Rootfs,
    Disk,
}

/// How a file holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImportFormat {
    Raw,
    Qcow2,
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::List => {
            let state = engine.snapshot();
            let all = state.images.values();
            Ok(all.map(|image| show_image(image)).collect())
        }
        Request::Show { id } => {
            let state = engine.snapshot();
            let image = state.images.get(&id);
            Ok(show_image(
                image.ok_or_else(|| Error::not_found(Resource::Image, id))?,
            ))
        }
        Request::Import(import) => import_image(engine, import).await,
        Request::Delete { id } => {
            engine.deregister_image_as_operator(id).await?;
            Ok(json!({ "deleted": id }))
        }
    }
}

/// Stores the file's bytes and makes an image of them, or leaves nothing.
async fn import_image(engine: &Engine, import: Import) -> Result<Value, Error> {
    let account = find_account(engine, import.account.as_deref())?;
    let path = import.path;
    let shown_path = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path)).await;
    let file = opened
        .map_err(Error::internal)?
        .map_err(|cause| Error::invalid("file", format!("{shown_path} cannot be read: {cause}")))?;
    let format = match import.format {
        ImportFormat::Raw => FileFormat::Raw,
        ImportFormat::Qcow2 => FileFormat::Qcow2,
    };
    let kind = import.kind.map(|kind| match kind {
        ImportKind::Rootfs => BootKind::Rootfs,
        ImportKind::Disk => BootKind::Disk,
    });
    let import = ImportImage {
        owner: account.id,
        name: import.name,
        is_public: import.is_public,
        file,
        format,
        kind,
    };
    Ok(show_image(&engine.import_image(import).await?))
}

/// An image as operators see it.
fn show_image(image: &Image) -> Value {
    let preparation = match &image.preparation {
        Preparation::Pending { percent, .. } => format!("pending {percent}%"),
        Preparation::Ready { .. } => "ready".to_owned(),
        Preparation::Failed { .. } => "failed".to_owned(),
    };
    let state = match image.state {
        ImageState::Available => "available",
        ImageState::Deregistered { .. } => "deregistered",
    };
    json!({
        "id": image.id,
        "owner": image.owner,
        "name": image.name,
        "location": image.location,
        "is_public": image.is_public,
        "created": when(image.created),
        "state": state,
        "preparation": preparation,
        "reason": image.preparation.failure().map(|failure| failure.message),
    })
}
