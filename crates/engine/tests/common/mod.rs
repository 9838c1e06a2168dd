//! A whole engine over the simulated host, with two accounts and one image that is stored already.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::BootKind;
use cumulet_domain::instances::InstanceState;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::{AccountId, Digest, ImageId, InstanceId, Timestamp};
use cumulet_engine::environment::{
    Clock, CreatedKey, Entropy, Environment, ImageObjects, ImportedKey, KeyForge, ObjectError,
    ObjectReader, Sealer,
};
use cumulet_engine::images::StoredBytes;
use cumulet_engine::launch::{Launch, Part};
use cumulet_engine::reconcile::Reconcilers;
use cumulet_engine::{Caller, Engine, EngineConfig, State, records};
use cumulet_store::{EmbeddedEngine, MemoryEngine, Store, StoreError};
use zeroize::Zeroizing;

pub(crate) struct Cloud {
    pub(crate) engine: Engine,
    pub(crate) image: ImageId,
    /// What is drawn.
    pub(crate) random: Arc<Counter>,
    reconcilers: Reconcilers,
}

pub(crate) fn account(number: u32) -> AccountId {
    format!("00000000000{number}")
        .parse()
        .expect("an account number")
}

pub(crate) fn caller_of(number: u32) -> Caller {
    Caller {
        account: account(number),
        user: "user".into(),
    }
}

pub(crate) fn launch_of(image: ImageId, count: u32) -> Launch {
    Launch {
        parts: vec![Part {
            image,
            min_count: count,
            max_count: count,
            key_name: None,
        }],
        instance_type: None,
        user_data: None,
        client_token: None,
        security_groups: vec![],
        zone: None,
        metadata: None,
        subnet: None,
        address: None,
        port_description: None,
        claims: Default::default(),
        tags: Default::default(),
    }
}

impl Cloud {
    pub(crate) async fn in_memory() -> Self {
        Self::with_ids(IdFormat::Long).await
    }

    pub(crate) async fn with_ids(format: IdFormat) -> Self {
        let records = Box::new(MemoryEngine::default());
        let store = Store::open(records, State::default()).expect("store");
        Self::over(store, format).await
    }

    pub(crate) async fn on_disk(path: &Path) -> Self {
        // The file is free once the last handle of the engine before it is gone.
        let mut tries = 0;
        let engine = loop {
            match EmbeddedEngine::open(path, records::KINDS) {
                Ok(engine) => break engine,
                Err(StoreError::InUse) if tries < 1000 => tries += 1,
                Err(failed) => panic!("{failed}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let store = Store::open(Box::new(engine), State::default()).expect("store");
        Self::over(store, IdFormat::Long).await
    }

    pub(crate) async fn over(store: Store<State>, id_format: IdFormat) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(WallClock);
        let now = clock.clone();
        let host = cumulet_host::simulated::host(64 * 1024, Arc::new(move || now.now()));
        let random = Arc::new(Counter {
            next: AtomicU64::new(u64::try_from(WallClock.now().0).expect("after 1970")),
            script: Mutex::default(),
        });
        let environment = Environment {
            clock,
            entropy: random.clone(),
            sealer: Arc::new(PlainSealer),
            forge: Arc::new(NoForge),
            objects: Arc::new(NoObjects),
        };
        let config = EngineConfig {
            region: "us-east-1".into(),
            zone: "us-east-1a".into(),
            instance_types: cumulet_domain::instance_types::default_table(),
            instances_per_account: 20,
            image_bytes_max: 1 << 40,
            terminated_visible_ms: 3_600_000,
            shutdown_patience_ms: 100,
            reboot_patience_ms: 100,
            is_metadata_token_required: false,
            id_format,
        };
        let (engine, reconcilers) = Engine::start(store, host, environment, config);
        let known = engine.snapshot().images.keys().next().copied();
        let image = match known {
            Some(image) => image,
            None => {
                for number in [1, 2] {
                    let name = format!("account-{number}");
                    engine
                        .create_account(name, Some(account(number)))
                        .await
                        .expect("account");
                }
                let stored = StoredBytes {
                    digest: Digest([7; 32]),
                    size_bytes: 1 << 20,
                    kind: BootKind::Disk,
                };
                let name = "an-image".to_owned();
                engine
                    .add_stored_image(account(1), name, false, stored)
                    .await
                    .expect("image")
                    .id
            }
        };
        Self {
            engine,
            image,
            random,
            reconcilers,
        }
    }

    /// Waits until the instance is in the state; a state that never comes fails the test.
    pub(crate) async fn wait_for(&self, id: InstanceId, state: InstanceState) {
        for _ in 0..3000 {
            let found = self
                .engine
                .snapshot()
                .instances
                .get(&id)
                .map(|it| it.state());
            if found == Some(state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let found = self.engine.snapshot().instances.get(&id).cloned();
        panic!("{id} never became {state:?}: {found:?}");
    }

    pub(crate) async fn stop(self) {
        self.reconcilers.stop(Duration::from_secs(10)).await;
    }
}

struct WallClock;

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that the engine is handed"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(i64::try_from(since.expect("after 1970").as_millis()).expect("in range"))
    }
}

/// First what a test wants, then distinct numbers; nothing here is secret.
pub(crate) struct Counter {
    next: AtomicU64,
    script: Mutex<VecDeque<u128>>,
}

impl Counter {
    /// The next numbers of 128 bits are these.
    pub(crate) fn say(&self, numbers: &[u128]) {
        *self.script.lock().expect("not poisoned") = numbers.iter().copied().collect();
    }
}

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() == 16
            && let Some(number) = self.script.lock().expect("not poisoned").pop_front()
        {
            bytes.copy_from_slice(&number.to_le_bytes());
            return;
        }
        for chunk in bytes.chunks_mut(8) {
            let next = self
                .next
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
    }
}

struct PlainSealer;

impl Sealer for PlainSealer {
    fn seal(&self, _context: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok(plain.to_vec())
    }
    fn open(&self, _context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

struct NoForge;

impl KeyForge for NoForge {
    fn create(&self, _kind: KeyType) -> Result<CreatedKey, String> {
        Ok(CreatedKey {
            private_pem: Zeroizing::new(String::new()),
            openssh: "ssh-rsa none".into(),
            fingerprint: String::new(),
        })
    }
    fn parse_public(&self, _material: &[u8]) -> Result<ImportedKey, String> {
        Err("no keys are read here".into())
    }
}

struct NoObjects;

#[async_trait]
impl ImageObjects for NoObjects {
    async fn read_small(
        &self,
        _caller: AccountId,
        bucket: &str,
        key: &str,
        _bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        Err(ObjectError::NotFound(format!("{bucket}/{key}")))
    }
    async fn has_buckets(&self, _owner: AccountId) -> Result<bool, ObjectError> {
        Ok(false)
    }

    fn open(&self, _: AccountId, bucket: &str, key: &str) -> Result<ObjectReader, ObjectError> {
        Err(ObjectError::NotFound(format!("{bucket}/{key}")))
    }
}
