//! The loop that makes records true.
//!
//! One manager task owns which keys are worked on: one run per key at a time,
//! a bounded number of runs, keys woken by use cases, by the host, by their own
//! retry times and by a slow timer that forgives every lost wake-up.  A run
//! takes no hint about what changed: it looks for itself.

mod images;
mod instances;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use cumulet_domain::{ImageId, InstanceId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Engine;

/// Runs at the same time; most of them wait for what they record to be durable.
const RUNS_MAX: usize = 256;
/// Of these, those that look at the host or change it.
pub(crate) const HANDS_MAX: usize = 32;
/// Images prepared at the same time: each uses a core and the disk.
const PREPARATIONS_MAX: usize = 2;
/// How often everything is looked at without a reason.
const ROUND: Duration = Duration::from_secs(10);
/// How often what is old is forgotten.
const MAINTENANCE: Duration = Duration::from_secs(30);

/// What can be reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Instance(InstanceId),
    Image(ImageId),
}

/// When a key wants to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// When something wakes it.
    WhenWoken,
    At(Timestamp),
}

/// Tells the manager that a key deserves a look.
#[derive(Clone)]
pub(crate) struct Wake {
    sender: mpsc::UnboundedSender<Key>,
}

pub(crate) type Inbox = mpsc::UnboundedReceiver<Key>;

impl Wake {
    pub(crate) fn new() -> (Self, Inbox) {
        // Unbounded, since a sender must never wait; the manager drops repeated keys, so that the
        // queue is bounded by the number of records.
        let (sender, inbox) = mpsc::unbounded_channel();
        (Self { sender }, inbox)
    }

    pub(crate) fn instance(&self, id: InstanceId) {
        // The manager is gone only when the program stops; then nothing needs a look.
        let _ = self.sender.send(Key::Instance(id));
    }

    pub(crate) fn image(&self, id: ImageId) {
        let _ = self.sender.send(Key::Image(id));
    }
}

/// The running reconcilers; stop them before the runtime ends.
pub struct Reconcilers {
    stop: watch::Sender<bool>,
    manager: tokio::task::JoinHandle<()>,
}

impl Reconcilers {
    pub(crate) fn start(engine: Engine, inbox: Inbox) -> Self {
        let (stop, stopped) = watch::channel(false);
        let manager = tokio::spawn(Manager::new(engine, inbox).run(stopped));
        Self { stop, manager }
    }

    /// Lets the steps under way end, starts no other, and returns.  Steps that take longer than
    /// `patience` are dropped: every step may be cut off anywhere and repeated after a restart.
    pub async fn stop(self, patience: Duration) {
        self.stop.send_replace(true);
        let mut manager = self.manager;
        if tokio::time::timeout(patience, &mut manager).await.is_err() {
            manager.abort();
            let _ = manager.await;
        }
    }
}

struct Manager {
    engine: Engine,
    inbox: Inbox,
    runs: JoinSet<(Key, Next)>,
    /// Keys being run; true when woken meanwhile.
    running: BTreeMap<Key, bool>,
    tasks: HashMap<tokio::task::Id, Key>,
    waiting: VecDeque<Key>,
    queued: BTreeSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
}

impl Manager {
    fn new(engine: Engine, inbox: Inbox) -> Self {
        Self {
            engine,
            inbox,
            runs: JoinSet::new(),
            running: BTreeMap::new(),
            tasks: HashMap::new(),
            waiting: VecDeque::new(),
            queued: BTreeSet::new(),
            timers: BTreeSet::new(),
        }
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut round = tokio::time::interval(ROUND);
        let mut maintenance = tokio::time::interval(MAINTENANCE);
        let vms = self.engine.host().vms.clone();
        self.wake_all(true);
        loop {
            self.start_waiting();
            let timer = self.timers.first().map(|(at, _)| *at);
            // In this order, so that a simulation repeats; what is rare comes first, so that what is
            // frequent cannot starve it.
            tokio::select! {
                biased;
                _ = stopped.changed() => break,
                _ = round.tick() => {
                    let is_simulated = self.engine.host().profile.is_simulated;
                    self.wake_all(!is_simulated);
                }
                _ = maintenance.tick() => {
                    let engine = self.engine.clone();
                    self.runs.spawn(async move {
                        engine.maintain().await;
                        (Key::Instance(InstanceId::from_random(0)), Next::WhenWoken)
                    });
                }
                () = sleep_until(timer) => self.fire_timers(),
                // Ends when the queue is empty, which only the branches around it fill.
                Some(ended) = self.runs.join_next_with_id() => self.finish(ended),
                Some(key) = self.inbox.recv() => self.wake(key),
                () = vms.changed() => self.wake_all(true),
            }
        }
        while self.runs.join_next().await.is_some() {}
    }

    fn wake(&mut self, key: Key) {
        if let Some(is_woken) = self.running.get_mut(&key) {
            *is_woken = true;
        } else if self.queued.insert(key) {
            self.waiting.push_back(key);
        }
    }

    /// Everything alive, or only what is not as it should be.
    fn wake_all(&mut self, also_settled: bool) {
        let state = self.engine.snapshot();
        for id in &state.live_instances {
            let is_settled = state
                .instances
                .get(id)
                .is_some_and(|it| instances::is_settled(it));
            if also_settled || !is_settled {
                self.wake(Key::Instance(*id));
            }
        }
        for image in state.images.values() {
            if images::is_to_be_prepared(&state, image) {
                self.wake(Key::Image(image.id));
            }
        }
    }

    fn start_waiting(&mut self) {
        let mut preparations = self
            .running
            .keys()
            .filter(|key| matches!(key, Key::Image(_)))
            .count();
        let mut put_back = vec![];
        while self.running.len() < RUNS_MAX
            && let Some(key) = self.waiting.pop_front()
        {
            if matches!(key, Key::Image(_)) {
                if preparations >= PREPARATIONS_MAX {
                    put_back.push(key);
                    continue;
                }
                preparations += 1;
            }
            self.queued.remove(&key);
            self.running.insert(key, false);
            let engine = self.engine.clone();
            let handle = self.runs.spawn(async move {
                let next = match key {
                    Key::Instance(id) => engine.reconcile_instance(id).await,
                    Key::Image(id) => engine.prepare_image(id).await,
                };
                (key, next)
            });
            self.tasks.insert(handle.id(), key);
        }
        // At the front again, in their order; the rest of the queue, which may be long, stays where
        // it is.
        for key in put_back.into_iter().rev() {
            self.waiting.push_front(key);
        }
    }

    fn finish(&mut self, ended: Result<(tokio::task::Id, (Key, Next)), tokio::task::JoinError>) {
        let (task, next) = match ended {
            Ok((task, (_, next))) => (task, next),
            Err(failed) => {
                tracing::error!(error = %failed, "a reconciler run ended badly");
                (failed.id(), Next::WhenWoken)
            }
        };
        // Maintenance runs have no key.
        let Some(key) = self.tasks.remove(&task) else {
            return;
        };
        let is_woken = self.running.remove(&key).unwrap_or(false);
        match next {
            _ if is_woken => self.wake(key),
            Next::WhenWoken => {}
            Next::At(at) => {
                let wait = at.millis_since(self.engine.environment().now()).max(10);
                let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(10));
                self.timers.insert((Instant::now() + wait, key));
            }
        }
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, key));
            self.wake(key);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
