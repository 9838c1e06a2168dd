//! Tests on real guests: the program, QEMU, the kernel's network, Debian's own images.
//!
//! They need root.  Each test has clouds of its own and leaves nothing behind.

mod bombs;
mod bundles;
mod clients;
mod crash;
mod debian;
mod faults;
mod harness;
mod host;
mod points;
mod privileges;
mod stopping;
mod upgrade;
