//! `cumulet uninstall`: undoes every change on this machine.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::Context;
use crate::data_dir::{DataDir, find_cloud_id};
use crate::wiring;

#[derive(Args)]
pub(crate) struct UninstallArgs {
    /// Deletes the data directory too, with all images, objects and disks.
    #[arg(long)]
    purge: bool,
}

pub(crate) fn run(context: &Context, args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let settings = &context.config.settings;
    let path = &settings.data_dir;
    if find_cloud_id(path).is_none() {
        // Repeating it succeeds, but nothing is deleted that is not a cloud's.
        if path.exists() && args.purge {
            bail!("{} is no cloud's data directory", path.display());
        }
        context.output.print(&json!({ "removed": [] }));
        return Ok(ExitCode::SUCCESS);
    }
    let dir = DataDir::open(path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut removed = runtime.block_on(wiring::undo_host(&dir))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    if args.purge {
        match fs::remove_dir_all(dir.path()) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause).context("the data directory cannot be deleted"),
        }
        removed.push(dir.path().display().to_string());
    }
    context.output.print(&json!({ "removed": removed }));
    Ok(ExitCode::SUCCESS)
}
