//! The power fails at every sync of a workload: what was acknowledged is there.

use std::collections::BTreeMap;

use crate::disk::{Disk, Numbers, Unsynced};
use bytes::Bytes;
use cumulet_store::conformance::{FIRST, KINDS, SECOND};
use cumulet_store::{
    Change, CommitError, EmbeddedEngine, Engine, Plan, Revision, Store, StoreError, View, ViewError,
};

/// Commits of the workload.
pub(crate) const COMMITS: u64 = 24;

/// All records, and nothing clever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records(BTreeMap<(&'static str, String), Bytes>);

impl View for Records {
    fn apply(&mut self, _revision: Revision, change: &Change) -> Result<(), ViewError> {
        let key = (change.kind.name(), change.key.to_string());
        match &change.value {
            Some(value) => self.0.insert(key, value.clone()),
            None => self.0.remove(&key),
        };
        Ok(())
    }
}

/// The `number`-th commit: puts of many sizes, overwrites, and a delete.
pub(crate) fn changes(number: u64) -> Vec<Change> {
    let mut numbers = Numbers(number);
    let mut changes = vec![Change::put(SECOND, "last", Bytes::from(number.to_string()))];
    for place in 0..1 + numbers.below(6) {
        let length = usize::try_from(numbers.below(9000)).unwrap();
        let byte = u8::try_from(number).unwrap();
        let key = format!("{number}-{place}");
        changes.push(Change::put(FIRST, key, Bytes::from(vec![byte; length])));
    }
    let shared = format!("shared-{}", numbers.below(4));
    changes.push(Change::put(FIRST, shared, Bytes::from(number.to_string())));
    if number > 3 {
        changes.push(Change::delete(FIRST, format!("{}-0", number - 3)));
    }
    changes
}

/// The state after the first `count` commits.
pub(crate) fn expected(count: u64) -> Records {
    let mut records = Records::default();
    for number in 1..=count {
        for change in changes(number) {
            records.apply(number, &change).unwrap();
        }
    }
    records
}

/// Commits until done or until the power fails; returns the number of the last acknowledged one.
fn work(disk: &Disk) -> u64 {
    let Ok(engine) = EmbeddedEngine::open_backend(disk.clone(), KINDS) else {
        assert!(disk.is_off(), "only the power may stop it");
        return 0;
    };
    let store = Store::open(Box::new(engine), Records::default()).unwrap();
    for number in 1..=COMMITS {
        let planned = store.commit_blocking(move |_: &Records| {
            Ok::<_, ()>(Plan {
                changes: changes(number),
                answer: (),
            })
        });
        match planned {
            Ok(committed) => assert_eq!(committed.revision, number),
            Err(CommitError::Store(StoreError::Io { .. })) => {
                assert!(disk.is_off(), "only the power may stop it");
                return number - 1;
            }
            Err(other) => panic!("commit {number}: {other:?}"),
        }
    }
    COMMITS
}

fn load(engine: &mut EmbeddedEngine) -> (Revision, Records) {
    let mut records = Records::default();
    let newest = engine
        .load(&mut |revision, change| Ok(records.apply(revision, &change)?))
        .unwrap();
    (newest, records)
}

/// Opens what is left and checks it; then goes on writing, and checks that too.
pub(crate) fn check(bytes: Vec<u8>, acknowledged: u64, moment: &str) {
    let disk = Disk::holding(bytes);
    let mut engine = EmbeddedEngine::open_backend(disk.clone(), KINDS)
        .unwrap_or_else(|error| panic!("{moment}: {error}"));
    let (newest, records) = load(&mut engine);
    assert!(
        newest == acknowledged || newest == acknowledged + 1,
        "{moment}: {acknowledged} commits were acknowledged and {newest} are there"
    );
    assert!(
        records == expected(newest),
        "{moment}: commit {newest} is not whole"
    );
    let next = newest + 1;
    let revision = engine
        .commit(&cumulet_store::Batch {
            preconditions: vec![],
            changes: changes(next),
        })
        .unwrap_or_else(|error| panic!("{moment}: {error}"));
    assert_eq!(revision, next, "{moment}");
    let synced = disk.after_power_loss(Unsynced::Lost);
    drop(engine);
    let mut engine = EmbeddedEngine::open_backend(Disk::holding(synced), KINDS).unwrap();
    assert!(
        load(&mut engine) == (next, expected(next)),
        "{moment}: a commit after the recovery is lost"
    );
}

/// What a disk holds when the file has just been made.  The syncs of the making are tested apart: a
/// file gets its name after they have succeeded.
pub(crate) fn made() -> Vec<u8> {
    let disk = Disk::default();
    drop(EmbeddedEngine::open_backend(disk.clone(), KINDS).unwrap());
    disk.after_power_loss(Unsynced::Lost)
}

fn syncs_of_the_workload() -> usize {
    let disk = Disk::holding(made());
    assert_eq!(work(&disk), COMMITS);
    let syncs = disk.syncs();
    assert!(
        syncs as u64 >= 2 * COMMITS,
        "two phases are two syncs a commit, but there were only {syncs}"
    );
    syncs
}

fn outcomes(cut: usize) -> Vec<Unsynced> {
    let torn = (0..6).map(|seed| Unsynced::Torn(cut as u64 * 1000 + seed));
    [Unsynced::Lost, Unsynced::Kept]
        .into_iter()
        .chain(torn)
        .collect()
}

#[test]
fn a_cut_at_any_sync_loses_nothing_acknowledged() {
    let made = made();
    for cut in 1..=syncs_of_the_workload() {
        let disk = Disk::failing(made.clone(), cut);
        let acknowledged = work(&disk);
        for unsynced in outcomes(cut) {
            let moment = format!("cut at sync {cut}, {unsynced:?}");
            check(disk.after_power_loss(unsynced), acknowledged, &moment);
        }
    }
}

#[test]
fn a_second_cut_while_recovering_loses_nothing_acknowledged() {
    let (made, syncs) = (made(), syncs_of_the_workload());
    for cut in (syncs / 2)..=syncs {
        let disk = Disk::failing(made.clone(), cut);
        let acknowledged = work(&disk);
        let left = disk.after_power_loss(Unsynced::Torn(cut as u64));
        for second in 1.. {
            let again = Disk::failing(left.clone(), second);
            let opened = EmbeddedEngine::open_backend(again.clone(), KINDS);
            drop(opened);
            if !again.is_off() {
                break;
            }
            for unsynced in outcomes(second) {
                let moment = format!(
                    "cut at sync {cut}, then at sync {second} of the recovery, {unsynced:?}"
                );
                check(again.after_power_loss(unsynced), acknowledged, &moment);
            }
        }
    }
}

#[test]
fn a_cut_while_the_file_is_made_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for cut in 1.. {
        let disk = Disk::failing(vec![], cut);
        drop(EmbeddedEngine::open_backend(disk.clone(), KINDS));
        if !disk.is_off() {
            assert!(cut > 2, "making a file takes some syncs");
            break;
        }
        for (number, unsynced) in outcomes(cut).into_iter().enumerate() {
            let path = dir.path().join(format!("{cut}-{number}.redb"));
            let unfinished = path.with_added_extension("new");
            std::fs::write(&unfinished, disk.after_power_loss(unsynced)).unwrap();
            let mut engine = EmbeddedEngine::open(&path, KINDS).unwrap();
            assert_eq!(load(&mut engine), (0, Records::default()));
            assert!(!unfinished.exists());
        }
    }
}
