//! A whole cloud on one thread, in time that is skipped instead of waited for.
//!
//! The real engine, store writer and reconcilers run over a host that exists
//! only as the [`world`]: it outlives every restart of the engine, is slow,
//! fails, loses answers and machines by the dice of one seed, and watches what
//! it is asked to do.  The durable records are part of it, so that each commit
//! is checked against them and against the host.
//!
//! A crash drops the runtime with everything in it, at whatever await it is.
//! The same seed gives the same run.  Deliberately absent: real disks, guests
//! and the doors; they have tests of their own.
//!
//! Start reading at [`run::Simulation`].

mod clients;
mod environment;
mod groups;
mod host;
mod hours;
mod ledger;
mod races;
mod records;
mod rest;
mod rng;
pub mod run;
mod scene;
mod world;

pub use groups::{Tally, play_groups};
pub use hours::play_hours;
pub use races::{Race, play_race};
pub use run::{Report, Runtime, Simulation};
pub use scene::{Point, Scene, play};
pub use world::Listener;
