//! `cumulet serve`: the cloud, in the foreground.
//!
//! The order matters: what can be refused without making anything is refused
//! first, the data directory is locked before anything is read, the ports are
//! taken before anything is started, and the ready line comes when every door
//! answers.  A start that fails where no cloud was leaves none.  At the end
//! requests are finished, then reconcilers; guests run on.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use cumulet_engine::Engine;
use cumulet_host::api::Stop;
use cumulet_wire::held::Held;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::env::{ADDRESS_FILE, endpoint_of, quoted};
use crate::config::{Compute, Settings};
use crate::data_dir::{self, DataDir, Found, Purpose, write_durably};
use crate::http::{Connections, Doors, Front};
use crate::machine::{Inside, Machine};
use crate::wiring;
use crate::{control, descriptors, http, logging};

/// How long steps of reconcilers are waited for.
const RECONCILERS_PATIENCE: Duration = Duration::from_secs(10);
/// How often, and after which pause, a taken port is tried.
const LISTEN_TRIES: usize = 10;
const LISTEN_PAUSE: Duration = Duration::from_millis(20);
/// Until listeners that could not be opened inside the instances' network are tried again.
const REOPEN_PAUSE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Address and port of all doors; port 0 picks a free one.  127.0.0.1:8773 when not given.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// How instances are computed; qemu when not given.
    #[arg(long, value_enum)]
    compute: Option<Compute>,
    /// Ends the guests too when the server is told to stop; without it they run on.
    #[arg(long)]
    stop_instances: bool,
}

impl ServeArgs {
    /// Those that are settings.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let listen = self.listen.clone().map(|text| ("listen", text));
        let compute = self.compute.map(|it| ("compute", it.as_str().to_owned()));
        listen.into_iter().chain(compute).collect()
    }
}

pub(crate) fn run(settings: &Settings, args: &ServeArgs) -> anyhow::Result<ExitCode> {
    logging::start(&settings.log)?;
    check_rights(settings)?;
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .context("metrics did not start")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime did not start")?;
    let mut start = Start::new(&settings.data_dir)?;
    let result = runtime.block_on(serve(settings, args, metrics, &mut start));
    // Blocking work under way may be cut off anywhere; a restart repeats it.
    runtime.shutdown_timeout(Duration::from_secs(2));
    if result.is_err() {
        start.undo();
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// What a start found and made, so that one that fails leaves no cloud where none was.
struct Start {
    found: Found,
    dir: Option<Arc<DataDir>>,
    is_ready: bool,
}

impl Start {
    fn new(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            found: data_dir::look(path)?,
            dir: None,
            is_ready: false,
        })
    }

    fn open(&mut self, path: &Path) -> anyhow::Result<Arc<DataDir>> {
        let dir = Arc::new(DataDir::open(path, Purpose::Serve)?);
        self.dir = Some(dir.clone());
        Ok(dir)
    }

    /// The lock is still held, so that nobody else can have used what was made; and a cloud that
    /// another start made between the look and the lock is not this one's to remove.
    fn undo(self) {
        let Some(dir) = self.dir.filter(|dir| dir.is_new() && !self.is_ready) else {
            return;
        };
        if let Err(error) = super::uninstall::discard(&dir, self.found == Found::Absent) {
            eprintln!(
                "cumulet: what was made in {} is still there ({error:#}); `cumulet uninstall --purge` removes it",
                dir.path().display()
            );
        }
    }
}

/// Virtual machines need root: taps, namespaces, user ids of their own.
fn check_rights(settings: &Settings) -> anyhow::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    if settings.compute == Compute::Qemu && !is_root {
        let words: Vec<String> = std::env::args().collect();
        bail!(
            "virtual machines need root; type\n  sudo {}\nor run without machines: cumulet serve --compute simulated",
            words.join(" ")
        );
    }
    Ok(())
}

async fn serve(
    settings: &Settings,
    args: &ServeArgs,
    metrics: PrometheusHandle,
    start: &mut Start,
) -> anyhow::Result<()> {
    wiring::check_host(settings)?;
    // Of two servers with the same settings the second is told of the first, not of its port.
    let early = match start.found {
        Found::Ours => Some(start.open(&settings.data_dir)?),
        Found::Absent | Found::Free => None,
    };
    let listener = listen(settings.listen).await?;
    let metrics_listener = match settings.metrics.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let dir = match early {
        Some(dir) => dir,
        None => start.open(&settings.data_dir)?,
    };
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;

    let (cloud, reconcilers) = wiring::start(&dir, settings).await?;
    let held = Held::new(settings.limits.held_bytes);
    let front = Arc::new(Front {
        doors: Doors::new(&cloud, settings, held.clone()),
        domains: settings.domains.clone(),
        limits: settings.limits.clone(),
        held,
    });
    let (stop, stopped) = watch::channel(false);
    let connections_max = descriptors::connections(settings);
    let connections = Connections::new(connections_max);
    let inside = match &cloud.machine {
        Some(machine) => {
            let laid = machine.network.laid();
            let inside = machine
                .listen_inside()
                .context("the doors cannot be opened inside the instances' network")?;
            let doors = InsideDoors {
                machine: machine.clone(),
                // Guests have places of their own, so that they cannot take those of everybody
                // else, and one of them has not all of those.
                connections: Connections::with_peers_max(
                    (connections_max / 2).max(16),
                    (connections_max / 16).max(8),
                ),
                front: front.clone(),
                metadata: wiring::metadata(&cloud, &dir)?,
            };
            Some((doors, inside, laid))
        }
        None => None,
    };
    let control_socket = control::bind(dir.path()).context("the control socket cannot be made")?;
    write_durably(
        &dir.join(ADDRESS_FILE),
        format!("{address}\n").as_bytes(),
        0o600,
    )?;

    // From here nothing fails, and what is acknowledged stays.
    start.is_ready = true;
    let mut servers = JoinSet::new();
    servers.spawn(serve_doors(listener, connections, front, stopped.clone()));
    if let Some((doors, inside, laid)) = inside {
        servers.spawn(serve_inside(doors, inside, laid, stopped.clone()));
    }
    let operators = control::start(
        control_socket,
        cloud.engine.clone(),
        cloud.source.clone(),
        metrics.clone(),
        settings.limits.clone(),
        stopped.clone(),
    );
    servers.spawn(async move {
        let _ = operators.await;
    });
    if let Some(listener) = metrics_listener {
        servers.spawn(serve_metrics(
            listener,
            settings,
            cloud.engine.clone(),
            metrics,
            stopped.clone(),
        ));
    }
    for difference in &cloud.differences {
        tracing::warn!("{difference}");
    }
    announce(settings, &dir, address, cloud.is_new);

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = cloud.store.failed() => Some(failure),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    while servers.join_next().await.is_some() {}
    reconcilers.stop(RECONCILERS_PATIENCE).await;
    if args.stop_instances {
        stop_instances(&cloud.engine, settings).await;
    }
    let _ = std::fs::remove_file(dir.join(ADDRESS_FILE));
    let _ = std::fs::remove_file(wiring::control_socket(dir.path()));
    match failure {
        None => Ok(()),
        Some(failure) => Err(failure)
            .context("the records cannot be written; start the server again when that is mended"),
    }
}

/// Tries a taken port again for a moment, as a killed server may still have a child that holds it
/// (see the lock of the data directory).
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    for _ in 0..LISTEN_TRIES {
        match TcpListener::bind(address).await {
            Err(cause) if cause.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(LISTEN_PAUSE).await;
            }
            other => return other.with_context(|| taken(address)),
        }
    }
    TcpListener::bind(address)
        .await
        .with_context(|| taken(address))
}

fn taken(address: SocketAddr) -> String {
    format!(
        "{address} cannot be listened on; give another with --listen ADDR:PORT (port 0 picks a free one)"
    )
}

/// The ready line, and for people what to do next.
fn announce(settings: &Settings, dir: &DataDir, address: SocketAddr, is_new: bool) {
    use std::io::Write;
    let endpoint = endpoint_of(address);
    tracing::info!(
        endpoint,
        compute = settings.compute.as_str(),
        data_dir = %dir.path().display(),
        cloud = dir.cloud_id(),
        is_new,
        "ready; for your tools: eval \"$(cumulet env --data-dir {})\"",
        quoted(&dir.path().display().to_string())
    );
    // Whoever waits for the line may have gone; the server stays.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready {endpoint}").and_then(|()| out.flush());
}

async fn serve_doors(
    listener: TcpListener,
    connections: Connections,
    front: Arc<Front>,
    stopped: watch::Receiver<bool>,
) {
    let limits = front.limits.clone();
    http::serve(listener, connections, limits, stopped, move |request| {
        front.clone().answer(request)
    })
    .await;
}

async fn is_stopped(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// What the listeners inside the instances' network need.
struct InsideDoors {
    machine: Machine,
    connections: Connections,
    front: Arc<Front>,
    metadata: Arc<cumulet_door_metadata::Metadata>,
}

/// Serves guests; opens the listeners again whenever their namespace was made anew, since those of
/// the old one hear nobody.
async fn serve_inside(
    doors: InsideDoors,
    first: Inside,
    mut laid: watch::Receiver<u64>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut inside = Some(first);
    loop {
        let mut servers = JoinSet::new();
        let (stop, these_stopped) = watch::channel(false);
        let listeners = match inside.take() {
            Some(found) => Ok(found),
            None => {
                let machine = doors.machine.clone();
                let opened = tokio::task::spawn_blocking(move || machine.listen_inside()).await;
                opened.map_err(anyhow::Error::from).flatten()
            }
        };
        let pair = listeners.and_then(|it| {
            let listener = TcpListener::from_std(it.doors)?;
            Ok((listener, TcpListener::from_std(it.metadata)?))
        });
        let wait = match pair {
            Ok((listener, metadata)) => {
                let (connections, front) = (doors.connections.clone(), doors.front.clone());
                servers.spawn(serve_doors(
                    listener,
                    connections,
                    front,
                    these_stopped.clone(),
                ));
                servers.spawn(serve_metadata(
                    metadata,
                    doors.metadata.clone(),
                    these_stopped,
                ));
                Duration::MAX
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "guests cannot reach the doors"
                );
                REOPEN_PAUSE
            }
        };
        tokio::select! {
            () = is_stopped(&mut stopped) => {
                stop.send_replace(true);
                while servers.join_next().await.is_some() {}
                return;
            }
            _ = laid.changed() => tracing::info!("the doors are opened again inside the instances' network"),
            () = tokio::time::sleep(wait) => {}
        }
        stop.send_replace(true);
    }
}

async fn serve_metadata(
    listener: TcpListener,
    metadata: Arc<cumulet_door_metadata::Metadata>,
    mut stopped: watch::Receiver<bool>,
) {
    cumulet_door_metadata::serve(listener, metadata, async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    })
    .await;
}

fn serve_metrics(
    listener: TcpListener,
    settings: &Settings,
    engine: Engine,
    metrics: PrometheusHandle,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<> {
    let limits = settings.limits.clone();
    http::serve(
        listener,
        Connections::new(16),
        limits,
        stopped,
        move |_request| std::future::ready(control::metrics_answer(&engine, &metrics)),
    )
}

/// Switches every guest off; what they are meant to be stays recorded.
async fn stop_instances(engine: &Engine, settings: &Settings) {
    let host = engine.host();
    let ids = match host.vms.vms().await {
        Ok(ids) => ids,
        Err(error) => {
            tracing::error!(%error, "the guests cannot be listed");
            return;
        }
    };
    let mut ends = JoinSet::new();
    let patience_ms = settings.instances.shutdown_patience_ms;
    for id in ids {
        let vms = host.vms.clone();
        ends.spawn(async move {
            if let Err(error) = vms.ensure_stopped(id, Stop::Graceful { patience_ms }).await {
                tracing::error!(instance = %id, %error, "a guest was not stopped");
            }
        });
    }
    while ends.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_removes_its_own_cloud_and_no_other() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("cloud");
        let mut failed = Start::new(&path).unwrap();
        // Between the look and the lock another start made a cloud, and ended.
        drop(DataDir::open(&path, Purpose::Serve).unwrap());
        std::fs::write(path.join("kept"), b"").unwrap();
        failed.open(&path).unwrap();
        failed.undo();
        assert!(path.join("kept").exists());
        assert_eq!(data_dir::look(&path).unwrap(), Found::Ours);

        let path = outer.path().join("other");
        let mut failed = Start::new(&path).unwrap();
        failed.open(&path).unwrap();
        failed.undo();
        assert!(!path.exists());
    }
}
