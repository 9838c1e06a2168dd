//! Random batches, with preconditions that hold and that do not, on both engines and on a model.

use std::collections::BTreeMap;

use crate::disk::{Disk, Unsynced};
use bytes::Bytes;
use cumulet_store::conformance::{FIRST, KINDS, SECOND};
use cumulet_store::{
    Batch, Change, EmbeddedEngine, Engine, Kind, MemoryEngine, Precondition, Revision, StoreError,
};
use proptest::prelude::*;

type Records = BTreeMap<(Kind, String), (Revision, Bytes)>;

/// What a batch expects of a record.
#[derive(Debug, Clone)]
enum Expect {
    /// What the model says: always holds.
    Truth,
    Absent,
    Written(Revision),
}

#[derive(Debug, Clone)]
enum Step {
    Commit {
        expects: Vec<(Kind, String, Expect)>,
        changes: Vec<Change>,
    },
    /// Opens the engine again, after what was not synced is gone.
    Restart,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(FIRST), Just(SECOND)]
}

/// Few keys, so that batches meet; one is a prefix of another, and one is not ASCII.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a"), Just("ab"), Just("b"), Just("ü/\u{1}")].prop_map(str::to_owned)
}

fn change() -> impl Strategy<Value = Change> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..5000));
    (kind(), key(), value).prop_map(|(kind, key, value)| Change {
        kind,
        key: key.into(),
        value: value.map(Bytes::from),
    })
}

fn expect() -> impl Strategy<Value = (Kind, String, Expect)> {
    let expect = prop_oneof![
        4 => Just(Expect::Truth),
        1 => Just(Expect::Absent),
        1 => (0..12u64).prop_map(Expect::Written),
    ];
    (kind(), key(), expect)
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (
        proptest::collection::vec(expect(), 0..3),
        proptest::collection::vec(change(), 0..6),
    );
    prop_oneof![
        8 => commit.prop_map(|(expects, changes)| Step::Commit { expects, changes }),
        1 => Just(Step::Restart),
    ]
}

fn read(engine: &mut dyn Engine) -> (Revision, Records) {
    let mut records = Records::new();
    let newest = engine
        .load(&mut |revision, change| {
            let value = change.value.expect("a record that is there has a value");
            records.insert((change.kind, change.key.to_string()), (revision, value));
            Ok(())
        })
        .unwrap();
    (newest, records)
}

/// Runs the steps on an engine that `open` gives, and compares after each.
fn follow(steps: &[Step], mut open: impl FnMut() -> Box<dyn Engine>) {
    let mut engine = open();
    let mut revision = 0;
    let mut records = Records::new();
    for step in steps {
        match step {
            Step::Restart => {
                drop(engine);
                engine = open();
            }
            Step::Commit { expects, changes } => {
                let found =
                    |kind: Kind, key: &String| records.get(&(kind, key.clone())).map(|(r, _)| *r);
                let preconditions: Vec<Precondition> = expects
                    .iter()
                    .map(|(kind, key, expect)| Precondition {
                        kind: *kind,
                        key: key.as_str().into(),
                        revision: match expect {
                            Expect::Truth => found(*kind, key),
                            Expect::Absent => None,
                            Expect::Written(revision) => Some(*revision),
                        },
                    })
                    .collect();
                let holds = preconditions.iter().all(|condition| {
                    found(condition.kind, &condition.key.to_string()) == condition.revision
                });
                let outcome = engine.commit(&Batch {
                    preconditions,
                    changes: changes.clone(),
                });
                if holds {
                    revision += 1;
                    assert_eq!(outcome.unwrap(), revision);
                    for change in changes {
                        let id = (change.kind, change.key.to_string());
                        match &change.value {
                            Some(value) => records.insert(id, (revision, value.clone())),
                            None => records.remove(&id),
                        };
                    }
                } else {
                    assert!(
                        matches!(outcome, Err(StoreError::Conflict(_))),
                        "{outcome:?}"
                    );
                }
            }
        }
        assert_eq!(read(engine.as_mut()), (revision, records.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_do_what_the_model_does(steps in proptest::collection::vec(step(), 1..24)) {
        let memory = MemoryEngine::default();
        follow(&steps, || Box::new(memory.clone()));
        let mut disk = Disk::default();
        follow(&steps, || {
            disk = Disk::holding(disk.after_power_loss(Unsynced::Lost));
            Box::new(EmbeddedEngine::open_backend(disk.clone(), KINDS).unwrap())
        });
    }
}
