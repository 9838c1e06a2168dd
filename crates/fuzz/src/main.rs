//! Throws damaged input at every parser of outside bytes: `cumulet-fuzz TARGET [SECONDS]`.
//!
//! Runs on the pinned stable toolchain, so that it needs no instrumentation:
//! inputs are made from a kept corpus by mutation, and what gives an answer of a
//! new kind joins the corpus.  A panic, an input that takes too long or one that
//! takes too much memory ends the run with that input kept in a file.
//! Start reading at [`harness`]; `docs/fuzzing.md` says how to use it.

mod harness;
mod mutate;
mod targets;
mod watch;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::harness::{Options, run};

const SECONDS: u64 = 30;

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout();
    if arguments.first().map(String::as_str) == Some("--list") {
        for target in targets::ALL {
            writeln!(out, "{}", target.name)?;
        }
        return Ok(());
    }
    let mut is_kept = false;
    arguments.retain(|argument| {
        is_kept |= argument == "--keep";
        argument != "--keep"
    });
    let (name, rest) = arguments
        .split_first()
        .context("usage: cumulet-fuzz --list | TARGET [SECONDS] [--keep] | TARGET --replay FILE")?;
    let Some(target) = targets::find(name) else {
        bail!("there is no target {name}; --list names them");
    };
    let replay = match rest {
        [flag, file] if flag == "--replay" => Some(PathBuf::from(file)),
        _ => None,
    };
    let seconds = match rest {
        [] => SECONDS,
        [seconds] => seconds.parse().context("SECONDS is a number")?,
        _ if replay.is_some() => 0,
        _ => bail!("too many arguments"),
    };
    let seed = match std::env::var("TEST_SEED") {
        Ok(text) => text.parse().context("TEST_SEED is a number")?,
        Err(_) => u64::from(std::process::id()) << 32 | u64::from(harness::nanos()),
    };
    writeln!(out, "{name}: TEST_SEED={seed}")?;
    let report = run(
        target,
        &Options {
            seed,
            time: Duration::from_secs(seconds),
            is_kept,
            replay,
        },
    )?;
    writeln!(
        out,
        "{name}: {} inputs, {} kinds of answers, corpus of {}",
        report.inputs, report.kinds, report.corpus
    )?;
    Ok(())
}
