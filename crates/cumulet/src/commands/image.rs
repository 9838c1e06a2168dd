//! Images without an API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use cumulet_domain::ImageId;

use super::Context;
use super::ask::{answer, answer_as_of_now};
use crate::operator::Request;
use crate::operator::images::{self, Import, ImportFormat, ImportKind};

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Takes a file as an image.
    Import {
        file: PathBuf,
        #[arg(long)]
        name: String,
        /// What the file holds; found out when not given.
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
        /// Every account may launch it.
        #[arg(long)]
        public: bool,
        /// Number or name of the owner; may be left out while there is only one account.
        #[arg(long)]
        account: Option<String>,
    },
    List,
    Show {
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
    Raw,
    Qcow2,
}

pub(crate) fn run(context: &Context, command: ImageCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        ImageCommand::List => images::Request::List,
        ImageCommand::Show { id } => images::Request::Show { id },
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
