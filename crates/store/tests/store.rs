//! The writer: what planners see, and what is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cumulet_store::conformance::FIRST;
use cumulet_store::{
    Batch, Change, CommitError, Engine, MemoryEngine, Plan, Revision, Store, StoreError, View,
    ViewError,
};

#[derive(Clone, Default)]
struct Counters(BTreeMap<String, u64>);

impl View for Counters {
    fn apply(&mut self, _revision: Revision, change: &Change) -> Result<(), ViewError> {
        match &change.value {
            None => {
                self.0.remove(&*change.key);
            }
            Some(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| ViewError::new("not text"))?;
                let number = text.parse().map_err(|_| ViewError::new("not a number"))?;
                self.0.insert(change.key.to_string(), number);
            }
        }
        Ok(())
    }
}

fn set(key: &str, value: u64) -> Change {
    Change::put(FIRST, key, Bytes::from(value.to_string()))
}

fn increment(view: &Counters) -> Result<Plan<u64>, ()> {
    let next = view.0.get("n").copied().unwrap_or(0) + 1;
    Ok(Plan {
        changes: vec![set("n", next)],
        answer: next,
    })
}

#[tokio::test]
async fn a_stepped_writer_is_told_of_plans_and_commits_when_it_is_stepped() {
    let (store, mut stepper) =
        Store::open_stepped(Box::new(MemoryEngine::default()), Counters::default()).unwrap();
    assert!(!stepper.step(), "nothing waits");
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(increment).await.unwrap() })
        })
        .collect();
    stepper.asked().await;
    tokio::task::yield_now().await;
    assert!(tasks.iter().all(|task| !task.is_finished()));
    assert_eq!(store.revision(), 0, "nobody has stepped");
    assert!(stepper.step());
    for (task, answer) in tasks.into_iter().zip(1..) {
        let committed = task.await.unwrap();
        assert_eq!((committed.answer, committed.revision), (answer, 1));
    }
    assert!(!stepper.step(), "all three were of one batch");
    // A writer that is dropped has lost what waits.
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(increment).await }
    });
    stepper.asked().await;
    drop(stepper);
    let lost = waiting.await.unwrap();
    assert!(matches!(lost, Err(CommitError::Store(StoreError::Closed))));
    assert_eq!(store.snapshot().0.get("n"), Some(&3));
}

#[tokio::test]
async fn planners_see_each_other_and_count_every_increment() {
    let store = Store::open(Box::new(MemoryEngine::default()), Counters::default()).unwrap();
    let mut tasks = vec![];
    for _ in 0..200 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            store.commit(increment).await.unwrap().answer
        }));
    }
    let mut answers = vec![];
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (1..=200).collect::<Vec<_>>());
    assert_eq!(store.snapshot().0["n"], 200);
}

#[tokio::test]
async fn a_refusal_a_panic_and_a_broken_limit_leave_nothing() {
    let store = Store::open(Box::new(MemoryEngine::default()), Counters::default()).unwrap();
    let refused = store.commit(|_: &Counters| Err::<Plan<()>, _>("no")).await;
    assert!(matches!(refused, Err(CommitError::Refused("no"))));
    let panicked = store
        .commit(|_: &Counters| -> Result<Plan<()>, ()> { panic!("a planner's mistake") })
        .await;
    assert!(
        matches!(panicked, Err(CommitError::Store(StoreError::Panicked(text))) if text.contains("mistake"))
    );
    let large = Change::put(FIRST, "big", Bytes::from(vec![b'1'; 600 * 1024]));
    let limit = store
        .commit(move |_: &Counters| {
            Ok::<_, ()>(Plan {
                changes: vec![large],
                answer: (),
            })
        })
        .await;
    assert!(matches!(
        limit,
        Err(CommitError::Store(StoreError::Limit(_)))
    ));
    let many: Vec<Change> = (0..101).map(|n| set(&n.to_string(), 1)).collect();
    let limit = store
        .commit(move |_: &Counters| {
            Ok::<_, ()>(Plan {
                changes: many,
                answer: (),
            })
        })
        .await;
    assert!(matches!(
        limit,
        Err(CommitError::Store(StoreError::Limit(_)))
    ));
    let unreadable = Change::put(FIRST, "x", Bytes::from_static(b"words"));
    let changes = vec![set("y", 1), unreadable];
    let view = store
        .commit(move |_: &Counters| {
            Ok::<_, ()>(Plan {
                changes,
                answer: (),
            })
        })
        .await;
    assert!(matches!(view, Err(CommitError::Store(StoreError::View(_)))));
    assert_eq!((store.revision(), store.snapshot().0.len()), (0, 0));
    assert_eq!(
        store.commit(increment).await.unwrap().revision,
        1,
        "the writer goes on"
    );
}

/// Fails every commit once told to.
struct Failing(MemoryEngine, Arc<AtomicBool>);

impl Engine for Failing {
    fn load(
        &mut self,
        sink: &mut dyn FnMut(Revision, Change) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError> {
        self.0.load(sink)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(StoreError::Io {
                doing: "writing".into(),
                cause: "disk full".into(),
            });
        }
        self.0.commit(batch)
    }
}

#[tokio::test]
async fn after_a_failed_write_reads_go_on_and_commits_are_refused() {
    let broken = Arc::new(AtomicBool::new(false));
    let engine = Failing(MemoryEngine::default(), broken.clone());
    let store = Store::open(Box::new(engine), Counters::default()).unwrap();
    store.commit(increment).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        store.commit(increment).await,
        Err(CommitError::Store(StoreError::Io { .. }))
    ));
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(
        store.commit(increment).await,
        Err(CommitError::Store(StoreError::Failed(_)))
    ));
    assert_eq!(store.snapshot().0["n"], 1);
    assert!(matches!(store.failed().await, StoreError::Io { .. }));
}

#[tokio::test]
async fn a_reader_may_ask_for_a_revision() {
    let store = Store::open(Box::new(MemoryEngine::default()), Counters::default()).unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.snapshot_at_least(2).await.unwrap().0["n"] }
    });
    store.commit(increment).await.unwrap();
    store.commit(increment).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 2);
}
