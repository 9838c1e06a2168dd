//! DescribeInstances, RebootInstances, TerminateInstances, GetConsoleOutput.

use cumulet_domain::instances::{Instance, Reservation};
use cumulet_domain::{Error, InstanceId, Resource, shown};
use cumulet_wire::base64;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::Filters;
use crate::instance_filters::{FILTERS, filter_values};
use crate::paging::{self, Page};
use crate::reservation::{self, Surroundings};

/// What an instance usually takes of an answer; its reservation takes less.
const INSTANCE_BYTES: usize = 4_000;

/// Reads an instance id.
///
/// # Errors
/// `InvalidInstanceID.Malformed`.
pub(crate) fn parse_id(text: &str) -> Result<InstanceId, Error> {
    text.parse().map_err(|_| Error::Malformed {
        resource: Resource::Instance,
        id: shown(text),
        form: "i-...".into(),
    })
}

/// The ids of `InstanceId.n`.
pub(crate) fn ids(call: &Call<'_>) -> Result<Vec<InstanceId>, Refused> {
    let ids = call.request.list("InstanceId").into_iter().map(parse_id);
    Ok(ids.collect::<Result<_, _>>()?)
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let ids = ids(call)?;
    let filters = Filters::of(request, &FILTERS)?;
    let page = Page::of(request, 5, "InstanceId")?;
    let surroundings = Surroundings::of(&call.engine);
    let keep = |reservation: &Reservation, instance: &Instance| {
        filters.pass(|name| filter_values(&surroundings, (reservation, instance), name))
    };
    let (views, next) = if ids.is_empty() {
        let size = page.size().unwrap_or(usize::MAX);
        let page = call
            .engine
            .describe_instances_page(&call.caller, page.after()?, size, keep);
        (page.views, page.next)
    } else {
        let mut views = call.engine.describe_instances(&call.caller, &ids)?;
        for view in &mut views {
            let reservation = view.reservation.clone();
            view.instances.retain(|it| keep(&reservation, it));
        }
        views.retain(|view| !view.instances.is_empty());
        (views, None)
    };
    let mut answer = call.answer();
    let count: usize = views.iter().map(|view| 1 + view.instances.len()).sum();
    answer.reserve(count * INSTANCE_BYTES);
    answer.list("reservationSet", &views, |answer, view| {
        reservation::write(answer, &surroundings, view);
    });
    let operation = request.operation.name;
    answer.optional("nextToken", next.map(|id| paging::token_of(operation, id)));
    Ok(answer.finish())
}

pub(crate) async fn reboot(call: &Call<'_>) -> Result<String, Refused> {
    let ids = ids(call)?;
    call.engine.reboot(&call.caller, ids).await?;
    Ok(call.yes())
}

pub(crate) async fn terminate(call: &Call<'_>) -> Result<String, Refused> {
    let ids = ids(call)?;
    let changes = call.engine.terminate(&call.caller, ids).await?;
    let mut answer = call.answer();
    answer.list("instancesSet", changes, |answer, change| {
        answer.value("instanceId", change.id);
        // The new state is called shutdownState until 2009-08-15, and currentState since.
        reservation::write_state(answer, "shutdownState", change.current);
        reservation::write_state(answer, "currentState", change.current);
        reservation::write_state(answer, "previousState", change.previous);
    });
    Ok(answer.finish())
}

/// The documented parameter is `InstanceId`; boto has always sent `InstanceId.1`.
pub(crate) async fn console(call: &Call<'_>) -> Result<String, Refused> {
    let listed = call.request.list("InstanceId");
    let id = match (call.request.text("InstanceId"), listed.as_slice()) {
        (Some(id), []) => parse_id(id)?,
        (None, [id]) => parse_id(id)?,
        (None, []) => {
            return Err(Refused::new(
                400,
                "MissingParameter",
                "The request must contain the parameter InstanceId",
            ));
        }
        _ => {
            return Err(Refused::combination(
                "GetConsoleOutput takes one InstanceId",
            ));
        }
    };
    let console = call.engine.console_output(&call.caller, id).await?;
    let mut answer = call.answer();
    answer.value("instanceId", id);
    answer.leaf("timestamp", &format_iso8601(console.updated));
    answer.leaf("output", &base64::encode_lines(&console.bytes));
    Ok(answer.finish())
}
