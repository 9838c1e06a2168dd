//! A cloud in this process: the door over an engine in memory and a simulated host, one bundled
//! image in a map that stands for the object store, and clients that sign.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod by_soap;
mod client;
pub(crate) mod honest;
mod identities;
mod images;
mod reply;
mod surroundings;
pub(crate) mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::Preparation;
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{AccountId, Error, ImageId, InstanceId, KernelId, Timestamp};
use cumulet_door_ec2::Ec2Door;
use cumulet_engine::accounts::plan_bootstrap;
use cumulet_engine::environment::{Clock, Environment};
use cumulet_engine::reconcile::Reconcilers;
use cumulet_engine::{Engine, EngineConfig, State};
use cumulet_store::{MemoryEngine, Store};

#[allow(unused_imports, reason = "each test file uses a part of this")]
pub(crate) use client::{Client, enveloped, form};
#[allow(unused_imports, reason = "each test file uses a part of this")]
pub(crate) use images::A_DIGEST;
pub(crate) use reply::Reply;

use identities::bootstrap;
use surroundings::{Counter, Objects, OneKey, PlainSealer, Records, StillClock};

/// 2026-01-02T03:04:05Z.
pub(crate) const NOW: Timestamp = Timestamp(1_767_323_045_000);
pub(crate) const HOST: &str = "cloud.example:8773";
pub(crate) const REQUEST_ID: &str = "291cef62-3e86-414b-900e-17246eccfae8";
const REGION: &str = "us-east-1";

pub(crate) struct Cloud {
    pub(crate) engine: Engine,
    pub(crate) door: Ec2Door,
    objects: Arc<Objects>,
    pub(crate) random: Arc<Counter>,
    is_disk_full: Arc<AtomicBool>,
    reconcilers: Reconcilers,
}

pub(crate) fn account(number: u32) -> AccountId {
    format!("00000000000{number}")
        .parse()
        .expect("an account number")
}

/// What differs from one test's cloud to another's.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Memory that guests may have.
    pub(crate) memory_mib: u64,
    pub(crate) instances_per_account: u32,
    /// Whether instances are to say that they are simulated, in their state reason.
    pub(crate) says_simulated: bool,
    /// Whether rules of security groups hold.
    pub(crate) carries_rules_out: bool,
    pub(crate) id_format: IdFormat,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            memory_mib: 1 << 24,
            instances_per_account: 1000,
            says_simulated: true,
            carries_rules_out: true,
            id_format: IdFormat::Long,
        }
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::start_as(Setup::default()).await
    }

    pub(crate) async fn start_as(setup: Setup) -> Self {
        let is_disk_full = Arc::new(AtomicBool::new(false));
        let records = Records {
            kept: MemoryEngine::default(),
            is_disk_full: is_disk_full.clone(),
        };
        let store = Store::open(Box::new(records), State::default()).expect("store");
        let bootstrap = bootstrap();
        let plan = move |state: &State| Ok::<_, Error>(plan_bootstrap(state, &bootstrap));
        store.commit(plan).await.expect("bootstrap");
        let clock: Arc<dyn Clock> = Arc::new(StillClock);
        let objects = Arc::new(Objects::default());
        let random = Arc::new(Counter::default());
        let environment = Environment {
            clock,
            entropy: random.clone(),
            sealer: Arc::new(PlainSealer),
            forge: Arc::new(OneKey),
            objects: objects.clone(),
        };
        let config = EngineConfig {
            region: REGION.into(),
            zone: "us-east-1a".into(),
            instance_types: cumulet_domain::instance_types::default_table(),
            instances_per_account: setup.instances_per_account,
            image_bytes_max: 1 << 40,
            terminated_visible_ms: 3_600_000,
            shutdown_patience_ms: 100,
            reboot_patience_ms: 100,
            is_metadata_token_required: false,
            id_format: setup.id_format,
        };
        let mut host = cumulet_host::simulated::host(setup.memory_mib, Arc::new(|| NOW));
        host.profile.is_simulated = setup.says_simulated;
        host.profile.carries_rules_out = setup.carries_rules_out;
        let (engine, reconcilers) = Engine::start(store, host, environment, config);
        let product = engine.create_product(account(1), Some("774F4FF8".into()));
        product.await.expect("product");
        Self {
            door: Ec2Door::new(engine.clone()),
            engine,
            objects,
            random,
            is_disk_full,
            reconcilers,
        }
    }

    /// Whether the disk of the records takes nothing.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    /// Whether the object store fails.
    pub(crate) fn break_objects(&self, is_broken: bool) {
        self.objects.is_broken.store(is_broken, Ordering::Relaxed);
    }

    /// The first user, of account 1.
    pub(crate) fn client(&self) -> Client {
        Client {
            door: self.door.clone(),
            account: account(1),
            key_id: "AKIDFIRST".into(),
            secret: "first secret".into(),
            by_soap: None,
        }
    }

    /// A user of another account.
    pub(crate) async fn stranger(&self) -> Client {
        let engine = &self.engine;
        let owner = account(2);
        engine
            .create_account("second".into(), Some(owner))
            .await
            .expect("account");
        engine
            .create_user(owner, "eve".into(), None)
            .await
            .expect("user");
        engine
            .create_access_key(
                owner,
                "eve".into(),
                "AKIDSECOND".into(),
                "second secret",
                BTreeSet::from([1, 2, 4]),
            )
            .await
            .expect("key");
        Client {
            door: self.door.clone(),
            account: owner,
            key_id: "AKIDSECOND".into(),
            secret: "second secret".into(),
            by_soap: None,
        }
    }

    /// The first user with a key that may sign as in 2006.
    pub(crate) async fn old_client(&self) -> Client {
        let versions = BTreeSet::from([0, 1, 2, 4]);
        let (owner, id) = (account(1), "AKIDOLD".to_owned());
        let key = self
            .engine
            .create_access_key(owner, "alice".into(), id, "old secret", versions);
        key.await.expect("key");
        Client {
            key_id: "AKIDOLD".into(),
            secret: "old secret".into(),
            ..self.client()
        }
    }
    pub(crate) async fn add_kernel(&self) -> KernelId {
        let id = KernelId::from_random(5);
        let kernel = self.engine.add_kernel(id, "6.1".into()).await;
        kernel.expect("kernel").id
    }

    /// Waits until the image's bytes are ready, or known to be damaged.
    pub(crate) async fn wait_for_image(&self, id: ImageId) {
        for _ in 0..3000 {
            let image = self.engine.snapshot().images.get(&id).cloned();
            let is_pending = matches!(
                image.map(|image| image.preparation.clone()),
                Some(Preparation::Pending { .. }) | None
            );
            if !is_pending {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} was never prepared");
    }

    pub(crate) async fn wait_for(&self, id: InstanceId, state: InstanceState) {
        for _ in 0..3000 {
            let snapshot = self.engine.snapshot();
            if snapshot.instances.get(&id).map(|it| it.state()) == Some(state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} never became {state:?}");
    }

    pub(crate) async fn stop(self) {
        self.reconcilers.stop(Duration::from_secs(10)).await;
    }
}
