//! The network of the instances, made of the kernel's own means: one namespace
//! per cloud, a routed tap per instance, nftables, and a DHCP server in it.
//!
//! ```text
//!                 host | namespace cumulet-<id>
//!                      |               lo: gateway, 169.254.169.254
//!  cu-<id> ------------|------- uplink
//!  uplink_host         |  uplink_inside     t<id> -- VM   (10.x.0.4/32, proxy ARP)
//!                      |                    t<id> -- VM   (10.x.0.5/32, proxy ARP)
//! ```
//!
//! Knows no API and no record: a [`Port`] is all it learns of an instance, and
//! what exists is read from the kernel.  Everything is done by two programs,
//! `ip` and `nft`, in batches: two processes for a port, whatever the size of
//! the cloud.  No process stays.  Names are made in [`names`], rules in
//! [`rules`], and [`ground`] says in which order things are laid.
//!
//! Invariants: a tap is up only when its rules are loaded; an element of the
//! rules without a tap admits nothing.

mod arp;
mod background;
mod command;
mod dhcp;
mod dns;
mod forwarding;
#[doc(hidden)]
pub mod fuzzing;
mod ground;
mod host_lock;
mod inventory;
mod lease;
mod names;
mod namespace;
mod plan;
mod resolvers;
mod rules;
mod tap;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cumulet_domain::InstanceId;
use cumulet_domain::network::Ipv4Net;

pub use self::inventory::{Inventory, forwarding_blockers, guest_addresses, inventory};
pub use self::plan::plan_ground;
pub use self::resolvers::{host_resolvers, reachable_resolvers};
pub use self::rules::METADATA;

use self::command::{ip_batch, nft};
use self::dhcp::Leases;
use self::lease::Terms;
use self::names::{CloudId, instance_of, tap_of};
use self::rules::Element;
use crate::api::{GroundPlan, HostError, Mac, Network, Port, Result};

/// The gateway as guests see it, on every tap: the same after any restart.
const GATEWAY_MAC: Mac = Mac([0x06, 0xc5, 0, 0, 0, 1]);
/// Longest that a guest is waited for.
const PATIENCE_MS_MAX: u64 = 60_000;
const GROUND_ATTEMPTS: u32 = 3;
const GROUND_REST: Duration = Duration::from_millis(200);

/// How a cloud's network is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Eight lower-case hexadecimal digits, the cloud's own; part of every name on the host.
    pub cloud_id: String,
    /// As recorded; see [`plan_ground`].
    pub plan: GroundPlan,
    /// Whether guests may reach private ranges behind the uplink (the host itself they never do).
    pub is_private_uplink_allowed: bool,
    /// TCP ports of ours at the gateway's address that guests may reach.
    pub doors_inside: Vec<u16>,
    /// Domain of the guests' host names, sent by DHCP; none when empty.
    pub domain: String,
    /// Name servers, sent by DHCP; none when empty.  See [`reachable_resolvers`].  Not sent when we
    /// serve names ourselves.
    pub resolvers: Vec<Ipv4Addr>,
    /// With these we serve names at the gateway's address: of instances from what we know, of
    /// others by asking these servers, from the host.  See [`host_resolvers`].  May be empty.
    pub dns_upstreams: Option<Vec<Ipv4Addr>>,
    /// Most connections that one guest may have open at a time.
    pub connections_per_port_max: u32,
}

impl NetConfig {
    /// The usual settings: no doors, no private ranges, no name servers.
    pub fn new(cloud_id: impl Into<String>, plan: GroundPlan) -> Self {
        Self {
            cloud_id: cloud_id.into(),
            plan,
            is_private_uplink_allowed: false,
            doors_inside: vec![],
            domain: String::new(),
            resolvers: vec![],
            dns_upstreams: None,
            connections_per_port_max: 4_096,
        }
    }
}

/// The production side of [`Network`].
///
/// Dropping it ends the DHCP and name servers and leaves everything else as it is.
#[derive(Clone)]
pub struct KernelNetwork(Arc<Inner>);

struct Inner {
    cloud: CloudId,
    config: NetConfig,
    /// Held while the host is changed.
    serving: Mutex<Option<Serving>>,
    leases: Arc<Leases>,
    /// How many namespaces were laid or found; listeners in an earlier one hear nobody.
    laid: tokio::sync::watch::Sender<u64>,
}

/// Servers and the namespace that they serve.
struct Serving {
    namespace: (u64, u64),
    dhcp: dhcp::Server,
    dns: Option<dns::Server>,
}

impl Serving {
    fn is_running(&self) -> bool {
        self.dhcp.is_running() && self.dns.as_ref().is_none_or(dns::Server::is_running)
    }
}

impl KernelNetwork {
    /// Touches nothing yet.
    ///
    /// # Errors
    /// When the cloud's id or the plan cannot be used.
    pub fn new(config: NetConfig) -> Result<Self> {
        let cloud = CloudId::parse(&config.cloud_id)?;
        check_plan(&config.plan)?;
        Ok(Self(Arc::new(Inner {
            cloud,
            config,
            serving: Mutex::new(None),
            leases: Arc::default(),
            laid: tokio::sync::watch::Sender::new(0),
        })))
    }

    /// A listener in the namespace, non-blocking, for the doors that guests reach: at the gateway's
    /// address, or at [`METADATA`].  The ground must be laid.  Blocks for about a millisecond.
    ///
    /// # Errors
    /// When the ground is not laid or the address is taken.
    pub fn listen_inside(&self, address: SocketAddr) -> Result<TcpListener> {
        namespace::inside(&self.0.cloud, || {
            let listen = || {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            listen().map_err(|error: std::io::Error| {
                HostError::new(
                    format!("could not listen at {address} inside the cloud"),
                    error,
                )
            })
        })
    }

    /// Changes whenever the namespace is another one than before: then listeners that
    /// [`Self::listen_inside`] gave are to be opened again.
    pub fn laid(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.laid.subscribe()
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| HostError::new("could not finish work on the network", error))?
    }
}

/// Held from before [`plan_ground`] until the ground is laid: what others lay meanwhile could not be
/// seen when choosing.
#[derive(Debug)]
pub struct RangesLock {
    _file: std::fs::File,
}

/// Waits for other clouds of this host that are choosing or laying their ranges.  Blocking.
///
/// # Errors
/// When the lock cannot be taken, or is held for a minute.
pub fn lock_ranges() -> Result<RangesLock> {
    let _file = host_lock::take(host_lock::RANGES)?;
    Ok(RangesLock { _file })
}

/// Removes what is on this host of a cloud that has no server: for `uninstall`.  Blocking.
///
/// # Errors
/// When something could not be removed; what was before it is removed, and it may be repeated.
pub fn uninstall(cloud_id: &str) -> Result<()> {
    ground::ensure_absent(&CloudId::parse(cloud_id)?)
}

fn guests_of(plan: &GroundPlan) -> Ipv4Net {
    Ipv4Net {
        address: plan.guest_network,
        prefix: plan.guest_prefix,
    }
}

fn check_plan(plan: &GroundPlan) -> Result<()> {
    let guests = guests_of(plan);
    let is_inside = |address: Ipv4Addr| guests.contains(address);
    let is_good = (8..=30).contains(&plan.guest_prefix)
        && is_inside(plan.gateway)
        && !is_inside(plan.uplink_host)
        && !is_inside(plan.uplink_inside)
        && plan.uplink_host != plan.uplink_inside;
    if is_good {
        return Ok(());
    }
    Err(HostError::permanent(
        "could not use the plan of the cloud's network",
        format!("{plan:?} does not hold together"),
        "Internal error on launch",
    ))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Serving>> {
        // A panic in between leaves a half-done change on the host, which the next one repairs.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_ground(&self) -> Result<()> {
        let mut serving = self.lock();
        let known: Vec<Element> = self.leases.lock().values().map(Element::of).collect();
        self.lay_ground(&known)?;
        let path = namespace::path(&self.cloud);
        let metadata = std::fs::metadata(&path).map_err(|error| {
            HostError::new(format!("could not look at {}", path.display()), error)
        })?;
        let namespace = (metadata.dev(), metadata.ino());
        let is_served = serving
            .as_ref()
            .is_some_and(|it| it.namespace == namespace && it.is_running());
        if is_served {
            return Ok(());
        }
        // Indices of links mean nothing in another namespace.
        self.leases.lock().clear();
        *serving = None;
        let socket = namespace::inside(&self.cloud, dhcp::bind)?;
        let dhcp = dhcp::start(socket, self.terms(), self.leases.clone())?;
        *serving = Some(Serving {
            namespace,
            dhcp,
            dns: self.start_dns()?,
        });
        self.laid.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Repeats a few times: a process of a server that was killed may still be at its last work.
    fn lay_ground(&self, known: &[Element]) -> Result<()> {
        plan::check_alone(&self.cloud, &self.config.plan)?;
        let mut attempt = 1;
        loop {
            match ground::ensure(&self.cloud, &self.config, known) {
                Err(error) if error.is_retryable && attempt < GROUND_ATTEMPTS => {
                    tracing::warn!(%error, attempt, "the cloud's network is laid once more");
                    std::thread::sleep(GROUND_REST);
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    fn start_dns(&self) -> Result<Option<dns::Server>> {
        let Some(upstreams) = &self.config.dns_upstreams else {
            return Ok(None);
        };
        let plan = &self.config.plan;
        let sockets = namespace::inside(&self.cloud, || dns::bind(plan.gateway))?;
        let zone = dns::Zone {
            domain: self.config.domain.to_ascii_lowercase(),
            guests: guests_of(plan),
            leases: self.leases.clone(),
        };
        dns::start(sockets, zone, upstreams.clone()).map(Some)
    }

    fn terms(&self) -> Terms {
        Terms {
            gateway: self.config.plan.gateway,
            prefix: self.config.plan.guest_prefix,
            domain: self.config.domain.clone(),
            resolvers: match self.config.dns_upstreams {
                Some(_) => vec![self.config.plan.gateway],
                None => self.config.resolvers.clone(),
            },
        }
    }

    fn remove_ground(&self) -> Result<()> {
        let mut serving = self.lock();
        // Its socket would keep the namespace alive.
        *serving = None;
        self.leases.lock().clear();
        ground::ensure_absent(&self.cloud)
    }

    fn ensure_port(&self, port: &Port) -> Result<()> {
        let plan = &self.config.plan;
        let guests = guests_of(plan);
        let doing = format!("could not make the port of {}", port.instance);
        if !guests.contains(port.address) || port.address == plan.gateway {
            let cause = format!("{} is no guest's address", port.address);
            return Err(HostError::permanent(
                doing,
                cause,
                "Internal error on launch",
            ));
        }
        if !namespace::exists(&self.cloud)? {
            tracing::warn!("the cloud's network namespace is gone; it is laid again");
            self.ensure_ground()?;
        }
        let _changing = self.lock();
        namespace::inside(&self.cloud, || {
            let tap = tap_of(port.instance);
            let element = Element::of(port);
            let link = namespace::link_index(&tap)?;
            if let Some(link) = link
                && self.leases.lock().get(&link) == Some(port)
            {
                return Ok(());
            }
            if link.is_none() {
                tap::ensure(&tap)?;
            }
            set_settings(&tap)?;
            let stale = admit(&doing, &element, link.is_none())?;
            bring_up(&doing, port, &element, &stale, plan.gateway)?;
            if let Some(link) = namespace::link_index(&tap)? {
                self.leases.lock().insert(link, port.clone());
            }
            Ok(())
        })
    }

    fn ensure_port_absent(&self, instance: InstanceId) -> Result<()> {
        let _changing = self.lock();
        if !namespace::exists(&self.cloud)? {
            return Ok(());
        }
        namespace::inside(&self.cloud, || {
            let tap = tap_of(instance);
            let doing = format!("could not remove the port of {instance}");
            let link = namespace::link_index(&tap)?;
            let known = link.and_then(|link| self.leases.lock().remove(&link));
            let stale = if let Some(port) = known {
                vec![Element::of(&port)]
            } else {
                let mut elements = ground::read_elements()?;
                elements.retain(|element| element.tap == tap);
                elements
            };
            if link.is_some() {
                ip_batch(&doing, &format!("link del dev {tap}\n"))?;
            }
            if stale.is_empty() {
                return Ok(());
            }
            nft(&doing, &rules::elements_change(&stale, None))
        })
    }

    fn open_tap(&self, instance: InstanceId) -> Result<OwnedFd> {
        namespace::inside(&self.cloud, || {
            let name = tap_of(instance);
            // Opening would make a missing one, without its rules.
            if namespace::link_index(&name)?.is_none() {
                return Err(HostError::new(
                    format!("could not open the tap of {instance}"),
                    "there is no such port",
                ));
            }
            tap::open(&name)
        })
    }

    fn is_plugged(&self, instance: InstanceId) -> Result<bool> {
        namespace::inside(&self.cloud, || tap::is_held(&tap_of(instance)))
    }

    fn ports(&self) -> Result<Vec<InstanceId>> {
        if !namespace::exists(&self.cloud)? {
            return Ok(vec![]);
        }
        let links = namespace::inside(&self.cloud, namespace::links)?;
        Ok(links.iter().filter_map(|name| instance_of(name)).collect())
    }

    fn is_reachable(&self, instance: InstanceId, patience: Duration) -> Result<bool> {
        namespace::inside(&self.cloud, || {
            let Some(link) = namespace::link_index(&tap_of(instance))? else {
                return Ok(false);
            };
            let port = self.leases.lock().get(&link).cloned().ok_or_else(|| {
                HostError::new(
                    format!("could not ask {instance}"),
                    "its port was not ensured since this program started",
                )
            })?;
            let question = arp::Question {
                link,
                own: GATEWAY_MAC,
                own_address: self.config.plan.gateway,
                mac: port.mac,
                address: port.address,
            };
            arp::answers(&question, patience)
        })
    }
}

/// Settings of a tap, in the caller's namespace: the guest believes that the whole range is on its
/// link; we answer for all of it, at once.
fn set_settings(tap: &str) -> Result<()> {
    for (name, value) in [
        (format!("conf/{tap}/proxy_arp"), "1"),
        (format!("neigh/{tap}/proxy_delay"), "0"),
        (format!("conf/{tap}/rp_filter"), "1"),
    ] {
        namespace::set_sysctl(&format!("ipv4/{name}"), value)?;
    }
    Ok(())
}

/// Loads the rules of a tap and returns what they replaced.
///
/// A new tap usually replaces nothing.  Otherwise, and where a removal was cut short and left the
/// address with a tap that is gone, the elements are read and the stale ones taken out.
fn admit(doing: &str, element: &Element, is_new: bool) -> Result<Vec<Element>> {
    if is_new && nft(doing, &rules::elements_change(&[], Some(element))).is_ok() {
        return Ok(vec![]);
    }
    let taps = namespace::links()?;
    let mut stale = ground::read_elements()?;
    stale.retain(|other| {
        let is_left = other.address == element.address && !taps.contains(&other.tap);
        other != element && (other.tap == element.tap || is_left)
    });
    nft(doing, &rules::elements_change(&stale, Some(element)))?;
    Ok(stale)
}

/// The tap up, with its route and neighbour; its rules are loaded.
fn bring_up(
    doing: &str,
    port: &Port,
    element: &Element,
    stale: &[Element],
    gateway: Ipv4Addr,
) -> Result<()> {
    let tap = &element.tap;
    let mut lines = String::new();
    for other in stale.iter().filter(|other| other.address != port.address) {
        // The old address of this tap: `flush` does not mind when it is gone.
        lines.push_str(&format!("route flush {}/32 dev {tap}\n", other.address));
        lines.push_str(&format!(
            "neigh flush to {} dev {tap} nud permanent\n",
            other.address
        ));
    }
    lines.push_str(&format!("link set dev {tap} alias {}\n", port.instance));
    lines.push_str(&ground::tap_up(element, gateway));
    ip_batch(doing, &lines)
}

#[async_trait]
impl Network for KernelNetwork {
    async fn ensure_ground(&self) -> Result<()> {
        self.blocking(Inner::ensure_ground).await
    }

    async fn remove_ground(&self) -> Result<()> {
        self.blocking(Inner::remove_ground).await
    }

    async fn ensure_port(&self, port: &Port) -> Result<()> {
        let port = port.clone();
        self.blocking(move |inner| inner.ensure_port(&port)).await
    }

    async fn ensure_port_absent(&self, instance: InstanceId) -> Result<()> {
        self.blocking(move |inner| inner.ensure_port_absent(instance))
            .await
    }

    async fn open_tap(&self, instance: InstanceId) -> Result<OwnedFd> {
        self.blocking(move |inner| inner.open_tap(instance)).await
    }

    async fn is_plugged(&self, instance: InstanceId) -> Result<bool> {
        self.blocking(move |inner| inner.is_plugged(instance)).await
    }

    async fn ports(&self) -> Result<Vec<InstanceId>> {
        self.blocking(Inner::ports).await
    }

    async fn is_reachable(&self, instance: InstanceId, patience_ms: u64) -> Result<bool> {
        let patience = Duration::from_millis(patience_ms.min(PATIENCE_MS_MAX));
        self.blocking(move |inner| inner.is_reachable(instance, patience))
            .await
    }
}
