//! ConfirmProductInstance, and how a launch without a subscription is refused.

use cumulet_domain::Error;
use cumulet_ec2_model::{Version, dates};

use crate::call::Call;
use crate::error::Refused;
use crate::instances;

/// Since when a missing subscription has a code of its own: EC2 has answered `OptInRequired` (401)
/// since its Marketplace opened, in April 2012.  The table of 2007 has `AuthFailure` only.
const OPT_IN: Version = dates::V2012_05_01;

pub(crate) fn confirm(call: &Call<'_>) -> Result<String, Refused> {
    let code = call.request.required("ProductCode")?;
    let instance = instances::parse_id(call.request.required("InstanceId")?)?;
    let engine = &call.engine;
    let owner = engine.confirm_product_instance(&call.caller, code, instance)?;
    let mut answer = call.answer();
    answer.value("return", owner.is_some());
    answer.optional("ownerId", owner);
    Ok(answer.finish())
}

/// A launch that was refused, in the words of the version.
pub(crate) fn launch_refused(version: Version, error: Error) -> Refused {
    match error {
        Error::NotSubscribed { message } if version < OPT_IN => Error::Denied { message }.into(),
        other => other.into(),
    }
}
