//! The parsers of what guests send, for the fuzz targets and nobody else.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cumulet_domain::network::Ipv4Net;

use super::dhcp::Leases;
use super::lease::{self, Terms};
use super::{Mac, Port, dns};

fn port() -> Port {
    Port {
        instance: "i-0123456789abcdef0".parse().expect("an id"),
        mac: Mac([2, 0xc5, 10, 1, 0, 4]),
        address: Ipv4Addr::new(10, 1, 0, 4),
        host_name: "ip-10-1-0-4".into(),
    }
}

/// The reply to a packet of the guest 10.1.0.4, if it gets one.
pub fn dhcp(packet: &[u8]) -> Option<Vec<u8>> {
    let terms = Terms {
        gateway: Ipv4Addr::new(10, 1, 0, 1),
        prefix: 16,
        domain: "ec2.internal".into(),
        resolvers: vec![Ipv4Addr::new(10, 1, 0, 1)],
    };
    lease::answer(packet, &port(), &terms).map(|reply| reply.bytes)
}

/// The answer to a question of a guest, where no other server is needed for it.
pub fn dns(message: &[u8]) -> Option<Vec<u8>> {
    let leases = Leases::default();
    leases.lock().insert(7, port());
    let zone = dns::Zone {
        domain: "ec2.internal".into(),
        guests: Ipv4Net {
            address: Ipv4Addr::new(10, 1, 0, 0),
            prefix: 16,
        },
        leases: Arc::new(leases),
    };
    dns::answer_alone(&zone, message)
}
