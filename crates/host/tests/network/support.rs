//! A host of the test's own, a world outside it, and guests on taps.
//!
//! Every test gets a thread with its own network and mount namespaces: for the
//! code under test this is the host.  All of it ends with the thread, whatever
//! happened; nothing of the real host is touched.
#![expect(unsafe_code, reason = "a guest's own tap is attached by an ioctl")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use cumulet_domain::InstanceId;
use cumulet_domain::network::Ipv4Net;
use cumulet_host::api::{Mac, Network, Port};
use cumulet_host::net::{KernelNetwork, NetConfig, plan_ground};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::event::{PollFd, PollFlags, poll};

/// The host's own address on the link to the outside.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Machines outside: one in the world, one in a private range.
pub(crate) const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

mod requests {
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, std::mem::size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
}

/// Runs the test on a host of its own, with a link to the namespace `outside`.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        sh("ip netns add outside
            ip link set lo up
            ip link add eth0 type veth peer name wan netns outside
            ip addr add 192.0.2.2/24 dev eth0
            ip link set eth0 up
            ip -n outside addr add 192.0.2.1/24 dev wan
            ip -n outside addr add 198.51.100.7/32 dev wan
            ip -n outside addr add 192.168.77.1/32 dev wan
            ip -n outside link set lo up
            ip -n outside link set wan up
            ip route add default via 192.0.2.1");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a script on the host; it must succeed.
pub(crate) fn sh(script: &str) -> String {
    let output = try_sh(script);
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn try_sh(script: &str) -> Output {
    Command::new("bash")
        .args(["-e", "-c", script])
        .output()
        .unwrap()
}

/// Everything on the host that a cloud could have changed, as text.
pub(crate) fn host_state() -> String {
    sh("ip -o link | sed 's/@if[0-9]*//' | cut -d: -f2 ; ip -4 route show table all; ip netns list | cut -d' ' -f1
        nft list ruleset; find /run; ip rule
        cd /proc/sys/net/ipv4; for f in ip_forward conf/*/*; do echo $f $(cat $f); done")
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn instance(number: u32) -> InstanceId {
    format!("i-{number:017x}").parse().unwrap()
}

pub(crate) fn config(cloud_id: &str, second: u8) -> NetConfig {
    let wish = Ipv4Net {
        address: Ipv4Addr::new(10, second, 0, 0),
        prefix: 16,
    };
    let mut config = NetConfig::new(cloud_id, plan_ground(Some(wish), cloud_id).unwrap());
    config.domain = "ec2.internal".into();
    config
}

pub(crate) fn network(config: &NetConfig) -> KernelNetwork {
    let network = KernelNetwork::new(config.clone()).unwrap();
    block_on(network.ensure_ground()).unwrap();
    network
}

/// The port of a guest with this last number in its address.
pub(crate) fn port(config: &NetConfig, last: u8) -> Port {
    let [a, b, ..] = config.plan.guest_network.octets();
    Port {
        instance: instance(u32::from(last)),
        mac: Mac([2, 0xc5, a, b, 0, last]),
        address: Ipv4Addr::new(a, b, 0, last),
        host_name: format!("ip-{a}-{b}-0-{last}"),
    }
}

/// Carries frames between two taps until it is dropped.
struct Wire {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn between(one: OwnedFd, other: OwnedFd) -> Self {
        let (stopped, stop) = rustix::pipe::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 70_000];
            loop {
                let mut wait = [
                    PollFd::new(&one, PollFlags::IN),
                    PollFd::new(&other, PollFlags::IN),
                    PollFd::new(&stopped, PollFlags::IN),
                ];
                poll(&mut wait, None).unwrap();
                if !wait[2].revents().is_empty() {
                    return;
                }
                for (from, to) in [(&one, &other), (&other, &one)] {
                    while let Ok(len) = rustix::io::read(from, &mut frame[..]) {
                        // A full or closed end loses the frame, as wires do.
                        let _ = rustix::io::write(to, &frame[..len]);
                    }
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// A machine on a tap: a namespace with the kernel's own network in it.
pub(crate) struct Guest {
    name: String,
    _wire: Wire,
}

impl Guest {
    /// Makes the port, and a guest with the port's MAC on it that has no address yet.
    pub(crate) fn boot(network: &KernelNetwork, port: &Port) -> Self {
        block_on(network.ensure_port(port)).unwrap();
        let tap = block_on(network.open_tap(port.instance)).unwrap();
        let name = format!("guest-{}", port.address);
        sh(&format!("ip netns add {name}"));
        let own = inside(&name, || attach_tap("eth0"));
        let guest = Self {
            name,
            _wire: Wire::between(tap, own),
        };
        guest.sh(&format!(
            "ip link set lo up; ip link set eth0 address {}; ip link set eth0 up
             echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce",
            port.mac
        ));
        guest
    }

    /// Like `boot`, with an address by DHCP.
    pub(crate) fn with_lease(network: &KernelNetwork, port: &Port) -> Self {
        let guest = Self::boot(network, port);
        guest.dhcp();
        guest
    }

    /// Asks for a lease and applies it; returns what the client was told.
    pub(crate) fn dhcp(&self) -> String {
        let script = format!("/run/{}.script", self.name);
        let text = "#!/bin/sh
            if [ \"$1\" = bound ]; then
              ip addr flush dev eth0
              ip addr add $ip/$mask broadcast $broadcast dev eth0
              ip link set eth0 mtu $mtu
              ip route add default via $router
              env
            fi\n";
        std::fs::write(&script, text).unwrap();
        self.sh(&format!(
            "chmod +x {script}; busybox udhcpc -i eth0 -n -q -f -t 5 -T 1 -s {script}"
        ))
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(
            output.status.success(),
            "{script}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_sh(&self, script: &str) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.name, "bash", "-e", "-c", script])
            .output()
            .unwrap()
    }

    /// Ends the guest and removes what it left on the test's host.
    pub(crate) fn end(self) {
        let name = self.name.clone();
        drop(self);
        sh(&format!("ip netns del {name}; rm -f /run/{name}.script"));
    }

    /// Does something with sockets as a program in the guest.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.name, act)
    }

    /// Whether an echo comes back; some repetitions, each short.
    pub(crate) fn can_ping(&self, address: Ipv4Addr) -> bool {
        self.try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 {address}"))
            .status
            .success()
    }
}

/// Acts on a thread in the namespace of this name.
pub(crate) fn inside<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(PathBuf::from("/run/netns").join(name)).unwrap();
    std::thread::scope(|scope| {
        let entered = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        scope.spawn(entered).join().unwrap()
    })
}

/// Whether the host gets an echo from the address.
pub(crate) fn host_can_ping(address: Ipv4Addr) -> bool {
    try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 {address}"))
        .status
        .success()
}

/// Counts packets outside that match, from now on.
pub(crate) fn count_outside(name: &str, matching: &str) {
    sh(&format!(
        "ip netns exec outside nft 'add table ip {name}; \
         add chain ip {name} c {{ type filter hook prerouting priority 0; }}; \
         add rule ip {name} c {matching} counter'"
    ));
}

pub(crate) fn counted_outside(name: &str) -> u64 {
    let text = sh(&format!("ip netns exec outside nft list chain ip {name} c"));
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

fn attach_tap(name: &str) -> OwnedFd {
    let tap = rustix::fs::open(
        "/dev/net/tun",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    // SAFETY: `ifreq` is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap();
    }
    // SAFETY: the request is a whole `ifreq`, alive during the call.
    unsafe { requests::set_interface(tap.as_raw_fd(), &raw const request) }.unwrap();
    tap
}
