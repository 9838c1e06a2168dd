//! DescribeRegions and DescribeAvailabilityZones: this cloud has one of each.

use cumulet_domain::{Error, Resource, shown};

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};

const REGION_FILTERS: Known = Known {
    names: &["endpoint", "opt-in-status", "region-name"],
    without_value: &[],
};

const ZONE_FILTERS: Known = Known {
    names: &[
        "group-long-name",
        "group-name",
        "opt-in-status",
        "region-name",
        "state",
        "zone-id",
        "zone-name",
        "zone-type",
    ],
    without_value: &["message", "parent-zone-id", "parent-zone-name"],
};

const OPT_IN: &str = "opt-in-not-required";

/// The id of the only zone of a region.
pub(crate) fn zone_id(region: &str) -> String {
    format!("{region}-az1")
}

/// Everything in `asked` must be the one that there is.
fn check_names(asked: &[&str], only: &str, resource: Resource) -> Result<(), Refused> {
    let other = asked.iter().find(|name| **name != only);
    match other {
        Some(other) => {
            let other = shown(other);
            Err(Error::not_found(resource, other).into())
        }
        None => Ok(()),
    }
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let region = &call.engine.config().region;
    check_names(&call.request.list("RegionName"), region, Resource::Region)?;
    let filters = Filters::of(&call.request, &REGION_FILTERS)?;
    // By this address the client reached us; another one might not work for it.
    let endpoint = &call.context.client_host;
    let is_shown = filters.pass(|name| {
        let value = match name {
            "endpoint" => endpoint,
            "region-name" => region,
            _ => OPT_IN,
        };
        vec![value.to_owned()]
    });
    let mut answer = call.answer();
    answer.list("regionInfo", is_shown.then_some(()), |answer, ()| {
        answer.leaf("regionName", region);
        answer.leaf("regionEndpoint", endpoint);
        answer.leaf("optInStatus", OPT_IN);
    });
    Ok(answer.finish())
}

pub(crate) fn describe_zones(call: &Call<'_>) -> Result<String, Refused> {
    let config = call.engine.config();
    let (region, zone) = (&config.region, &config.zone);
    let zone_id = zone_id(region);
    let asked = |name: &str| call.request.list(name);
    check_names(&asked("ZoneName"), zone, Resource::AvailabilityZone)?;
    check_names(&asked("ZoneId"), &zone_id, Resource::AvailabilityZone)?;
    let filters = Filters::of(&call.request, &ZONE_FILTERS)?;
    let is_shown = filters.pass(|name| {
        let value = match name {
            "group-long-name" | "group-name" | "region-name" => region,
            "opt-in-status" => OPT_IN,
            "state" => "available",
            "zone-id" => &zone_id,
            "zone-name" => zone,
            "zone-type" => "availability-zone",
            _ => return vec![],
        };
        vec![value.to_owned()]
    });
    let mut answer = call.answer();
    answer.list(
        "availabilityZoneInfo",
        is_shown.then_some(()),
        |answer, ()| {
            answer.leaf("zoneName", zone);
            answer.leaf("zoneState", "available");
            answer.leaf("regionName", region);
            answer.structure("messageSet", |_| {});
            answer.leaf("optInStatus", OPT_IN);
            answer.leaf("zoneId", &zone_id);
            answer.leaf("groupName", region);
            answer.leaf("networkBorderGroup", region);
            answer.leaf("zoneType", "availability-zone");
        },
    );
    Ok(answer.finish())
}
