//! What touches the machine: virtual machines, disks, the network.
//!
//! The engine sees only the traits of [`api`]; the production side of each is
//! a module of its own.  Nothing here knows accounts, images' owners or any
//! protocol of a door, and nothing here decides what should run: it is told.
//! Start reading at [`api`].

pub mod api;
pub mod disks;
pub mod image;
pub mod inventory;
pub mod kernel;
pub mod net;
pub mod simulated;
pub mod vm;
