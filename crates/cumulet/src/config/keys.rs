//! The table of settings: name, form, default, meaning.

/// Names of the first account and its user unless others are given.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";
pub(crate) const DEFAULT_USER: &str = "admin";

/// The form of a value, needed to read variables and flags, which are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Number,
    Flag,
    /// Separated by commas in a variable.
    List,
    /// Only in the file.
    Tables,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted name, as in the file.
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// As a variable would write it; `None` means that there is no value unless one is given.
    pub(crate) default: Option<&'static str>,
    pub(crate) is_secret: bool,
    pub(crate) about: &'static str,
}

impl Key {
    /// `limits.connections` is set by `CUMULET_LIMITS_CONNECTIONS`.
    pub(crate) fn variable(&self) -> String {
        format!("CUMULET_{}", self.name.replace('.', "_").to_uppercase())
    }
}

const fn key(
    name: &'static str,
    form: Form,
    default: Option<&'static str>,
    about: &'static str,
) -> Key {
    Key {
        name,
        form,
        default,
        is_secret: false,
        about,
    }
}

use Form::{Flag, List, Number, Tables, Text};

/// All settings there are.
pub(crate) const KEYS: &[Key] = &[
    key(
        "data_dir",
        Text,
        None,
        "directory of everything that is kept; /var/lib/cumulet for root, else under $XDG_DATA_HOME",
    ),
    key(
        "listen",
        Text,
        Some("127.0.0.1:8773"),
        "address and port of all doors; port 0 picks a free one",
    ),
    key(
        "listen_insecure",
        Flag,
        Some("false"),
        "allows to listen beyond loopback without TLS",
    ),
    key(
        "compute",
        Text,
        Some("qemu"),
        "qemu: virtual machines; simulated: nothing is started",
    ),
    key("region", Text, Some("us-east-1"), "name of the region"),
    key(
        "zone",
        Text,
        None,
        "name of the availability zone; the region's name with an a",
    ),
    key(
        "domains",
        List,
        Some("localhost"),
        "domains under which ec2.D, s3.D and BUCKET.s3.D name doors",
    ),
    key(
        "bootstrap.account_name",
        Text,
        Some(DEFAULT_ACCOUNT),
        "name of the first account; for the first start of a new cloud, as all of bootstrap",
    ),
    key(
        "bootstrap.user_name",
        Text,
        Some(DEFAULT_USER),
        "name of the first user",
    ),
    key(
        "bootstrap.account_id",
        Text,
        None,
        "number of the first account; random when not given",
    ),
    key(
        "bootstrap.access_key_id",
        Text,
        None,
        "id of the first access key; random when not given",
    ),
    Key {
        name: "bootstrap.secret_access_key",
        form: Text,
        default: None,
        is_secret: true,
        about: "secret of the first access key; random when not given",
    },
    key(
        "limits.instances_per_account",
        Number,
        Some("20"),
        "live instances of an account that has no quota of its own",
    ),
    key(
        "limits.connections",
        Number,
        Some("1024"),
        "connections served at the same time; the one that has waited longest for a request makes room",
    ),
    key(
        "limits.header_bytes",
        Number,
        Some("65536"),
        "bytes of a request's line and headers",
    ),
    key(
        "limits.query_body_bytes",
        Number,
        Some("1048576"),
        "bytes of a Query request's body",
    ),
    key(
        "limits.held_bytes",
        Number,
        Some("268435456"),
        "bytes of Query requests, their answers, XML documents and forms that are held in memory altogether",
    ),
    key(
        "limits.header_timeout_ms",
        Number,
        Some("30000"),
        "time in which a request's headers must arrive",
    ),
    key(
        "limits.body_timeout_ms",
        Number,
        Some("60000"),
        "time in which a Query request's body, or the next 16 KiB of an object, must arrive",
    ),
    key(
        "limits.answer_timeout_ms",
        Number,
        Some("120000"),
        "time in which a client must take the next 16 KiB of an answer",
    ),
    key(
        "limits.shutdown_timeout_ms",
        Number,
        Some("10000"),
        "time that requests under way are given when the server stops",
    ),
    key(
        "instances.acceleration",
        Text,
        Some("auto"),
        "auto: by the processor when a probe proves that it can; tcg: by software always",
    ),
    key(
        "instances.memory_mib",
        Number,
        None,
        "memory given to instances; when not given the host's without the reserve, or 1 TiB if they are simulated",
    ),
    key(
        "instances.memory_reserve_mib",
        Number,
        Some("512"),
        "memory of the host that is kept from instances",
    ),
    key(
        "instances.terminated_visible_ms",
        Number,
        Some("3600000"),
        "how long terminated instances and deregistered images stay visible",
    ),
    key(
        "instances.shutdown_patience_ms",
        Number,
        Some("5000"),
        "how long a guest may take to answer the power button when it is terminated",
    ),
    key(
        "instances.reboot_patience_ms",
        Number,
        Some("120000"),
        "how long a guest may take to reboot by itself before it is reset",
    ),
    key(
        "instances.metadata_token_required",
        Flag,
        Some("false"),
        "whether metadata needs a token unless the launch says otherwise",
    ),
    key(
        "network.guest_range",
        Text,
        None,
        "range of guests' addresses, for example 10.210.0.0/16; a free one is chosen when not given",
    ),
    key(
        "network.allow_private_uplink",
        Flag,
        None,
        "whether guests may reach private addresses beyond the host; true when listening on loopback only",
    ),
    key(
        "images.bytes_max",
        Number,
        Some("107374182400"),
        "biggest image, in bytes, once unpacked",
    ),
    key(
        "ids.format",
        Text,
        Some("long"),
        "long: new ids have 17 digits; short: 8, as in 2007; both are always read",
    ),
    key(
        "instance_types",
        Tables,
        None,
        "table of instance types; the built-in one when not given",
    ),
    key("log.format", Text, Some("text"), "text or json"),
    key(
        "log.filter",
        Text,
        Some("info"),
        "what is logged, in the form of tracing's filters",
    ),
    key(
        "metrics.listen",
        Text,
        None,
        "address and port of a metrics listener; metrics are always on the control socket",
    ),
];
