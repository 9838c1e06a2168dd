//! `cumulet backup` and `cumulet restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Context;
use super::ask::answer;
use crate::backup::{self, Key};
use crate::operator::Request;

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// A new or empty directory outside the data directory.
    directory: PathBuf,
    /// Leaves out buckets and objects.
    #[arg(long)]
    without_objects: bool,
    /// Leaves out the bytes of images and kernels; those of bundles are made again from their
    /// objects.
    #[arg(long)]
    without_images: bool,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The directory that `cumulet backup` wrote.
    directory: PathBuf,
    /// The sealing.key of the cloud that was backed up, which you kept apart from the backup.
    #[arg(long, value_name = "FILE", conflicts_with = "without_sealing_key")]
    sealing_key: Option<PathBuf>,
    /// Restores what can be had without the key: access keys and the sealed keys of bundles are
    /// lost, and the next start makes a first user as a new cloud does.
    #[arg(long)]
    without_sealing_key: bool,
    /// Takes over what the old cloud left on this machine; never beside the old cloud.
    #[arg(long)]
    keep_cloud_id: bool,
}

pub(crate) fn run_backup(context: &Context, args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let path = std::path::absolute(&args.directory)
        .with_context(|| format!("{} cannot be used", args.directory.display()))?;
    let request = Request::Backup {
        path,
        objects: !args.without_objects,
        images: !args.without_images,
    };
    answer(context, &request)
}

pub(crate) fn run_restore(context: &Context, args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let key = match (args.sealing_key, args.without_sealing_key) {
        (Some(path), _) => Key::File(path),
        (None, true) => Key::Lost,
        (None, false) => bail!(
            "a backup has no sealing key, and without it no secret in it can be opened: give the sealing.key of the old data directory with --sealing-key FILE; if it is lost, --without-sealing-key restores the rest without access keys"
        ),
    };
    let asked = backup::Restore {
        backup: args.directory,
        data_dir: context.config.settings.data_dir.clone(),
        key,
        keeps_cloud_id: args.keep_cloud_id,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(backup::restore(&asked))?;
    context.output.print(&answer);
    Ok(ExitCode::SUCCESS)
}
