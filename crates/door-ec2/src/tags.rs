//! CreateTags, DeleteTags, DescribeTags, and tags as other answers and requests have them.

use std::collections::BTreeMap;

use cumulet_domain::tags::{Removal, TagMap, TaggedId, TaggedKind, tag_map};
use cumulet_domain::{Error, Resource, shown};
use cumulet_ec2_model::{Answer, Request};

use crate::call::Call;
use crate::error::Refused;
use crate::filters::{Filters, Known};
use crate::paging::Page;

const FILTERS: Known = Known {
    names: &["key", "resource-id", "resource-type", "tag:", "value"],
    without_value: &[],
};

/// Least page of DescribeTags.
const RESULTS_MIN: usize = 5;

pub(crate) async fn create(call: &Call<'_>) -> Result<String, Refused> {
    let ids = resources(call)?;
    let tags = tag_map(pairs(&call.request, "Tag")?)?;
    if tags.is_empty() {
        return Err(Error::Missing {
            parameter: "Tag".into(),
        }
        .into());
    }
    call.engine.create_tags(&call.caller, &ids, tags).await?;
    Ok(call.yes())
}

/// A key with an empty value takes that value away only; a key without one takes any; no key at
/// all takes everything.
pub(crate) async fn delete(call: &Call<'_>) -> Result<String, Refused> {
    let ids = resources(call)?;
    let request = &call.request;
    let mut removals = vec![];
    for index in request.indexes("Tag") {
        let key = request.required(&format!("Tag.{index}.Key"))?;
        let value = request.text(&format!("Tag.{index}.Value"));
        removals.push(Removal {
            key: key.to_owned(),
            value: value.map(str::to_owned),
        });
    }
    call.engine
        .delete_tags(&call.caller, &ids, removals)
        .await?;
    Ok(call.yes())
}

pub(crate) fn describe(call: &Call<'_>) -> Result<String, Refused> {
    let filters = Filters::of(&call.request, &FILTERS)?;
    let page = Page::of(&call.request, RESULTS_MIN, "")?;
    let all = call.engine.describe_tags(&call.caller);
    let passing = all.into_iter().filter(|tag| {
        filters.pass(|name| match name {
            "key" => vec![tag.key.clone()],
            "resource-id" => vec![tag.resource.to_string()],
            "resource-type" => vec![tag.resource.kind().as_str().to_owned()],
            "value" => vec![tag.value.clone()],
            other if other.strip_prefix("tag:") == Some(&tag.key) => vec![tag.value.clone()],
            _ => vec![],
        })
    });
    // Ids hold no space: this is the order of the ids, and of the keys of each.
    let key = |tag: &cumulet_engine::tags::TagView| format!("{} {}", tag.resource, tag.key);
    let (tags, next) = page.cut(call.request.operation.name, passing, key);
    let mut answer = call.answer();
    answer.list("tagSet", &tags, |answer, tag| {
        answer.value("resourceId", tag.resource);
        answer.leaf("resourceType", tag.resource.kind().as_str());
        answer.leaf("key", &tag.key);
        answer.leaf("value", &tag.value);
    });
    answer.optional("nextToken", next);
    Ok(answer.finish())
}

/// The ids of `ResourceId.n`, of whatever kinds.
fn resources(call: &Call<'_>) -> Result<Vec<TaggedId>, Refused> {
    let ids = call.request.list("ResourceId").into_iter();
    let parse = |text: &str| {
        TaggedId::parse(text).map_err(|error| match error {
            Error::Malformed {
                resource: Resource::Tag,
                id,
                ..
            } => Refused::new(400, "InvalidID", format!("The ID '{id}' is not valid")),
            other => other.into(),
        })
    };
    ids.map(parse).collect()
}

/// `prefix.n.Key` and `prefix.n.Value`; no value is an empty one.
fn pairs(request: &Request<'_>, prefix: &str) -> Result<Vec<(String, String)>, Refused> {
    let pair = |index: u32| {
        let key = request.required(&format!("{prefix}.{index}.Key"))?;
        let value = request.text(&format!("{prefix}.{index}.Value"));
        Ok((key.to_owned(), value.unwrap_or_default().to_owned()))
    };
    request.indexes(prefix).into_iter().map(pair).collect()
}

/// What `TagSpecification.n` says is to be written on what the request makes; `kinds` are those
/// that it can make.
///
/// # Errors
/// `InvalidParameterValue` for another kind, one that is named twice, or tags that cannot be.
pub(crate) fn specifications(
    request: &Request<'_>,
    kinds: &[TaggedKind],
) -> Result<BTreeMap<TaggedKind, TagMap>, Refused> {
    let mut specifications = BTreeMap::new();
    for index in request.indexes("TagSpecification") {
        let prefix = format!("TagSpecification.{index}");
        let word = request.required(&format!("{prefix}.ResourceType"))?;
        let kind = kinds.iter().copied().find(|kind| kind.as_str() == word);
        let kind = kind.ok_or_else(|| {
            let word = shown(word);
            Refused::invalid(format!(
                "'{word}' is not a valid taggable resource type for this operation."
            ))
        })?;
        let tags = tag_map(pairs(request, &format!("{prefix}.Tag"))?)?;
        if tags.is_empty() {
            return Err(Refused::invalid(
                "Tag specification must have at least one tag",
            ));
        }
        if specifications.insert(kind, tags).is_some() {
            return Err(Refused::invalid(format!(
                "There is more than one tag specification for the resource type '{word}'"
            )));
        }
    }
    Ok(specifications)
}

/// As [`specifications`], of an operation that makes one thing.
pub(crate) fn specification(request: &Request<'_>, kind: TaggedKind) -> Result<TagMap, Refused> {
    Ok(specifications(request, &[kind])?
        .remove(&kind)
        .unwrap_or_default())
}

/// The `tagSet` of a resource.
pub(crate) fn write(answer: &mut Answer, tags: &TagMap) {
    answer.list("tagSet", tags, |answer, (key, value)| {
        answer.leaf("key", key);
        answer.leaf("value", value);
    });
}

/// What the filters `tag:KEY`, `tag-key` and `tag-value` look at; `None` for another filter.
pub(crate) fn filter_values(tags: &TagMap, name: &str) -> Option<Vec<String>> {
    match name {
        "tag-key" => Some(tags.keys().cloned().collect()),
        "tag-value" => Some(tags.values().cloned().collect()),
        other => {
            let key = other.strip_prefix("tag:")?;
            Some(tags.get(key).cloned().into_iter().collect())
        }
    }
}
