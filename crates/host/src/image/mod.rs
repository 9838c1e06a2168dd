//! Users' images: what they are, and turning them into raw bytes safely.
//!
//! Everything here that looks inside an image runs in an unprivileged child
//! process ([`worker`]): the server itself never parses a user's gzip, tar,
//! qcow2, partition table or file system header.  Nothing here knows where
//! images are kept or what they are called.  Start reading at
//! [`worker::run_worker`], the server's side; [`child`] is the other one.

pub mod channel;
pub mod child;
pub mod format;
pub mod qcow2;
pub mod sink;
pub mod worker;

pub use child::worker_main;
pub use format::{Contents, FileSystem, ImageFacts, TableKind};
pub use worker::{WorkerJob, WorkerOutcome, WorkerProgram, run_worker};
