//! Kernels with their ramdisks, for root file systems.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use cumulet_domain::KernelId;
use cumulet_engine::environment::Entropy;
use cumulet_host::kernel::{KernelStore, build_kernel};

use super::Context;
use super::records::{answer, perform};
use crate::operator::{Request, kernels};
use crate::surroundings::SystemEntropy;

#[derive(Subcommand)]
pub(crate) enum KernelCommand {
    /// Makes the default kernel and ramdisk from the distribution's cloud kernel.
    Build,
    /// Takes a kernel and its ramdisk as they are, as the default.
    Import {
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        #[arg(long, value_name = "FILE")]
        ramdisk: PathBuf,
        /// What to call it.
        #[arg(long, default_value = "imported")]
        version: String,
    },
    List,
    Delete {
        id: KernelId,
    },
}

pub(crate) fn run(context: &Context, command: KernelCommand) -> anyhow::Result<ExitCode> {
    match command {
        KernelCommand::List => answer(context, Request::Kernel(kernels::Request::List)),
        KernelCommand::Delete { id } => {
            let shown = perform(context, Request::Kernel(kernels::Request::Delete { id }))?;
            KernelStore::open(&context.config.settings.data_dir)
                .and_then(|store| store.ensure_absent(id))
                .context("the kernel's files cannot be removed")?;
            context.output.print(&shown);
            Ok(ExitCode::SUCCESS)
        }
        KernelCommand::Import {
            kernel,
            ramdisk,
            version,
        } => add(context, &kernel, &ramdisk, version),
        KernelCommand::Build => {
            crate::data_dir::make_private(&context.config.settings.data_dir)
                .context("the data directory cannot be made")?;
            let directory = context.config.settings.data_dir.join("kernel.build");
            let _ = std::fs::remove_dir_all(&directory);
            crate::data_dir::make_private(&directory)?;
            let built = build_kernel(&directory, &|line: &str| eprintln!("{line}"));
            let added = built
                .context("the kernel cannot be built")
                .and_then(|files| {
                    add(
                        context,
                        &files.kernel,
                        &files.ramdisk,
                        files.version.clone(),
                    )
                });
            let _ = std::fs::remove_dir_all(&directory);
            added
        }
    }
}

/// Files first, then the record: a record never names files that are not there.
fn add(
    context: &Context,
    kernel: &std::path::Path,
    ramdisk: &std::path::Path,
    version: String,
) -> anyhow::Result<ExitCode> {
    let mut bytes = [0; 16];
    SystemEntropy.fill(&mut bytes);
    let id = KernelId::from_random(u128::from_le_bytes(bytes));
    crate::data_dir::make_private(&context.config.settings.data_dir)
        .context("the data directory cannot be made")?;
    let store = KernelStore::open(&context.config.settings.data_dir)
        .context("the kernels' directory cannot be opened")?;
    store
        .import(id, kernel, ramdisk)
        .context("the kernel cannot be taken")?;
    match perform(
        context,
        Request::Kernel(kernels::Request::Add { id, version }),
    ) {
        Ok(shown) => {
            context.output.print(&shown);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let _ = store.ensure_absent(id);
            Err(error)
        }
    }
}
