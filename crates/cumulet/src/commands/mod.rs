//! The command line.
//!
//! `cumulet serve` is the cloud; every other command is a client of it, or
//! opens the data directory itself when no server runs.  Exit codes: 0 done,
//! 1 it failed, 2 the call was wrong.

mod ask;
mod backup;
mod bundle;
mod config_show;
mod doctor;
mod env;
mod image;
mod kernel;
mod output;
mod product;
mod records;
pub(crate) mod serve;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, Config, ConfigError, Inputs};
use output::Output;

/// Below the list of commands.
const FIRST_STEPS: &str = "\
First steps:
  cumulet doctor           what is missing on this machine
  cumulet kernel build     for images that have no kernel of their own
  cumulet serve            prints `ready http://…` when it can be used
  eval \"$(cumulet env)\"    in another shell: now EC2 and S3 clients talk to it

Exit codes: 0 done, 1 it failed, 2 the call was wrong.";

/// A small cloud in one program.
#[derive(Parser)]
#[command(name = "cumulet", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    /// Directory of everything that is kept; /var/lib/cumulet for root, else
    /// ~/.local/share/cumulet.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File of settings, in TOML; `cumulet config show` lists them all.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the cloud in the foreground, until SIGTERM or Ctrl-C.
    Serve(serve::ServeArgs),
    /// Prints what the first user's tools need, for a shell: eval "$(cumulet env)".
    Env(env::EnvArgs),
    /// Says what this machine can do, and what to do about the rest.
    Doctor(doctor::DoctorArgs),
    /// Accounts, which own things.
    #[command(subcommand)]
    Account(records::AccountCommand),
    /// Users of accounts.
    #[command(subcommand)]
    User(records::UserCommand),
    /// Access keys of users.
    #[command(subcommand)]
    Key(records::KeyCommand),
    /// X.509 certificates of users.
    #[command(subcommand)]
    Certificate(records::CertificateCommand),
    /// What accounts may use.
    #[command(subcommand)]
    Quota(records::QuotaCommand),
    /// Products: codes that images carry, who may launch these, and the hours that were used.
    #[command(subcommand)]
    Product(product::ProductCommand),
    /// Kernels for root file systems.
    #[command(subcommand)]
    Kernel(kernel::KernelCommand),
    /// Images of all accounts; imports them without an API.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Makes and uploads bundles of images.
    Bundle(bundle::BundleArgs),
    /// Instances of all accounts.
    #[command(subcommand)]
    Instance(records::InstanceCommand),
    /// What the running cloud is and uses.
    Status,
    /// Writes everything that the cloud knows to a new directory, also while it runs.
    Backup(backup::BackupArgs),
    /// Makes a data directory of a backup.
    Restore(backup::RestoreArgs),
    /// Settings and where they come from.
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Undoes every change on this machine; the data stays unless purged.
    Uninstall(uninstall::UninstallArgs),
    /// Prints completions for a shell.
    Completions {
        /// The shell, for example: cumulet completions bash >/etc/bash_completion.d/cumulet
        shell: clap_complete::Shell,
    },
}

/// What every command gets.
struct Context {
    config: Config,
    output: Output,
}

/// Runs the command line and says how it went.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(_) if output::has_failed() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(error) => {
            eprintln!("cumulet: {error:#}");
            if error.is::<ConfigError>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // A client like any other, perhaps on another machine: it needs no settings of a cloud.
    if let Command::Bundle(args) = cli.command {
        let output = Output { is_json: cli.json };
        return bundle::run(args, output).map(|()| ExitCode::SUCCESS);
    }
    let mut flags: Vec<(&'static str, String)> = vec![];
    if let Some(path) = &cli.data_dir {
        let path = std::path::absolute(path)?;
        let text = path
            .to_str()
            .ok_or_else(|| ConfigError("--data-dir is not UTF-8".into()))?;
        flags.push(("data_dir", text.to_owned()));
    }
    if let Command::Serve(args) = &cli.command {
        flags.extend(args.flags());
    }
    if let Command::Doctor(args) = &cli.command {
        flags.extend(args.flags());
    }
    let inputs = Inputs::of_process(flags, cli.config.as_deref())?;
    let mut config = config::load(&inputs)?;
    // What is printed of it must hold wherever it is used.
    config.settings.data_dir = std::path::absolute(&config.settings.data_dir)?;
    let context = Context {
        config,
        output: Output { is_json: cli.json },
    };
    match cli.command {
        Command::Serve(args) => serve::run(&context.config.settings, &args),
        Command::Env(args) => env::run(&context, &args),
        Command::Doctor(_) => doctor::run(&context),
        Command::Account(command) => records::account(&context, command),
        Command::User(command) => records::user(&context, command),
        Command::Key(command) => records::key(&context, command),
        Command::Certificate(command) => records::certificate(&context, command),
        Command::Quota(command) => records::quota(&context, command),
        Command::Instance(command) => records::instance(&context, command),
        Command::Product(command) => product::run(&context, command),
        Command::Status => ask::status(&context),
        Command::Kernel(command) => kernel::run(&context, command),
        Command::Image(command) => image::run(&context, command),
        Command::Bundle(args) => bundle::run(args, context.output).map(|()| ExitCode::SUCCESS),
        Command::Backup(args) => backup::run_backup(&context, &args),
        Command::Restore(args) => backup::run_restore(&context, args),
        Command::Config(command) => config_show::run(&context, &command),
        Command::Uninstall(args) => uninstall::run(&context, &args),
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "cumulet", &mut script);
            output::say(format_args!("{}", String::from_utf8_lossy(&script)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undocumented(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        if command.get_about().is_none() {
            found.push(path.to_owned());
        }
        for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
            let is_builtin = matches!(
                argument.get_id().as_str(),
                "help" | "version" | "subcommand"
            );
            let has_help = argument
                .get_help()
                .is_some_and(|it| !it.to_string().is_empty());
            if !is_builtin && !has_help {
                found.push(format!("{path} {}", argument.get_id()));
            }
        }
        for inner in command.get_subcommands() {
            undocumented(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        let mut found = vec![];
        undocumented(&Cli::command(), "cumulet", &mut found);
        assert_eq!(found, [""; 0]);
    }
}
