//! Images without an API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use cumulet_domain::ImageId;

use super::Context;
use super::ask::{answer, answer_as_of_now, answer_to_be_done};
use crate::operator::Request;
use crate::operator::images::{self, Import, ImportFormat, ImportKind};

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Takes a file as an image.
    Import {
        /// The file, on this machine.
        file: PathBuf,
        /// The image's name, as DescribeImages shows it.
        #[arg(long)]
        name: String,
        /// What the file holds; found out when not given.
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        /// How the file holds it.
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
        /// Every account may launch it.
        #[arg(long)]
        public: bool,
        /// Number or name of the owner; may be left out while there is only one account.
        #[arg(long)]
        account: Option<String>,
    },
    /// Images of all accounts: whether they can be launched, and why not.
    List,
    /// One image.
    Show {
        /// As the list has it.
        id: ImageId,
    },
    /// Deregisters an image of any account: no new instances; those that run are unharmed, and
    /// objects stay.
    Delete {
        /// As the list has it.
        id: ImageId,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// A root file system without a kernel.
    Rootfs,
    /// A disk with a boot loader.
    Disk,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// As it is.
    Raw,
    /// QEMU's own format, without a backing file.
    Qcow2,
}

pub(crate) fn run(context: &Context, command: ImageCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        ImageCommand::List => images::Request::List,
        ImageCommand::Show { id } => images::Request::Show { id },
        ImageCommand::Delete { id } => {
            let request = images::Request::Delete { id };
            return answer_to_be_done(context, &Request::Image(request));
        }
        ImageCommand::Import {
            file,
            name,
            kind,
            format,
            public,
            account,
        } => images::Request::Import(Import {
            account,
            name,
            path: file
                .canonicalize()
                .with_context(|| format!("{} cannot be read", file.display()))?,
            kind: kind.map(|kind| match kind {
                Kind::Rootfs => ImportKind::Rootfs,
                Kind::Disk => ImportKind::Disk,
            }),
            format: match format {
                Format::Raw => ImportFormat::Raw,
                Format::Qcow2 => ImportFormat::Qcow2,
            },
            is_public: public,
        }),
    };
    let is_made = matches!(request, images::Request::Import(_));
    let request = Request::Image(request);
    if is_made {
        answer(context, &request)
    } else {
        answer_as_of_now(context, &request)
    }
}
