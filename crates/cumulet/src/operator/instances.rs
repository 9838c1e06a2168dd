//! Instances of all accounts.

use cumulet_domain::instances::Instance;
use cumulet_domain::{Error, InstanceId};
use cumulet_engine::Engine;
use cumulet_engine::instances::StateChange;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    List,
    /// All of them, or none when one is unknown.
    Terminate {
        ids: Vec<InstanceId>,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::List => {
            let state = engine.snapshot();
            let all = state.instances.values();
            Ok(all
                .map(|instance| show_instance(engine, instance))
                .collect())
        }
        Request::Terminate { ids } => {
            let ended = engine.terminate_as_operator(ids).await?;
            let show = |change: &StateChange| json!({ "id": change.id, "state": change.current.name(), "previous": change.previous.name() });
            Ok(ended.iter().map(show).collect())
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
