//! Accounts, as an operator makes and sees them.

use std::sync::Arc;

use cumulet_domain::accounts::Account;
use cumulet_domain::{AccountId, Error, Resource};
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when;

/// What can be asked.  `account` is a number or a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Create {
        name: String,
        id: Option<AccountId>,
    },
    List,
    Show {
        account: String,
    },
    Delete {
        account: String,
    },
    /// Without an alias, it is taken back.
    Alias {
        account: String,
        alias: Option<String>,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Create { name, id } => Ok(show_account(
            &engine.create_account(name, id).await?,
            engine,
        )),
        Request::List => Ok(engine
            .snapshot()
            .accounts
            .values()
            .map(|account| show_account(account, engine))
            .collect()),
        Request::Show { account } => Ok(show_account(
            find_account(engine, Some(&account))?.as_ref(),
            engine,
        )),
        Request::Alias { account, alias } => {
            let found = find_account(engine, Some(&account))?;
            engine.set_alias(found.id, alias).await?;
            let found = find_account(engine, Some(&found.id.to_string()))?;
            Ok(show_account(&found, engine))
        }
        Request::Delete { account } => {
            let account = find_account(engine, Some(&account))?;
            engine.delete_account(account.id).await?;
            Ok(json!({ "deleted": account.id }))
        }
    }
}

/// The account of that number or name; without one, the only account.
///
/// # Errors
/// There is none such, or several to choose from.
pub(super) fn find_account(engine: &Engine, given: Option<&str>) -> Result<Arc<Account>, Error> {
    let state = engine.snapshot();
    let Some(given) = given else {
        let mut all = state.accounts.values();
        return match (all.next(), all.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(Error::invalid(
                "account",
                "There are several accounts: say which, with --account",
            )),
        };
    };
    let by_id = given
        .parse()
        .ok()
        .and_then(|id: AccountId| state.accounts.get(&id));
    let found = by_id.or_else(|| {
        state
            .accounts
            .values()
            .find(|account| account.name == given)
    });
    found
        .cloned()
        .ok_or_else(|| Error::not_found(Resource::Account, given))
}

fn show_account(account: &Account, engine: &Engine) -> Value {
    let state = engine.snapshot();
    let users = state
        .users
        .values()
        .filter(|user| user.account == account.id)
        .count();
    json!({ "id": account.id, "name": account.name, "created": when(account.created), "users": users, "alias": account.alias })
}
