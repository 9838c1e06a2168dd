//! Products of sellers: codes, subscriptions, and the hours that were used.

use cumulet_domain::products::{Product, Subscription};
use cumulet_domain::{Error, Resource, Timestamp};
use cumulet_engine::Engine;
use cumulet_engine::products::{UsageQuery, UsedHour};
use cumulet_wire::time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;
use super::when;

/// Hours of one answer.
const HOURS_MAX: usize = 20_000;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The code is drawn unless it is given.
    Create {
        account: Option<String>,
        code: Option<String>,
    },
    /// Those of a seller, or all.
    List {
        account: Option<String>,
    },
    /// A product with who is subscribed to it.
    Show {
        code: String,
    },
    Delete {
        code: String,
    },
    Subscribe {
        account: Option<String>,
        code: String,
    },
    Unsubscribe {
        account: Option<String>,
        code: String,
    },
    Usage(Usage),
}

/// Which hours are shown, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage {
    /// Whose instances used them.
    pub(crate) account: Option<String>,
    pub(crate) code: Option<String>,
    /// Times at which they began, in ISO 8601: from the first on, and before the second.
    pub(crate) from: Option<String>,
    pub(crate) until: Option<String>,
    /// Only how many.
    pub(crate) sum: bool,
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Create { account, code } => {
            let account = find_account(engine, account.as_deref())?;
            let product = engine.create_product(account.id, code).await?;
            Ok(show_product(engine, &product))
        }
        Request::List { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            let all = state.products.values();
            Ok(all
                .filter(|it| account.as_ref().is_none_or(|seller| seller.id == it.owner))
                .map(|product| show_product(engine, product))
                .collect())
        }
        Request::Show { code } => {
            let state = engine.snapshot();
            let product = state.products.get(code.as_str());
            let product = product.ok_or_else(|| Error::not_found(Resource::Product, &code))?;
            let subscribed = state.subscriptions.values().filter(|it| it.code == code);
            let mut shown = show_product(engine, product);
            shown["subscribers"] = subscribed.map(|it| json!(it.account)).collect();
            Ok(shown)
        }
        Request::Delete { code } => {
            engine.delete_product(code.clone()).await?;
            Ok(json!({ "deleted": code }))
        }
        Request::Subscribe { account, code } => {
            let account = find_account(engine, account.as_deref())?;
            let subscription = engine.subscribe(account.id, code).await?;
            Ok(show_subscription(&subscription))
        }
        Request::Unsubscribe { account, code } => {
            let account = find_account(engine, account.as_deref())?;
            engine.unsubscribe(account.id, code.clone()).await?;
            Ok(json!({ "code": code, "unsubscribed": account.id }))
        }
        Request::Usage(asked) => usage(engine, asked),
    }
}

fn usage(engine: &Engine, asked: Usage) -> Result<Value, Error> {
    // An account that is gone may have used something: its number is enough.
    let account = match asked.account.as_deref() {
        None => None,
        Some(given) => match (find_account(engine, Some(given)), given.parse()) {
            (Ok(found), _) => Some(found.id),
            (Err(_), Ok(id)) => Some(id),
            (Err(error), Err(_)) => return Err(error),
        },
    };
    let query = UsageQuery {
        account,
        code: asked.code,
        from: at("from", asked.from.as_deref())?,
        until: at("until", asked.until.as_deref())?,
    };
    if asked.sum {
        let sums = engine.product_usage_sums(&query);
        return Ok(sums
            .into_iter()
            .map(|((code, seller, account), hours)| json!({ "code": code, "seller": seller, "account": account, "hours": hours }))
            .collect());
    }
    let hours = engine.product_usage(&query, HOURS_MAX);
    if hours.len() > HOURS_MAX {
        return Err(Error::invalid(
            "usage",
            format!(
                "These are more than {HOURS_MAX} hours: say which (--account, --code, --from, --until), or ask for --sum"
            ),
        ));
    }
    Ok(hours.iter().map(show_hour).collect())
}

/// `2007-03-01`, or with a time of the day.
fn at(name: &str, given: Option<&str>) -> Result<Option<Timestamp>, Error> {
    let Some(text) = given else { return Ok(None) };
    let read = time::parse_iso8601(text)
        .or_else(|| time::parse_iso8601(&format!("{text}T00:00:00Z")))
        .ok_or_else(|| {
            Error::invalid(
                name,
                format!("{text:?} is no time as 2007-03-01 or 2007-03-01T12:00:00Z"),
            )
        })?;
    Ok(Some(read))
}

fn show_product(engine: &Engine, product: &Product) -> Value {
    let state = engine.snapshot();
    let subscribed = state.subscriptions.values();
    json!({
        "code": product.code,
        "seller": product.owner,
        "created": when(product.created),
        "subscriptions": subscribed.filter(|it| it.code == product.code).count(),
    })
}

fn show_subscription(subscription: &Subscription) -> Value {
    json!({
        "code": subscription.code,
        "account": subscription.account,
        "since": when(subscription.since),
    })
}

fn show_hour(used: &UsedHour) -> Value {
    let usage = &used.usage;
    json!({
        "code": usage.code,
        "seller": usage.seller,
        "account": usage.account,
        "instance": usage.instance,
        "hour": used.hour,
        "began": when(used.began),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_read() {
        let read = |text| at("from", Some(text)).unwrap().unwrap();
        assert_eq!(read("2007-03-01"), Timestamp(1_172_707_200_000));
        assert_eq!(read("2007-03-01T12:00:00Z"), Timestamp(1_172_750_400_000));
        assert_eq!(at("from", None), Ok(None));
        for bad in ["", "yesterday", "2007-13-01", "2007-03-01T"] {
            assert!(at("from", Some(bad)).is_err(), "{bad}");
        }
    }
}
