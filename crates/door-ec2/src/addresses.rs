//! DescribeAddresses: nobody has an Elastic IP address here.
//!
//! They cannot be allocated, and a list that is empty says so.  Libraries ask for it beside every
//! list of instances (Apache Libcloud does), to tell which of them has one.

use std::net::Ipv4Addr;

use cumulet_domain::shown;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};

const FILTERS: Known = Known {
    names: &[],
    without_value: &[
        "allocation-id",
        "association-id",
        "domain",
        "instance-id",
        "network-border-group",
        "network-interface-id",
        "network-interface-owner-id",
        "private-ip-address",
        "public-ip",
        "tag-key",
        "tag-value",
        "tag:",
    ],
};

/// What the ids of addresses begin with.
const PREFIX: &str = "eipalloc-";

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let address = call.request.list("PublicIp").first().copied();
    if let Some(text) = address {
        return Err(no_address(text));
    }
    let id = call.request.list("AllocationId").first().copied();
    if let Some(text) = id {
        return Err(no_allocation(text));
    }
    Filters::of(&call.request, &FILTERS)?;
    let mut answer = call.answer();
    answer.list("addressesSet", None::<()>, |_, ()| {});
    Ok(answer.finish())
}

fn no_address(text: &str) -> Refused {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Refused::new(
            400,
            "InvalidAddress.NotFound",
            format!("Address '{address}' not found."),
        ),
        Err(_) => Refused::invalid(format!(
            "Value ({}) for parameter publicIp is invalid. Invalid IPv4 address.",
            shown(text)
        )),
    }
}

fn no_allocation(text: &str) -> Refused {
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    let is_id = matches!(digits.len(), 8 | 17) && digits.bytes().all(|it| it.is_ascii_hexdigit());
    let text = shown(text);
    if is_id {
        Refused::new(
            400,
            "InvalidAllocationID.NotFound",
            format!("The allocation ID '{text}' does not exist"),
        )
    } else {
        Refused::invalid(format!(
            "Invalid id: \"{text}\" (expecting \"{PREFIX}...\")"
        ))
    }
}
