//! Clients that do what the dice say and remember what they were told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cumulet_domain::images::{
    Architecture, BootKind, BundleSource, Image, ImageState, Preparation,
};
use cumulet_domain::tags::{TagMap, TaggedKind};
use cumulet_domain::{AccountId, Error, ImageId, InstanceId, Resource};
use cumulet_engine::image_bytes::ImportImage;
use cumulet_engine::images::ImagesQuery;
use cumulet_engine::launch::{Launch, Part};
use cumulet_engine::records::Stored;
use cumulet_engine::{Caller, Engine, State};
use cumulet_host::api::FileFormat;
use cumulet_store::{CommitError, Plan, Store};

use super::host::DIGESTS;
use super::ledger::Known;
use super::rng::Rng;
use super::world::{Shared, World};

/// Clients of a cloud; every second one is of the other account.
pub(crate) const CLIENTS: u64 = 4;

const ACCOUNTS: [&str; 2] = ["000000000001", "000000000002"];

pub(crate) fn caller(number: u64) -> Caller {
    let account = ACCOUNTS[usize::from(!number.is_multiple_of(2))];
    Caller {
        account: account.parse().expect("twelve digits"),
        user: "user".into(),
    }
}

/// What launches write on what they make.
pub(crate) fn name_tags() -> BTreeMap<TaggedKind, TagMap> {
    let name = || TagMap::from([("Name".to_owned(), "simulated".to_owned())]);
    let kinds = [TaggedKind::Instance, TaggedKind::Volume];
    kinds.into_iter().map(|kind| (kind, name())).collect()
}

/// How often clients do what, in parts of the sum: each seed has its own, so that some are busy with
/// one thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix([u64; 9]);

impl Mix {
    const USUAL: [u64; 9] = [30, 20, 15, 10, 8, 5, 10, 3, 4];

    pub(crate) fn draw(dice: &mut Rng) -> Self {
        let mut mix = Self::USUAL;
        for weight in mix.iter_mut().skip(1) {
            *weight *= dice.choose(&[0, 1, 1, 1, 4]).unwrap_or(1);
        }
        Self(mix)
    }
}

pub(crate) struct Client {
    pub(crate) mix: Mix,
    pub(crate) number: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    pub(crate) store: Store<State>,
    pub(crate) rng: Rng,
    /// Dice of its own: what seeds found stays as near to it as it can.
    pub(crate) address_dice: Rng,
}

/// An address that a launch asks for, if it asks for any: of few, one that some instance has or
/// had, or one that was given back last.
fn draw_address(world: &World, dice: &mut Rng) -> Option<Ipv4Addr> {
    if !dice.percent(40) {
        return None;
    }
    let few = Ipv4Addr::new(10, 192, 1, u8::try_from(1 + dice.below(6)).unwrap_or(1));
    let given: Vec<Ipv4Addr> = world.made.addresses.keys().copied().collect();
    match dice.below(3) {
        0 => Some(few),
        1 => dice.choose(&given).or(Some(few)),
        _ => world.made.given_back.or(Some(few)),
    }
}

impl Client {
    pub(crate) async fn run(mut self, steps: u64) {
        for _ in 0..steps {
            let pause_ms = if self.rng.percent(80) { 300 } else { 15_000 };
            tokio::time::sleep(Duration::from_millis(self.rng.below(pause_ms))).await;
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let mut drawn = self.rng.below(self.mix.0.iter().sum());
        let mut chosen = 0;
        for weight in self.mix.0 {
            if drawn < weight {
                break;
            }
            drawn -= weight;
            chosen += 1;
        }
        match chosen {
            0 => self.launch().await,
            1 => self.terminate().await,
            2 => self.reboot().await,
            3 => self.describe().await,
            4 => self.register().await,
            5 => self.deregister().await,
            6 => self.key_pair().await,
            7 => self.console().await,
            _ => self.import().await,
        }
    }

    fn me(&self) -> Caller {
        caller(self.number)
    }

    /// An answer that a client may get; any other is a breach.
    fn expect_refusal(&self, doing: &str, error: &Error) {
        let mut world = self.shared.lock();
        let is_fair = match error {
            Error::ServiceUnavailable { .. } => true,
            Error::LimitExceeded { .. } | Error::InsufficientCapacity { .. } => doing == "launch",
            // The only things that are somebody else's are images.
            Error::Denied { .. } => doing == "deregister",
            Error::Unavailable { id, why: None, .. } => !world.has_available_image(id),
            // Its preparation failed, and said so.
            Error::Unavailable {
                id, why: Some(_), ..
            } => doing == "launch" && world.has_failed_image(id),
            Error::NotFound { ids, .. } => !ids.iter().any(|id| world.has_record(id)),
            Error::Internal { .. } => {
                matches!(doing, "console" | "import") && world.faults.has_failing_calls()
            }
            _ => false,
        };
        if !is_fair {
            world.breach(format!("{doing} was refused with {error:?}"));
        }
    }

    fn draw_launch(&mut self) -> Option<Launch> {
        let me = self.me().account;
        let mut world = self.shared.lock();
        let own: Vec<Launch> = world
            .ledger
            .tokens
            .iter()
            .filter(|(owner, _)| *owner == me)
            .map(|(_, launch)| launch.clone())
            .collect();
        if self.rng.percent(20)
            && let Some(again) = self.rng.choose(&own)
        {
            return Some(again);
        }
        let images = world.ledger.images.clone();
        let image = self.rng.choose(&images)?;
        let max_count = u32::try_from(1 + self.rng.below(3)).unwrap_or(1);
        let token = format!("token-{}", world.ledger.tokens.len());
        let is_tagged = max_count > 1;
        let is_modest = self.rng.percent(50);
        let part = |image, max_count| Part {
            image,
            min_count: if is_modest { 1 } else { max_count },
            max_count,
            key_name: None,
        };
        // No dice of its own: what seeds found stays as it was.
        let other = images.iter().copied().find(|it| *it != image);
        let parts = match (max_count, other) {
            (3, Some(other)) => vec![part(image, 2), part(other, 1)],
            _ => vec![part(image, max_count)],
        };
        let address = (max_count == 1)
            .then(|| draw_address(&world, &mut self.address_dice))
            .flatten();
        let launch = Launch {
            parts,
            instance_type: Some(
                if self.rng.percent(70) {
                    "t2.nano"
                } else {
                    "t2.micro"
                }
                .into(),
            ),
            user_data: self.rng.percent(30).then(|| "data".into()),
            client_token: self.rng.percent(50).then_some(token),
            security_groups: vec![],
            zone: None,
            metadata: None,
            subnet: None,
            address,
            port_description: None,
            claims: Default::default(),
            tags: if is_tagged {
                name_tags()
            } else {
                BTreeMap::new()
            },
        };
        if launch.client_token.is_some() {
            world.ledger.tokens.push((me, launch.clone()));
        }
        Some(launch)
    }

    async fn launch(&mut self) {
        let Some(launch) = self.draw_launch() else {
            return;
        };
        let owner = self.me().account;
        let was_answered = self.shared.lock().is_answered(owner, &launch);
        if was_answered && self.rng.percent(20) {
            return self.launch_otherwise(launch).await;
        }
        let asked = self.shared.lock().ask_address(launch.address);
        match self.engine.launch(&self.me(), launch.clone()).await {
            Ok(view) => self.shared.lock().told_launch(owner, &launch, &view),
            Err(error) => {
                let is_fair = matches!(error, Error::ServiceUnavailable { .. });
                let mut world = self.shared.lock();
                if was_answered && !is_fair && world.is_answered(owner, &launch) {
                    world.breach(format!("a token that was answered is refused: {error:?}"));
                }
                if let Some(address) = launch.address
                    && matches!(&error, Error::AlreadyExists { resource: Resource::PrivateAddress, id } if *id == address.to_string())
                {
                    return world.told_taken(address, asked);
                }
                drop(world);
                self.expect_refusal("launch", &error);
            }
        }
    }

    /// A token that was answered, with other parameters.
    async fn launch_otherwise(&mut self, launch: Launch) {
        let mut other = launch.clone();
        // It would be for one instance, which is looked at first.
        other.address = None;
        for part in &mut other.parts {
            part.max_count += 1;
        }
        let answer = self.engine.launch(&self.me(), other).await;
        let owner = self.me().account;
        let mut world = self.shared.lock();
        match answer {
            Err(Error::IdempotentParameterMismatch { .. } | Error::ServiceUnavailable { .. }) => {}
            _ if !world.is_answered(owner, &launch) => {
                // Forgotten meanwhile: the token is another launch's now, or nobody's.
                world
                    .ledger
                    .tokens
                    .retain(|(_, known)| known.client_token != launch.client_token);
            }
            Ok(_) => world.breach("a token was answered for other parameters"),
            Err(error) => world.breach(format!("a token with other parameters: {error:?}")),
        }
    }

    fn draw_own(&mut self) -> Option<InstanceId> {
        let me = self.me().account;
        let world = self.shared.lock();
        let own: Vec<InstanceId> = world
            .ledger
            .instances
            .iter()
            .filter(|(owner, id)| *owner == me && world.state.instances.contains_key(id))
            .map(|(_, id)| *id)
            .collect();
        self.rng.choose(&own)
    }

    async fn terminate(&mut self) {
        let Some(id) = self.draw_own() else { return };
        self.shared.lock().ledger.ask_to_end(id);
        match self.engine.terminate(&self.me(), vec![id]).await {
            Ok(_) => self.shared.lock().told_end(id),
            Err(error) => self.expect_refusal("terminate", &error),
        }
    }

    async fn reboot(&mut self) {
        let Some(id) = self.draw_own() else { return };
        let events = self.shared.lock().event();
        match self.engine.reboot(&self.me(), vec![id]).await {
            Ok(()) => self.shared.lock().told_reboot(id, events),
            Err(error) => self.expect_refusal("reboot", &error),
        }
        self.write_on(id).await;
    }

    /// Writes on an instance what counts the events, or takes away what it finds.
    async fn write_on(&mut self, id: InstanceId) {
        let (me, events) = (self.me(), self.shared.lock().event());
        let ids = [id.into()];
        let written = if events % 3 == 0 {
            self.engine.delete_tags(&me, &ids, vec![]).await
        } else {
            let tags = [("events".to_owned(), events.to_string())].into();
            self.engine.create_tags(&me, &ids, tags).await
        };
        if let Err(error) = written {
            self.expect_refusal("tags", &error);
        }
    }

    async fn describe(&mut self) {
        let me = self.me();
        match self.engine.describe_instances(&me, &[]) {
            Ok(views) => {
                let mut world = self.shared.lock();
                let mut seen: Vec<InstanceId> = views
                    .iter()
                    .flat_map(|view| view.instances.iter().map(|it| it.id))
                    .collect();
                seen.sort_unstable();
                let durable: Vec<InstanceId> = world
                    .state
                    .instances
                    .values()
                    .filter(|it| it.owner == me.account)
                    .map(|it| it.id)
                    .collect();
                world.ledger.answered += 1;
                for view in &views {
                    view.instances.iter().for_each(|it| world.shown(it));
                }
                // After an I/O error what is durable may be ahead of what is shown.
                if seen != durable && !world.has_store_failed {
                    world.breach("an account was shown other instances than it has");
                }
                world.check_promises();
            }
            Err(error) => self.expect_refusal("describe", &error),
        }
        self.describe_images();
    }

    /// Those that the caller may launch, as they are durable.
    fn describe_images(&self) {
        let me = self.me();
        let shown = self.engine.describe_images(&me, &ImagesQuery::default());
        let mut world = self.shared.lock();
        let durable = world.state.images.values();
        let durable = durable.filter(|it| it.may_launch(me.account)).cloned();
        let durable: Vec<Arc<Image>> = durable.collect();
        if !world.has_store_failed && !matches!(&shown, Ok(shown) if *shown == durable) {
            world.breach(format!(
                "{} was shown images otherwise than they are",
                me.account
            ));
        }
    }

    /// As RegisterImage leaves it.  The manifest itself is read in threads, which a repeatable run
    /// cannot have; its tests are in the engine and the door.
    async fn register(&mut self) {
        let bits = u128::from(self.rng.next());
        let sha1 = format!("{:040x}", self.rng.below(DIGESTS));
        let id = ImageId::from_random(bits);
        register(&self.shared, &self.store, id, self.me().account, sha1).await;
    }

    /// As the operator does it, or one who knows the name of a file.
    async fn import(&mut self) {
        // Few names, so that some are taken.
        let name = format!("image-{}", self.rng.below(4));
        let import = ImportImage {
            kind: self.rng.percent(10).then_some(BootKind::Rootfs),
            ..import(self.me().account, &name)
        };
        let is_other_kind = import.kind.is_some();
        let answer = self.engine.import_image(import).await;
        let mut world = self.shared.lock();
        match answer {
            Ok(image) => {
                world.told_image(image.id);
                if is_other_kind {
                    world.breach(format!("{} is not what was asked for", image.id));
                }
            }
            Err(Error::AlreadyExists { .. }) => {}
            Err(Error::InvalidValue { .. })
                if is_other_kind || world.faults.has_failing_calls() => {}
            Err(error) => {
                drop(world);
                self.expect_refusal("import", &error);
            }
        }
    }

    async fn deregister(&mut self) {
        let images = self.shared.lock().ledger.images.clone();
        let Some(id) = self.rng.choose(&images) else {
            return;
        };
        if let Err(error) = self.engine.deregister_image(&self.me(), id).await {
            self.expect_refusal("deregister", &error);
        }
    }

    /// Each client has names of its own, so that it knows what they must be.
    async fn key_pair(&mut self) {
        let me = self.me();
        let name = format!("key-{}-{}", self.number, self.rng.below(3));
        let key = (me.account, name.clone());
        let known = self
            .shared
            .lock()
            .ledger
            .keys
            .insert(key.clone(), Known::Unknown);
        let known = known.unwrap_or(Known::Absent);
        let now_known = if self.rng.percent(60) {
            let material = b"ssh-rsa AAAA".to_vec();
            let key_tags = [("Name".to_owned(), name.clone())].into();
            match self
                .engine
                .import_key_pair(&me, name.clone(), material, key_tags)
                .await
            {
                Ok(_) if known == Known::Present => {
                    self.shared.lock().breach(format!("{name} was made twice"));
                    Known::Present
                }
                Ok(_) => Known::Present,
                Err(Error::AlreadyExists { .. }) if known == Known::Absent => {
                    self.shared
                        .lock()
                        .breach(format!("{name} exists and was never made"));
                    Known::Present
                }
                Err(Error::AlreadyExists { .. }) => Known::Present,
                Err(error) => {
                    self.expect_refusal("import key pair", &error);
                    Known::Unknown
                }
            }
        } else {
            match self.engine.delete_key_pair(&me, name.clone()).await {
                Ok(found) => {
                    let is_wrong = match known {
                        Known::Present => found.is_none(),
                        Known::Absent => found.is_some(),
                        Known::Unknown => false,
                    };
                    if is_wrong {
                        self.shared
                            .lock()
                            .breach(format!("{name} was not {known:?}"));
                    }
                    Known::Absent
                }
                Err(error) => {
                    self.expect_refusal("delete key pair", &error);
                    Known::Unknown
                }
            }
        };
        let mut world = self.shared.lock();
        world.ledger.answered += 1;
        world.ledger.keys.insert(key, now_known);
    }

    async fn console(&mut self) {
        let Some(id) = self.draw_own() else { return };
        if let Err(error) = self.engine.console_output(&self.me(), id).await {
            self.expect_refusal("console", &error);
        }
    }
}

/// A request to make an image of a file, a disk or whatever it is.
pub(crate) fn import(owner: AccountId, name: &str) -> ImportImage {
    ImportImage {
        owner,
        name: name.to_owned(),
        is_public: true,
        file: std::fs::File::open("/dev/null").expect("the null device"),
        format: FileFormat::Raw,
        kind: None,
    }
}

/// Records an image that waits for its preparation.
pub(crate) async fn register(
    shared: &Arc<Shared>,
    store: &Store<State>,
    id: ImageId,
    owner: AccountId,
    sha1: String,
) {
    let source = BundleSource {
        image: id,
        bucket: "bucket".into(),
        parts: vec![],
        sealed_key: vec![0; 32],
        sha1,
        size_bytes: 1 << 20,
    };
    let pending: Preparation =
        serde_json::from_str(r#"{"pending":{"percent":0}}"#).expect("as it is stored");
    let image = Image {
        id,
        owner,
        location: "bucket/manifest".into(),
        name: None,
        description: None,
        architecture: Architecture::X86_64,
        created: shared.lock().now(),
        state: ImageState::Available,
        is_public: true,
        launch_accounts: Default::default(),
        product_codes: vec![],
        preparation: pending,
    };
    let changes = vec![source.put(), image.put()];
    let committed = store
        .commit(move |_| {
            Ok::<_, Error>(Plan {
                changes,
                answer: (),
            })
        })
        .await;
    let mut world = shared.lock();
    match committed {
        Ok(_) => {
            world.told_image(id);
        }
        Err(CommitError::Store(_)) => {}
        Err(CommitError::Refused(error)) => world.breach(format!("{error:?}")),
    }
}
