//! The door as a client that does what no client's library would do.

mod basics;
mod behaviour;
mod cloud;
mod disk;
mod prefix;
mod sharing;
