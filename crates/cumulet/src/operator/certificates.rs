//! Certificates of users.

use cumulet_auth::certificates;
use cumulet_domain::accounts::Certificate;
use cumulet_domain::{AccountId, Error, Resource};
use cumulet_engine::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::find_account;
use super::when;

/// Biggest certificate that is read.
const CERTIFICATE_LEN_MAX: usize = 64 * 1024;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// One is issued unless it is given.
    Create {
        account: Option<String>,
        user: String,
        pem: Option<String>,
    },
    List {
        account: Option<String>,
    },
    Show {
        fingerprint: String,
    },
    Delete {
        fingerprint: String,
    },
}

pub(super) async fn perform(engine: &Engine, request: Request) -> Result<Value, Error> {
    match request {
        Request::Create { account, user, pem } => {
            let account = find_account(engine, account.as_deref())?;
            create(engine, account.id, user, pem).await
        }
        Request::List { account } => {
            let account = account
                .map(|name| find_account(engine, Some(&name)))
                .transpose()?;
            let state = engine.snapshot();
            Ok(state
                .certificates
                .values()
                .filter(|it| {
                    account
                        .as_ref()
                        .is_none_or(|account| account.id == it.account)
                })
                .map(|it| show_certificate(it))
                .collect())
        }
        Request::Show { fingerprint } => {
            let state = engine.snapshot();
            let found = state.certificates.get(fingerprint.as_str());
            let found =
                found.ok_or_else(|| Error::not_found(Resource::Certificate, &fingerprint))?;
            let mut shown = show_certificate(found);
            shown["certificate"] = json!(found.pem);
            Ok(shown)
        }
        Request::Delete { fingerprint } => {
            engine.delete_certificate(fingerprint.clone()).await?;
            Ok(json!({ "deleted": fingerprint }))
        }
    }
}

async fn create(
    engine: &Engine,
    account: AccountId,
    user: String,
    pem: Option<String>,
) -> Result<Value, Error> {
    let now = engine.environment().now();
    let (fingerprint, pem, private_key) = match pem {
        Some(pem) => {
            let fingerprint = (pem.len() <= CERTIFICATE_LEN_MAX)
                .then(|| certificates::fingerprint(&pem))
                .flatten()
                .ok_or_else(|| {
                    Error::invalid("pem", "This is no X.509 certificate with an RSA key in PEM")
                })?;
            (fingerprint, pem, None)
        }
        None => {
            let (name, organisation) = (user.clone(), account.to_string());
            let issue = move || certificates::issue(&name, &organisation, now.0);
            let issued = tokio::task::spawn_blocking(issue)
                .await
                .map_err(Error::internal)?;
            let issued = issued.map_err(Error::internal)?;
            (
                issued.fingerprint,
                issued.certificate_pem,
                Some(issued.private_key_pem),
            )
        }
    };
    let certificate = Certificate {
        fingerprint,
        account,
        user,
        created: now,
        pem,
    };
    let mut shown = show_certificate(&certificate);
    shown["certificate"] = json!(certificate.pem);
    if let Some(private_key) = private_key {
        shown["private_key"] = json!(private_key.as_str());
    }
    engine.add_certificate(certificate).await?;
    Ok(shown)
}

fn show_certificate(certificate: &Certificate) -> Value {
    json!({
        "fingerprint": certificate.fingerprint,
        "account": certificate.account,
        "user": certificate.user,
        "created": when(certificate.created),
    })
}
