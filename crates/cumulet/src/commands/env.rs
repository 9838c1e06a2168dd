//! `cumulet env`: what the first user's tools need, for a shell to read.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value};

use super::output::say;
use super::{Context, ask};
use crate::bootstrap::{CLIENT_DIR, Credentials};
use crate::config::Settings;
use crate::control;
use crate::operator::{Request, keys};

#[derive(Args)]
pub(crate) struct EnvArgs {
    /// Removes the client files instead: afterwards nobody can show the secrets again.
    #[arg(long)]
    forget: bool,
}

/// What would send clients elsewhere, or sign for somebody else.
const UNSET: &[&str] = &[
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_FILE",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
];

/// Said before the variables of a door that is not there.
const NO_OPENSTACK: &str =
    "# The OS_ variables are for later: this cloud has no OpenStack door yet, and answers 501.";

/// Name of the file that says where the running server listens.
pub(crate) const ADDRESS_FILE: &str = "address";

pub(crate) fn run(context: &Context, args: &EnvArgs) -> anyhow::Result<ExitCode> {
    let settings = &context.config.settings;
    if args.forget {
        return forget(&settings.data_dir);
    }
    let credentials = Credentials::read(&settings.data_dir)?;
    for warning in warnings(context, &credentials) {
        eprintln!("cumulet: warning: {warning}");
    }
    let variables = variables(settings, &credentials);
    if context.output.is_json {
        let object: Map<String, Value> = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
        context.output.print(&Value::Object(object));
        return Ok(ExitCode::SUCCESS);
    }
    let mut unset: Vec<String> = UNSET.iter().map(ToString::to_string).collect();
    unset.extend(
        std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with("AWS_ENDPOINT_URL_") && is_variable(name)),
    );
    unset.sort();
    unset.dedup();
    say(format_args!("unset {}\n", unset.join(" ")));
    for (name, value) in variables {
        if name == "OS_AUTH_URL" {
            say(format_args!("{NO_OPENSTACK}\n"));
        }
        say(format_args!("export {name}={}\n", quoted(&value)));
    }
    Ok(ExitCode::SUCCESS)
}

/// What keeps the variables from working, for people: a shell reads standard output alone.
fn warnings(context: &Context, credentials: &Credentials) -> Vec<String> {
    let settings = &context.config.settings;
    let mut warnings = vec![];
    if !control::answers(&settings.data_dir) {
        warnings.push(format!(
            "no server runs with {}: nothing answers at {} until `cumulet serve` is ready",
            settings.data_dir.display(),
            endpoint(settings)
        ));
    }
    match is_known(context, credentials) {
        Ok(true) => {}
        Ok(false) => warnings.push(format!(
            "the access key {} was deleted: requests with it are refused; make another with `cumulet key create {}`, or `cumulet env --forget` the old one",
            credentials.access_key_id, credentials.user_name
        )),
        Err(error) => warnings.push(format!(
            "whether the access key {} still exists cannot be found out: {error:#}",
            credentials.access_key_id
        )),
    }
    warnings
}

/// Whether the cloud still has the key.
fn is_known(context: &Context, credentials: &Credentials) -> anyhow::Result<bool> {
    let request = Request::Key(keys::Request::List { account: None });
    let keys = ask::perform(context, &request)?;
    let id = credentials.access_key_id.as_str();
    let mut keys = keys.as_array().into_iter().flatten();
    Ok(keys.any(|key| key["access_key_id"] == id))
}

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Quoted for a shell, unless it is plain.
pub(super) fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/:.,_-+=@%".contains(&b));
    if is_plain {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// `http://…` of the running server, or of the one that would be started.
pub(crate) fn endpoint(settings: &Settings) -> String {
    let running = fs::read_to_string(settings.data_dir.join(ADDRESS_FILE)).ok();
    let address = running
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(settings.listen);
    endpoint_of(address)
}

/// An address that clients on this machine can connect to.
pub(crate) fn endpoint_of(mut address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    format!("http://{address}")
}

fn variables(settings: &Settings, credentials: &Credentials) -> Vec<(&'static str, String)> {
    let endpoint = endpoint(settings);
    let client = settings.data_dir.join(CLIENT_DIR);
    let file = |name: &str| client.join(name).display().to_string();
    let host = endpoint
        .trim_start_matches("http://")
        .rsplit_once(':')
        .map_or("", |(host, _)| host)
        .trim_matches(['[', ']'])
        .to_owned();
    let no_proxy = no_proxy(&host, std::env::var("NO_PROXY").ok().as_deref());
    vec![
        ("AWS_ENDPOINT_URL", endpoint.clone()),
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()),
        (
            "AWS_SECRET_ACCESS_KEY",
            credentials.secret_access_key.clone(),
        ),
        ("AWS_DEFAULT_REGION", settings.region.clone()),
        ("AWS_REGION", settings.region.clone()),
        ("EC2_URL", format!("{endpoint}/")),
        ("EC2_PRIVATE_KEY", file(&credentials.private_key)),
        ("EC2_CERT", file(&credentials.certificate)),
        ("EC2_CLOUD_CERT", file(&credentials.cloud_certificate)),
        ("EC2_USER_ID", credentials.account_id.to_string()),
        ("EC2_ACCESS_KEY", credentials.access_key_id.clone()),
        ("EC2_SECRET_KEY", credentials.secret_access_key.clone()),
        ("S3_URL", endpoint.clone()),
        ("OS_AUTH_URL", format!("{endpoint}/v3")),
        ("OS_USERNAME", credentials.user_name.clone()),
        ("OS_PASSWORD", credentials.password.clone()),
        ("OS_PROJECT_NAME", credentials.account_name.clone()),
        ("OS_USER_DOMAIN_NAME", "Default".into()),
        ("OS_PROJECT_DOMAIN_NAME", "Default".into()),
        ("OS_REGION_NAME", settings.region.clone()),
        ("OS_IDENTITY_API_VERSION", "3".into()),
        ("NO_PROXY", no_proxy.clone()),
        ("no_proxy", no_proxy),
    ]
}

/// What is there already, and the cloud.
fn no_proxy(host: &str, before: Option<&str>) -> String {
    let mut names: Vec<&str> = before
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    for name in [host, "localhost", "169.254.169.254"] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

fn forget(data_dir: &Path) -> anyhow::Result<ExitCode> {
    match fs::remove_dir_all(data_dir.join(CLIENT_DIR)) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause).context("the client files cannot be removed"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:8773"), "http://127.0.0.1:8773");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn proxies_are_kept_away_from_the_cloud_and_nothing_else() {
        assert_eq!(
            no_proxy("127.0.0.1", None),
            "127.0.0.1,localhost,169.254.169.254"
        );
        assert_eq!(
            no_proxy("127.0.0.1", Some("corp.test, localhost")),
            "corp.test,localhost,127.0.0.1,169.254.169.254"
        );
    }

    #[test]
    fn an_address_for_everybody_is_reached_by_loopback() {
        assert_eq!(
            endpoint_of("0.0.0.0:80".parse().unwrap()),
            "http://127.0.0.1:80"
        );
        assert_eq!(endpoint_of("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(
            endpoint_of("10.0.0.1:80".parse().unwrap()),
            "http://10.0.0.1:80"
        );
    }
}
