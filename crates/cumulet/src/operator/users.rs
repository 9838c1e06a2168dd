//! Users of accounts.

use std::sync::Arc;

use cumulet_domain::accounts::User;
use cumulet_domain::{Error, Resource};
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;
use super::when;
use crate::password;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Create {
        account: Option<String>,
        name: String,
        password: Option<String>,
    },
    List {
        account: Option<String>,
    },
    Show {
        account: Option<String>,
        name: String,
    },
    Delete {
        account: Option<String>,
        name: String,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Create {
            account,
            name,
            password,
        } => {
            let account = find_account(engine, account.as_deref())?;
            let hash = match password {
                Some(password) => {
                    let hashed =
                        tokio::task::spawn_blocking(move || password::hash_chosen(&password)).await;
                    Some(hashed.map_err(Error::internal)?.map_err(Error::internal)?)
                }
                None => None,
            };
            Ok(show_user(
                &engine.create_user(account.id, name, hash).await?,
            ))
        }
        Request::List { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            let is_asked =
                |user: &&Arc<User>| account.as_ref().is_none_or(|it| it.id == user.account);
            Ok(state
                .users
                .values()
                .filter(is_asked)
                .map(|user| show_user(user))
                .collect())
        }
        Request::Show { account, name } => {
            let account = find_account(engine, account.as_deref())?;
            let state = engine.snapshot();
            let user = state.users.get(&(account.id, name.as_str().into()));
            Ok(show_user(
                user.ok_or_else(|| Error::not_found(Resource::User, &name))?,
            ))
        }
        Request::Delete { account, name } => {
            let account = find_account(engine, account.as_deref())?;
            engine.delete_user(account.id, name.clone()).await?;
            Ok(json!({ "deleted": name }))
        }
    }
}

fn show_user(user: &User) -> Value {
    json!({
        "account": user.account,
        "name": user.name,
        "created": when(user.created),
        "has_password": user.password_hash.is_some(),
    })
}
