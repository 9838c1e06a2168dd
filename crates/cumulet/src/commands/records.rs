//! Accounts, users, keys, certificates, quotas: the operator's records.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use cumulet_domain::{AccountId, InstanceId};
use serde_json::Value;

use super::Context;
use super::ask::{answer, answer_as_of_now, answer_to_be_done, perform};
use crate::data_dir::write_durably;
use crate::operator::{Request, accounts, certificates, instances, keys, quotas, users};

/// Biggest secret or certificate that is read from a file.
const FILE_MAX: u64 = 64 * 1024;

#[derive(Args)]
pub(crate) struct InAccount {
    /// Number or name of the account; may be left out while there is only one.
    #[arg(long)]
    pub(super) account: Option<String>,
}

/// As [`InAccount`], for lists.
#[derive(Args)]
pub(crate) struct OfAccount {
    /// Number or name of an account; all accounts when not given.
    #[arg(long)]
    pub(super) account: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Makes an account, without users.
    Create {
        /// A name for people, and for --account.
        name: String,
        /// Its number, twelve digits; random when not given.
        #[arg(long)]
        id: Option<AccountId>,
    },
    /// All accounts.
    List,
    /// One account.
    Show {
        /// Its number or name.
        account: String,
    },
    /// Changes the word that public images show for their owner, as EC2's own show `amazon`.
    Alias {
        /// Its number or name.
        account: String,
        /// Lower-case letters, digits and hyphens; no other account's; none when not given.
        alias: Option<String>,
    },
    /// Deletes an account with its users and keys; only when it owns nothing else.
    Delete {
        /// Its number or name.
        account: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Makes a user, without keys: `cumulet key create` makes some.
    Create {
        /// Unique in the account.
        name: String,
        #[command(flatten)]
        account: InAccount,
        /// A password, from a file or from standard input (-); none when not given.
        #[arg(long, value_name = "FILE|-")]
        password_file: Option<PathBuf>,
    },
    /// All users, or those of one account.
    List {
        #[command(flatten)]
        account: OfAccount,
    },
    /// One user.
    Show {
        /// The user's name.
        name: String,
        #[command(flatten)]
        account: InAccount,
    },
    /// Deletes a user with all keys and certificates.
    Delete {
        /// The user's name.
        name: String,
        #[command(flatten)]
        account: InAccount,
    },
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes an access key; its secret is shown this once.
    Create {
        /// The name of the user who gets it.
        user: String,
        #[command(flatten)]
        account: InAccount,
        /// Signature versions that the key may be used with: 2 and 4, for very old clients also 1
        /// and 0, which are forgeable in part.
        #[arg(long, value_delimiter = ',', default_value = "2,4")]
        signature_versions: Vec<u8>,
        /// The id of a key that exists elsewhere; random when not given.
        #[arg(long, value_name = "ID", requires = "secret_access_key_file")]
        access_key_id: Option<String>,
        /// The secret of that key, from a file or from standard input (-).
        #[arg(long, value_name = "FILE|-", requires = "access_key_id")]
        secret_access_key_file: Option<PathBuf>,
    },
    /// All access keys, or those of one account; without their secrets.
    List {
        #[command(flatten)]
        account: OfAccount,
    },
    /// One access key, without its secret.
    Show {
        /// The key's id.
        id: String,
    },
    /// Deletes an access key: requests with it are refused from then on.
    Delete {
        /// The key's id.
        id: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum CertificateCommand {
    /// Issues a certificate, or adds one that exists.  The private key is shown this once.
    Create {
        /// The name of the user who gets it.
        user: String,
        #[command(flatten)]
        account: InAccount,
        /// A certificate in PEM that exists already, with an RSA key.
        #[arg(long, value_name = "FILE", conflicts_with = "out_dir")]
        file: Option<PathBuf>,
        /// Writes cert-….pem and pk-….pem there, instead of printing them.
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
    },
    /// All certificates, or those of one account.
    List {
        #[command(flatten)]
        account: OfAccount,
    },
    /// One certificate, in PEM.
    Show {
        /// As the list has it.
        fingerprint: String,
    },
    /// Deletes a certificate: what is signed with it is refused from then on.
    Delete {
        /// As the list has it.
        fingerprint: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum QuotaCommand {
    /// How many instances an account may have, and has.
    Show {
        #[command(flatten)]
        account: InAccount,
    },
    /// Changes how many instances an account may have.
    Set {
        #[command(flatten)]
        account: InAccount,
        /// Live instances; `default` gives the cloud's default back.
        #[arg(long, value_name = "N|default")]
        instances: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum InstanceCommand {
    /// All instances, also those that ended a short while ago, with the reason where there is one.
    List,
    /// Terminates instances of any account, with their disks.  Their owners see that it was you.
    Terminate {
        /// As the list has them.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<InstanceId>,
    },
}

/// A file's text, or standard input's for `-`.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(FILE_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
    };
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text)
}

/// A secret without the line end that editors add.
fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = read_text(path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(secret.to_owned())
}

pub(crate) fn account(context: &Context, command: AccountCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        AccountCommand::Create { name, id } => accounts::Request::Create { name, id },
        AccountCommand::List => accounts::Request::List,
        AccountCommand::Show { account } => accounts::Request::Show { account },
        AccountCommand::Alias { account, alias } => accounts::Request::Alias { account, alias },
        AccountCommand::Delete { account } => accounts::Request::Delete { account },
    };
    answer(context, &Request::Account(request))
}

pub(crate) fn user(context: &Context, command: UserCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        UserCommand::Create {
            name,
            account: InAccount { account },
            password_file,
        } => users::Request::Create {
            account,
            name,
            password: password_file.as_deref().map(read_secret).transpose()?,
        },
        UserCommand::List {
            account: OfAccount { account },
        } => users::Request::List { account },
        UserCommand::Show {
            name,
            account: InAccount { account },
        } => users::Request::Show { account, name },
        UserCommand::Delete {
            name,
            account: InAccount { account },
        } => users::Request::Delete { account, name },
    };
    answer(context, &Request::User(request))
}

pub(crate) fn key(context: &Context, command: KeyCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        KeyCommand::Create {
            user,
            account: InAccount { account },
            signature_versions,
            access_key_id,
            secret_access_key_file,
        } => keys::Request::Create {
            account,
            user,
            signature_versions: BTreeSet::from_iter(signature_versions),
            access_key_id,
            secret_access_key: secret_access_key_file
                .as_deref()
                .map(read_secret)
                .transpose()?,
        },
        KeyCommand::List {
            account: OfAccount { account },
        } => keys::Request::List { account },
        KeyCommand::Show { id } => keys::Request::Show { id },
        KeyCommand::Delete { id } => keys::Request::Delete { id },
    };
    answer(context, &Request::Key(request))
}

pub(crate) fn certificate(
    context: &Context,
    command: CertificateCommand,
) -> anyhow::Result<ExitCode> {
    let request = match command {
        CertificateCommand::Create {
            user,
            account: InAccount { account },
            file,
            out_dir,
        } => {
            let pem = file.as_deref().map(read_text).transpose()?;
            // The private key is shown once: its place must be there before it is made.
            if let Some(directory) = &out_dir {
                std::fs::create_dir_all(directory)
                    .with_context(|| format!("{} cannot be made", directory.display()))?;
            }
            let request = certificates::Request::Create { account, user, pem };
            let mut issued = perform(context, &Request::Certificate(request))?;
            if let Some(directory) = out_dir {
                write_issued(&mut issued, &directory)?;
            }
            context.output.print(&issued);
            return Ok(ExitCode::SUCCESS);
        }
        CertificateCommand::List {
            account: OfAccount { account },
        } => certificates::Request::List { account },
        CertificateCommand::Show { fingerprint } => certificates::Request::Show { fingerprint },
        CertificateCommand::Delete { fingerprint } => certificates::Request::Delete { fingerprint },
    };
    answer(context, &Request::Certificate(request))
}

/// Puts certificate and key into files and names these instead.
fn write_issued(issued: &mut Value, directory: &Path) -> anyhow::Result<()> {
    let fingerprint = issued["fingerprint"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for (field, prefix) in [("certificate", "cert"), ("private_key", "pk")] {
        let path = directory.join(format!("{prefix}-{fingerprint}.pem"));
        let text = issued[field].as_str().unwrap_or_default();
        write_durably(&path, text.as_bytes(), 0o600)?;
        issued[field] = Value::String(path.display().to_string());
    }
    Ok(())
}

pub(crate) fn quota(context: &Context, command: QuotaCommand) -> anyhow::Result<ExitCode> {
    let request = match command {
        QuotaCommand::Show {
            account: InAccount { account },
        } => quotas::Request::Show { account },
        QuotaCommand::Set {
            account: InAccount { account },
            instances,
        } => quotas::Request::Set {
            account,
            instances: match instances.as_str() {
                "default" => None,
                number => Some(number.parse().map_err(|_| {
                    crate::config::ConfigError(format!(
                        "--instances is a number or the word default, not {number:?}"
                    ))
                })?),
            },
        },
    };
    answer(context, &Request::Quota(request))
}

pub(crate) fn instance(context: &Context, command: InstanceCommand) -> anyhow::Result<ExitCode> {
    match command {
        InstanceCommand::List => {
            answer_as_of_now(context, &Request::Instance(instances::Request::List))
        }
        InstanceCommand::Terminate { ids } => {
            let request = instances::Request::Terminate { ids };
            answer_to_be_done(context, &Request::Instance(request))
        }
    }
}
