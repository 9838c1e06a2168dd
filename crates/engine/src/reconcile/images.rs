//! Prepares a registered bundle: from encrypted parts to stored, checked bytes.
//!
//! The job has no cursor of its own: a run that was cut off is begun again from
//! the first part, since a compressed stream cannot be entered in the middle;
//! what it had written was under a temporary name and is swept away.  A fault of
//! the image is recorded for good; a fault of ours is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cumulet_domain::images::{BundleSource, Image, ImageState, Preparation};
use cumulet_domain::instances::backoff_ms;
use cumulet_domain::{AccountId, Error, ImageId, InstanceId};
use cumulet_host::api::{BundlePart, HostError, ImageSource, StoredImage};
use cumulet_store::Plan;

use super::Next;
use crate::Engine;
use crate::environment::{ImageObjects, ObjectError};
use crate::image_bytes::boot_kind;
use crate::images::bundle_context;
use crate::records::Stored;
use crate::state::State;

/// Wait before a failed preparation is tried again.
const RETRY_MS: i64 = 5_000;
/// Attempts before an image has failed for good: about a quarter of an hour.
const ATTEMPTS_MAX: u32 = 20;
/// Progress is recorded in steps of this size, so that it costs few commits.
const PERCENT_STEP: u8 = 20;

/// Whether anybody can still use the image once it is ready: a deregistered one is prepared for the
/// instances that were launched before.
pub(super) fn is_to_be_prepared(state: &State, image: &Image) -> bool {
    let is_awaited = |id: &InstanceId| {
        state
            .instances
            .get(id)
            .is_some_and(|instance| instance.image == image.id)
    };
    matches!(image.preparation, Preparation::Pending { .. })
        && (image.state == ImageState::Available || state.live_instances.iter().any(is_awaited))
}

impl Engine {
    /// One run of the job; nothing if the image is ready, failed or gone, or deregistered while no
    /// instance waits for it.
    pub(crate) async fn prepare_image(&self, id: ImageId) -> Next {
        let state = self.snapshot();
        let Some(image) = state.images.get(&id).cloned() else {
            return Next::WhenWoken;
        };
        if !is_to_be_prepared(&state, &image) {
            return Next::WhenWoken;
        }
        let Some(source) = state.bundle_sources.get(&id).cloned() else {
            tracing::error!(image = %id, "an image that is to be prepared has no source");
            return self
                .record(
                    id,
                    Preparation::Failed {
                        reason: "The image has no bundle".into(),
                        is_our_fault: true,
                    },
                )
                .await;
        };
        tracing::info!(image = %id, parts = source.parts.len(), bytes = source.size_bytes, "preparing an image");
        let stored = match self.store_bundle(&image, &source).await {
            Ok(stored) => stored,
            Err(error) => return self.record_unprepared(id, error).await,
        };
        let _turn = self.bytes_turn().lock().await;
        if let Err(error) = self.check_stored(&stored).await {
            return self.record_unprepared(id, error).await;
        }
        tracing::info!(image = %id, digest = %stored.digest, kind = ?stored.kind, "the image is ready");
        let ready = Preparation::Ready {
            digest: stored.digest,
            size_bytes: stored.size_bytes,
            kind: boot_kind(stored.kind),
        };
        let next = self.record(id, ready).await;
        self.settle_bytes(stored.digest).await;
        next
    }

    async fn record_unprepared(&self, id: ImageId, error: HostError) -> Next {
        if error.is_retryable {
            tracing::warn!(image = %id, %error, "preparing an image failed; it is tried again");
            return self.record_attempt(id, &error).await;
        }
        tracing::warn!(image = %id, %error, "an image cannot be prepared");
        let failed = Preparation::Failed {
            reason: error.user_reason,
            is_our_fault: false,
        };
        self.record(id, failed).await
    }

    async fn store_bundle(
        &self,
        image: &Image,
        source: &BundleSource,
    ) -> Result<StoredImage, HostError> {
        let objects = self.environment().objects.clone();
        let opened = self
            .environment()
            .sealer
            .open(&bundle_context(image.id), &source.sealed_key);
        let opened =
            opened.map_err(|cause| HostError::new("could not open the key of a bundle", cause))?;
        let key_and_iv: [u8; 32] = opened.as_slice().try_into().map_err(|_| {
            HostError::permanent(
                "could not open the key of a bundle",
                "wrong length",
                "The bundle's key is damaged",
            )
        })?;
        let (key, iv) = key_and_iv.split_at(16);
        let parts = source
            .parts
            .iter()
            .map(|part| {
                let open = opener(
                    objects.clone(),
                    image.owner,
                    source.bucket.clone(),
                    part.key.clone(),
                );
                Ok(BundlePart {
                    open,
                    sha1: sha1_of(&part.sha1)?,
                })
            })
            .collect::<Result<Vec<_>, HostError>>()?;
        let bundle = ImageSource::Bundle {
            parts,
            key: key.try_into().expect("16 of 32 bytes"),
            iv: iv.try_into().expect("16 of 32 bytes"),
            sha1: sha1_of(&source.sha1)?,
            size_bytes: source.size_bytes,
        };
        let progress = self.progress_of(image.id);
        self.host()
            .disks
            .store_image(bundle, self.config().image_bytes_max, progress)
            .await
    }

    /// Records progress in coarse steps, from whatever thread reports it.
    fn progress_of(&self, id: ImageId) -> cumulet_host::api::Progress {
        let engine = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let recorded = AtomicU8::new(0);
        Arc::new(move |percent: u8| {
            let before = recorded.load(Ordering::Relaxed);
            if percent < before.saturating_add(PERCENT_STEP) || percent >= 100 {
                return;
            }
            recorded.store(percent, Ordering::Relaxed);
            let engine = engine.clone();
            runtime.spawn(async move {
                if let Err(error) = engine.record_progress(id, percent).await {
                    tracing::debug!(image = %id, %error, "progress was not recorded");
                }
            });
        })
    }

    async fn record_progress(&self, id: ImageId, percent: u8) -> Result<(), Error> {
        self.change_image(id, move |image| {
            if let Preparation::Pending { percent: shown, .. } = &mut image.preparation {
                *shown = (*shown).max(percent);
            }
        })
        .await
    }

    /// Counts a failed attempt; after the last one the image has failed, so that nothing waits for
    /// it for ever.
    async fn record_attempt(&self, id: ImageId, error: &HostError) -> Next {
        let reason = format!(
            "{} ({ATTEMPTS_MAX} attempts)",
            error.user_reason.trim_end_matches('.')
        );
        let failures = match self.snapshot().images.get(&id).map(|it| &it.preparation) {
            Some(Preparation::Pending { failures, .. }) => failures + 1,
            _ => return Next::WhenWoken,
        };
        if failures >= ATTEMPTS_MAX {
            let failed = Preparation::Failed {
                reason,
                is_our_fault: true,
            };
            return self.record(id, failed).await;
        }
        let counted = self.change_image(id, move |image| {
            if let Preparation::Pending {
                failures: known, ..
            } = &mut image.preparation
            {
                *known = failures;
            }
        });
        if let Err(error) = counted.await {
            tracing::warn!(image = %id, %error, "a failed attempt could not be recorded");
        }
        let wait = backoff_ms(failures).max(RETRY_MS);
        Next::At(self.environment().now().plus_millis(wait))
    }

    async fn record(&self, id: ImageId, preparation: Preparation) -> Next {
        if let Err(error) = self
            .change_image(id, move |image| image.preparation = preparation)
            .await
        {
            tracing::warn!(image = %id, %error, log = error.log(), "the preparation could not be recorded");
            return Next::At(self.environment().now().plus_millis(RETRY_MS));
        }
        let state = self.snapshot();
        for instance in state
            .live_instances
            .iter()
            .filter_map(|live| state.instances.get(live))
        {
            if instance.image == id {
                self.wake().instance(instance.id);
            }
        }
        Next::WhenWoken
    }

    async fn change_image<F>(&self, id: ImageId, change: F) -> Result<(), Error>
    where
        F: FnOnce(&mut Image) + Send + 'static,
    {
        self.commit(move |state| {
            let Some(found) = state.images.get(&id) else {
                return Ok(Plan {
                    changes: vec![],
                    answer: (),
                });
            };
            let mut image = Image::clone(found);
            change(&mut image);
            let changes = if image == **found {
                vec![]
            } else {
                vec![image.put()]
            };
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await
    }
}

type Opener = Box<dyn FnOnce() -> std::io::Result<Box<dyn std::io::Read + Send>> + Send>;

/// A missing or foreign part is the image's fault (`NotFound`, `PermissionDenied`), a failing disk ours.
fn opener(objects: Arc<dyn ImageObjects>, owner: AccountId, bucket: String, key: String) -> Opener {
    Box::new(move || {
        objects.open(owner, &bucket, &key).map_err(|cause| {
            let kind = match cause {
                ObjectError::NotFound(_) => std::io::ErrorKind::NotFound,
                ObjectError::Denied(_) => std::io::ErrorKind::PermissionDenied,
                ObjectError::TooLarge(_) => std::io::ErrorKind::FileTooLarge,
                ObjectError::Failed(_) => std::io::ErrorKind::Other,
            };
            std::io::Error::new(kind, cause)
        })
    })
}

fn sha1_of(text: &str) -> Result<[u8; 20], HostError> {
    let mut bytes = [0; 20];
    hex::decode_to_slice(text, &mut bytes).map_err(|cause| {
        HostError::permanent(
            "could not read a recorded digest",
            cause,
            "The bundle's record is damaged",
        )
    })?;
    Ok(bytes)
}
