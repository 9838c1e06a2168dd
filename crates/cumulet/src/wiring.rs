//! The one place where the cloud is put together.
//!
//! Store, sealing, clock, randomness, objects and a host make an engine; the
//! engine and the objects make the doors of [`crate::http`].  Everything that chooses between a real
//! and a simulated side is here.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::hmac;
use cumulet_auth::Keys;
use cumulet_door_metadata::{Metadata, TokenKey};
use cumulet_engine::reconcile::Reconcilers;
use cumulet_engine::records::KINDS;
use cumulet_engine::{Engine, EngineConfig, Environment, State};
use cumulet_host::api::Host;
use cumulet_host::simulated;
use cumulet_objects::ObjectStore;
use cumulet_store::{EmbeddedEngine, Store};

use crate::backup::Source;
use crate::bootstrap;
use crate::config::{Compute, Settings};
use crate::data_dir::DataDir;
use crate::image_objects::StoredObjects;
use crate::instance_facts::EngineFacts;
use crate::machine::{self, Machine};
use crate::stops;
use crate::surroundings::{self, AuthForge, EngineKeys, FileSealer, SystemClock, SystemEntropy};

/// Runs a subcommand by which the program calls itself, if this is one.
pub(crate) fn internal_command(name: Option<&OsStr>) -> Option<ExitCode> {
    match name?.to_str()? {
        "keep" => Some(cumulet_host::vm::keeper::keeper_main()),
        "image-worker" => Some(cumulet_host::image::worker_main()),
        _ => None,
    }
}

/// A cloud that is open.
pub(crate) struct Cloud {
    pub(crate) engine: Engine,
    pub(crate) store: Store<State>,
    pub(crate) objects: ObjectStore,
    pub(crate) keys: Arc<dyn Keys>,
    /// What backups are made of.
    pub(crate) source: Source,
    /// Where instances are real.
    pub(crate) machine: Option<Machine>,
    /// Whether the first records were made just now.
    pub(crate) is_new: bool,
    /// Settings of a first start that are not followed: a sentence each.
    pub(crate) differences: Vec<String>,
}

/// Everything below the engine.
struct Ground {
    store: Store<State>,
    environment: Environment,
    objects: ObjectStore,
    outcome: bootstrap::Outcome,
}

/// Opens the cloud and starts its reconcilers on the current runtime.
///
/// # Errors
/// When anything that it stands on cannot be opened; the text says what.
pub(crate) async fn start(
    dir: &Arc<DataDir>,
    settings: &Settings,
) -> anyhow::Result<(Cloud, Reconcilers)> {
    let ground = lay(dir, settings).await?;
    let (host, machine) = host(dir, settings, &ground.store).await?;
    let config = engine_config(settings);
    let (engine, reconcilers) =
        Engine::start(ground.store.clone(), host, ground.environment, config);
    let cloud = Cloud {
        machine,
        ..cloud(engine, dir, ground.store, ground.objects, ground.outcome)
    };
    Ok((cloud, reconcilers))
}

/// Opens the cloud's records alone, for an operator's command while no server runs.
///
/// # Errors
/// As [`start`].
pub(crate) async fn open_idle(dir: &Arc<DataDir>, settings: &Settings) -> anyhow::Result<Cloud> {
    let ground = lay(dir, settings).await?;
    let mut host = simulated::host(0, Arc::new(surroundings::now));
    if settings.compute == Compute::Qemu {
        // Images can be taken without a server; they lie where it will look for them.
        host.disks = Arc::new(machine::disks(dir)?);
    }
    let engine = Engine::idle(
        ground.store.clone(),
        host,
        ground.environment,
        engine_config(settings),
    );
    Ok(cloud(
        engine,
        dir,
        ground.store,
        ground.objects,
        ground.outcome,
    ))
}

fn cloud(
    engine: Engine,
    dir: &Arc<DataDir>,
    store: Store<State>,
    objects: ObjectStore,
    outcome: bootstrap::Outcome,
) -> Cloud {
    Cloud {
        source: Source {
            dir: dir.clone(),
            store: store.clone(),
            objects: objects.clone(),
        },
        keys: Arc::new(EngineKeys(engine.clone())),
        engine,
        store,
        objects,
        machine: None,
        is_new: outcome.is_new,
        differences: outcome.differences,
    }
}

async fn lay(dir: &Arc<DataDir>, settings: &Settings) -> anyhow::Result<Ground> {
    let dir = dir.clone();
    let settings = settings.clone();
    let work = move || -> anyhow::Result<Ground> {
        let sealer = Arc::new(FileSealer::new(&*dir.sealing_key()?));
        let engine = EmbeddedEngine::open(&dir.join("store.redb"), KINDS)
            .context("the records cannot be opened")?;
        let store = Store::open(Box::new(engine), State::default())
            .context("the records cannot be read")?;
        let outcome = bootstrap::ensure(
            &dir,
            &store,
            sealer.as_ref(),
            &settings.bootstrap,
            &settings.region,
        )
        .context("the first start")?;
        let objects =
            ObjectStore::open(&dir.join("objects")).context("the object store cannot be opened")?;
        let environment = Environment {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            sealer,
            forge: Arc::new(AuthForge),
            objects: Arc::new(StoredObjects(objects.clone())),
        };
        Ok(Ground {
            store,
            environment,
            objects,
            outcome,
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .context("opening the cloud ended badly")?
}

fn engine_config(settings: &Settings) -> EngineConfig {
    EngineConfig {
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        instance_types: settings.instance_types(),
        instances_per_account: settings.limits.instances_per_account,
        image_bytes_max: settings.images.bytes_max,
        terminated_visible_ms: settings.instances.terminated_visible_ms,
        shutdown_patience_ms: settings.instances.shutdown_patience_ms,
        reboot_patience_ms: settings.instances.reboot_patience_ms,
        is_metadata_token_required: settings.instances.metadata_token_required,
        id_format: settings.ids.format,
    }
}

/// The host's side of the engine, and for real machines what listeners need of it.
async fn host(
    dir: &Arc<DataDir>,
    settings: &Settings,
    store: &Store<State>,
) -> anyhow::Result<(Host, Option<Machine>)> {
    match settings.compute {
        Compute::Simulated => {
            tracing::warn!("compute is simulated: no instance will really run");
            let now = Arc::new(surroundings::now);
            Ok((
                simulated::host(settings.memory_mib(surroundings::memory_mib()), now),
                None,
            ))
        }
        Compute::Qemu => {
            let machine = machine::open(dir, settings, store).await?;
            let host = stops::wrap(machine.host.clone())?;
            Ok((host, Some(machine)))
        }
    }
}

/// Whether the host can do what the settings ask, as far as that shows without making anything.
///
/// # Errors
/// What is missing, with the line that mends it.
pub(crate) fn check_host(settings: &Settings) -> anyhow::Result<()> {
    match settings.compute {
        Compute::Simulated => Ok(()),
        Compute::Qemu => machine::check(settings),
    }
}

/// Ends all guests and removes all that the cloud made on the host; names what was removed.
///
/// # Errors
/// When something cannot be removed; it can be repeated.
pub(crate) async fn undo_host(dir: &DataDir) -> anyhow::Result<Vec<String>> {
    machine::undo(dir).await
}

/// The metadata service.  Its key follows from the sealing key, so that instances' tokens survive a
/// restart without a file of their own.
///
/// # Errors
/// When the sealing key cannot be read.
pub(crate) fn metadata(cloud: &Cloud, dir: &DataDir) -> anyhow::Result<Arc<Metadata>> {
    let sealing = hmac::Key::new(hmac::HMAC_SHA256, dir.sealing_key()?.as_slice());
    let derived = hmac::sign(&sealing, b"instance metadata tokens");
    let key: [u8; 32] = derived.as_ref().try_into().context("the derived key")?;
    Ok(Arc::new(Metadata {
        source: Arc::new(EngineFacts(cloud.engine.clone())),
        key: TokenKey::new(&key),
        now: Arc::new(surroundings::now),
    }))
}

/// Where the control socket is.
pub(crate) fn control_socket(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("control.sock")
}
