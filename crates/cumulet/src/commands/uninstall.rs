//! `cumulet uninstall`: undoes every change on this machine.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::Context;
use super::output::say;
use crate::data_dir::{self, DataDir, Purpose, find_cloud_id};
use crate::wiring;

#[derive(Args)]
pub(crate) struct UninstallArgs {
    /// Deletes the data directory too, with all accounts, images, objects and disks.
    #[arg(long)]
    purge: bool,
}

/// Removes a cloud that was begun and never ready, with what it made on the host.
///
/// # Errors
/// When something is left.
pub(super) fn discard(dir: &DataDir, was_absent: bool) -> anyhow::Result<()> {
    undo_host(dir)?;
    data_dir::purge(dir.path())?;
    if !was_absent {
        // It was there, and stays.
        data_dir::make_private(dir.path())?;
    }
    Ok(())
}

fn undo_host(dir: &DataDir) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let removed = runtime.block_on(wiring::undo_host(dir));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    removed
}

pub(crate) fn run(context: &Context, args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let settings = &context.config.settings;
    let path = &settings.data_dir;
    if find_cloud_id(path).is_none() {
        // Repeating it succeeds, but nothing is deleted that is not a cloud's.
        if path.exists() && args.purge {
            bail!("{} is no cloud's data directory", path.display());
        }
        let note = format!("there is no cloud in {}: nothing to remove", path.display());
        print(context, &[], &note);
        return Ok(ExitCode::SUCCESS);
    }
    let dir = DataDir::open(path, Purpose::Uninstall)?;
    let mut removed = undo_host(&dir)?;
    let note = if args.purge {
        let shown = dir.path().display();
        let is_gone =
            data_dir::purge(dir.path()).context("the data directory cannot be deleted")?;
        removed.push(if is_gone {
            shown.to_string()
        } else {
            format!("everything in {shown}")
        });
        "nothing is left of this cloud".to_owned()
    } else {
        format!(
            "the data stays in {}; `cumulet serve` starts the instances again, `cumulet uninstall --purge` deletes it",
            dir.path().display()
        )
    };
    print(context, &removed, &note);
    Ok(ExitCode::SUCCESS)
}

fn print(context: &Context, removed: &[String], note: &str) {
    if context.output.is_json {
        context
            .output
            .print(&json!({ "removed": removed, "note": note }));
        return;
    }
    for name in removed {
        say(format_args!("removed {name}\n"));
    }
    say(format_args!("{note}\n"));
}
