//! All that a crash of the program leaves: the host's things, the durable
//! records, what clients were told, and the dice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cumulet_domain::instances::Want;
use cumulet_domain::{Digest, InstanceId, Timestamp};
use cumulet_engine::State;
use cumulet_host::api::{Exit, ExitCause, Port, VmState};
use cumulet_store::MemoryEngine;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::Ledger;
use super::rng::Rng;

/// Lines of the log that a failure shows.
const LOG_LINES_MAX: usize = 120;

/// Shown what happens, line by line.
pub type Listener = fn(&str);

/// Where the program is stopped, in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    BeforeCall(u64),
    AfterCall(u64),
    /// Carried out, and answered with an error.
    LoseAnswer(u64),
    BeforeCommit(u64),
    AfterCommit(u64),
    /// An I/O error, and the commit is not durable.
    LoseCommit(u64),
    /// An I/O error, and the commit is durable.
    LoseCommitAnswer(u64),
}

/// A call of the host that is held until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Asked for, and not done yet.
    Before(&'static str),
    /// Done, and not answered yet.
    After(&'static str),
}

/// How often what goes wrong, in percent of the calls; all 0 is a good day.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) slow: u64,
    pub(crate) fails: u64,
    pub(crate) fails_for_good: u64,
    pub(crate) answer_lost: u64,
    pub(crate) commit_lost: u64,
    pub(crate) disk_full: u64,
}

impl Faults {
    /// Whether a call of the host may be answered with an error.
    pub(crate) fn has_failing_calls(&self) -> bool {
        self.fails + self.fails_for_good + self.answer_lost > 0
    }

    /// A day on which some things go wrong, and some more than on others.
    pub(crate) fn draw(dice: &mut Rng) -> Self {
        let mut often = |usual: u64| usual * dice.choose(&[0, 1, 1, 3]).unwrap_or(1);
        Self {
            slow: often(10),
            fails: often(5),
            fails_for_good: often(1),
            answer_lost: often(4),
            commit_lost: often(1),
            disk_full: often(1),
        }
    }
}

pub(crate) struct SimVm {
    pub(crate) state: VmState,
    pub(crate) uid: u32,
    pub(crate) memory_mib: u64,
    /// The port that it holds: one that was made again is another.
    pub(crate) plug: u64,
    /// When it was last started or reset, in the world's count of events.
    pub(crate) booted: u64,
}

pub(crate) struct SimPort {
    pub(crate) port: Port,
    /// The world's count of events when it was made.
    pub(crate) made: u64,
}

#[derive(Default)]
pub(crate) struct Made {
    /// Instances that ever had a disk, and those whose disk the world itself took.
    pub(crate) disks: BTreeSet<InstanceId>,
    pub(crate) disks_lost: BTreeSet<InstanceId>,
    /// Instances that may end without a user's wish: their guest shut down, or steps failed.
    pub(crate) excused: BTreeSet<InstanceId>,
    /// Every instance id that a record ever had.
    pub(crate) instance_ids: BTreeSet<InstanceId>,
    /// Every address that a live instance ever had, with the last commit in which one had it.
    pub(crate) addresses: BTreeMap<Ipv4Addr, u64>,
    /// The one that was given back last.
    pub(crate) given_back: Option<Ipv4Addr>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) stop: Option<Stop>,
    pub(crate) hold: Option<Hold>,
    /// What the next files hold; the dice say it otherwise.
    pub(crate) file_digest: Option<u8>,
    pub(crate) is_down: bool,
    /// The store said that it failed: the program is to be started again.
    pub(crate) has_store_failed: bool,
    pub(crate) calls: u64,
    pub(crate) commits: u64,
    /// Each call's effect happens twice.
    pub(crate) is_twice: bool,
    pub(crate) events: u64,
    pub(crate) entropy: u64,
    pub(crate) vms: BTreeMap<InstanceId, SimVm>,
    /// Machines that run on, though their run directory is gone: nobody sees them.
    pub(crate) ghosts: BTreeSet<InstanceId>,
    pub(crate) ports: BTreeMap<InstanceId, SimPort>,
    pub(crate) disks: BTreeSet<InstanceId>,
    /// With whether somebody said that a record names them.
    pub(crate) images: BTreeMap<Digest, bool>,
    pub(crate) consoles: BTreeSet<InstanceId>,
    pub(crate) made: Made,
    /// Instances whose consoles, and digests whose bytes, cannot be removed.
    pub(crate) stubborn: BTreeSet<String>,
    pub(crate) engine: MemoryEngine,
    /// What the durable records say.
    pub(crate) state: State,
    pub(crate) ledger: Ledger,
    log: VecDeque<String>,
    /// Told every line of the log.
    listener: Option<Listener>,
    /// A digest of all that happened, in its order.
    pub(crate) trace: u64,
    pub(crate) violation: Option<String>,
    /// The clock when this program started, and the runtime's time then.
    pub(crate) base: Timestamp,
    started: Option<Instant>,
}

/// The world, and the two things that wait for it.
pub(crate) struct Shared {
    world: Mutex<World>,
    /// The program is to be stopped at once.
    pub(crate) down: Notify,
    /// Something about a virtual machine changed.
    pub(crate) vm_changed: Notify,
    /// The call that was to be held is, and goes on.
    pub(crate) held: Notify,
    pub(crate) released: Notify,
}

impl Shared {
    pub(crate) fn new(seed: u64, listener: Option<Listener>) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(World {
                rng: Rng::new(seed),
                faults: Faults::default(),
                stop: None,
                hold: None,
                file_digest: None,
                is_down: false,
                has_store_failed: false,
                calls: 0,
                commits: 0,
                is_twice: false,
                events: 0,
                entropy: seed << 32,
                vms: BTreeMap::new(),
                ghosts: BTreeSet::new(),
                ports: BTreeMap::new(),
                disks: BTreeSet::new(),
                images: BTreeMap::new(),
                consoles: BTreeSet::new(),
                made: Made::default(),
                stubborn: BTreeSet::new(),
                engine: MemoryEngine::default(),
                state: State::default(),
                ledger: Ledger::default(),
                log: VecDeque::new(),
                listener,
                trace: 0xcbf2_9ce4_8422_2325,
                violation: None,
                base: Timestamp(1_200_000_000_000),
                started: None,
            }),
            down: Notify::new(),
            vm_changed: Notify::new(),
            held: Notify::new(),
            released: Notify::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing reaches the world from now on; the runtime is dropped as soon as it looks.
    pub(crate) fn take_down(&self, world: &mut World, why: &str) {
        world.note(format!("DOWN: {why}"));
        world.is_down = true;
        self.down.notify_one();
    }
}

impl World {
    /// Called inside the new runtime, whose time begins now.
    pub(crate) fn begin(&mut self) {
        self.started = Some(Instant::now());
        self.is_down = false;
        self.has_store_failed = false;
    }

    /// Called inside the runtime that ends; `away_ms` passes until the next one, which may be less
    /// than nothing when the clock is set back.
    pub(crate) fn end(&mut self, away_ms: i64) {
        self.base = self.now().plus_millis(away_ms);
        self.started = None;
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = self.started.map(|at| at.elapsed().as_millis());
        let elapsed = i64::try_from(elapsed.unwrap_or(0)).unwrap_or(0);
        self.base.plus_millis(elapsed)
    }

    /// Makes a word part of the run's digest (FNV-1a).
    pub(crate) fn mark(&mut self, words: &[u8]) {
        for byte in words {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// What happened last, and why that is wrong.
    pub(crate) fn story(&self, violation: &str) -> String {
        let lines: Vec<&str> = self.log.iter().map(String::as_str).collect();
        format!("{violation}\n{}", lines.join("\n"))
    }

    pub(crate) fn note(&mut self, line: String) {
        if self.log.len() >= LOG_LINES_MAX {
            self.log.pop_front();
        }
        let at = self.now().0 - 1_200_000_000_000;
        let line = format!("{at:>9} {line}");
        self.mark(line.as_bytes());
        if let Some(listener) = self.listener {
            listener(&line);
        }
        self.log.push_back(line);
    }

    /// The first breach is the one to look at.
    pub(crate) fn breach(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.note(format!("BREACH: {text}"));
        self.violation.get_or_insert(text);
    }

    pub(crate) fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    pub(crate) fn is_running(&self, id: InstanceId) -> bool {
        self.vms
            .get(&id)
            .is_some_and(|vm| matches!(vm.state, VmState::Running { .. }))
    }

    /// Whether its port was not taken away and made again under it.
    pub(crate) fn is_plugged(&self, id: InstanceId) -> bool {
        match (self.vms.get(&id), self.ports.get(&id)) {
            (Some(vm), Some(port)) => vm.plug == port.made,
            _ => false,
        }
    }

    /// Whether the durable record of an instance says that it is to end.
    pub(crate) fn is_to_end(&self, id: InstanceId) -> bool {
        self.state
            .instances
            .get(&id)
            .is_some_and(|it| matches!(it.intent.want, Want::Terminated { .. }))
    }

    pub(crate) fn end_vm(&mut self, id: InstanceId, cause: ExitCause) {
        let at = self.now();
        if let Some(vm) = self.vms.get_mut(&id) {
            vm.state = VmState::Absent {
                exit: Some(Exit { at, cause }),
            };
        }
    }

    /// Something happens on the host by itself.
    pub(crate) fn misfortune(&mut self) {
        let running: Vec<InstanceId> = self
            .vms
            .keys()
            .copied()
            .filter(|id| self.is_running(*id))
            .collect();
        let Some(id) = self.rng.choose(&running) else {
            return;
        };
        match self.rng.below(8) {
            0 => {
                self.note(format!("{id}: its machine crashes"));
                let detail = "by the dice".to_owned();
                self.end_vm(id, ExitCause::Crashed { detail });
            }
            1 => {
                self.note(format!("{id}: its guest panics"));
                self.end_vm(id, ExitCause::GuestPanic);
            }
            2 => {
                self.note(format!("{id}: its guest shuts down"));
                self.made.excused.insert(id);
                self.end_vm(id, ExitCause::GuestShutdown);
            }
            3 => {
                self.note(format!("{id}: its machine vanishes"));
                self.vms.remove(&id);
                if self.events.is_multiple_of(2) {
                    self.note(format!("{id}: and runs on unseen"));
                    self.ghosts.insert(id);
                }
            }
            4 | 5 => {
                self.note(format!("{id}: its port vanishes"));
                self.ports.remove(&id);
            }
            6 => {
                self.note("the network vanishes".into());
                self.ports.clear();
            }
            _ => {
                self.note(format!("{id}: its machine and its disk vanish"));
                self.vms.remove(&id);
                self.disks.remove(&id);
                self.made.disks_lost.insert(id);
            }
        }
    }

    /// The machine under it all was switched off and on: no VM and no port is left.
    pub(crate) fn reboot_host(&mut self) {
        self.note("the host reboots".into());
        self.ports.clear();
        self.ghosts.clear();
        let running: Vec<InstanceId> = self.vms.keys().copied().collect();
        for id in running {
            if self.is_running(id) {
                let detail = "the host rebooted".to_owned();
                self.end_vm(id, ExitCause::Crashed { detail });
            }
        }
    }
}
