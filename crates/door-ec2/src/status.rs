//! DescribeInstanceStatus: what host and guest really answer.

use cumulet_ec2_model::Answer;
use cumulet_engine::status::{InstanceStatusView, Reachability};

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::instances;
use crate::paging::Page;
use crate::reservation::write_state;

const FILTERS: Known = Known {
    names: &[
        "availability-zone",
        "instance-state-code",
        "instance-state-name",
        "instance-status.reachability",
        "instance-status.status",
        "system-status.reachability",
        "system-status.status",
    ],
    without_value: &[
        "attached-ebs-status.status",
        "event.",
        "operator.managed",
        "operator.principal",
    ],
};

pub(crate) async fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let ids = instances::ids(call)?;
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 5, "InstanceId")?;
    call.stop_if_dry_run()?;
    let include_all = request.is_true("IncludeAllInstances");
    let views = call
        .engine
        .instance_statuses(&call.caller, &ids, include_all)
        .await?;
    let zone = &call.engine.config().zone;
    let passing = views
        .into_iter()
        .filter(|view| filters.pass(|name| filter_values(zone, view, name)));
    let (views, next) = page.cut(request.operation.name, passing, |view| {
        view.instance.id.to_string()
    });
    let mut answer = call.answer();
    answer.list("instanceStatusSet", &views, |answer, view| {
        answer.value("instanceId", view.instance.id);
        answer.leaf("availabilityZone", zone);
        // Nothing is ever scheduled.
        answer.structure("eventsSet", |_| {});
        write_state(answer, "instanceState", view.instance.state());
        write_check(answer, "systemStatus", view.system);
        write_check(answer, "instanceStatus", view.guest);
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

fn status_word(check: Reachability) -> &'static str {
    match check {
        Reachability::Ok => "ok",
        Reachability::Initializing => "initializing",
        Reachability::Impaired => "impaired",
        Reachability::NotApplicable => "not-applicable",
    }
}

/// The only check there is; `None` where none is made.
fn reachability_word(check: Reachability) -> Option<&'static str> {
    match check {
        Reachability::Ok => Some("passed"),
        Reachability::Initializing => Some("initializing"),
        Reachability::Impaired => Some("failed"),
        Reachability::NotApplicable => None,
    }
}

fn write_check(answer: &mut Answer, name: &str, check: Reachability) {
    answer.structure(name, |answer| {
        answer.leaf("status", status_word(check));
        if let Some(word) = reachability_word(check) {
            answer.list("details", [word], |answer, word| {
                answer.leaf("name", "reachability");
                answer.leaf("status", word);
            });
        }
    });
}

fn filter_values(zone: &str, view: &InstanceStatusView, name: &str) -> Vec<String> {
    let state = view.instance.state();
    let word = match name {
        "availability-zone" => zone.to_owned(),
        "instance-state-code" => state.code().to_string(),
        "instance-state-name" => state.name().to_owned(),
        "instance-status.status" => status_word(view.guest).to_owned(),
        "system-status.status" => status_word(view.system).to_owned(),
        "instance-status.reachability" | "system-status.reachability" => {
            let check = if name.starts_with("instance") {
                view.guest
            } else {
                view.system
            };
            return reachability_word(check)
                .map(str::to_owned)
                .into_iter()
                .collect();
        }
        _ => return vec![],
    };
    vec![word]
}
