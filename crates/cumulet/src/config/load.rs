//! Putting the layers together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{Form, Key};
use super::{Config, KEYS, Settings, Shown};

/// Variables that are ours and no settings.
const OTHER_VARIABLES: &[&str] = &["CUMULET_CONFIG"];
/// Those of the tests, which run the program with their own environment.
const TEST_VARIABLES: &str = "CUMULET_TEST_";

/// A setting that cannot be used; the text names it and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Where values may come from, without the outside world: tests hand in other ones.
#[derive(Debug, Default, Clone)]
pub(crate) struct Inputs {
    /// By key; the flag is named after the key's last word.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// All variables of the environment; others than ours are not looked at.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) file: Option<(PathBuf, String)>,
    pub(crate) is_root: bool,
}

impl Inputs {
    /// From the process's own environment and the file that it, or `--config`, names.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn of_process(
        flags: Vec<(&'static str, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let named = variables
            .iter()
            .find(|(name, _)| name == "CUMULET_CONFIG")
            .map(|(_, path)| PathBuf::from(path));
        let file = match file.map(Path::to_path_buf).or(named) {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|cause| {
                    ConfigError(format!("{} cannot be read: {cause}", path.display()))
                })?;
                Some((path, text))
            }
            None => None,
        };
        Ok(Self {
            flags,
            variables,
            file,
            is_root: rustix::process::geteuid().is_root(),
        })
    }
}

type Layers = BTreeMap<&'static str, (Value, String)>;

/// Reads all layers.
///
/// # Errors
/// For an unknown key or variable, or a value of the wrong form; the text names both.
pub(crate) fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
    let mut layers = Layers::new();
    for key in KEYS {
        if let Some(text) = key.default {
            layers.insert(key.name, (read(key, text, "default")?, "default".into()));
        }
    }
    layers.insert(
        "data_dir",
        (Value::String(default_data_dir(inputs)), "default".into()),
    );
    if let Some((path, text)) = &inputs.file {
        read_file(&mut layers, path, text)?;
    }
    read_variables(&mut layers, &inputs.variables)?;
    for (name, text) in &inputs.flags {
        let key = find(name).ok_or_else(|| ConfigError(format!("there is no setting {name}")))?;
        let flag = format!("flag --{}", name.replace(['_', '.'], "-"));
        layers.insert(key.name, (read(key, text, &flag)?, flag));
    }
    if !layers.contains_key("zone") {
        let region = layers.get("region").and_then(|(value, _)| value.as_str());
        let zone = format!("{}a", region.unwrap_or_default());
        layers.insert("zone", (Value::String(zone), "default".into()));
    }
    finish(layers)
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn default_data_dir(inputs: &Inputs) -> String {
    if inputs.is_root {
        return "/var/lib/cumulet".into();
    }
    let variable = |name: &str| {
        let found = inputs.variables.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .filter(|value| value.starts_with('/'))
    };
    let base = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| format!("{home}/.local/share")));
    format!("{}/cumulet", base.unwrap_or_else(|| ".".into()))
}

fn read_file(layers: &mut Layers, path: &Path, text: &str) -> Result<(), ConfigError> {
    let source = format!("file {}", path.display());
    let table: Table =
        toml::from_str(text).map_err(|cause| ConfigError(format!("{source}: {cause}")))?;
    let mut flat = vec![];
    flatten(&table, "", &mut flat);
    for (name, value) in flat {
        let key = find(&name)
            .ok_or_else(|| ConfigError(format!("{source}: there is no setting {name}")))?;
        let is_right = match key.form {
            Form::Text => value.is_str(),
            Form::Number => value.is_integer(),
            Form::Flag => value.is_bool(),
            Form::List | Form::Tables => value.is_array(),
        };
        if !is_right {
            return Err(ConfigError(format!(
                "{source}: {name} has the wrong form: {}",
                form_name(key.form)
            )));
        }
        layers.insert(key.name, (value, source.clone()));
    }
    Ok(())
}

/// Nested tables by dotted names; a table that is itself unknown shows by its leaves.
fn flatten(table: &Table, prefix: &str, flat: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let full = format!("{prefix}{name}");
        match value {
            Value::Table(inner) if find(&full).is_none() && !inner.is_empty() => {
                flatten(inner, &format!("{full}."), flat);
            }
            Value::Table(inner) if inner.is_empty() => {}
            other => flat.push((full, other.clone())),
        }
    }
}

fn read_variables(layers: &mut Layers, variables: &[(String, String)]) -> Result<(), ConfigError> {
    let ours = variables
        .iter()
        .filter(|(name, _)| name.starts_with("CUMULET_"))
        .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
        .filter(|(name, _)| !name.starts_with(TEST_VARIABLES));
    for (name, text) in ours {
        let key = KEYS
            .iter()
            .find(|key| key.form != Form::Tables && key.variable() == *name)
            .ok_or_else(|| ConfigError(format!("the variable {name} names no setting")))?;
        let source = format!("variable {name}");
        layers.insert(key.name, (read(key, text, &source)?, source));
    }
    Ok(())
}

/// Reads the text of a variable, a flag or a default.
fn read(key: &Key, text: &str, source: &str) -> Result<Value, ConfigError> {
    let wrong = || {
        let shown = if key.is_secret { "a secret" } else { text };
        ConfigError(format!(
            "{source}: {} cannot be {shown:?}: {}",
            key.name,
            form_name(key.form)
        ))
    };
    match key.form {
        Form::Text => Ok(Value::String(text.to_owned())),
        Form::Number => text.trim().parse().map(Value::Integer).map_err(|_| wrong()),
        Form::Flag => text.trim().parse().map(Value::Boolean).map_err(|_| wrong()),
        Form::List => Ok(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(|word| Value::String(word.to_owned()))
                .collect(),
        )),
        Form::Tables => Err(wrong()),
    }
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Text => "it is a text",
        Form::Number => "it is a whole number",
        Form::Flag => "it is true or false",
        Form::List => "it is a list of texts",
        Form::Tables => "it is a list of tables, and only in the file",
    }
}

fn finish(layers: Layers) -> Result<Config, ConfigError> {
    let mut root = Table::new();
    for section in [
        "bootstrap",
        "limits",
        "instances",
        "network",
        "images",
        "ids",
        "log",
        "metrics",
    ] {
        root.insert(section.into(), Value::Table(Table::new()));
    }
    for (name, (value, _)) in &layers {
        match name.split_once('.') {
            Some((section, rest)) => {
                if let Some(table) = root.get_mut(section).and_then(Value::as_table_mut) {
                    table.insert(rest.to_owned(), value.clone());
                }
            }
            None => {
                root.insert((*name).to_owned(), value.clone());
            }
        }
    }
    let settings: Settings = Value::Table(root)
        .try_into()
        .map_err(|cause: toml::de::Error| {
            ConfigError(format!(
                "a setting has a wrong value: {}",
                cause.to_string().trim()
            ))
        })?;
    check(&settings)?;
    let shown = KEYS
        .iter()
        .filter_map(|key| {
            let (value, source) = layers.get(key.name)?;
            let value = if key.is_secret {
                "(not shown)".to_owned()
            } else {
                value.to_string()
            };
            Some((
                key.name,
                Shown {
                    value,
                    source: source.clone(),
                },
            ))
        })
        .collect();
    Ok(Config { settings, shown })
}

fn check(settings: &Settings) -> Result<(), ConfigError> {
    if settings.data_dir.as_os_str().is_empty() {
        return Err(ConfigError("data_dir is empty: name a directory".into()));
    }
    if !settings.listen.ip().is_loopback() && !settings.listen_insecure {
        return Err(ConfigError(format!(
            "listen = {} is reachable from other machines without TLS; set listen_insecure = true to allow that",
            settings.listen
        )));
    }
    if settings.bootstrap.access_key_id.is_some() != settings.bootstrap.secret_access_key.is_some()
    {
        return Err(ConfigError(
            "bootstrap.access_key_id and bootstrap.secret_access_key are given together or not at all".into(),
        ));
    }
    if let Some(id) = &settings.bootstrap.access_key_id
        && !cumulet_auth::keys::is_access_key_id(id)
    {
        return Err(ConfigError(
            "bootstrap.access_key_id has 3 to 128 letters, digits, - or _".into(),
        ));
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    };
    for (name, text) in [("region", &settings.region), ("zone", &settings.zone)] {
        if !is_name(text) {
            return Err(ConfigError(format!(
                "{name} has letters, digits, - and ., not {text:?}"
            )));
        }
    }
    if let Some(bad) = settings.domains.iter().find(|domain| !is_name(domain)) {
        return Err(ConfigError(format!("domains: {bad:?} is no domain name")));
    }
    for (name, text) in [
        ("account_name", &settings.bootstrap.account_name),
        ("user_name", &settings.bootstrap.user_name),
    ] {
        cumulet_domain::accounts::check_name(name, text)
            .map_err(|error| ConfigError(format!("bootstrap.{name}: {error}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cumulet_domain::ids::IdFormat;

    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            variables: vec![("HOME".into(), "/home/u".into())],
            ..Inputs::default()
        }
    }

    #[test]
    fn defaults_are_complete() {
        let config = load(&inputs()).unwrap();
        assert_eq!(config.settings.listen.to_string(), "127.0.0.1:8773");
        assert_eq!(config.settings.zone, "us-east-1a");
        assert_eq!(
            config.settings.data_dir,
            Path::new("/home/u/.local/share/cumulet")
        );
        assert!(config.settings.may_use_private_uplink());
        assert_eq!(config.shown["region"].source, "default");
        assert_eq!(config.settings.ids.format, IdFormat::Long);
    }

    #[test]
    fn ids_may_be_short() {
        let with = |format: &str| {
            let mut inputs = inputs();
            let variable = ("CUMULET_IDS_FORMAT".into(), format.into());
            inputs.variables.push(variable);
            load(&inputs)
        };
        let config = with("short").unwrap();
        assert_eq!(config.settings.ids.format, IdFormat::Short);
        assert_eq!(config.shown["ids.format"].value, "\"short\"");
        assert!(with("8").unwrap_err().0.contains("ids.format"));
    }

    #[test]
    fn a_later_layer_wins_and_says_so() {
        let mut inputs = inputs();
        inputs.file = Some((
            "/etc/c.toml".into(),
            "region = \"eu-1\"\n[limits]\nconnections = 7\ninstances_per_account = 3\n".into(),
        ));
        inputs
            .variables
            .push(("CUMULET_LIMITS_CONNECTIONS".into(), "8".into()));
        inputs
            .variables
            .push(("CUMULET_DOMAINS".into(), "a.test, b.test".into()));
        inputs.flags.push(("listen", "127.0.0.1:0".into()));
        let config = load(&inputs).unwrap();
        assert_eq!(config.settings.limits.connections, 8);
        assert_eq!(config.settings.limits.instances_per_account, 3);
        assert_eq!(config.settings.domains, ["a.test", "b.test"]);
        assert_eq!(config.settings.zone, "eu-1a");
        let source = |key: &str| config.shown[key].source.clone();
        assert_eq!(
            source("limits.connections"),
            "variable CUMULET_LIMITS_CONNECTIONS"
        );
        assert_eq!(source("region"), "file /etc/c.toml");
        assert_eq!(source("listen"), "flag --listen");
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_by_name() {
        let refused = |file: &str, variable: Option<(&str, &str)>| {
            let mut inputs = inputs();
            inputs.file = Some(("f".into(), file.into()));
            inputs
                .variables
                .extend(variable.map(|(a, b)| (a.to_owned(), b.to_owned())));
            load(&inputs).unwrap_err().0
        };
        assert!(refused("regoin = \"x\"", None).contains("regoin"));
        assert!(refused("[limits]\nconection = 1", None).contains("limits.conection"));
        assert!(refused("[limits]\nconnections = \"1\"", None).contains("limits.connections"));
        assert!(refused("", Some(("CUMULET_REGOIN", "x"))).contains("CUMULET_REGOIN"));
        assert!(
            refused("", Some(("CUMULET_LIMITS_CONNECTIONS", "many")))
                .contains("limits.connections")
        );
        assert!(refused("listen = \"0.0.0.0:80\"", None).contains("listen_insecure"));
        assert!(refused("", Some(("CUMULET_COMPUTE", "docker"))).contains("docker"));
        assert!(refused("[bootstrap]\naccess_key_id = \"AKIA\"", None).contains("together"));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut inputs = inputs();
        inputs
            .variables
            .push(("CUMULET_BOOTSTRAP_ACCESS_KEY_ID".into(), "AKIATEST".into()));
        inputs
            .variables
            .push(("CUMULET_BOOTSTRAP_SECRET_ACCESS_KEY".into(), "hush".into()));
        let config = load(&inputs).unwrap();
        assert_eq!(
            config.settings.bootstrap.secret_access_key.as_deref(),
            Some("hush")
        );
        assert!(
            config
                .shown
                .values()
                .all(|shown| !shown.value.contains("hush"))
        );
    }

    #[test]
    fn variables_of_different_settings_differ() {
        let names: std::collections::BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(names.len(), KEYS.len());
    }
}
