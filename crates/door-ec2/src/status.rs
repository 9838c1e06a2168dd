//! DescribeInstanceStatus: what host and guest really answer.

use cumulet_domain::InstanceId;
use cumulet_domain::instances::InstanceState;
use cumulet_ec2_model::Answer;
use cumulet_engine::status::{InstanceStatusView, Reachability};

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::instances;
use crate::paging::Page;
use crate::regions::zone_id;
use crate::reservation::write_state;

const FILTERS: Known = Known {
    names: &[
        "availability-zone",
        "availability-zone-id",
        "instance-state-code",
        "instance-state-name",
        "instance-status.reachability",
        "instance-status.status",
        "operator.managed",
        "system-status.reachability",
        "system-status.status",
    ],
    without_value: &[
        "attached-ebs-status.status",
        "event.code",
        "event.description",
        "event.instance-event-id",
        "event.not-after",
        "event.not-before",
        "event.not-before-deadline",
        "operator.principal",
    ],
};

pub(crate) async fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let ids = instances::ids(call)?;
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 5, "InstanceId")?;
    let include_all = request.is_true("IncludeAllInstances");
    let (ids, next) = choose(call, ids, include_all, &page)?;
    let views = match ids.as_deref() {
        // A page may be empty; no ids at all would mean everything.
        Some([]) => vec![],
        ids => {
            let ids = ids.unwrap_or_default();
            let statuses = call
                .engine
                .instance_statuses(&call.caller, ids, include_all);
            statuses.await?
        }
    };
    let config = call.engine.config();
    let zone = &config.zone;
    let passing = |view: &&InstanceStatusView| {
        filters.pass(|name| match name {
            "availability-zone" => vec![zone.clone()],
            "availability-zone-id" => vec![zone_id(&config.region)],
            "operator.managed" => vec!["false".to_owned()],
            other => filter_values(view, other),
        })
    };
    let views: Vec<&InstanceStatusView> = views.iter().filter(passing).collect();
    let mut answer = call.answer();
    answer.list("instanceStatusSet", views, |answer, view| {
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

/// Which instances are asked how they are; `None` means all.  Asking takes time, so that a page is
/// cut before it and filters choose within the page: some pages show less than they could.
fn choose(
    call: &Call<'_>,
    ids: Vec<InstanceId>,
    include_all: bool,
    page: &Page,
) -> Result<(Option<Vec<InstanceId>>, Option<String>), Refused> {
    if !ids.is_empty() {
        return Ok((Some(ids), None));
    }
    if page.size().is_none() {
        return Ok((None, None));
    }
    let views = call.engine.describe_instances(&call.caller, &[])?;
    let candidates = views
        .iter()
        .flat_map(|view| view.instances.iter())
        .filter(|it| include_all || it.state() == InstanceState::Running)
        .map(|instance| instance.id);
    let operation = call.request.operation.name;
    let (ids, next) = page.cut(operation, candidates, ToString::to_string);
    Ok((Some(ids), next))
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

fn write_check(answer: &mut Answer, name: &'static str, check: Reachability) {
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

fn filter_values(view: &InstanceStatusView, name: &str) -> Vec<String> {
    let state = view.instance.state();
    let word = match name {
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
