//! Asking for what an operator wants: the running server, or the records when none runs.
//!
//! A server that is just starting or stopping holds the data directory and
//! answers nobody; it is asked again for a while.  What an answer without a
//! server cannot know is said with it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use super::Context;
use crate::data_dir::{self, DataDir, Found, InUse, Purpose};
use crate::operator::{self, Request};
use crate::{control, surroundings, wiring};

/// How often a server that starts or stops is asked again; each time its lock is waited for.
const TRIES: usize = 3;
/// For how long a directory without an id may be one that is just made.
const BEGUN_TRIES: usize = 50;
const BEGUN_PAUSE: Duration = Duration::from_millis(20);

/// What came back.
pub(super) struct Answered {
    pub(super) value: Value,
    /// A running server said it; else it is what the records said last.
    pub(super) is_live: bool,
}

/// Asks the running server, or does it on the data directory when none runs.
pub(super) fn ask(context: &Context, request: &Request) -> anyhow::Result<Answered> {
    let path = &context.config.settings.data_dir;
    let (mut tries, mut begun) = (0, 0);
    loop {
        if let Ok(answer) = control::ask(path, request) {
            return answer.map(|value| Answered {
                value,
                is_live: true,
            });
        }
        // What makes something makes the cloud too, as a first start does; asking makes nothing.
        if !request.makes() && data_dir::find_cloud_id(path).is_none() {
            // A server that has just taken its lock writes the id next.
            if begun < BEGUN_TRIES && data_dir::look(path)? == Found::Ours {
                begun += 1;
                std::thread::sleep(BEGUN_PAUSE);
                continue;
            }
            bail!(
                "there is no cloud in {}; `cumulet serve` makes one",
                path.display()
            );
        }
        tries += 1;
        match DataDir::open(path, Purpose::Command) {
            Err(error) if error.is::<InUse>() && tries < TRIES => {}
            opened => {
                let value = perform_alone(context, Arc::new(opened?), request.clone())?;
                return Ok(Answered {
                    value,
                    is_live: false,
                });
            }
        }
    }
}

fn perform_alone(context: &Context, dir: Arc<DataDir>, request: Request) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cloud = wiring::open_idle(&dir, &context.config.settings).await?;
        operator::perform(&cloud.engine, &cloud.source, request)
            .await
            .map_err(|error| anyhow::anyhow!(operator::error_text(&error)))
    })
}

/// Performs, whoever does it.
pub(super) fn perform(context: &Context, request: &Request) -> anyhow::Result<Value> {
    ask(context, request).map(|answered| answered.value)
}

/// Performs and prints.
pub(super) fn answer(context: &Context, request: &Request) -> anyhow::Result<ExitCode> {
    let value = perform(context, request)?;
    context.output.print(&value);
    Ok(ExitCode::SUCCESS)
}

/// As [`answer`], for what changes by itself while a server runs: without one it is said that the
/// answer is an old one, on stderr and, in JSON, beside each thing.
pub(super) fn answer_as_of_now(context: &Context, request: &Request) -> anyhow::Result<ExitCode> {
    let Answered { mut value, is_live } = ask(context, request)?;
    if !is_live {
        eprintln!("cumulet: {}", last_known(context));
    }
    if context.output.is_json {
        let server = server_word(is_live);
        match &mut value {
            Value::Array(rows) => rows
                .iter_mut()
                .for_each(|row| row["server"] = server.into()),
            Value::Object(fields) => {
                fields.insert("server".into(), server.into());
            }
            _ => {}
        }
    }
    context.output.print(&value);
    Ok(ExitCode::SUCCESS)
}

/// As [`answer`], for what the server does after it was recorded: without one it is said that it
/// is still to be done.
pub(super) fn answer_to_be_done(context: &Context, request: &Request) -> anyhow::Result<ExitCode> {
    let Answered { value, is_live } = ask(context, request)?;
    if !is_live {
        eprintln!(
            "cumulet: no server runs with {}: this is recorded, and done when one is started",
            context.config.settings.data_dir.display()
        );
    }
    context.output.print(&value);
    Ok(ExitCode::SUCCESS)
}

fn server_word(is_live: bool) -> &'static str {
    if is_live { "running" } else { "stopped" }
}

fn last_known(context: &Context) -> String {
    format!(
        "no server runs with {}: this is what its records said last",
        context.config.settings.data_dir.display()
    )
}

/// Without a server only the records speak: what the host is and holds is not known then.
pub(super) fn status(context: &Context) -> anyhow::Result<ExitCode> {
    let Answered { mut value, is_live } = ask(context, &Request::Status)?;
    value["server"] = server_word(is_live).into();
    if !is_live {
        let settings = &context.config.settings;
        value["compute"] = settings.compute.as_str().into();
        value["memory_mib"] = settings.memory_mib(surroundings::memory_mib()).into();
        for name in ["acceleration", "machine", "orphans"] {
            value[name] = Value::Null;
        }
        value["note"] = last_known(context).into();
    }
    context.output.print(&value);
    Ok(ExitCode::SUCCESS)
}
