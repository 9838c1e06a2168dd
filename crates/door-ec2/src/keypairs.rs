//! CreateKeyPair, DescribeKeyPairs, DeleteKeyPair, ImportKeyPair.

use std::collections::BTreeMap;
use std::sync::Arc;

use cumulet_domain::keypairs::{KeyPair, KeyType};
use cumulet_domain::shown;
use cumulet_domain::tags::{TagMap, TaggedKind};
use cumulet_engine::State;
use cumulet_wire::time::format_iso8601;

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::tags;

/// Biggest public key that is read.
const MATERIAL_BYTES_MAX: usize = 16 * 1024;

const FILTERS: Known = Known {
    names: &[
        "fingerprint",
        "key-name",
        "key-pair-id",
        "tag-key",
        "tag-value",
        "tag:",
    ],
    without_value: &[],
};

pub(crate) async fn create(call: &Call<'_>) -> Result<String, Refused> {
    let name = call.request.required("KeyName")?.to_owned();
    let kind = match call.request.text("KeyType") {
        None => KeyType::Rsa,
        Some(name) => KeyType::of_name(name).ok_or_else(|| unknown_type(name))?,
    };
    let tags = tags::specification(&call.request, TaggedKind::KeyPair)?;
    let engine = &call.engine;
    let created = engine
        .create_key_pair(&call.caller, name, kind, tags.clone())
        .await?;
    let mut answer = call.answer();
    answer.leaf("keyName", &created.key_pair.name);
    answer.leaf("keyFingerprint", &created.key_pair.fingerprint);
    answer.leaf("keyMaterial", created.private_pem.as_str());
    answer.value("keyPairId", created.key_pair.id);
    tags::write(&mut answer, &tags);
    Ok(answer.finish())
}

pub(crate) async fn import(call: &Call<'_>) -> Result<String, Refused> {
    let name = call.request.required("KeyName")?.to_owned();
    let material = call
        .request
        .base64("PublicKeyMaterial", MATERIAL_BYTES_MAX)?
        .unwrap_or_default();
    let tags = tags::specification(&call.request, TaggedKind::KeyPair)?;
    let key_pair = call
        .engine
        .import_key_pair(&call.caller, name, material, tags.clone())
        .await?;
    let mut answer = call.answer();
    answer.leaf("keyName", &key_pair.name);
    answer.leaf("keyFingerprint", &key_pair.fingerprint);
    answer.value("keyPairId", key_pair.id);
    tags::write(&mut answer, &tags);
    Ok(answer.finish())
}

/// Names and ids select together: a pair must be of both lists that are given.
pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let request = &call.request;
    let names: Vec<String> = request
        .list("KeyName")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let ids = request.list("KeyPairId");
    let filters = Filters::of(request, &FILTERS)?;
    let state = call.engine.snapshot();
    let mut of_ids: BTreeMap<&str, Arc<KeyPair>> = BTreeMap::new();
    for id in &ids {
        let pair = of_id(&state, call, id).ok_or_else(|| unknown_id(id))?;
        of_ids.insert(&pair.name, pair.clone());
    }
    let mut found = if names.is_empty() && !of_ids.is_empty() {
        of_ids.values().cloned().collect()
    } else {
        call.engine.describe_key_pairs(&call.caller, &names)?
    };
    found.retain(|pair| of_ids.is_empty() || of_ids.contains_key(pair.name.as_str()));
    found.retain(|pair| filters.pass(|name| filter_values(pair, state.tags_of(pair.id), name)));
    let mut answer = call.answer();
    answer.list("keySet", &found, |answer, pair| {
        answer.value("keyPairId", pair.id);
        answer.leaf("keyName", &pair.name);
        answer.leaf("keyFingerprint", &pair.fingerprint);
        answer.leaf("keyType", pair.key_type.name());
        tags::write(answer, state.tags_of(pair.id));
        if request.is_true("IncludePublicKey") {
            answer.leaf("publicKey", &pair.public_key);
        }
        answer.leaf("createTime", &format_iso8601(pair.created));
    });
    Ok(answer.finish())
}

fn of_id<'a>(state: &'a State, call: &Call<'_>, id: &str) -> Option<&'a Arc<KeyPair>> {
    state.key_pair(call.caller.account, id.parse().ok()?)
}

fn unknown_type(name: &str) -> Refused {
    let name = shown(name);
    Refused::new(
        400,
        "InvalidParameterValue",
        format!("The value '{name}' of the parameter KeyType is not one of rsa, ed25519"),
    )
}

fn unknown_id(id: &str) -> Refused {
    let id = shown(id);
    Refused::new(
        400,
        "InvalidKeyPair.NotFound",
        format!("The key pair '{id}' does not exist"),
    )
}

/// By name, or in the newest version by id.  A pair that does not exist is no error.
pub(crate) async fn delete(call: &Call<'_>) -> Result<String, Refused> {
    let given = |name: &str| call.request.text(name).filter(|text| !text.is_empty());
    let name = match (given("KeyName"), given("KeyPairId")) {
        (Some(name), None) => Some(name.to_owned()),
        (None, Some(id)) => of_id(&call.engine.snapshot(), call, id).map(|pair| pair.name.clone()),
        (Some(_), Some(_)) => {
            return Err(Refused::combination(
                "DeleteKeyPair takes KeyName or KeyPairId, not both",
            ));
        }
        (None, None) => {
            return Err(Refused::new(
                400,
                "MissingParameter",
                "The request must contain the parameter KeyName",
            ));
        }
    };
    if let Some(name) = name {
        call.engine.delete_key_pair(&call.caller, name).await?;
    }
    Ok(call.yes())
}

fn filter_values(pair: &Arc<KeyPair>, tags: &TagMap, name: &str) -> Vec<String> {
    match name {
        "fingerprint" => vec![pair.fingerprint.clone()],
        "key-name" => vec![pair.name.clone()],
        "key-pair-id" => vec![pair.id.to_string()],
        other => tags::filter_values(tags, other).unwrap_or_default(),
    }
}
