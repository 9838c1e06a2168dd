//! One suite for every engine.
//!
//! An engine's tests call [`run`] with a function that opens it: fresh the first
//! time, and later on what was committed before.

use bytes::Bytes;

use crate::{Batch, Change, Engine, Kind, Precondition, Revision, StoreError};

pub const FIRST: Kind = Kind::new("first");
pub const SECOND: Kind = Kind::new("second");
/// The kinds that the suite writes.
pub const KINDS: &[Kind] = &[FIRST, SECOND];

fn put(kind: Kind, key: &str, value: &str) -> Change {
    Change::put(kind, key, Bytes::copy_from_slice(value.as_bytes()))
}

fn batch(changes: Vec<Change>) -> Batch {
    Batch {
        preconditions: vec![],
        changes,
    }
}

fn all(engine: &mut dyn Engine) -> (Revision, Vec<(Revision, Change)>) {
    let mut records = vec![];
    let newest = engine
        .load(&mut |revision, change| {
            records.push((revision, change));
            Ok(())
        })
        .expect("a conforming engine loads");
    records.sort_by(|(_, a), (_, b)| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    (newest, records)
}

/// Runs the suite.
///
/// # Panics
/// At the first thing that the engine does otherwise.
pub fn run(mut open: impl FnMut() -> Box<dyn Engine>) {
    let mut engine = open();
    assert_eq!(all(engine.as_mut()), (0, vec![]), "a fresh engine is empty");

    let one = engine
        .commit(&batch(vec![put(FIRST, "a", "1"), put(SECOND, "a", "2")]))
        .expect("a commit");
    let two = engine
        .commit(&batch(vec![put(FIRST, "b", ""), put(FIRST, "a", "3")]))
        .expect("a commit");
    assert_eq!((one, two), (1, 2), "revisions count up");

    let expected = vec![
        (2, put(FIRST, "a", "3")),
        (2, put(FIRST, "b", "")),
        (1, put(SECOND, "a", "2")),
    ];
    assert_eq!(
        all(engine.as_mut()),
        (2, expected.clone()),
        "a commit is read back"
    );

    let missing = Precondition {
        kind: FIRST,
        key: "a".into(),
        revision: None,
    };
    let stale = Precondition {
        kind: FIRST,
        key: "a".into(),
        revision: Some(1),
    };
    for condition in [missing, stale] {
        let refused = Batch {
            preconditions: vec![condition],
            changes: vec![put(SECOND, "z", "never")],
        };
        assert!(
            matches!(engine.commit(&refused), Err(StoreError::Conflict(_))),
            "a lost compare is refused"
        );
    }
    assert_eq!(
        all(engine.as_mut()),
        (2, expected.clone()),
        "a refused batch changes nothing"
    );

    drop(engine);
    let mut engine = open();
    assert_eq!(
        all(engine.as_mut()),
        (2, expected.clone()),
        "a restart loses nothing"
    );

    let frozen = engine.frozen().expect("a conforming engine freezes");
    let fits = Precondition {
        kind: FIRST,
        key: "a".into(),
        revision: Some(2),
    };
    let changes = vec![
        Change::delete(FIRST, "a"),
        put(FIRST, "c", "x"),
        put(FIRST, "c", "y"),
    ];
    let three = engine
        .commit(&Batch {
            preconditions: vec![fits],
            changes,
        })
        .expect("a commit");
    assert_eq!(three, 3);
    engine
        .commit(&batch(vec![Change::delete(FIRST, "nothing")]))
        .expect("deleting nothing is no error");
    let left = vec![
        (2, put(FIRST, "b", "")),
        (3, put(FIRST, "c", "y")),
        (1, put(SECOND, "a", "2")),
    ];
    assert_eq!(
        all(engine.as_mut()),
        (4, left),
        "the last change of a key wins, deletes delete"
    );

    let mut then = vec![];
    let revision = frozen
        .read(&mut |revision, change| {
            then.push((revision, change));
            Ok(())
        })
        .expect("what was frozen is read");
    then.sort_by(|(_, a), (_, b)| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    assert_eq!(
        (revision, then),
        (2, expected),
        "what was frozen does not change"
    );
}
