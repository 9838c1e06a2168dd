//! The single writer, and the handle through which everybody uses the store.
//!
//! ```text
//!   planners --queue--> [ run against the newest state ] --> one durable batch --> publish --> answers
//! ```
//!
//! Invariants: a planner sees the effects of every planner before it, also those
//! of its own batch; what is published is durable; nobody is answered before
//! that.  A planner that refuses, panics or breaks a limit leaves nothing.
//!
//! Nobody waits for some plans, such as those that record what was observed.
//! They have patience: they go along with the next batch that somebody waits for,
//! and make one of their own only when none comes.  A sync that is saved so is one
//! that a request need not wait behind.
//!
//! The writer steps on a thread of its own; a simulation steps it by hand with a
//! [`Stepper`] instead.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    Batch, Change, Engine, Frozen, KEY_LEN_MAX, PLAN_CHANGES_MAX, Revision, StoreError,
    VALUE_LEN_MAX, View,
};

/// Plans that may wait.
const QUEUE_MAX: usize = 4096;
/// Plans of one durable batch; each has at most `PLAN_CHANGES_MAX` changes.
const BATCH_PLANS_MAX: usize = 128;
/// Patient plans that go along with them.
const PATIENT_PLANS_MAX: usize = 128;
/// How long a patient plan waits for company.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a planner wants: changes, and the answer once they are durable.
#[derive(Debug)]
pub struct Plan<T> {
    pub changes: Vec<Change>,
    pub answer: T,
}

#[derive(Debug)]
pub struct Committed<T> {
    /// The revision at which the plan's changes (or what it has read) are durable.
    pub revision: Revision,
    pub answer: T,
}

#[derive(Debug)]
pub enum CommitError<E> {
    /// The planner's own no; nothing was written.
    Refused(E),
    Store(StoreError),
}

struct Snapshot<V> {
    revision: Revision,
    view: Arc<V>,
}

/// A planner with its types erased: takes the view, returns changes and keeps its answer.
trait Job<V>: Send {
    fn plan(&mut self, view: &V) -> Vec<Change>;
    fn fail(&mut self, error: StoreError);
    /// Whether it may wait for a batch that is made anyway.
    fn is_patient(&self) -> bool {
        false
    }
    /// Called when the batch is durable or refused.
    fn look(&mut self, _engine: &mut dyn Engine) {}
    fn answer(self: Box<Self>, revision: Revision);
}

/// Asks for the records as they are.
struct FreezeJob {
    outcome: Result<Box<dyn Frozen>, StoreError>,
    reply: oneshot::Sender<Result<Box<dyn Frozen>, StoreError>>,
}

impl<V> Job<V> for FreezeJob {
    fn plan(&mut self, _view: &V) -> Vec<Change> {
        vec![]
    }

    /// Reading goes on where writing has failed.
    fn fail(&mut self, _error: StoreError) {}

    fn look(&mut self, engine: &mut dyn Engine) {
        self.outcome = engine.frozen();
    }

    fn answer(self: Box<Self>, _revision: Revision) {
        // Whoever asked may be gone.
        let _ = self.reply.send(self.outcome);
    }
}

struct PlanJob<F, T, E> {
    planner: Option<F>,
    is_patient: bool,
    outcome: Option<Result<T, CommitError<E>>>,
    reply: oneshot::Sender<Result<Committed<T>, CommitError<E>>>,
}

impl<V, F, T, E> Job<V> for PlanJob<F, T, E>
where
    F: FnOnce(&V) -> Result<Plan<T>, E> + Send,
    T: Send,
    E: Send,
{
    fn plan(&mut self, view: &V) -> Vec<Change> {
        let Some(planner) = self.planner.take() else {
            return vec![];
        };
        // A planner is pure; whatever it broke was its own.
        match catch_unwind(AssertUnwindSafe(|| planner(view))) {
            Ok(Ok(plan)) => {
                self.outcome = Some(Ok(plan.answer));
                plan.changes
            }
            Ok(Err(refusal)) => {
                self.outcome = Some(Err(CommitError::Refused(refusal)));
                vec![]
            }
            Err(panic) => {
                self.outcome = Some(Err(CommitError::Store(StoreError::Panicked(panic_text(
                    panic.as_ref(),
                )))));
                vec![]
            }
        }
    }

    fn is_patient(&self) -> bool {
        self.is_patient
    }

    fn fail(&mut self, error: StoreError) {
        // A refusal stands: it says nothing about what is durable.
        if !matches!(self.outcome, Some(Err(_))) {
            self.outcome = Some(Err(CommitError::Store(error)));
        }
    }

    fn answer(self: Box<Self>, revision: Revision) {
        let outcome = self
            .outcome
            .unwrap_or(Err(CommitError::Store(StoreError::Closed)));
        // Whoever asked may be gone; what is durable stays.
        let _ = self
            .reply
            .send(outcome.map(|answer| Committed { revision, answer }));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}

/// The state machine behind the store.
pub(crate) struct Writer<V> {
    engine: Box<dyn Engine>,
    published: Arc<ArcSwap<Snapshot<V>>>,
    revisions: watch::Sender<Revision>,
    failure: watch::Sender<Option<StoreError>>,
}

impl<V: View> Writer<V> {
    /// Runs the jobs in order, makes their changes durable in one batch, publishes and answers.
    fn step(&mut self, mut jobs: Vec<Box<dyn Job<V>>>) {
        if let Some(failed) = self.failure.borrow().clone() {
            let stopped = StoreError::Failed(failed.to_string());
            jobs.iter_mut().for_each(|job| job.fail(stopped.clone()));
        } else {
            self.commit(&mut jobs);
        }
        let revision = self.published.load().revision;
        jobs.iter_mut()
            .for_each(|job| job.look(self.engine.as_mut()));
        jobs.into_iter().for_each(|job| job.answer(revision));
    }

    fn commit(&mut self, jobs: &mut [Box<dyn Job<V>>]) {
        let before = self.published.load_full();
        let revision = before.revision + 1;
        let mut view = V::clone(&before.view);
        let mut batch = Batch::default();
        for job in jobs.iter_mut() {
            let changes = job.plan(&view);
            match checked(&view, revision, &changes) {
                Ok(Some(next)) => {
                    view = next;
                    batch.changes.extend(changes);
                }
                Ok(None) => {}
                Err(error) => job.fail(error),
            }
        }
        if batch.changes.is_empty() {
            return;
        }
        keep_last(&mut batch.changes);
        match self.engine.commit(&batch) {
            Ok(durable) => {
                debug_assert_eq!(durable, revision, "this writer is the only one");
                self.published.store(Arc::new(Snapshot {
                    revision: durable,
                    view: Arc::new(view),
                }));
                self.revisions.send_replace(durable);
            }
            Err(error @ StoreError::NoSpace) => {
                tracing::error!(%error, "records were not written");
                jobs.iter_mut().for_each(|job| job.fail(error.clone()));
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot write any more");
                jobs.iter_mut().for_each(|job| job.fail(error.clone()));
                self.failure.send_replace(Some(error));
            }
        }
    }

    fn run(mut self, queue: &Receiver<Box<dyn Job<V>>>) {
        while let Some(jobs) = next_batch(queue) {
            self.step(jobs);
        }
    }
}

/// Of several changes of one record leaves the last: plans of one batch rewrite what they share (a
/// host's memory, a block of addresses), and what stood there between them was never durable.
fn keep_last(changes: &mut Vec<Change>) {
    let mut last = HashMap::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        last.insert((change.kind, change.key.clone()), index);
    }
    let mut index = 0;
    changes.retain(|change| {
        let is_last = last.get(&(change.kind, change.key.clone())) == Some(&index);
        index += 1;
        is_last
    });
}

/// Waits for the jobs of the next batch; `None` when no handle is left.
fn next_batch<V>(queue: &Receiver<Box<dyn Job<V>>>) -> Option<Vec<Box<dyn Job<V>>>> {
    let first = queue.recv().ok()?;
    let mut jobs = vec![first];
    let since = Instant::now();
    // The last one is the only one that may be in a hurry.
    while jobs.last().is_some_and(|job| job.is_patient())
        && jobs.len() < PATIENT_PLANS_MAX
        && let Ok(job) = queue.recv_timeout(PATIENCE.saturating_sub(since.elapsed()))
    {
        jobs.push(job);
    }
    let jobs_max = jobs.len() - 1 + BATCH_PLANS_MAX;
    Some(gather(jobs, jobs_max, queue))
}

/// The jobs and those that wait behind them, as many as fit one batch.
fn gather<V>(
    mut jobs: Vec<Box<dyn Job<V>>>,
    jobs_max: usize,
    queue: &Receiver<Box<dyn Job<V>>>,
) -> Vec<Box<dyn Job<V>>> {
    while jobs.len() < jobs_max
        && let Ok(job) = queue.try_recv()
    {
        jobs.push(job);
    }
    jobs
}

/// The writer without its thread: a simulation decides when it commits, and may drop it instead.
pub struct Stepper<V> {
    writer: Writer<V>,
    queue: Receiver<Box<dyn Job<V>>>,
    asked: Arc<Notify>,
}

impl<V: View> Stepper<V> {
    /// Resolves when plans wait; then call [`Self::step`] until it says that none do.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Commits one batch on the caller's thread.  False when nothing waited.
    pub fn step(&mut self) -> bool {
        let Ok(first) = self.queue.try_recv() else {
            return false;
        };
        let jobs = gather(vec![first], BATCH_PLANS_MAX, &self.queue);
        self.writer.step(jobs);
        true
    }
}

/// The view after `changes`, `None` when there are none.
fn checked<V: View>(
    view: &V,
    revision: Revision,
    changes: &[Change],
) -> Result<Option<V>, StoreError> {
    if changes.is_empty() {
        return Ok(None);
    }
    if changes.len() > PLAN_CHANGES_MAX {
        return Err(StoreError::Limit(format!(
            "a plan has {} changes; at most {PLAN_CHANGES_MAX} are allowed",
            changes.len()
        )));
    }
    let mut next = view.clone();
    for change in changes {
        let length = change.value.as_ref().map_or(0, |value| value.len());
        if length >= VALUE_LEN_MAX || change.key.len() > KEY_LEN_MAX || change.key.contains('\0') {
            return Err(StoreError::Limit(format!(
                "the record {} {:?} of {length} bytes is too large",
                change.kind, change.key
            )));
        }
        next.apply(revision, change)?;
    }
    Ok(Some(next))
}

/// A handle; clones share the store, and the last one to go stops its thread.
pub struct Store<V: View> {
    queue: SyncSender<Box<dyn Job<V>>>,
    published: Arc<ArcSwap<Snapshot<V>>>,
    revisions: watch::Receiver<Revision>,
    failure: watch::Receiver<Option<StoreError>>,
    /// Tells a [`Stepper`] that a plan waits; nobody listens where the writer has a thread.
    asked: Arc<Notify>,
}

impl<V: View> Clone for Store<V> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            published: self.published.clone(),
            revisions: self.revisions.clone(),
            failure: self.failure.clone(),
            asked: self.asked.clone(),
        }
    }
}

impl<V: View> Store<V> {
    /// Loads all records into `empty` and starts the writer's thread.
    ///
    /// # Errors
    /// What the engine's `load` answers, or `View` for a record that cannot be read.
    pub fn open(engine: Box<dyn Engine>, empty: V) -> Result<Self, StoreError> {
        let (store, Stepper { writer, queue, .. }) = Self::open_stepped(engine, empty)?;
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|cause| StoreError::io("starting the writer's thread", cause))?;
        Ok(store)
    }

    /// As [`Self::open`], without a thread: nothing is committed but by the stepper.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_stepped(
        mut engine: Box<dyn Engine>,
        empty: V,
    ) -> Result<(Self, Stepper<V>), StoreError> {
        let mut view = empty;
        let revision = engine.load(&mut |revision, change| Ok(view.apply(revision, &change)?))?;
        let published = Arc::new(ArcSwap::from_pointee(Snapshot {
            revision,
            view: Arc::new(view),
        }));
        let (revisions, watching) = watch::channel(revision);
        let (failure, failed) = watch::channel(None);
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let asked = Arc::new(Notify::new());
        let writer = Writer {
            engine,
            published: published.clone(),
            revisions,
            failure,
        };
        let store = Self {
            queue: sender,
            published,
            revisions: watching,
            failure: failed,
            asked: asked.clone(),
        };
        let stepper = Stepper {
            writer,
            queue,
            asked,
        };
        Ok((store, stepper))
    }

    /// The newest durable state.
    pub fn snapshot(&self) -> Arc<V> {
        self.published.load().view.clone()
    }

    pub fn revision(&self) -> Revision {
        self.published.load().revision
    }

    /// Woken at every publish.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.revisions.clone()
    }

    /// Resolves when the store can no longer write; the program should then stop and be started
    /// again, which reads back what is really durable.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.failure.clone();
        let found = failure
            .wait_for(Option::is_some)
            .await
            .map(|found| found.clone());
        found.ok().flatten().unwrap_or(StoreError::Closed)
    }

    /// A state at least as new as `revision`.
    ///
    /// # Errors
    /// `Closed` when that revision can no longer come.
    pub async fn snapshot_at_least(&self, revision: Revision) -> Result<Arc<V>, StoreError> {
        let mut revisions = self.revisions.clone();
        revisions
            .wait_for(|newest| *newest >= revision)
            .await
            .map_err(|_| StoreError::Closed)?;
        Ok(self.snapshot())
    }

    /// Runs `planner` against the newest state; returns when its changes are durable.  Dropping the
    /// future takes nothing back.
    ///
    /// # Errors
    /// `Refused` with the planner's error; `Store` when nothing was committed (or, after an I/O
    /// error, when only opening the store again can tell).
    pub async fn commit<T, E, F>(&self, planner: F) -> Result<Committed<T>, CommitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&V) -> Result<Plan<T>, E> + Send + 'static,
    {
        self.commit_as(planner, false).await
    }

    /// As [`Self::commit`], for changes that nobody waits for: they may take some milliseconds
    /// longer, to go along with changes that somebody waits for.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_patiently<T, E, F>(
        &self,
        planner: F,
    ) -> Result<Committed<T>, CommitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&V) -> Result<Plan<T>, E> + Send + 'static,
    {
        self.commit_as(planner, true).await
    }

    async fn commit_as<T, E, F>(
        &self,
        planner: F,
        is_patient: bool,
    ) -> Result<Committed<T>, CommitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&V) -> Result<Plan<T>, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(PlanJob {
            planner: Some(planner),
            is_patient,
            outcome: None,
            reply,
        });
        if self.send(job).await.is_err() {
            return Err(CommitError::Store(StoreError::Closed));
        }
        answer
            .await
            .unwrap_or(Err(CommitError::Store(StoreError::Closed)))
    }

    /// All records, with the revisions that wrote them, as of one moment between two commits; at
    /// least what was published when this was called.  Commits go on while it is read.
    ///
    /// # Errors
    /// What the engine answers; `Closed`.
    pub async fn frozen(&self) -> Result<Box<dyn Frozen>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(FreezeJob {
            outcome: Err(StoreError::Closed),
            reply,
        });
        self.send(job).await?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Queues a job, when there is room.
    async fn send(&self, mut job: Box<dyn Job<V>>) -> Result<(), StoreError> {
        loop {
            match self.queue.try_send(job) {
                Ok(()) => {
                    self.asked.notify_one();
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
                Err(TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    }

    /// As [`Self::commit`], for threads outside the runtime.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_blocking<T, E, F>(&self, planner: F) -> Result<Committed<T>, CommitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&V) -> Result<Plan<T>, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(PlanJob {
            planner: Some(planner),
            is_patient: false,
            outcome: None,
            reply,
        });
        self.queue
            .send(job)
            .map_err(|_| CommitError::Store(StoreError::Closed))?;
        self.asked.notify_one();
        answer
            .blocking_recv()
            .unwrap_or(Err(CommitError::Store(StoreError::Closed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    struct Named(bool);

    impl Job<()> for Named {
        fn plan(&mut self, _view: &()) -> Vec<Change> {
            vec![]
        }
        fn fail(&mut self, _error: StoreError) {}
        fn is_patient(&self) -> bool {
            self.0
        }
        fn answer(self: Box<Self>, _revision: Revision) {}
    }

    /// What the batches hold that are made of these jobs: how many in each are patient, and how many
    /// are not.
    fn batches(patience: &[bool]) -> Vec<(usize, usize)> {
        let (sender, queue) = sync_channel::<Box<dyn Job<()>>>(QUEUE_MAX);
        for is_patient in patience {
            sender.send(Box::new(Named(*is_patient))).unwrap();
        }
        // The last batch must not wait for more than is there.
        drop(sender);
        std::iter::from_fn(|| next_batch(&queue))
            .map(|jobs| {
                let patient = jobs.iter().filter(|job| job.is_patient()).count();
                (patient, jobs.len() - patient)
            })
            .collect()
    }

    #[test]
    fn patient_plans_go_along_and_never_alone_before_one_in_a_hurry() {
        assert_eq!(batches(&[true, false]), [(1, 1)]);
        assert_eq!(batches(&[true, true, false, true, false]), [(3, 2)]);
        assert_eq!(batches(&[false, true]), [(1, 1)]);
        assert_eq!(batches(&[true, true]), [(2, 0)]);
    }

    #[test]
    fn a_record_is_written_once_in_a_batch() {
        let (one, other) = (Kind::new("one"), Kind::new("other"));
        let put = |kind, key: &str, value: &'static str| Change::put(kind, key, value.into());
        let mut changes = vec![
            put(one, "a", "1"),
            put(one, "b", "1"),
            put(other, "a", "1"),
            put(one, "a", "2"),
            Change::delete(one, "b"),
            put(one, "a", "3"),
        ];
        let last = vec![changes[2].clone(), changes[4].clone(), changes[5].clone()];
        keep_last(&mut changes);
        assert_eq!(changes, last);
    }

    #[test]
    fn a_batch_has_its_limit() {
        let hurried = vec![false; 2 * BATCH_PLANS_MAX];
        assert_eq!(
            batches(&hurried),
            [(0, BATCH_PLANS_MAX), (0, BATCH_PLANS_MAX)]
        );
        let patient = vec![true; 3 * PATIENT_PLANS_MAX];
        let made = batches(&patient);
        assert!(
            made.iter()
                .all(|(patient, _)| *patient <= PATIENT_PLANS_MAX + BATCH_PLANS_MAX)
        );
        assert_eq!(
            made.iter().map(|(patient, _)| patient).sum::<usize>(),
            patient.len()
        );
    }

    #[test]
    fn a_patient_plan_alone_is_carried_out_while_others_may_come() {
        let (sender, queue) = sync_channel::<Box<dyn Job<()>>>(QUEUE_MAX);
        sender.send(Box::new(Named(true))).unwrap();
        assert_eq!(next_batch(&queue).map(|jobs| jobs.len()), Some(1));
        drop(sender);
        assert!(next_batch(&queue).is_none());
    }
}
