//! `kill -9` of the server at seeded moments while launches, reboots and terminations run: after
//! each start every acknowledged write is there, every intent is met, and the host has what the
//! records say.  Two clouds do it side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::wait_until;
use cumulet_testkit::ec2::{CallError, Ec2};

use crate::harness::{Described, cloud, guest, instances, register};
use crate::host::{expected, has_namespace, inventory, namespace};

const ROUNDS: u32 = 26;
const LIVE_MAX: usize = 4;

/// A small generator: a seed gives the same moments and choices again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What the cloud has acknowledged.
#[derive(Default)]
struct Acknowledged {
    launched: BTreeSet<String>,
    terminated: BTreeSet<String>,
    /// Terminations that were sent, answered or not.
    asked_to_end: BTreeSet<String>,
    /// Launches by round and step: what was answered, if an answer came.
    launches: BTreeMap<(u32, u32), Option<BTreeSet<String>>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a run without a seed takes one from the clock, and prints it"
)]
#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    let seed = std::env::var("TEST_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let seed: u64 = seed.unwrap_or(u64::from(since.subsec_nanos()));
    println!("TEST_SEED={seed}");
    let patience = ("CUMULET_INSTANCES_SHUTDOWN_PATIENCE_MS", "200");
    let reboot = ("CUMULET_INSTANCES_REBOOT_PATIENCE_MS", "200");
    let image = guest("halt");
    let clouds = [0, 1].map(|number| {
        let image = image.clone();
        std::thread::spawn(move || {
            let mut cloud = cloud(&[patience, reboot]);
            let ami = register(&cloud, &image, "crash");
            let namespace = namespace(&cloud);
            torment(&mut cloud, &ami, Random(seed ^ (number << 60)), number);
            drop(cloud);
            assert!(
                !has_namespace(&namespace),
                "uninstalling leaves no namespace"
            );
        })
    });
    // Both are waited for before either is judged, so that a failure leaves nothing behind.
    let outcomes = clouds.map(std::thread::JoinHandle::join);
    for outcome in outcomes {
        outcome.expect("the cloud did as it should");
    }
}

fn torment(cloud: &mut Cloud, ami: &str, mut random: Random, number: u64) {
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = {
            let (ec2, ami, known, stop) =
                (cloud.ec2(), ami.to_owned(), known.clone(), stop.clone());
            let choices = Random(random.below(u64::MAX));
            std::thread::spawn(move || work(&ec2, &ami, choices, &known, &stop, round))
        };
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        cloud.kill();
        stop.store(true, Ordering::Relaxed);
        worker
            .join()
            .expect("the worker saw only answers that it may see");
        cloud.restart();
        let mut known = lock(&known);
        settle_lost_launches(&cloud.ec2(), ami, &mut known);
        check(cloud, &known, &format!("cloud {number}, round {round}"));
    }
    let known = lock(&known);
    let (launched, terminated) = (known.launched.len(), known.terminated.len());
    println!("cloud {number}: {launched} launched, {terminated} terminated, {ROUNDS} kills");
    assert!(
        launched + terminated > ROUNDS as usize,
        "the server was hardly used between the kills"
    );
}

/// Launches, reboots and terminates until the server is gone.
fn work(
    ec2: &Ec2,
    ami: &str,
    mut random: Random,
    known: &Mutex<Acknowledged>,
    stop: &AtomicBool,
    round: u32,
) {
    for step in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let live: Vec<String> = {
            let known = lock(known);
            known
                .launched
                .difference(&known.terminated)
                .cloned()
                .collect()
        };
        let choice = random.below(10);
        let done = if live.is_empty() || (choice < 5 && live.len() < LIVE_MAX) {
            let name = (round, step);
            lock(known).launches.insert(name, None);
            launch(ec2, ami, name).map(|ids| {
                let mut known = lock(known);
                known.launched.extend(ids.iter().cloned());
                known.launches.insert(name, Some(ids));
            })
        } else {
            let index = usize::try_from(random.below(live.len() as u64)).expect("small");
            let id = live[index].as_str();
            if choice < 8 {
                lock(known).asked_to_end.insert(id.to_owned());
                ec2.call("TerminateInstances", &[("InstanceId.1", id)])
                    .map(|_| {
                        lock(known).terminated.insert(id.to_owned());
                    })
            } else {
                ec2.call("RebootInstances", &[("InstanceId.1", id)])
                    .map(|_| ())
            }
        };
        match done {
            Ok(()) => std::thread::sleep(Duration::from_millis(random.below(120))),
            Err(CallError::Lost(_)) => return,
            Err(CallError::Refused { code, message, .. }) => panic!("{code}: {message}"),
        }
    }
}

fn lock(known: &Mutex<Acknowledged>) -> MutexGuard<'_, Acknowledged> {
    known.lock().expect("no panic before")
}

fn launch(ec2: &Ec2, ami: &str, name: (u32, u32)) -> Result<BTreeSet<String>, CallError> {
    let token = format!("round {} step {}", name.0, name.1);
    let parameters = [
        ("ImageId", ami),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceType", "t2.nano"),
        ("ClientToken", &token),
    ];
    let answer = ec2.call("RunInstances", &parameters)?;
    Ok(answer
        .texts("instancesSet/item/instanceId")
        .into_iter()
        .collect())
}

/// A launch whose answer was lost is asked again under its token: now there is an answer, and a
/// launch that was answered before answers the same.
fn settle_lost_launches(ec2: &Ec2, ami: &str, known: &mut Acknowledged) {
    let mut launches: Vec<_> = known.launches.clone().into_iter().collect();
    // All that were lost, and the newest of the others.
    let newest = launches.len().saturating_sub(6);
    let mut index = 0;
    launches.retain(|(_, ids)| {
        index += 1;
        ids.is_none() || index > newest
    });
    for (name, before) in launches {
        let ids = launch(ec2, ami, name).expect("a launch asked again");
        if let Some(before) = before {
            assert_eq!(ids, before, "the same token answers the same");
        }
        known.launched.extend(ids.iter().cloned());
        known.launches.insert(name, Some(ids));
    }
}

/// Waits until the cloud is quiet and compares it with what was acknowledged.
fn check(cloud: &Cloud, known: &Acknowledged, moment: &str) {
    let ec2 = cloud.ec2();
    let described = instances(&ec2);
    let ids: BTreeSet<String> = described.iter().map(|it| it.id.clone()).collect();
    let lost: Vec<_> = known.launched.difference(&ids).collect();
    assert!(
        lost.is_empty(),
        "{moment}: acknowledged launches are gone: {lost:?}"
    );
    let unknown: Vec<_> = ids.difference(&known.launched).collect();
    assert!(unknown.is_empty(), "{moment}: nobody asked for {unknown:?}");
    for instance in &described {
        let is_ending = ["shutting-down", "terminated"].contains(&instance.state.as_str());
        let must_end = known.terminated.contains(&instance.id);
        assert!(
            is_ending || !must_end,
            "{moment}: {instance:?} was terminated"
        );
        assert!(
            !is_ending || known.asked_to_end.contains(&instance.id),
            "{moment}: {instance:?} ended"
        );
    }
    let mut last = String::new();
    let patience = Duration::from_secs(120);
    let what = format!("{moment}: intents are met and the host has what the records say");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(&what, patience, || {
            let described = instances(&ec2);
            let is_quiet = described
                .iter()
                .all(|it| it.state == "running" || it.state == "terminated");
            let live: Vec<Described> = described
                .into_iter()
                .filter(|it| it.state != "terminated")
                .collect();
            let (wanted, found) = (expected(&live), inventory(cloud));
            last = format!("records {live:?}\nwanted {wanted:?}\nfound {found:?}");
            (is_quiet && wanted == found).then_some(())
        });
    }));
    assert!(outcome.is_ok(), "{what}, but:\n{last}");
}
