//! Settings: where they come from and what they mean.
//!
//! Each value comes from the first of these that has it: a flag, a `CUMULET_…`
//! variable, the file, the default.  Unknown keys and variables are errors, so
//! that a misspelt setting never passes for a set one.  Every value keeps its
//! source; `cumulet config show` prints both.  The table of keys is in [`keys`].

mod keys;
mod load;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use cumulet_domain::AccountId;
use cumulet_domain::ids::IdFormat;
use cumulet_domain::instance_types::InstanceType;
use serde::Deserialize;

pub(crate) use keys::{DEFAULT_ACCOUNT, DEFAULT_USER, KEYS};
pub(crate) use load::{ConfigError, Inputs, load};

/// What simulated compute has room for.
const SIMULATED_MEMORY_MIB: u64 = 1 << 20;

/// What is known of one value beside itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// As TOML writes it; a secret is not shown.
    pub(crate) value: String,
    /// `default`, `file PATH`, `variable NAME` or `flag --NAME`.
    pub(crate) source: String,
}

/// All settings with their sources.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    /// By key, in the order of names.
    pub(crate) shown: BTreeMap<&'static str, Shown>,
}

/// How instances are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compute {
    /// Virtual machines under QEMU.
    Qemu,
    /// Nothing is started; for tests of API clients.
    Simulated,
}

impl Compute {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Compute::Qemu => "qemu",
            Compute::Simulated => "simulated",
        }
    }
}

/// The form of log lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// How guests' instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccelerationSetting {
    /// By the processor when a probe proves that it can.
    Auto,
    /// By software always.
    Tcg,
}

/// The settings, typed.  The meaning of each is in the table of [`KEYS`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) listen_insecure: bool,
    pub(crate) compute: Compute,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) domains: Vec<String>,
    pub(crate) bootstrap: BootstrapSettings,
    pub(crate) limits: Limits,
    pub(crate) instances: Instances,
    pub(crate) network: NetworkSettings,
    pub(crate) images: Images,
    pub(crate) ids: Ids,
    #[serde(default)]
    pub(crate) instance_types: Vec<InstanceType>,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootstrapSettings {
    pub(crate) account_name: String,
    pub(crate) user_name: String,
    pub(crate) account_id: Option<AccountId>,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) instances_per_account: u32,
    pub(crate) connections: usize,
    pub(crate) header_bytes: usize,
    pub(crate) query_body_bytes: usize,
    pub(crate) held_bytes: usize,
    pub(crate) header_timeout_ms: u64,
    pub(crate) body_timeout_ms: u64,
    pub(crate) answer_timeout_ms: u64,
    pub(crate) shutdown_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instances {
    pub(crate) acceleration: AccelerationSetting,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) memory_reserve_mib: u64,
    pub(crate) terminated_visible_ms: i64,
    pub(crate) shutdown_patience_ms: u64,
    pub(crate) reboot_patience_ms: u64,
    pub(crate) metadata_token_required: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkSettings {
    pub(crate) guest_range: Option<String>,
    pub(crate) allow_private_uplink: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Images {
    pub(crate) bytes_max: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ids {
    pub(crate) format: IdFormat,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: Option<SocketAddr>,
}

impl Settings {
    /// Whether guests may reach the private ranges behind the host: by default only when the API
    /// listens on loopback alone, that is on somebody's own machine.
    pub(crate) fn may_use_private_uplink(&self) -> bool {
        self.network
            .allow_private_uplink
            .unwrap_or_else(|| self.listen.ip().is_loopback())
    }

    /// Memory for instances: what is set, else that of the host without the reserve, or where nothing
    /// really runs a whole TiB, so that tests of clients do not hang on the size of a machine.
    pub(crate) fn memory_mib(&self, host_mib: u64) -> u64 {
        if self.compute == Compute::Simulated {
            return self.instances.memory_mib.unwrap_or(SIMULATED_MEMORY_MIB);
        }
        let without_reserve = host_mib.saturating_sub(self.instances.memory_reserve_mib);
        self.instances.memory_mib.unwrap_or(without_reserve)
    }

    /// The configured table of instance types, or the built-in one.
    pub(crate) fn instance_types(&self) -> Vec<InstanceType> {
        if self.instance_types.is_empty() {
            cumulet_domain::instance_types::default_table()
        } else {
            self.instance_types.clone()
        }
    }
}
