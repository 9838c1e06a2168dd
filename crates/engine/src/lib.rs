//! The use cases of the cloud, and the reconcilers that make them true.
//!
//! A use case authorises, plans against the newest state, commits once and
//! wakes a reconciler; it knows no protocol.  A reconciler observes, plans
//! (purely, in `domain`), does one step, records, and looks again.
//!
//! Start reading at [`instances`] for a use case and at [`reconcile`] for the
//! other half.  Deliberately absent: signatures, XML, HTTP, QEMU.

pub mod accounts;
mod addresses;
pub mod claims;
mod draws;
pub mod environment;
pub mod image_attributes;
pub mod image_bytes;
pub mod images;
pub mod instances;
pub mod kernels;
pub mod keypairs;
pub mod launch;
pub mod maintenance;
pub mod networks;
pub mod products;
pub mod reconcile;
pub mod records;
pub mod security_groups;
pub mod state;
pub mod status;
pub mod tags;
mod troubles;
pub mod volumes;

use std::sync::Arc;

use cumulet_domain::ids::IdFormat;
use cumulet_domain::instance_types::InstanceType;
use cumulet_domain::{AccountId, Error};
use cumulet_host::api::Host;
use cumulet_store::{CommitError, Committed, Plan, Store, StoreError};

pub use environment::Environment;
pub use state::State;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: AccountId,
    pub user: String,
}

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub region: String,
    pub zone: String,
    pub instance_types: Vec<InstanceType>,
    /// Live instances of an account that has no limit of its own.
    pub instances_per_account: u32,
    /// Biggest image, in bytes, once unpacked.
    pub image_bytes_max: u64,
    /// How long terminated instances and deregistered images stay visible.
    pub terminated_visible_ms: i64,
    /// How long a guest may take to answer the power button.
    pub shutdown_patience_ms: u64,
    pub reboot_patience_ms: u64,
    /// Whether metadata tokens are required unless a launch says otherwise.
    pub is_metadata_token_required: bool,
    /// Form of the ids of new resources.
    pub id_format: IdFormat,
}

/// A handle to the cloud; clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    is_rehearsal: bool,
}

struct Inner {
    store: Store<State>,
    host: Host,
    environment: Environment,
    config: EngineConfig,
    wake: reconcile::Wake,
    /// Places for probes of guests.
    probes: tokio::sync::Semaphore,
    /// For whoever concludes from the records what bytes of images must be on the host.
    bytes_turn: tokio::sync::Mutex<()>,
    troubles: troubles::Troubles,
    /// Places for steps of reconcilers that touch the host.
    hands: tokio::sync::Semaphore,
}

impl Engine {
    /// Puts the engine together and starts its reconcilers on the current runtime.  What was
    /// under way before a restart goes on.
    pub fn start(
        store: Store<State>,
        host: Host,
        environment: Environment,
        config: EngineConfig,
    ) -> (Engine, reconcile::Reconcilers) {
        let (wake, inbox) = reconcile::Wake::new();
        let engine = Engine {
            inner: Arc::new(Inner {
                store,
                host,
                environment,
                config,
                wake,
                probes: tokio::sync::Semaphore::new(status::PROBES_MAX),
                bytes_turn: tokio::sync::Mutex::new(()),
                troubles: troubles::Troubles::default(),
                hands: tokio::sync::Semaphore::new(reconcile::HANDS_MAX),
            }),
            is_rehearsal: false,
        };
        let reconcilers = reconcile::Reconcilers::start(engine.clone(), inbox);
        (engine, reconcilers)
    }

    /// The engine without its reconcilers: records can be read and written, nothing on the host is
    /// touched.  For an operator's command while no server runs; the next server does the rest.
    pub fn idle(
        store: Store<State>,
        host: Host,
        environment: Environment,
        config: EngineConfig,
    ) -> Engine {
        let (wake, _nobody) = reconcile::Wake::new();
        Engine {
            inner: Arc::new(Inner {
                store,
                host,
                environment,
                config,
                wake,
                probes: tokio::sync::Semaphore::new(status::PROBES_MAX),
                bytes_turn: tokio::sync::Mutex::new(()),
                troubles: troubles::Troubles::default(),
                hands: tokio::sync::Semaphore::new(reconcile::HANDS_MAX),
            }),
            is_rehearsal: false,
        }
    }

    /// The same cloud; but a use case that would change it ends where it would commit.
    pub fn rehearsal(&self) -> Engine {
        Engine {
            inner: self.inner.clone(),
            is_rehearsal: true,
        }
    }

    pub fn is_rehearsal(&self) -> bool {
        self.is_rehearsal
    }

    /// The newest published state.
    pub fn snapshot(&self) -> Arc<State> {
        self.inner.store.snapshot()
    }

    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    pub fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    pub(crate) fn probes(&self) -> &tokio::sync::Semaphore {
        &self.inner.probes
    }

    pub(crate) fn bytes_turn(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.bytes_turn
    }

    pub(crate) fn troubles_of_instances(&self) -> &troubles::Troubles {
        &self.inner.troubles
    }

    pub(crate) fn hands(&self) -> &tokio::sync::Semaphore {
        &self.inner.hands
    }

    pub(crate) fn wake(&self) -> &reconcile::Wake {
        &self.inner.wake
    }

    /// Runs `plan` against the newest state and returns when its changes are durable.
    ///
    /// # Errors
    /// Those of the plan; in a [rehearsal](Self::rehearsal) `Rehearsed` if it has none.
    pub(crate) async fn commit<T, F>(&self, plan: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&State) -> Result<Plan<T>, Error> + Send + 'static,
    {
        if self.is_rehearsal {
            plan(&self.snapshot())?;
            return Err(Error::Rehearsed);
        }
        answer_of(self.inner.store.commit(plan).await)
    }

    /// As [`Self::commit`], for what a reconciler records: no request waits for it.
    pub(crate) async fn commit_observed<T, F>(&self, plan: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&State) -> Result<Plan<T>, Error> + Send + 'static,
    {
        answer_of(self.inner.store.commit_patiently(plan).await)
    }
}

fn answer_of<T>(committed: Result<Committed<T>, CommitError<Error>>) -> Result<T, Error> {
    match committed {
        Ok(committed) => Ok(committed.answer),
        Err(CommitError::Refused(error)) => Err(error),
        Err(CommitError::Store(cause)) => Err(unavailable(&cause)),
    }
}

fn unavailable(cause: &StoreError) -> Error {
    Error::ServiceUnavailable {
        log: format!("the store did not commit: {cause}"),
    }
}
