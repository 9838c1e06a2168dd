//! Kernels with their ramdisks, for root file systems.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use cumulet_domain::KernelId;
use cumulet_host::kernel::build_kernel;

use super::Context;
use super::ask::answer;
use crate::data_dir::{self, Found, make_private};
use crate::operator::{Request, kernels};

#[derive(Subcommand)]
pub(crate) enum KernelCommand {
    /// Makes the default kernel and ramdisk from the distribution's cloud kernel, which is
    /// downloaded with apt and not installed.
    Build,
    /// Takes a kernel and its ramdisk as they are, as the default.
    Import {
        /// A bzImage for x86-64, with virtio.
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        /// Loads the drivers and switches to /dev/sda1; `kernel build` makes such a one.
        #[arg(long, value_name = "FILE")]
        ramdisk: PathBuf,
        /// What to call it.
        #[arg(long, default_value = "imported")]
        version: String,
    },
    /// All kernels.
    List,
    /// Deletes a kernel that no live instance boots with.
    Delete {
        /// As the list has it.
        id: KernelId,
    },
}

pub(crate) fn run(context: &Context, command: KernelCommand) -> anyhow::Result<ExitCode> {
    match command {
        KernelCommand::List => answer(context, &Request::Kernel(kernels::Request::List)),
        KernelCommand::Delete { id } => {
            answer(context, &Request::Kernel(kernels::Request::Delete { id }))
        }
        KernelCommand::Import {
            kernel,
            ramdisk,
            version,
        } => import(context, &kernel, &ramdisk, version),
        KernelCommand::Build => build(context),
    }
}

/// Begins the names of directories that kernels are built in; the rest is the process.
const BUILDING: &str = "kernel.build-";

/// Builds in a directory of this build's own and imports the result.
fn build(context: &Context) -> anyhow::Result<ExitCode> {
    let data = &context.config.settings.data_dir;
    let name = format!("{BUILDING}{}", std::process::id());
    // A directory that is refused is refused before anything is downloaded, and a build that fails
    // leaves no cloud where none was.
    let directory = match data_dir::look(data)? {
        Found::Ours => {
            sweep(data);
            data.join(name)
        }
        Found::Absent | Found::Free => data.with_file_name(name),
    };
    make_private(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let built = build_kernel(&directory, &|line: &str| eprintln!("{line}"));
    let imported = built
        .context("the kernel cannot be built")
        .and_then(|files| import(context, &files.kernel, &files.ramdisk, files.version));
    let _ = std::fs::remove_dir_all(&directory);
    imported
}

/// Removes what builds left that were cut off.
fn sweep(data: &Path) {
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|it| it.strip_prefix(BUILDING));
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn import(
    context: &Context,
    kernel: &Path,
    ramdisk: &Path,
    version: String,
) -> anyhow::Result<ExitCode> {
    let whole = |path: &Path| {
        path.canonicalize()
            .with_context(|| format!("{} cannot be read", path.display()))
    };
    let request = kernels::Request::Import {
        kernel: whole(kernel)?,
        ramdisk: whole(ramdisk)?,
        version,
    };
    answer(context, &Request::Kernel(request))
}
