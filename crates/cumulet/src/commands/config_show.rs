//! `cumulet config show`: every setting, its value and where it came from.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use crate::config::KEYS;

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every setting, its value and where it came from.
    Show,
}

pub(crate) fn run(context: &Context, command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Show = command;
    let mut keys: Vec<_> = KEYS.iter().collect();
    keys.sort_by_key(|key| key.name);
    let rows: Vec<Value> = keys
        .into_iter()
        .map(|key| {
            let shown = context.config.shown.get(key.name);
            json!({
                "setting": key.name,
                "value": shown.map(|shown| shown.value.as_str()),
                "source": shown.map_or("not set", |shown| shown.source.as_str()),
                "meaning": key.about,
            })
        })
        .collect();
    context.output.print(&Value::Array(rows));
    Ok(ExitCode::SUCCESS)
}
