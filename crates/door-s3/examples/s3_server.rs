//! The S3 door alone, for trying clients: `s3_server DIR PORT ID=SECRET=ACCOUNT …`.
//!
//! Prints `ready http://127.0.0.1:PORT` once it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cumulet_auth::{Key, Keys, Principal};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_s3::{Config, Door, Outcome};
use cumulet_objects::ObjectStore;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use zeroize::Zeroizing;

struct Fixed(BTreeMap<String, (String, AccountId)>);

impl Keys for Fixed {
    fn find(&self, access_key_id: &str) -> Option<Key> {
        let (secret, account) = self.0.get(access_key_id)?;
        Some(Key {
            secret: Zeroizing::new(secret.clone()),
            versions: BTreeSet::from([2, 4]),
            principal: Principal {
                account: *account,
                user: "user".into(),
                access_key_id: access_key_id.to_owned(),
            },
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the program here, and there is no other clock"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("a directory is needed")?;
    let port: u16 = arguments.next().ok_or("a port is needed")?.parse()?;
    let mut keys = BTreeMap::new();
    for text in arguments {
        let parts: Vec<&str> = text.split('=').collect();
        let [id, secret, account] = parts[..] else {
            return Err("keys have the form ID=SECRET=ACCOUNT".into());
        };
        keys.insert(id.to_owned(), (secret.to_owned(), account.parse()?));
    }
    std::fs::create_dir_all(&dir)?;
    let config = Config {
        held: cumulet_wire::held::Held::new(256 << 20),
        region: "us-east-1".into(),
        domains: vec!["s3.cloud.test".into(), "s3.localhost".into()],
        clock: Arc::new(now),
    };
    let door = Door::new(
        ObjectStore::open(Path::new(&dir))?,
        Arc::new(Fixed(keys)),
        config,
    );
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let mut out = std::io::stdout();
    writeln!(out, "ready http://{}", listener.local_addr()?)?;
    out.flush()?;
    let mut count = 0_u64;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let door = door.clone();
        count += 1;
        let connection = count;
        let service = service_fn(move |request| {
            let door = door.clone();
            async move {
                let request: http::Request<hyper::body::Incoming> = request;
                let line = format!("{} {}", request.method(), request.uri());
                let response = door.answer(request, &format!("{connection:016X}")).await;
                let outcome = response.extensions().get::<Outcome>().cloned();
                eprintln!("{line} {} {outcome:?}", response.status());
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let served = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(cause) = served {
                eprintln!("a connection ended: {cause}");
            }
        });
    }
}
