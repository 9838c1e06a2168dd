//! DescribeAccountAttributes.

use cumulet_domain::{VpcId, shown};

use crate::call::Call;
use crate::error::Refused;

/// What is known of an account, by EC2's names.  There are no public addresses.
fn attributes(call: &Call<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", VpcId::of(call.caller.account).to_string()),
        (
            "max-instances",
            call.engine.instance_limit(&call.caller).to_string(),
        ),
        ("max-elastic-ips", "0".to_owned()),
        ("vpc-max-elastic-ips", "0".to_owned()),
    ]
}

/// Known, and not limited here.
const WITHOUT_LIMIT: &str = "vpc-max-security-groups-per-interface";

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let mut all = attributes(call);
    let asked = call.request.list("AttributeName");
    for name in &asked {
        if *name != WITHOUT_LIMIT && !all.iter().any(|(known, _)| known == name) {
            let name = shown(name);
            return Err(Refused::invalid(format!(
                "Value ({name}) for parameter attributeName is invalid. Unknown account attribute."
            )));
        }
    }
    if !asked.is_empty() {
        all.retain(|(name, _)| asked.contains(name));
    }
    let mut answer = call.answer();
    answer.list("accountAttributeSet", &all, |answer, (name, value)| {
        answer.leaf("attributeName", name);
        answer.list("attributeValueSet", [value], |answer, value| {
            answer.leaf("attributeValue", value);
        });
    });
    Ok(answer.finish())
}
