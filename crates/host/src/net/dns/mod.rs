//! The name server of the instances, at the gateway's address.
//!
//! Names of instances are answered from their ports; everything else is asked
//! of the host's own name servers, through sockets of the host, so that it also
//! works where guests could not reach these servers themselves.  Nothing is
//! kept: there is no cache to poison.
//!
//! It listens in the namespace and asks from outside of it.  A thread with a
//! small runtime of its own does all of it and ends when the [`Server`] is dropped.

mod packet;
mod zone;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::packet::{Query, Rcode};
pub(super) use self::zone::Zone;
use super::background::Background;
use crate::api::{HostError, Result};

const PORT: u16 = 53;
/// Longest datagram; what is longer is cut off, which no reader takes for an answer.
const MESSAGE_LEN_MAX: usize = 4_096;
/// How long one name server has to answer.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(2);
/// Longest life of a connection.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
/// Questions that are being asked for one guest, and for all.
const PENDING_PER_PEER_MAX: usize = 64;
const PENDING_MAX: usize = 1_024;
/// Rest after a socket failed, so that a lasting failure does not spin.
const ERROR_REST: Duration = Duration::from_millis(50);

/// The two sockets of the server.
pub(super) struct Sockets {
    udp: StdSocket,
    tcp: StdListener,
}

/// Opens the sockets at the gateway's address, in the caller's namespace.
pub(super) fn bind(gateway: Ipv4Addr) -> Result<Sockets> {
    let bound = || -> std::io::Result<Sockets> {
        let udp = StdSocket::bind((gateway, PORT))?;
        udp.set_nonblocking(true)?;
        let tcp = StdListener::bind((gateway, PORT))?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets { udp, tcp })
    };
    bound().map_err(|error| HostError::new("could not open the name server's sockets", error))
}

/// A running server; it ends when this is dropped.
pub(super) type Server = Background<oneshot::Sender<()>>;

/// Serves on sockets of the namespace; questions for others leave from the caller's.
pub(super) fn start(sockets: Sockets, zone: Zone, upstreams: Vec<Ipv4Addr>) -> Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| HostError::new("could not start the name server", error))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shared = Arc::new(Shared {
        zone,
        upstreams,
        pending: Mutex::default(),
    });
    Background::start("dns", stop, move || {
        let served = runtime.block_on(async {
            tokio::select! {
                _ = stopped => Ok(()),
                ended = serve(sockets, shared) => ended,
            }
        });
        if let Err(error) = served {
            tracing::error!(%error, "the name server has ended");
        }
    })
}

struct Shared {
    zone: Zone,
    upstreams: Vec<Ipv4Addr>,
    /// How many questions of each guest are being answered.
    pending: Mutex<HashMap<IpAddr, usize>>,
}

/// A guest's place among the pending; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    peer: IpAddr,
}

impl Place {
    fn enter(shared: &Arc<Shared>, peer: IpAddr) -> Option<Self> {
        let mut pending = shared
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = pending.entry(peer).or_default();
        if *count >= PENDING_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Self {
            shared: shared.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = self
            .shared
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pending.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.peer);
            }
        }
    }
}

async fn serve(sockets: Sockets, shared: Arc<Shared>) -> std::io::Result<()> {
    let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
    let tcp = TcpListener::from_std(sockets.tcp)?;
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MESSAGE_LEN_MAX];
    loop {
        tokio::select! {
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            received = udp.recv_from(&mut buffer) => match received {
                Ok((len, peer)) => {
                    let message = buffer.get(..len).unwrap_or_default().to_vec();
                    if tasks.len() < PENDING_MAX && let Some(place) = Place::enter(&shared, peer.ip()) {
                        tasks.spawn(answer_datagram(place, udp.clone(), peer, message));
                    }
                }
                Err(error) => rest("a question was not received", &error).await,
            },
            accepted = tcp.accept() => match accepted {
                Ok((stream, peer)) => {
                    if tasks.len() < PENDING_MAX && let Some(place) = Place::enter(&shared, peer.ip()) {
                        tasks.spawn(async move {
                            // How a guest ends its connection is its own affair.
                            let _ = timeout(CONNECTION_LIFE, answer_connection(&place, stream)).await;
                        });
                    }
                }
                Err(error) => rest("a connection was not accepted", &error).await,
            },
        }
    }
}

async fn rest(what: &'static str, error: &std::io::Error) {
    tracing::debug!(%error, "name server: {what}");
    tokio::time::sleep(ERROR_REST).await;
}

async fn answer_datagram(place: Place, socket: Arc<UdpSocket>, peer: SocketAddr, message: Vec<u8>) {
    if let Some(answer) = answer(&place.shared, &message, Way::Datagram).await
        && let Err(error) = socket.send_to(&answer, peer).await
    {
        tracing::debug!(%peer, %error, "a name server's answer was not sent");
    }
}

/// Messages on a connection have their length before them.
async fn answer_connection(place: &Place, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let message = read_message(&mut stream).await?;
        let Some(answer) = answer(&place.shared, &message, Way::Connection).await else {
            return Ok(());
        };
        write_message(&mut stream, &answer).await?;
    }
}

/// The next message; its length says that it is at most 64 KiB.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let len = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    // In one write: some readers expect length and message in one piece.
    stream
        .write_all(&[&len.to_be_bytes(), message].concat())
        .await
}

/// How a question came, and so how it is passed on.
#[derive(Clone, Copy)]
enum Way {
    Datagram,
    Connection,
}

/// What is answered without asking another server, for the fuzz targets.
pub(super) fn answer_alone(zone: &Zone, message: &[u8]) -> Option<Vec<u8>> {
    let query = Query::parse(message)?;
    let answer = zone.answer(&query);
    Some(answer.unwrap_or_else(|| query.refuse(Rcode::ServerFailure)))
}

/// The answer to a message; `None` if it is no question at all.
async fn answer(shared: &Shared, message: &[u8], way: Way) -> Option<Vec<u8>> {
    let query = Query::parse(message)?;
    if let Some(known) = shared.zone.answer(&query) {
        return Some(known);
    }
    for upstream in &shared.upstreams {
        let server = SocketAddr::from((*upstream, PORT));
        let asked = async {
            match way {
                Way::Datagram => ask_by_datagram(server, message, &query).await,
                Way::Connection => ask_by_connection(server, message, &query).await,
            }
        };
        match timeout(UPSTREAM_PATIENCE, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server failed"),
            Err(_) => tracing::debug!(%server, "a name server did not answer in time"),
        }
    }
    Some(query.refuse(Rcode::ServerFailure))
}

/// From a port of its own that hears this server only.
async fn ask_by_datagram(
    server: SocketAddr,
    message: &[u8],
    query: &Query<'_>,
) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; MESSAGE_LEN_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..len).unwrap_or_default();
        if query.is_answered_by(answer) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_by_connection(
    server: SocketAddr,
    message: &[u8],
    query: &Query<'_>,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, message).await?;
    let answer = read_message(&mut stream).await?;
    if query.is_answered_by(&answer) {
        return Ok(answer);
    }
    Err(std::io::Error::other("the answer is to another question"))
}
