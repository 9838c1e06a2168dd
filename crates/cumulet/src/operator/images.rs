//! Images, as an operator imports and sees them.

use std::path::PathBuf;
use std::sync::Arc;

use cumulet_domain::images::{BootKind, Image, Preparation};
use cumulet_domain::{Digest, Error, Resource};
use cumulet_engine::Engine;
use cumulet_engine::images::StoredBytes;
use cumulet_host::api::{FileFormat, ImageKind, ImageSource};
use serde_json::{Value, json};

use super::{ImportFormat, ImportKind, Request, find_account, when};

pub(super) fn images(engine: &Engine, request: &Request) -> Result<Value, Error> {
    let state = engine.snapshot();
    match request {
        Request::ImageShow { id } => {
            let image = state.images.get(id);
            Ok(show_image(
                image.ok_or_else(|| Error::not_found(Resource::Image, id))?,
            ))
        }
        _ => Ok(state
            .images
            .values()
            .map(|image| show_image(image))
            .collect()),
    }
}

/// What an import was told.
pub(super) struct Import {
    pub(super) account: Option<String>,
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Option<ImportKind>,
    pub(super) format: ImportFormat,
    pub(super) is_public: bool,
}

/// Stores the file's bytes and makes an image of them, or leaves nothing.
pub(super) async fn import_image(engine: &Engine, import: Import) -> Result<Value, Error> {
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
    let source = ImageSource::File { file, format };
    let bytes_max = engine.config().image_bytes_max;
    let stored = engine
        .host()
        .disks
        .store_image(source, bytes_max, Arc::new(|_| {}))
        .await;
    let stored = stored.map_err(|error| {
        if error.is_retryable {
            Error::internal(error)
        } else {
            Error::invalid("file", error.user_reason)
        }
    })?;
    let kind = match stored.kind {
        ImageKind::Rootfs => BootKind::Rootfs,
        ImageKind::Disk => BootKind::Disk,
    };
    let is_as_said = match import.kind {
        None => true,
        Some(ImportKind::Rootfs) => kind == BootKind::Rootfs,
        Some(ImportKind::Disk) => kind == BootKind::Disk,
    };
    let added = if is_as_said {
        let bytes = StoredBytes {
            digest: stored.digest,
            size_bytes: stored.size_bytes,
            kind,
        };
        engine
            .add_stored_image(account.id, import.name, import.is_public, bytes)
            .await
    } else {
        let message = match kind {
            BootKind::Rootfs => "The file is a root file system, not a disk",
            BootKind::Disk => "The file is a disk with partitions, not a root file system",
        };
        Err(Error::invalid("kind", message))
    };
    match added {
        Ok(image) => Ok(show_image(&image)),
        Err(refused) => {
            forget_bytes(engine, stored.digest).await;
            Err(refused)
        }
    }
}

/// Removes bytes that no image has: those of an import that was refused.
async fn forget_bytes(engine: &Engine, digest: Digest) {
    let has = |image: &Arc<Image>| matches!(image.preparation, Preparation::Ready { digest: theirs, .. } if theirs == digest);
    if engine.snapshot().images.values().any(has) {
        return;
    }
    if let Err(error) = engine.host().disks.ensure_image_absent(digest).await {
        tracing::warn!(%error, "the bytes of a refused image were left behind");
    }
}

/// An image as operators see it.
fn show_image(image: &Image) -> Value {
    let preparation = match &image.preparation {
        Preparation::Pending { percent, .. } => format!("pending {percent}%"),
        Preparation::Ready { .. } => "ready".to_owned(),
        Preparation::Failed { reason } => format!("failed: {reason}"),
    };
    json!({
        "id": image.id,
        "owner": image.owner,
        "name": image.name,
        "location": image.location,
        "is_public": image.is_public,
        "created": when(image.created),
        "preparation": preparation,
    })
}
