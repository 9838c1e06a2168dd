//! The rules of the cloud: ids, types, state machines and planners.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async.  Time
//! arrives as [`Timestamp`] values and fresh ids as arguments, so that every
//! rule can be replayed by a test.  No protocol is known here; the doors map
//! [`Error`] to their own codes.

pub mod accounts;
pub mod disks;
pub mod error;
pub mod ids;
pub mod images;
pub mod instance_types;
pub mod instances;
pub mod keypairs;
pub mod launches;
pub mod network;
pub mod products;
pub mod security_groups;
pub mod tags;
pub mod time;

pub use error::{Error, Resource, shown};
pub use ids::*;
pub use time::Timestamp;
