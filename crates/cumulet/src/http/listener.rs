//! Accepting connections, within limits, until told to stop.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use super::Body;
use super::body::Sent;
use super::connections::{Connections, Place};
use super::paced::Paced;
use crate::config::Limits;

/// Wait after a failed accept: out of descriptors does not mend itself at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Something that connections come from.
pub(crate) trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection, and whose it is when that can be told.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
    /// What a connection needs once it is to be served.
    fn set_up(_stream: &Self::Stream, _limits: &Limits) -> io::Result<()> {
        Ok(())
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok((stream, Some(peer.ip())))
    }
    fn set_up(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
        // Answers are written whole: waiting for more would only delay them.
        stream.set_nodelay(true)?;
        // A client that is gone must not keep its place.
        sockopt::set_socket_keepalive(stream, true)?;
        let unread_ms = u32::try_from(limits.answer_timeout_ms).unwrap_or(u32::MAX);
        Ok(sockopt::set_tcp_user_timeout(stream, unread_ms)?)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, None))
    }
}

/// Serves until `stop` turns true, then finishes the requests under way and returns.
pub(crate) async fn serve<A, H, F>(
    listener: A,
    connections: Connections,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    answer: H,
) where
    A: Accept,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    // HTTP/1 alone: no client of these APIs speaks HTTP/2 in plain text, and telling the two apart
    // waits for first bytes without a time limit.
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // A client may say that it sends nothing more and wait for its answer, as HTTP/1.0 ones do.
        .half_close(true)
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(limits.header_bytes.max(16 * 1024));
    let mut is_starved = false;
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) if is_of_one_connection(&cause) => continue,
            Err(cause) => {
                // Told once: it would come twenty times a second.
                if !is_starved {
                    tracing::warn!(%cause, "connections cannot be accepted for now");
                }
                is_starved = true;
                connections.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_starved = false;
        let place = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            place = connections.place(peer) => place,
        };
        // One too many of a peer is closed, which it sees at once.
        let Some(place) = place else { continue };
        if let Err(cause) = A::set_up(&stream, &limits) {
            tracing::debug!(%cause, "a connection was gone at once");
            continue;
        }
        let patience = Duration::from_millis(limits.answer_timeout_ms);
        let stream = Paced::new(stream, patience, place.handle());
        let service = service_of(answer.clone(), &place);
        let connection = server.serve_connection(TokioIo::new(stream), service_fn(service));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = place.is_needed() => tracing::debug!("a connection made room for another"),
                done = watched => {
                    // Clients go away in the middle of things all the time.
                    if let Err(cause) = done {
                        tracing::debug!(%cause, "a connection ended badly");
                    }
                }
            }
        });
    }
    drop(listener);
    let patience = Duration::from_millis(limits.shutdown_timeout_ms);
    if tokio::time::timeout(patience, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests under way were cut off after the time that they are given");
    }
}

/// Whether only the connection failed that would have been accepted.
fn is_of_one_connection(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        cause.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Answers, and keeps the book of what the connection does.
fn service_of<H, F>(
    answer: H,
    place: &Place,
) -> impl Fn(Request<Incoming>) -> ServiceFuture + use<H, F>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let handle = place.handle();
    move |mut request| {
        let (answer, handle) = (answer.clone(), handle.clone());
        let may_begin = handle.works();
        Box::pin(async move {
            if !may_begin {
                let late = "the request came when the connection was being closed for another";
                return Err(io::Error::other(late));
            }
            let answering = handle.answering();
            request.extensions_mut().insert(handle);
            let response = answer(request).await;
            Ok(response.map(|body| Sent::new(body, answering)))
        })
    }
}

type ServiceFuture =
    std::pin::Pin<Box<dyn Future<Output = io::Result<Response<Sent>>> + Send + 'static>>;
