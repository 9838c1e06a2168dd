//! Runs `ip` and `nft`, the two programs that change the network here.
//!
//! Both read what to do from standard input, so that a change costs one
//! process whatever its size; for `nft` it is one transaction.  What is written
//! there is made of typed values only.  A child lives in the network namespace
//! of the thread that starts it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::api::{HostError, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes of a program's complaint that are kept.
const COMPLAINT_MAX: usize = 2_000;

/// Runs to the end and returns what was printed.
///
/// # Errors
/// When the program is missing or fails, with what it complained of.
pub(super) fn run(doing: &str, program: &str, args: &[&str], input: &str) -> Result<String> {
    let failed = |cause: String| HostError::new(doing, cause);
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{program} could not be started: {error}")))?;
    // Both programs read all of their input before they print.  A program that ended early says
    // why by itself: the broken pipe is not the news.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|error| failed(format!("{program} could not be waited for: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.trim().chars().take(COMPLAINT_MAX).collect();
        return Err(failed(format!("{program} {}: {complaint}", args.join(" "))));
    }
    written.map_err(|error| failed(format!("{program} did not take its input: {error}")))?;
    String::from_utf8(output.stdout).map_err(|_| failed(format!("{program} printed no text")))
}

/// Lines of `ip`, one command each, in the caller's namespace; the first failure ends it.
pub(super) fn ip_batch(doing: &str, lines: &str) -> Result<()> {
    run(doing, "ip", &["-batch", "-"], lines).map(drop)
}

/// One transaction in the caller's namespace: all of it or nothing.
pub(super) fn nft(doing: &str, script: &str) -> Result<()> {
    run(doing, "nft", &["-f", "-"], script).map(drop)
}
