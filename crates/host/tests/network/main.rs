//! The network on real kernels: real taps, real rules, real DHCP clients.
//! Needs root, iproute2, nftables, busybox and ping.

mod crash;
mod names;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use cumulet_host::api::Network;
use cumulet_host::net::{
    KernelNetwork, METADATA, NetConfig, inventory, lock_ranges, plan_ground, uninstall,
};

use support::{
    Guest, HOST, PRIVATE, WORLD, block_on, config, count_outside, counted_outside, host_can_ping,
    host_state, network, on_a_host, port, sh, try_sh,
};

const ONE: &str = "0a1b2c3d";
const TWO: &str = "4e5f6071";

#[test]
fn a_guest_gets_its_lease_and_reaches_the_world() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let network = network(&config);
        let port = port(&config, 4);
        let guest = Guest::boot(&network, &port);
        let lease = guest.dhcp();
        for line in [
            "ip=10.210.0.4",
            "mask=16",
            "subnet=255.255.0.0",
            "broadcast=10.210.255.255",
            "router=10.210.0.1",
            "serverid=10.210.0.1",
            "hostname=ip-10-210-0-4",
            "domain=ec2.internal",
            "mtu=1500",
            "lease=4294967295",
        ] {
            assert!(
                lease.lines().any(|found| found == line),
                "{line} in {lease}"
            );
        }
        assert!(guest.can_ping(config.plan.gateway));
        count_outside("seen", &format!("ip saddr {HOST} icmp type echo-request"));
        assert!(guest.can_ping(WORLD), "translated on the way out");
        assert!(counted_outside("seen") > 0);
        assert!(host_can_ping(port.address), "the host reaches its guests");
        assert!(block_on(network.is_reachable(port.instance, 2_000)).unwrap());
        guest.sh("ip link set eth0 down");
        assert!(!block_on(network.is_reachable(port.instance, 600)).unwrap());
    });
}

#[test]
fn a_guest_without_dhcp_on_an_unplugged_port_is_not_reachable() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let network = network(&config);
        let port = port(&config, 4);
        assert!(!block_on(network.is_reachable(port.instance, 100)).unwrap());
        block_on(network.ensure_port(&port)).unwrap();
        assert!(!block_on(network.is_reachable(port.instance, 100)).unwrap());
        let held = block_on(network.open_tap(port.instance)).unwrap();
        assert!(
            block_on(network.open_tap(port.instance)).is_err(),
            "one machine per tap"
        );
        drop(held);
        block_on(network.open_tap(port.instance)).unwrap();
        let other = support::instance(99);
        assert!(block_on(network.open_tap(other)).is_err());
        assert_eq!(block_on(network.ports()).unwrap(), [port.instance]);
    });
}

/// Answers one request on each connection with the caller's address.
fn serve_peer_address(listener: std::net::TcpListener) {
    std::thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let body = peer.ip().to_string();
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
}

#[test]
fn doors_inside_are_reached_and_know_their_caller() {
    on_a_host(|| {
        let mut config = config(ONE, 210);
        config.doors_inside = vec![8773];
        let network = network(&config);
        let gateway = config.plan.gateway;
        for (address, door) in [(METADATA, 80), (gateway, 8773), (gateway, 8774)] {
            serve_peer_address(
                network
                    .listen_inside(SocketAddr::from((address, door)))
                    .unwrap(),
            );
        }
        let guest = Guest::with_lease(&network, &port(&config, 4));
        // Not by busybox: its wget crashes where names cannot be resolved.
        let get = |door: &str| format!("exec 3<>/dev/tcp/{door}; echo >&3; tail -n 1 <&3");
        let get = |door: &str| format!("timeout 2 bash -c '{}'", get(door));
        let from_guest = |door: &str| String::from_utf8(guest.try_sh(&get(door)).stdout).unwrap();
        assert_eq!(from_guest("169.254.169.254/80"), "10.210.0.4");
        assert_eq!(from_guest("10.210.0.1/8773"), "10.210.0.4");
        assert_eq!(from_guest("10.210.0.1/8774"), "", "a port that is no door");
        // Images of old route the link-local range to their link.
        guest.sh("ip route add 169.254.0.0/16 dev eth0");
        assert_eq!(from_guest("169.254.169.254/80"), "10.210.0.4");
        assert_eq!(try_sh(&get("10.210.0.1/8773")).stdout, b"", "guests only");
    });
}

#[test]
fn a_guest_speaks_only_for_itself() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let network = network(&config);
        let guest = Guest::with_lease(&network, &port(&config, 4));
        let _other = Guest::with_lease(&network, &port(&config, 5));
        count_outside("seen", "icmp type echo-request");
        guest.sh("ip addr add 10.210.0.5/32 dev eth0; ip addr add 203.0.113.9/32 dev eth0");
        for source in ["10.210.0.5", "203.0.113.9"] {
            assert!(
                !guest
                    .try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 -I {source} {WORLD}"))
                    .status
                    .success()
            );
        }
        assert_eq!(
            counted_outside("seen"),
            0,
            "nothing with a foreign source got out"
        );
        assert!(guest.can_ping(WORLD));
        let seen = counted_outside("seen");
        guest.sh(
            "ip link set eth0 address 02:c5:0a:d2:00:05; ip route replace default via 10.210.0.1",
        );
        assert!(!guest.can_ping(WORLD));
        assert_eq!(
            counted_outside("seen"),
            seen,
            "nothing with a foreign MAC got out"
        );
        // What it claims by ARP is not remembered.
        guest.sh("ip link set eth0 address 02:c5:0a:d2:00:04; busybox arping -c 2 -w 2 -s 10.210.7.7 -I eth0 10.210.0.1 || true");
        let neighbours = sh(&format!("ip -n cumulet-{ONE} neigh"));
        assert!(!neighbours.contains("10.210.7.7"), "{neighbours}");
    });
}

#[test]
fn what_guests_must_not_reach_they_do_not_reach() {
    on_a_host(|| {
        let mut config = config(ONE, 210);
        let network = network(&config);
        let guest = Guest::with_lease(&network, &port(&config, 4));
        let other = Guest::with_lease(&network, &port(&config, 5));
        assert!(guest.can_ping(config.plan.gateway) && other.can_ping(config.plan.gateway));
        for address in [
            Ipv4Addr::new(10, 210, 0, 5),
            Ipv4Addr::new(10, 210, 9, 9),
            HOST,
            config.plan.uplink_host,
            config.plan.uplink_inside,
            PRIVATE,
        ] {
            assert!(!guest.can_ping(address), "{address}");
        }
        count_outside(
            "seen",
            "ip daddr { 169.254.0.0/16, 100.100.100.200, 168.63.129.16, 192.0.0.192 }",
        );
        for address in [
            "169.254.1.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ] {
            assert!(!guest.can_ping(address.parse().unwrap()), "{address}");
        }
        assert_eq!(counted_outside("seen"), 0);
        // Nobody outside reaches a guest, even with a route to it.
        sh("ip -n outside route add 10.210.0.0/16 via 192.0.2.2");
        let from_outside = "ip netns exec outside ping -n -c 2 -i 0.2 -W 1";
        assert!(
            !try_sh(&format!("{from_outside} 10.210.0.4"))
                .status
                .success()
        );
        assert!(
            !try_sh(&format!("{from_outside} 10.210.0.1"))
                .status
                .success()
        );
        // The setting opens the private ranges, and nothing else.
        config.is_private_uplink_allowed = true;
        drop(network);
        let _network = support::network(&config);
        assert!(guest.can_ping(PRIVATE));
        assert!(!guest.can_ping(HOST) && !guest.can_ping(config.plan.uplink_host));
        assert!(!guest.can_ping(Ipv4Addr::new(10, 210, 0, 5)));
    });
}

#[test]
fn one_guest_cannot_take_all_connections() {
    on_a_host(|| {
        let mut config = config(ONE, 210);
        config.connections_per_port_max = 8;
        let network = network(&config);
        let guest = Guest::with_lease(&network, &port(&config, 4));
        let other = Guest::with_lease(&network, &port(&config, 5));
        count_outside("seen", "udp dport 9000-9099");
        let flood = format!("for p in $(seq 9000 9039); do echo x > /dev/udp/{WORLD}/$p; done");
        guest.sh(&flood);
        let seen = counted_outside("seen");
        assert!((1..=8).contains(&seen), "{seen}");
        assert!(other.can_ping(WORLD), "its neighbour does not notice");
    });
}

#[test]
fn removal_leaves_the_host_as_it_was() {
    on_a_host(|| {
        sh(
            "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects",
        );
        let before = host_state();
        let config = config(ONE, 210);
        let network = network(&config);
        let port = port(&config, 4);
        block_on(network.ensure_port(&port)).unwrap();
        let tap = block_on(network.open_tap(port.instance)).unwrap();
        let found = inventory(ONE).unwrap();
        assert_eq!(found.namespaces, ["cumulet-0a1b2c3d"]);
        assert_eq!(found.ports, [port.instance.to_string()]);
        assert!(
            found.routes.contains(&"10.210.0.0/16".to_owned()),
            "{found:?}"
        );
        assert_eq!(found.tables.len(), 1);
        assert!(
            found
                .settings
                .contains(&"net/ipv4/ip_forward was 0".to_owned()),
            "{found:?}"
        );
        block_on(network.remove_ground()).unwrap();
        assert!(inventory(ONE).unwrap().is_empty());
        assert_eq!(host_state(), before);
        drop(tap);
        block_on(network.remove_ground()).unwrap();
        assert_eq!(host_state(), before, "again changes nothing");
        // And laid again, it works again.
        block_on(network.ensure_ground()).unwrap();
        let guest = Guest::with_lease(&network, &port);
        assert!(guest.can_ping(WORLD));
        drop(network);
        uninstall(ONE).unwrap();
        guest.end();
        assert_eq!(host_state(), before);
    });
}

#[test]
fn two_clouds_live_side_by_side() {
    on_a_host(|| {
        let before = host_state();
        let (config_one, config_two) = (config(ONE, 210), config(TWO, 211));
        let (one, two) = (network(&config_one), network(&config_two));
        let guest_one = Guest::with_lease(&one, &port(&config_one, 4));
        let guest_two = Guest::with_lease(&two, &port(&config_two, 4));
        assert!(guest_one.can_ping(WORLD) && guest_two.can_ping(WORLD));
        let address_two = Ipv4Addr::new(10, 211, 0, 4);
        assert!(!guest_one.can_ping(address_two) && host_can_ping(address_two));
        block_on(one.remove_ground()).unwrap();
        assert!(inventory(ONE).unwrap().is_empty());
        assert!(guest_two.can_ping(WORLD), "the other cloud still forwards");
        block_on(two.remove_ground()).unwrap();
        guest_one.end();
        guest_two.end();
        assert_eq!(host_state(), before);
    });
}

#[test]
fn two_clouds_that_start_at_once_choose_different_ranges() {
    on_a_host(|| {
        let before = host_state();
        // Both begin their search at the same range.
        let same = "0a1b2cad";
        let first = lock_ranges().unwrap();
        let plan = plan_ground(None, ONE).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send(()).unwrap();
            let _ranges = lock_ranges().unwrap();
            plan_ground(None, same).unwrap()
        });
        told.recv().unwrap();
        let one = network(&NetConfig::new(ONE, plan.clone()));
        assert!(
            !other.is_finished(),
            "the lock is held until the ground is laid"
        );
        drop(first);
        let chosen = other.join().unwrap();
        assert_ne!(chosen.guest_network, plan.guest_network);

        // And one that comes with the same plan is refused, and lays nothing.
        let copy = KernelNetwork::new(NetConfig::new(same, plan)).unwrap();
        let refused = block_on(copy.ensure_ground()).unwrap_err();
        assert!(refused.to_string().contains(ONE), "{refused}");
        assert!(inventory(same).unwrap().is_empty());
        block_on(one.remove_ground()).unwrap();
        assert_eq!(host_state(), before);
    });
}

#[test]
fn a_broken_ground_is_repaired_under_running_guests() {
    on_a_host(|| {
        let config = config(ONE, 210);
        // A crash while the namespace was made: a name for nothing.
        sh(&format!(
            "mkdir -p /run/netns; touch /run/netns/cumulet-{ONE}"
        ));
        let network = network(&config);
        let guest = Guest::with_lease(&network, &port(&config, 4));
        assert!(guest.can_ping(WORLD));
        for damage in [
            format!("nft delete table inet cumulet_{ONE}"),
            format!("ip link del cu-{ONE}"),
            format!("ip -n cumulet-{ONE} route del default"),
            format!("ip -n cumulet-{ONE} addr del 10.210.0.1/32 dev lo"),
            "ip route del 10.210.0.0/16; echo 0 > /proc/sys/net/ipv4/ip_forward".into(),
            format!("ip netns exec cumulet-{ONE} nft flush chain inet cumulet forward"),
            format!("ip netns exec cumulet-{ONE} nft flush ruleset"),
            format!("ip -n cumulet-{ONE} route flush 10.210.0.4/32"),
        ] {
            sh(&damage);
            block_on(network.ensure_ground()).unwrap();
            assert!(guest.can_ping(WORLD), "{damage}");
            assert!(guest.can_ping(config.plan.gateway), "{damage}");
        }
    });
}

#[test]
fn a_new_server_finds_and_keeps_what_the_old_one_made() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let (kept, gone) = (port(&config, 4), port(&config, 5));
        let old = network(&config);
        let guest = Guest::with_lease(&old, &kept);
        block_on(old.ensure_port(&gone)).unwrap();
        drop(old);
        let new = network(&config);
        let mut ports = block_on(new.ports()).unwrap();
        ports.sort();
        assert_eq!(ports, [kept.instance, gone.instance]);
        assert!(guest.can_ping(WORLD));
        block_on(new.ensure_port(&kept)).unwrap();
        assert!(guest.dhcp().contains("ip=10.210.0.4"));
        assert!(block_on(new.is_reachable(kept.instance, 2_000)).unwrap());
        for _ in 0..2 {
            block_on(new.ensure_port_absent(gone.instance)).unwrap();
        }
        assert_eq!(block_on(new.ports()).unwrap(), [kept.instance]);
        let rules = sh(&format!("ip netns exec cumulet-{ONE} nft list ruleset"));
        assert!(
            rules.contains("10.210.0.4") && !rules.contains("10.210.0.5"),
            "{rules}"
        );
        assert!(!host_can_ping(gone.address));
        assert!(guest.can_ping(WORLD));
    });
}

#[test]
fn a_port_takes_the_address_it_is_given_last() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let network = network(&config);
        let mut port = port(&config, 4);
        block_on(network.ensure_port(&port)).unwrap();
        port.address = Ipv4Addr::new(10, 210, 0, 9);
        let guest = Guest::with_lease(&network, &port);
        assert!(guest.can_ping(WORLD) && host_can_ping(port.address));
        let rules = sh(&format!("ip netns exec cumulet-{ONE} nft list ruleset"));
        assert!(!rules.contains("10.210.0.4"), "{rules}");
        // A removal that was cut short: the tap is gone and its rules are not.
        sh(&format!(
            "ip -n cumulet-{ONE} link del $(ip -n cumulet-{ONE} -o link | grep -o 't[0-9a-v]\\{{14\\}}:' | tr -d :)"
        ));
        guest.end();
        let mut next = support::port(&config, 9);
        let guest = Guest::with_lease(&network, &next);
        assert!(guest.can_ping(WORLD) && host_can_ping(next.address));
        next.address = config.plan.gateway;
        assert!(block_on(network.ensure_port(&next)).is_err());
    });
}

#[test]
fn connections_of_an_instance_end_with_it() {
    on_a_host(|| {
        let config = config(ONE, 210);
        let network = network(&config);
        let first = port(&config, 4);
        let second = cumulet_host::api::Port {
            instance: support::instance(77),
            ..first.clone()
        };
        let world = support::inside("outside", || UdpSocket::bind((WORLD, 9_000)).unwrap());
        world
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let listen = |guest: &Guest| {
            let socket = guest.inside(|| UdpSocket::bind("0.0.0.0:5000").unwrap());
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            socket
        };
        let mut buffer = [0; 16];

        let guest = Guest::with_lease(&network, &first);
        let socket = listen(&guest);
        socket.send_to(b"begin", (WORLD, 9_000)).unwrap();
        let (_, peer) = world.recv_from(&mut buffer).unwrap();
        world.send_to(b"one", peer).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 3, "answers come in");
        block_on(network.ensure_ground()).unwrap();
        world.send_to(b"two!", peer).unwrap();
        assert_eq!(
            socket.recv(&mut buffer).unwrap(),
            4,
            "also after the rules were loaded again"
        );
        drop(socket);
        guest.end();
        block_on(network.ensure_port_absent(first.instance)).unwrap();

        let guest = Guest::with_lease(&network, &second);
        let socket = listen(&guest);
        world.send_to(b"stale", peer).unwrap();
        // What is sent after it arrives, and the stale message did not before.
        let host = UdpSocket::bind("0.0.0.0:0").unwrap();
        host.send_to(b"host", (second.address, 5_000)).unwrap();
        assert_eq!(
            socket.recv(&mut buffer).unwrap(),
            4,
            "not the message to the instance before"
        );
        socket.send_to(b"begin", (WORLD, 9_000)).unwrap();
        let (_, peer) = world.recv_from(&mut buffer).unwrap();
        world.send_to(b"three", peer).unwrap();
        assert_eq!(
            socket.recv(&mut buffer).unwrap(),
            5,
            "it may use the same connection itself"
        );
    });
}
