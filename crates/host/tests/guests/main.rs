//! Real guests under QEMU with software emulation.
//!
//! Needs root, QEMU, e2fsprogs and the distribution's package archive (for the
//! kernel, once; it is kept below the build directory).  It has a `main` of its
//! own because the keeper is this very program started again.

mod kernel;

use std::process::ExitCode;

fn main() -> ExitCode {
    let kernel = kernel::built();
    println!("{kernel:?}");
    ExitCode::SUCCESS
}
