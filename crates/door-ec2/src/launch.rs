//! RunInstances.

use bytes::Bytes;
use cumulet_domain::instances::{MetadataOptions, USER_DATA_LEN_MAX};
use cumulet_engine::launch::Launch;

use crate::call::Call;
use crate::error::Refused;
use crate::images;
use crate::reservation::{self, Surroundings};

/// Furthest that an answer of the metadata service may be asked to go.
const HOP_LIMIT_MAX: u8 = 64;

pub(crate) async fn run(call: &Call<'_>) -> Result<String, Refused> {
    let launch = decode(call)?;
    call.stop_if_dry_run()?;
    let view = call.engine.launch(&call.caller, launch).await?;
    let surroundings = Surroundings::of(call.engine);
    let mut answer = call.answer();
    reservation::write(&mut answer, &surroundings, &view);
    Ok(answer.finish())
}

fn decode(call: &Call<'_>) -> Result<Launch, Refused> {
    let request = &call.request;
    let text = |name: &str| request.text(name).map(str::to_owned);
    // The digest of user data is compared by clients: what is not whole is refused, never cut.
    let user_data = request.base64("UserData", USER_DATA_LEN_MAX)?;
    Ok(Launch {
        image: images::parse_id(request.required("ImageId")?)?,
        min_count: request.number("MinCount")?.unwrap_or_default(),
        max_count: request.number("MaxCount")?.unwrap_or_default(),
        key_name: text("KeyName"),
        instance_type: text("InstanceType"),
        user_data: user_data.map(Bytes::from),
        // aws-cli and boto always send a token, some clients an empty one, which is none.
        client_token: text("ClientToken").filter(|token| !token.is_empty()),
        security_groups: request
            .list("SecurityGroup")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        zone: text("Placement.AvailabilityZone").filter(|zone| !zone.is_empty()),
        metadata: metadata(call)?,
    })
}

/// `None` if the request says nothing, so that the operator's default holds.
fn metadata(call: &Call<'_>) -> Result<Option<MetadataOptions>, Refused> {
    let request = &call.request;
    let tokens = request.text("MetadataOptions.HttpTokens");
    let hops = request.number::<u8>("MetadataOptions.HttpPutResponseHopLimit")?;
    let endpoint = request.text("MetadataOptions.HttpEndpoint");
    if tokens.is_none() && hops.is_none() && endpoint.is_none() {
        return Ok(None);
    }
    let default = MetadataOptions {
        is_token_required: call.engine.config().is_metadata_token_required,
        ..MetadataOptions::default()
    };
    let word = |name: &str, given: Option<&str>, yes: &str, no: &str, default: bool| match given {
        None => Ok(default),
        Some(given) if given == yes => Ok(true),
        Some(given) if given == no => Ok(false),
        Some(_) => Err(Refused::invalid(format!(
            "Invalid value for {name}. It is {yes} or {no}."
        ))),
    };
    let hop_limit = hops.unwrap_or(default.hop_limit);
    if !(1..=HOP_LIMIT_MAX).contains(&hop_limit) {
        return Err(Refused::invalid(format!(
            "MetadataOptions.HttpPutResponseHopLimit lies between 1 and {HOP_LIMIT_MAX}"
        )));
    }
    Ok(Some(MetadataOptions {
        is_token_required: word(
            "MetadataOptions.HttpTokens",
            tokens,
            "required",
            "optional",
            default.is_token_required,
        )?,
        hop_limit,
        is_enabled: word(
            "MetadataOptions.HttpEndpoint",
            endpoint,
            "enabled",
            "disabled",
            default.is_enabled,
        )?,
    }))
}
