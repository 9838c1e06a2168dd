//! What an account may have at once.

use cumulet_domain::Error;
use cumulet_domain::accounts::Account;
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Show {
        account: Option<String>,
    },
    /// Without a number, what the settings say.
    Set {
        account: Option<String>,
        instances: Option<u32>,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Show { account } => Ok(show_quota(
            find_account(engine, account.as_deref())?.as_ref(),
            engine,
        )),
        Request::Set { account, instances } => {
            let account = find_account(engine, account.as_deref())?;
            engine.set_instance_limit(account.id, instances).await?;
            let account = Account {
                instance_limit: instances,
                ..Account::clone(&account)
            };
            Ok(show_quota(&account, engine))
        }
    }
}

fn show_quota(account: &Account, engine: &Engine) -> Value {
    let used = engine
        .snapshot()
        .account_usage
        .get(&account.id)
        .copied()
        .unwrap_or(0);
    let limit = account
        .instance_limit
        .unwrap_or(engine.config().instances_per_account);
    json!({
        "account": account.id,
        "instances": limit,
        "instances_used": used,
        "is_default": account.instance_limit.is_none(),
    })
}
