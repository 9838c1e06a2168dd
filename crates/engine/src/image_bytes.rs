//! The bytes of images on the host: stored, then recorded, removed with the last record.
//!
//! Their name is their digest, so that it is known only once they are stored, and images share
//! them.  Two rules follow.  Whoever concludes from the records (removes bytes that no record has,
//! or records bytes that are there) has the turn ([`Engine::bytes_turn`]) and looks at the newest
//! records.  And the host marks what it stores as unrecorded until it is told otherwise, so that
//! what a crash or a refusal left is found and removed: bytes without a mark are never removed for
//! the want of a record, since losing records must not lose what lies on the host.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Seek as _;
use std::sync::Arc;

use cumulet_domain::images::{BootKind, Image, ImageState, Preparation};
use cumulet_domain::{AccountId, Digest, Error, ImageId, Timestamp};
use cumulet_host::api::{FileFormat, HostError, ImageKind, ImageSource, StoredImage};
use cumulet_store::Plan;

use crate::Engine;
use crate::images::StoredBytes;
use crate::records::Stored;
use crate::state::State;
use crate::tags;

/// Images forgotten in one round.
const FORGET_MAX: usize = 30;

/// How often a file is stored, when its bytes are removed with another image's before they are
/// recorded.
const IMPORT_ATTEMPTS_MAX: u32 = 3;

/// A file that becomes an image.
#[derive(Debug)]
pub struct ImportImage {
    pub owner: AccountId,
    pub name: String,
    pub is_public: bool,
    pub file: File,
    pub format: FileFormat,
    /// What the file must turn out to be; `None` takes what it is.
    pub kind: Option<BootKind>,
}

/// Why a file did not become an image.
enum ImportError {
    /// Trying again may help: see [`Engine::check_stored`].
    BytesGone(HostError),
    Refused(Error),
}

impl From<Error> for ImportError {
    fn from(error: Error) -> Self {
        ImportError::Refused(error)
    }
}

pub(crate) fn boot_kind(kind: ImageKind) -> BootKind {
    match kind {
        ImageKind::Rootfs => BootKind::Rootfs,
        ImageKind::Disk => BootKind::Disk,
    }
}

impl Engine {
    /// Stores the file's bytes and makes an image of them, or leaves nothing.
    ///
    /// # Errors
    /// `InvalidValue` of `file` or `kind`; those of [`Engine::add_stored_image`]; `Internal` when
    /// the host fails.
    pub async fn import_image(&self, import: ImportImage) -> Result<Image, Error> {
        for _ in 1..IMPORT_ATTEMPTS_MAX {
            match self.try_import(&import).await {
                Err(ImportError::BytesGone(cause)) => {
                    tracing::info!(%cause, "a file is imported once more");
                }
                Err(ImportError::Refused(error)) => return Err(error),
                Ok(image) => return Ok(image),
            }
        }
        self.try_import(&import).await.map_err(|error| match error {
            ImportError::BytesGone(cause) => Error::internal(cause),
            ImportError::Refused(error) => error,
        })
    }

    async fn try_import(&self, import: &ImportImage) -> Result<Image, ImportError> {
        let again = |cause| Error::invalid("file", format!("The file cannot be read: {cause}"));
        let mut file = import.file.try_clone().map_err(again)?;
        file.rewind().map_err(again)?;
        let source = ImageSource::File {
            file,
            format: import.format,
        };
        let bytes_max = self.config().image_bytes_max;
        let stored = self
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
        let _turn = self.bytes_turn().lock().await;
        let added = self.add_imported(import, &stored).await;
        self.settle_bytes(stored.digest).await;
        added
    }

    async fn add_imported(
        &self,
        import: &ImportImage,
        stored: &StoredImage,
    ) -> Result<Image, ImportError> {
        let kind = boot_kind(stored.kind);
        if import.kind.is_some_and(|wanted| wanted != kind) {
            let message = match kind {
                BootKind::Rootfs => "The file is a root file system, not a disk",
                BootKind::Disk => "The file is a disk with partitions, not a root file system",
            };
            return Err(Error::invalid("kind", message).into());
        }
        let checked = self.check_stored(stored).await;
        checked.map_err(ImportError::BytesGone)?;
        let bytes = StoredBytes {
            digest: stored.digest,
            size_bytes: stored.size_bytes,
            kind,
        };
        let (name, is_public) = (import.name.clone(), import.is_public);
        Ok(self
            .add_stored_image(import.owner, name, is_public, bytes)
            .await?)
    }

    /// Bytes that were stored and not yet recorded may have been removed with an image that had the
    /// same.  For whoever has the turn.
    pub(crate) async fn check_stored(&self, stored: &StoredImage) -> Result<(), HostError> {
        if self.host().disks.has_image(stored.digest).await? {
            return Ok(());
        }
        Err(HostError::new(
            format!("recording the image {}", stored.digest),
            "its bytes were removed with another image that had the same; storing them again helps",
        ))
    }

    /// Tells the host that its bytes are recorded, or removes them when they are not.  For whoever
    /// has the turn; what fails here is done by the next round of maintenance.
    pub(crate) async fn settle_bytes(&self, digest: Digest) {
        let disks = &self.host().disks;
        let settled = match self.is_named(digest, None).await {
            Ok(true) => disks.mark_image_recorded(digest).await,
            Ok(false) => {
                tracing::info!(%digest, "bytes that no image has are removed");
                disks.ensure_image_absent(digest).await
            }
            Err(unknown) => {
                tracing::warn!(%digest, log = unknown.log(), "whether bytes are recorded is unknown");
                return;
            }
        };
        if let Err(error) = settled {
            tracing::warn!(%digest, %error, "the bytes of an image could not be settled");
        }
    }

    /// Whether an image, other than `besides`, has these bytes.  The writer is asked, not a snapshot:
    /// once a commit may or may not be durable, it does not answer any more.
    async fn is_named(&self, digest: Digest, besides: Option<ImageId>) -> Result<bool, Error> {
        self.commit(move |state| {
            let names =
                |image: &Image| Some(image.id) != besides && digest_of(image) == Some(digest);
            Ok(Plan {
                changes: vec![],
                answer: state.images.values().any(|image| names(image)),
            })
        })
        .await
    }

    /// Settles what crashes and refusals left.
    pub(crate) async fn settle_all_bytes(&self) {
        let unrecorded = match self.host().disks.unrecorded_images().await {
            Ok(unrecorded) => unrecorded,
            Err(error) => {
                tracing::warn!(%error, "could not look for bytes that no image has");
                return;
            }
        };
        for digest in unrecorded {
            let _turn = self.bytes_turn().lock().await;
            self.settle_bytes(digest).await;
        }
    }

    /// Forgets deregistered images; the stored bytes go with the last image that has them.  One that
    /// fails is tried again in the next round and keeps no other.
    pub(crate) async fn forget_images(&self) {
        let now = self.environment().now();
        let visible_ms = self.config().terminated_visible_ms;
        for id in forgettable(&self.snapshot(), now, visible_ms) {
            if let Err(error) = self.forget_image(id).await {
                tracing::warn!(image = %id, %error, log = error.log(), "could not forget a deregistered image");
            }
        }
    }

    async fn forget_image(&self, id: ImageId) -> Result<(), Error> {
        let _turn = self.bytes_turn().lock().await;
        let state = self.snapshot();
        let Some(image) = state.images.get(&id) else {
            return Ok(());
        };
        if let Preparation::Ready { digest, .. } = image.preparation
            && !self.is_named(digest, Some(id)).await?
        {
            let removed = self.host().disks.ensure_image_absent(digest).await;
            removed.map_err(Error::internal)?;
        }
        self.commit(move |state| {
            let mut changes = vec![];
            changes.extend(state.images.get(&id).map(|image| image.delete()));
            changes.extend(state.bundle_sources.get(&id).map(|source| source.delete()));
            changes.extend(tags::forget(state, [id.into()]));
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await
    }
}

/// Some deregistered images that have been shown long enough and that no instance comes from, not
/// even one that is gone and still shown: what it is made of is read from its image.
fn forgettable(state: &State, now: Timestamp, visible_ms: i64) -> Vec<ImageId> {
    let used: BTreeSet<ImageId> = state.instances.values().map(|it| it.image).collect();
    // Nothing can be launched from a deregistered image: one that is unused stays so.
    let is_old = |image: &Image| match image.state {
        ImageState::Available => false,
        ImageState::Deregistered { at } => {
            now.millis_since(at) >= visible_ms && !used.contains(&image.id)
        }
    };
    let images = state.images.values().filter(|image| is_old(image));
    images.map(|image| image.id).take(FORGET_MAX).collect()
}

pub(crate) fn digest_of(image: &Image) -> Option<Digest> {
    match image.preparation {
        Preparation::Ready { digest, .. } => Some(digest),
        Preparation::Pending { .. } | Preparation::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use cumulet_domain::InstanceId;

    use super::*;
    use crate::volumes::tests::{image, instance};

    #[test]
    fn an_image_stays_while_an_instance_of_it_is_shown() {
        let at = |state| Image {
            state,
            ..image(1, BootKind::Disk)
        };
        let gone_at = ImageState::Deregistered { at: Timestamp(100) };
        let mut state = State::default();
        let found = |state: &State, now: i64| forgettable(state, Timestamp(now), 50).len();
        let id = image(1, BootKind::Disk).id;
        state.images.insert(id, Arc::new(at(ImageState::Available)));
        assert_eq!(found(&state, 1_000), 0);
        state.images.insert(id, Arc::new(at(gone_at)));
        assert_eq!([149, 150].map(|now| found(&state, now)), [0, 1]);
        // Terminated, and still shown.
        let mut terminated = instance();
        terminated.observed.is_removed = true;
        let shown: InstanceId = terminated.id;
        state.instances.insert(shown, Arc::new(terminated));
        assert_eq!(found(&state, 1_000), 0);
        state.instances.remove(&shown);
        assert_eq!(found(&state, 1_000), 1);
    }
}
