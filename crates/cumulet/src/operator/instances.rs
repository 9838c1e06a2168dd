//! Instances of all accounts.

use cumulet_domain::instances::Instance;
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    List,
}

pub(super) fn perform(engine: &Engine, request: &Request) -> Value {
    match request {
        Request::List => {
            let state = engine.snapshot();
            let all = state.instances.values();
            all.map(|instance| show_instance(engine, instance))
                .collect()
        }
    }
}

fn show_instance(engine: &Engine, instance: &Instance) -> Value {
    json!({
        "id": instance.id,
        "owner": instance.owner,
        "state": instance.state().name(),
        "image": instance.image,
        "type": instance.instance_type,
        "address": instance.address,
        "launched": when(instance.launched),
        "reason": engine.reason_of(instance).map(|reason| reason.message),
    })
}
