//! Real guests under QEMU with software emulation.
//!
//! Needs root, QEMU, busybox (static), e2fsprogs and the distribution's package
//! archive (for the kernel, once; it is kept below the build directory).  It has
//! a `main` of its own because the keeper is this very program started again,
//! and because everything after the kernel's download happens in a network
//! namespace that ends with it.

mod images;
mod kernel;
mod lifecycle;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cumulet_host::vm::keeper::keeper_main;
use support::Place;

type Test = (&'static str, fn(&Place));

const TESTS: &[Test] = &[
    (
        "a_guest_boots_is_adopted_rebooted_and_stopped",
        lifecycle::boots_is_adopted_rebooted_and_stopped,
    ),
    (
        "a_guest_that_does_not_listen_is_reset_and_unplugged",
        lifecycle::deaf_guest_is_reset_and_unplugged,
    ),
    (
        "a_guest_may_power_off_while_no_server_runs",
        lifecycle::powers_off_unwatched,
    ),
    ("a_guest_may_reboot_itself", lifecycle::reboots_itself),
    ("a_panic_is_reported", lifecycle::panics),
    (
        "a_killed_qemu_or_keeper_is_a_crash",
        lifecycle::killed_processes_are_crashes,
    ),
    (
        "what_cannot_start_says_why_and_leaves_nothing",
        lifecycle::refused_start_leaves_nothing,
    ),
    (
        "a_server_killed_while_starting_leaves_one_guest_or_none",
        lifecycle::server_killed_while_starting,
    ),
    (
        "an_imported_disk_boots_through_firmware",
        images::disk_boots_through_firmware,
    ),
    (
        "images_are_stored_whole_or_not_at_all",
        images::stored_whole_or_not_at_all,
    ),
    (
        "acceleration_is_proven_by_a_booted_kernel",
        images::acceleration_is_proven,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == "keep") {
        return keeper_main();
    }
    if arguments.first().is_some_and(|it| it == "image-worker") {
        return cumulet_host::image::worker_main();
    }
    if let [word, data, spec] = &arguments[..]
        && word == support::START_WORD
    {
        support::start_in_this_process(data.as_ref(), spec);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&Test> = TESTS
        .iter()
        .filter(|(name, _)| {
            let mut words = arguments
                .iter()
                .filter(|it| !it.starts_with('-'))
                .peekable();
            words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
        })
        .collect();
    if arguments.iter().any(|it| it == "--list") {
        for (name, _) in wanted {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if wanted.is_empty() {
        return ExitCode::SUCCESS;
    }
    let place = Place::prepare();
    let mut failed = 0;
    for (name, test) in wanted {
        let begun = std::time::Instant::now();
        let is_ok = catch_unwind(AssertUnwindSafe(|| test(&place))).is_ok();
        let word = if is_ok { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1?})", begun.elapsed());
        failed += i32::from(!is_ok);
    }
    if failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
