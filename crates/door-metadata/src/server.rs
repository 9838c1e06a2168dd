//! Moves bytes: connections in, answers out, within limits.
//!
//! A guest can do no more here than take its own share: connections are
//! counted by address, each has little memory and an end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cumulet_domain::Timestamp;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::answer::{self, Answer, Asked};
use crate::facts::{Facts, Source};
use crate::token::TokenKey;

const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_PER_PEER_MAX: usize = 32;
const HEADERS_MAX: usize = 64;
/// Bytes of a request's head.
const HEAD_LEN_MAX: usize = 16 * 1024;
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Longest life of a connection.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// How long requests have to finish when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Rest after a connection could not be accepted, as when descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What the service needs from outside.
pub struct Metadata {
    pub source: Arc<dyn Source>,
    pub key: TokenKey,
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Serves until `shutdown` resolves; then lets requests finish for a moment.
pub async fn serve(
    listener: TcpListener,
    metadata: Arc<Metadata>,
    shutdown: impl Future<Output = ()>,
) {
    let peers = Arc::new(Peers::default());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a metadata connection was not accepted");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        // One too many is closed, which the guest sees at once.
        if connections.len() < CONNECTIONS_MAX
            && let Some(place) = Peers::enter(&peers, peer.ip())
        {
            let watcher = graceful.watcher();
            let metadata = metadata.clone();
            connections.spawn(async move {
                let _place = place;
                let connection = connection(stream, peer, metadata);
                match connection {
                    Ok(connection) => {
                        // How a guest ends its connection is its own affair.
                        let _ = tokio::time::timeout(LIFE_MAX, watcher.watch(connection)).await;
                    }
                    Err(error) => tracing::debug!(%error, "a metadata connection was not set up"),
                }
            });
        }
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("metadata connections are cut off");
    }
    connections.shutdown().await;
}

/// The protocol on one connection.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    metadata: Arc<Metadata>,
) -> std::io::Result<impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error>> {
    // A second descriptor of the socket, for the hop limit of tokens.
    let socket = Arc::new(StdTcpStream::from(stream.as_fd().try_clone_to_owned()?));
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&metadata, peer, &request, &socket);
        async move { Ok::<_, Infallible>(response.map(Full::new)) }
    });
    Ok(http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service))
}

fn respond(
    metadata: &Metadata,
    peer: SocketAddr,
    request: &Request<Incoming>,
    socket: &StdTcpStream,
) -> Response<Bytes> {
    let facts = match ipv4_of(peer).and_then(|address| metadata.source.instance_at(address)) {
        Some(facts) => facts,
        None => {
            tracing::debug!(%peer, "metadata was asked for by no instance");
            return answer::error(StatusCode::NOT_FOUND);
        }
    };
    let asked = Asked {
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
    };
    let answer = answer::answer(&asked, &facts, &metadata.key, (metadata.now)());
    tracing::debug!(
        instance = %facts.instance,
        method = %asked.method,
        path = asked.path,
        status = answer.response.status().as_u16(),
        "metadata"
    );
    limit_hops(answer, &facts, socket)
}

/// A token travels only as far as the instance allows: with the usual limit of one hop a container
/// behind the instance's own routing does not get it.
fn limit_hops(answer: Answer, facts: &Facts, socket: &StdTcpStream) -> Response<Bytes> {
    if answer.has_token
        && let Err(error) = socket.set_ttl(u32::from(facts.hop_limit.max(1)))
    {
        tracing::warn!(%error, "the hop limit of a token could not be set");
        return answer::error(StatusCode::INTERNAL_SERVER_ERROR);
    }
    answer.response
}

fn ipv4_of(peer: SocketAddr) -> Option<Ipv4Addr> {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// How many connections each peer has.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place; given back when dropped.
struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    fn enter(peers: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut counts = peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: peers.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
