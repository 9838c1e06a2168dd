//! One seed: several lives of the program, each with clients and misfortunes and
//! an end that nobody chose, then a last one in which all must come to rest.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cumulet_engine::reconcile::Reconcilers;
use cumulet_engine::{Engine, State};
use cumulet_store::{Stepper, Store};
use tokio::task::JoinSet;

use super::clients::{CLIENTS, Client, Mix, caller};
use super::environment::environment;
use super::host::host;
use super::records::{SimEngine, VISIBLE_MS, check_reopened, config};
use super::rng::Rng;
use super::world::{Faults, Listener, Shared};

/// Makes a runtime of one thread whose time is paused.  It is the test's to make: pausing time is a
/// feature that the program is not built with.
pub type Runtime = fn() -> tokio::runtime::Runtime;

/// Lives with clients, before the last one.
const LIVES: u64 = 4;
/// For how long the world may take to come to rest, in its own time.
const REST_MS: u64 = 2 * 3_600_000;

/// What a run did, so that a run that does nothing is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Answers that clients got and checked.
    pub answered: u64,
    /// Launches that asked for an address and got it, and those that were told that it is taken.
    pub addresses_given: u64,
    pub addresses_refused: u64,
    pub calls: u64,
    pub commits: u64,
    /// A digest of all that happened, in its order: the same for the same seed.
    pub trace: u64,
}

/// One seeded run.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    pub seed: u64,
    /// What the clients do, all together.
    pub steps: u64,
    /// Shown all that happens.
    pub listener: Option<Listener>,
}

impl Simulation {
    /// # Errors
    /// The first invariant that did not hold, with the seed and the last lines of what happened.
    pub fn run(self, runtime: Runtime) -> Result<Report, String> {
        let shared = Shared::new(self.seed, self.listener);
        let mut dice = shared.lock().rng.split();
        found(&shared, runtime);
        shared.lock().faults = Faults::draw(&mut dice);
        let mix = Mix::draw(&mut dice);
        for life in 0..LIVES {
            self.live(&shared, runtime, &mut dice, mix);
            shared.lock().note(format!("life {life} is over"));
            self.verdict(&shared)?;
            // Things happen while nobody looks, too.
            match dice.below(100) {
                0..15 => shared.lock().reboot_host(),
                15..50 => shared.lock().misfortune(),
                _ => {}
            }
        }
        shared.lock().faults = Faults::default();
        in_a_life(&shared, runtime, 0, async |life| {
            rest(life).await;
        });
        self.verdict(&shared)?;
        let world = shared.lock();
        Ok(Report {
            answered: world.ledger.answered,
            addresses_given: world.ledger.addresses_given,
            addresses_refused: world.ledger.addresses_refused,
            calls: world.calls,
            commits: world.commits,
            trace: world.trace,
        })
    }

    fn live(self, shared: &Arc<Shared>, runtime: Runtime, dice: &mut Rng, mix: Mix) {
        let steps = self.steps / LIVES / CLIENTS + 1;
        let longest_ms = if dice.percent(50) { 8_000 } else { 120_000 };
        let dies_after_ms = dice.below(longest_ms);
        let is_graceful = dice.percent(25);
        // Now and then somebody sets the clock back.
        let away_ms = if dice.percent(10) {
            -i64::try_from(dice.below(7_200_000)).unwrap_or(0)
        } else {
            i64::try_from(dice.below(20_000)).unwrap_or(0)
        };
        let mut own_dice = dice.split();
        in_a_life(shared, runtime, away_ms, async |life_of| {
            let mut clients = JoinSet::new();
            for number in 0..CLIENTS {
                let rng = own_dice.split();
                let client = Client {
                    mix,
                    number,
                    shared: life_of.shared.clone(),
                    engine: life_of.engine.clone(),
                    store: life_of.store.clone(),
                    address_dice: rng.clone().split(),
                    rng,
                };
                clients.spawn(client.run(steps));
            }
            let misfortunes = misfortunes(life_of.shared.clone(), own_dice.split());
            tokio::select! {
                biased;
                _ = life_of.store.failed() => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                () = tokio::time::sleep(Duration::from_millis(dies_after_ms)) => {}
                () = misfortunes => {}
                () = all(&mut clients) => {
                    tokio::time::sleep(Duration::from_millis(own_dice.below(60_000))).await;
                }
            }
            if is_graceful && let Some(reconcilers) = life_of.reconcilers.take() {
                reconcilers.stop(Duration::from_secs(10)).await;
            }
        });
    }

    fn verdict(self, shared: &Arc<Shared>) -> Result<(), String> {
        let mut world = shared.lock();
        world.check_promises();
        match &world.violation {
            None => Ok(()),
            Some(violation) => Err(format!(
                "{}\nagain with: cargo xtask sim --seed {} --steps {}",
                world.story(violation),
                self.seed,
                self.steps
            )),
        }
    }
}

pub(crate) async fn all(clients: &mut JoinSet<()>) {
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
}

async fn misfortunes(shared: Arc<Shared>, mut dice: Rng) {
    loop {
        tokio::time::sleep(Duration::from_millis(dice.below(30_000))).await;
        shared.lock().misfortune();
        // Sometimes the news does not come.
        if dice.percent(80) {
            shared.vm_changed.notify_one();
        }
    }
}

/// The program while it runs.
pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    pub(crate) store: Store<State>,
    pub(crate) reconcilers: Option<Reconcilers>,
}

/// A good first day: the accounts are made.
pub(crate) fn found(shared: &Arc<Shared>, runtime: Runtime) {
    in_a_life(shared, runtime, 0, async |life| {
        for number in [0, 1] {
            let account = caller(number).account;
            let made = life
                .engine
                .create_account(account.to_string(), Some(account))
                .await;
            if let Err(error) = made {
                life.shared
                    .lock()
                    .breach(format!("an account is not made: {error:?}"));
            }
        }
    });
}

/// Starts the program on what is durable, does `work`, and drops everything where it is: when
/// `work` is done, or before, when the world takes the program down.
pub(crate) fn in_a_life(
    shared: &Arc<Shared>,
    runtime: Runtime,
    away_ms: i64,
    work: impl AsyncFnOnce(&mut Life),
) {
    let runtime = runtime();
    runtime.block_on(async {
        shared.lock().begin();
        let opened = Store::open_stepped(Box::new(SimEngine(shared.clone())), State::default());
        let (store, stepper) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let text = format!("the store does not open: {error}");
                return shared.lock().breach(text);
            }
        };
        check_reopened(&mut shared.lock(), &store.snapshot());
        let (host, environment) = (host(shared), environment(shared));
        let (engine, reconcilers) = Engine::start(store.clone(), host, environment, config());
        let mut life = Life {
            shared: shared.clone(),
            engine,
            store,
            reconcilers: Some(reconcilers),
        };
        drive(shared, stepper, work(&mut life)).await;
        shared.lock().end(away_ms);
    });
}

/// Commits what is asked for until `work` is done or the program is taken down.
async fn drive(shared: &Arc<Shared>, mut stepper: Stepper<State>, work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            () = shared.down.notified() => {}
            () = stepper.asked() => {
                let wait_ms = shared.lock().rng.below(4);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                while !shared.lock().is_down && stepper.step() {}
            }
            () = &mut work => return,
        }
        let world = shared.lock();
        if world.is_down || world.violation.is_some() {
            return;
        }
    }
}

/// Waits until the world is at rest, and still is when all that is over has been forgotten.
pub(crate) async fn rest(life: &Life) {
    calm(&life.shared).await;
    check_orphans(life).await;
    forgotten(&life.shared).await;
    check_orphans(life).await;
}

/// Waits until what has ended is forgotten and the world is at rest.
pub(crate) async fn forgotten(shared: &Arc<Shared>) {
    let visible_ms = u64::try_from(VISIBLE_MS).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(visible_ms + 90_000)).await;
    calm(shared).await;
}

/// Waits until the world is at rest.
pub(crate) async fn calm(shared: &Arc<Shared>) {
    let mut waited_ms = 0;
    while let Some(unrest) = unrest_of(shared) {
        if waited_ms >= REST_MS {
            let text = format!("the world does not come to rest: {unrest}");
            return shared.lock().breach(text);
        }
        tokio::time::sleep(Duration::from_millis(5_000)).await;
        waited_ms += 5_000;
    }
}

/// What the operator is told at rest: that there is nothing without a record.
pub(crate) async fn check_orphans(life: &Life) {
    let orphans = life.engine.orphans().await;
    if !matches!(&orphans, Ok(none) if none.is_empty()) {
        let text = format!("at rest the operator is told of orphans: {orphans:?}");
        life.shared.lock().breach(text);
    }
}

fn unrest_of(shared: &Arc<Shared>) -> Option<String> {
    shared.lock().unrest()
}
