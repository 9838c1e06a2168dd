//! Images: registering a bundle, showing, deregistering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cumulet_bundle::manifest::{self, Manifest, ManifestError};
use cumulet_domain::images::{
    Architecture, BootKind, BundlePart, BundleSource, Image, ImageState, Preparation,
    check_image_name,
};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{AccountId, Digest, Error, ImageId, Resource, products};
use cumulet_store::Plan;
use zeroize::Zeroizing;

use crate::environment::ObjectError;
use crate::records::Stored;
use crate::state::State;
use crate::tags;
use crate::{Caller, Engine};

/// Biggest manifest that is read.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;
/// Most parts of one bundle: 10,000 parts of 10 MiB are 100 GB.
pub const PARTS_MAX: usize = cumulet_bundle::manifest::PARTS_MAX;
/// Most bytes of a bundle's record: one record of the store holds at most 512 KiB.
const SOURCE_BYTES_MAX: usize = 400 * 1024;

/// A request to register a bundle.
#[derive(Debug, Clone)]
pub struct RegisterImage {
    /// `bucket/key` of the manifest.
    pub location: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// `None` means what the manifest says, else x86_64.
    pub architecture: Option<Architecture>,
    pub tags: TagMap,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerFilter {
    Caller,
    /// The public images of the account that shows this word for its number.
    Alias(String),
    Account(AccountId),
}

/// Publishers that EC2 knows: asked for here, they own nothing unless an account has their name.
const PUBLISHERS: &[&str] = &["amazon", "aws-backup-vault", "aws-marketplace", "microsoft"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutableFilter {
    /// Images of others that name the caller.
    Caller,
    /// Public images.
    All,
    /// The caller's own images that name this account.
    Account(AccountId),
}

/// Selection of images: an image must match every list that is not empty.
#[derive(Debug, Clone, Default)]
pub struct ImagesQuery {
    pub ids: Vec<ImageId>,
    pub owners: Vec<OwnerFilter>,
    pub executable_by: Vec<ExecutableFilter>,
}

/// The context that a bundle's key is sealed with.
pub(crate) fn bundle_context(image: ImageId) -> String {
    format!("bundle/{image}")
}

impl Engine {
    /// Reads and checks the manifest, then records the image; its preparation begins at once.
    ///
    /// # Errors
    /// `InvalidManifest`; `Denied` when the bundle is somebody else's, its signature is wrong or its
    /// objects may not be read; `InvalidValue`; `AlreadyExists` of the name.
    pub async fn register_image(
        &self,
        caller: &Caller,
        request: RegisterImage,
    ) -> Result<ImageId, Error> {
        if let Some(name) = &request.name {
            check_image_name(name)?;
        }
        let location = request.location.trim_start_matches('/').to_owned();
        let (bucket, key) = location
            .split_once('/')
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or_else(|| {
                Error::invalid(
                    "ImageLocation",
                    format!(
                        "The image location has the form bucket/manifest, not '{location:.120}'"
                    ),
                )
            })?;
        let objects = &self.environment().objects;
        let bytes = objects
            .read_small(caller.account, bucket, key, MANIFEST_BYTES_MAX)
            .await
            .map_err(|cause| manifest_unreadable(&location, cause))?;
        let opened = self.open_manifest(caller.account, bytes).await;
        let opened = opened.map_err(|cause| found_in(&location, cause))?;

        let mut draws = self.draw(1);
        let id = draws.next(ImageId::mint)?;
        let prefix = key
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let mut source = BundleSource {
            image: id,
            bucket: bucket.to_owned(),
            parts: opened
                .manifest
                .parts
                .iter()
                .map(|part| BundlePart {
                    key: format!("{prefix}{}", part.filename),
                    sha1: hex::encode(part.sha1),
                })
                .collect(),
            sealed_key: vec![],
            sha1: hex::encode(opened.manifest.digest),
            size_bytes: opened.manifest.size,
        };
        let manifest_architecture = match opened.manifest.architecture.as_deref() {
            Some("i386") => Architecture::I386,
            _ => Architecture::X86_64,
        };
        let source_bytes: usize = source.parts.iter().map(|part| part.key.len() + 80).sum();
        if source_bytes > SOURCE_BYTES_MAX {
            return Err(Error::InvalidManifest {
                message: format!(
                    "The bundle has too many parts with too long names: {}",
                    source.parts.len()
                ),
            });
        }
        check_codes(&opened.manifest.product_codes)?;
        let mut image = Image {
            id,
            owner: caller.account,
            architecture: request.architecture.unwrap_or(manifest_architecture),
            location,
            name: request.name,
            description: request.description,
            created: self.environment().now(),
            state: ImageState::Available,
            is_public: false,
            launch_accounts: Default::default(),
            product_codes: opened.manifest.product_codes.clone(),
            preparation: Preparation::Pending {
                percent: 0,
                failures: 0,
            },
        };
        // The key is sealed for one id, which only the planner can call free.
        loop {
            let sealer = &self.environment().sealer;
            let key_and_iv = opened.key_and_iv.as_slice();
            source.sealed_key = sealer
                .seal(&bundle_context(image.id), key_and_iv)
                .map_err(Error::internal)?;
            let (image_now, source_now) = (image.clone(), source.clone());
            let tags = request.tags.clone();
            let plan = move |state: &State| plan_bundle(state, &image_now, &source_now, tags);
            if self.commit(plan).await? {
                break;
            }
            image.id = draws.next(ImageId::mint)?;
            source.image = image.id;
        }
        self.wake().image(image.id);
        Ok(image.id)
    }

    /// Steps 2 and 3 of RegisterImage: decrypt, parse, check owner and signature.
    async fn open_manifest(
        &self,
        caller: AccountId,
        bytes: Vec<u8>,
    ) -> Result<OpenedManifest, Error> {
        let state = self.snapshot();
        let identity = state
            .identity
            .clone()
            .ok_or_else(|| Error::internal("the cloud has no identity"))?;
        let sealer = self.environment().sealer.clone();
        let certificates: Vec<String> = state
            .certificates_of(caller)
            .map(|it| it.pem.clone())
            .collect();
        let work = move || {
            let private_key = sealer
                .open(
                    crate::accounts::IDENTITY_CONTEXT,
                    &identity.sealed_private_key,
                )
                .map_err(Error::internal)?;
            open_manifest(caller, &bytes, &private_key, &certificates)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Error::internal)?
    }

    /// Images that the caller may launch, by the three lists.
    ///
    /// # Errors
    /// `NotFound` naming all ids that do not exist; an image that exists and is not the caller's to
    /// launch is left out silently.  `Malformed` account for an owner that is nobody's alias.
    pub fn describe_images(
        &self,
        caller: &Caller,
        query: &ImagesQuery,
    ) -> Result<Vec<Arc<Image>>, Error> {
        let state = self.snapshot();
        let missing: Vec<String> = query
            .ids
            .iter()
            .filter(|id| !state.images.contains_key(*id))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Error::not_found_all(Resource::Image, missing));
        }
        check_owners(&state, &query.owners)?;
        let aliases = OwnerAliases::of(&state);
        let me = caller.account;
        let is_chosen = |image: &&Arc<Image>| {
            image.may_launch(me)
                && (query.owners.is_empty()
                    || query
                        .owners
                        .iter()
                        .any(|owner| is_owned(image, me, owner, &aliases)))
                && (query.executable_by.is_empty()
                    || query
                        .executable_by
                        .iter()
                        .any(|by| is_executable(image, me, by)))
        };
        if query.ids.is_empty() {
            return Ok(state.images.values().filter(is_chosen).cloned().collect());
        }
        // Only those are looked at, each once and in their order, however many there are beside.
        let ids: BTreeSet<ImageId> = query.ids.iter().copied().collect();
        let named = ids.iter().filter_map(|id| state.images.get(id));
        Ok(named.filter(is_chosen).cloned().collect())
    }

    /// What the owners of images are called, for whoever shows them.
    pub fn owner_aliases(&self) -> OwnerAliases {
        OwnerAliases::of(&self.snapshot())
    }

    /// No new instances from now on; those that run are unharmed, and nothing is deleted from S3.
    ///
    /// # Errors
    /// `NotFound`; `Denied` when the image is somebody else's; `Unavailable` when it was
    /// deregistered before.
    pub async fn deregister_image(&self, caller: &Caller, id: ImageId) -> Result<(), Error> {
        self.deregister(id, Some(caller.account)).await
    }

    /// The same for the operator: of any account.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when it was deregistered before.
    pub async fn deregister_image_as_operator(&self, id: ImageId) -> Result<(), Error> {
        self.deregister(id, None).await
    }

    /// `of` must be the owner, when it is given.
    async fn deregister(&self, id: ImageId, of: Option<AccountId>) -> Result<(), Error> {
        let now = self.environment().now();
        self.commit(move |state| {
            let found = state
                .images
                .get(&id)
                .ok_or_else(|| Error::not_found(Resource::Image, id))?;
            if of.is_some_and(|account| account != found.owner) {
                return Err(Error::denied(format!("Not authorized for image:{id}")));
            }
            if found.state != ImageState::Available {
                return Err(Error::Unavailable {
                    resource: Resource::Image,
                    id: id.to_string(),
                    why: None,
                });
            }
            let mut image = Image::clone(found);
            image.state = ImageState::Deregistered { at: now };
            Ok(Plan {
                changes: vec![image.put()],
                answer: (),
            })
        })
        .await
    }

    /// Records an image whose bytes the operator has stored already.
    ///
    /// # Errors
    /// `AlreadyExists` of the name; `InvalidValue`.
    pub async fn add_stored_image(
        &self,
        owner: AccountId,
        name: String,
        is_public: bool,
        stored: StoredBytes,
    ) -> Result<Image, Error> {
        check_image_name(&name)?;
        let mut draws = self.draw(1);
        let mut image = Image {
            id: draws.next(ImageId::mint)?,
            owner,
            location: format!("{owner}/{name}"),
            name: Some(name),
            description: None,
            architecture: Architecture::X86_64,
            created: self.environment().now(),
            state: ImageState::Available,
            is_public,
            launch_accounts: Default::default(),
            product_codes: vec![],
            preparation: Preparation::Ready {
                digest: stored.digest,
                size_bytes: stored.size_bytes,
                kind: stored.kind,
            },
        };
        self.commit(move |state| {
            if !state.accounts.contains_key(&owner) {
                return Err(Error::not_found(Resource::Account, owner));
            }
            check_name_free(state, &image)?;
            draws.settle(&mut image.id, ImageId::mint, |id| state.shows_image(id))?;
            Ok(Plan {
                changes: vec![image.put()],
                answer: image,
            })
        })
        .await
    }
}

/// Whether the image is recorded: nothing is if its id is taken.
fn plan_bundle(
    state: &State,
    image: &Image,
    source: &BundleSource,
    tags: TagMap,
) -> Result<Plan<bool>, Error> {
    check_name_free(state, image)?;
    if state.shows_image(image.id) {
        return Ok(Plan {
            changes: vec![],
            answer: false,
        });
    }
    let mut changes = vec![source.put(), image.put()];
    changes.extend(tags::first(image.id, image.owner, tags));
    Ok(Plan {
        changes,
        answer: true,
    })
}

/// Bytes that lie on the host, named by their digest.
#[derive(Debug, Clone, Copy)]
pub struct StoredBytes {
    pub digest: Digest,
    pub size_bytes: u64,
    pub kind: BootKind,
}

struct OpenedManifest {
    manifest: Manifest,
    /// 16 bytes of key, then 16 of IV.
    key_and_iv: Zeroizing<[u8; 32]>,
}

/// Steps 2 and 3 of RegisterImage on bytes alone.
fn open_manifest(
    caller: AccountId,
    bytes: &[u8],
    private_key_pkcs8: &[u8],
    certificates: &[String],
) -> Result<OpenedManifest, Error> {
    let refused = |cause: ManifestError| Error::InvalidManifest { message: cause.0 };
    let text = manifest::decrypt(bytes, private_key_pkcs8).map_err(refused)?;
    let manifest = manifest::parse(&text).map_err(refused)?;
    if manifest.user != caller.to_string() {
        return Err(Error::denied(format!(
            "The manifest belongs to account {}, not to the caller",
            manifest.user
        )));
    }
    if !manifest::verify(&manifest, certificates.iter().map(String::as_str)) {
        return Err(Error::denied(
            "The manifest's signature was not made with a certificate of this account",
        ));
    }
    if !matches!(manifest.image_type.as_deref(), None | Some("machine")) {
        return Err(Error::InvalidManifest {
            message: "Only machine images can be registered".to_owned(),
        });
    }
    let keys = manifest
        .open_for_cloud(private_key_pkcs8)
        .map_err(refused)?;
    let mut key_and_iv = Zeroizing::new([0; 32]);
    key_and_iv[..16].copy_from_slice(keys.key.as_slice());
    key_and_iv[16..].copy_from_slice(&keys.iv);
    Ok(OpenedManifest {
        manifest,
        key_and_iv,
    })
}

fn check_name_free(state: &State, image: &Image) -> Result<(), Error> {
    let is_taken = |other: &&Arc<Image>| {
        other.owner == image.owner
            && other.state == ImageState::Available
            && other.name == image.name
    };
    match &image.name {
        Some(name) if state.images.values().any(|other| is_taken(&other)) => {
            Err(Error::AlreadyExists {
                resource: Resource::Image,
                id: name.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Which accounts show a word for their number.
#[derive(Debug, Clone, Default)]
pub struct OwnerAliases(BTreeMap<AccountId, String>);

impl OwnerAliases {
    fn of(state: &State) -> Self {
        let all = state.accounts.values();
        let named = all.filter_map(|account| Some((account.id, account.alias.clone()?)));
        Self(named.collect())
    }

    /// What the owner of an image is called: only public images show it.
    pub fn of_image(&self, image: &Image) -> Option<&str> {
        let alias = self.0.get(&image.owner);
        alias.filter(|_| image.is_public).map(String::as_str)
    }
}

/// A word that is nobody's and never was a publisher's is no owner.
fn check_owners(state: &State, owners: &[OwnerFilter]) -> Result<(), Error> {
    for owner in owners {
        let OwnerFilter::Alias(word) = owner else {
            continue;
        };
        let mut accounts = state.accounts.values();
        let is_known = PUBLISHERS.contains(&word.as_str())
            || accounts.any(|account| account.alias.as_ref() == Some(word));
        if !is_known {
            return Err(Error::Malformed {
                resource: Resource::Account,
                id: word.clone(),
                form: "an account id of 12 digits, self, or the alias of an account".into(),
            });
        }
    }
    Ok(())
}

fn is_owned(image: &Image, me: AccountId, owner: &OwnerFilter, aliases: &OwnerAliases) -> bool {
    match owner {
        OwnerFilter::Caller => image.owner == me,
        OwnerFilter::Alias(word) => aliases.of_image(image) == Some(word),
        OwnerFilter::Account(account) => image.owner == *account,
    }
}

fn is_executable(image: &Image, me: AccountId, by: &ExecutableFilter) -> bool {
    match by {
        ExecutableFilter::All => image.is_public,
        ExecutableFilter::Caller => image.owner != me && image.launch_accounts.contains(&me),
        ExecutableFilter::Account(account) => {
            image.owner == me && image.launch_accounts.contains(account)
        }
    }
}

/// An image has one product code at most, in a manifest as by ModifyImageAttribute.
fn check_codes(codes: &[String]) -> Result<(), Error> {
    let is_good = match codes {
        [] => true,
        [code] => products::check_code(code).is_ok(),
        _ => false,
    };
    if is_good {
        return Ok(());
    }
    Err(Error::InvalidManifest {
        message: format!(
            "The manifest names {} product codes. An image has one at most, of letters and digits",
            codes.len()
        ),
    })
}

/// Whoever registers many images is told which manifest was wrong.
fn found_in(location: &str, cause: Error) -> Error {
    match cause {
        Error::InvalidManifest { message } => Error::InvalidManifest {
            message: format!("{message} (in {location:.120})"),
        },
        Error::Denied { message } => Error::denied(format!("{message} (in {location:.120})")),
        other => other,
    }
}

fn manifest_unreadable(location: &str, cause: ObjectError) -> Error {
    match cause {
        ObjectError::NotFound(_) => Error::InvalidManifest {
            message: format!("HTTP 404 (Not Found) response for the manifest {location}"),
        },
        ObjectError::Denied(_) => Error::denied(format!(
            "The manifest {location} cannot be read: grant aws-exec-read, or use your own bucket"
        )),
        ObjectError::TooLarge(_) => Error::InvalidManifest {
            message: format!("The manifest {location} is larger than {MANIFEST_BYTES_MAX} bytes"),
        },
        ObjectError::Failed(log) => Error::Internal { log },
    }
}
