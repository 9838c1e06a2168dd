//! The names of the instances: host name and domain to address, and back.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cumulet_domain::network::Ipv4Net;

use super::super::dhcp::Leases;
use super::packet::{Query, Rcode, Record, TYPE_A, TYPE_ANY, TYPE_PTR};

/// What is known without asking anybody.
pub(in super::super) struct Zone {
    /// Domain of the host names, in lower case; without one there are no names.
    pub(in super::super) domain: String,
    pub(in super::super) guests: Ipv4Net,
    pub(in super::super) leases: Arc<Leases>,
}

impl Zone {
    /// The answer to a question about instances; `None` for questions about others.
    pub(super) fn answer(&self, query: &Query) -> Option<Vec<u8>> {
        if !query.is_internet {
            return None;
        }
        if let Some(host) = self.host_of(&query.name) {
            let known = self
                .find(|_, name| name == host)
                .map(|(address, _)| Record::Address(address));
            return Some(respond(query, known, TYPE_A));
        }
        let address = address_of(&query.name).filter(|address| self.guests.contains(*address))?;
        let known = self
            .find(|other, _| other == address)
            .map(|(_, name)| Record::Pointer(self.full_name(&name)));
        Some(respond(query, known, TYPE_PTR))
    }

    /// The host's part of a name in the domain.
    fn host_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.domain.is_empty() {
            return None;
        }
        name.strip_suffix(self.domain.as_str())?.strip_suffix('.')
    }

    fn full_name(&self, host: &str) -> String {
        if self.domain.is_empty() {
            host.to_owned()
        } else {
            format!("{host}.{}", self.domain)
        }
    }

    fn find(&self, is_wanted: impl Fn(Ipv4Addr, &str) -> bool) -> Option<(Ipv4Addr, String)> {
        let leases = self.leases.lock();
        leases
            .values()
            .find(|port| is_wanted(port.address, &port.host_name))
            .map(|port| (port.address, port.host_name.clone()))
    }
}

/// A name that exists has no records of other types, which is not the same as not existing.
fn respond(query: &Query, known: Option<Record>, kind: u16) -> Vec<u8> {
    match known {
        None => query.refuse(Rcode::NoSuchName),
        Some(record) if query.kind == kind || query.kind == TYPE_ANY => query.answer(&[record]),
        Some(_) => query.answer(&[]),
    }
}

/// `4.0.1.10.in-addr.arpa` is 10.1.0.4.
fn address_of(name: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::question;
    use super::*;
    use crate::api::{Mac, Port};

    fn zone() -> Zone {
        let leases = Leases::default();
        leases.lock().insert(
            7,
            Port {
                instance: "i-0123456789abcdef0".parse().unwrap(),
                mac: Mac([2, 0xc5, 10, 1, 0, 4]),
                address: Ipv4Addr::new(10, 1, 0, 4),
                host_name: "ip-10-1-0-4".into(),
            },
        );
        Zone {
            domain: "ec2.internal".into(),
            guests: Ipv4Net {
                address: Ipv4Addr::new(10, 1, 0, 0),
                prefix: 16,
            },
            leases: Arc::new(leases),
        }
    }

    /// Result code, number of records, and the last bytes.
    fn ask(name: &str, kind: u16) -> Option<(u8, u8, Vec<u8>)> {
        let message = question(name, kind);
        let answer = zone().answer(&Query::parse(&message).unwrap())?;
        let tail = answer[answer.len() - 4..].to_vec();
        Some((answer[3] & 15, answer[7], tail))
    }

    #[test]
    fn instances_have_names_and_their_addresses_too() {
        let (code, count, tail) = ask("ip-10-1-0-4.ec2.internal", TYPE_A).unwrap();
        assert_eq!((code, count, tail), (0, 1, vec![10, 1, 0, 4]));
        let (code, count, tail) = ask("4.0.1.10.in-addr.arpa", TYPE_PTR).unwrap();
        assert_eq!((code, count, tail), (0, 1, b"nal\0".to_vec()));
        let aaaa = 28;
        let (code, count, _) = ask("ip-10-1-0-4.ec2.internal", aaaa).unwrap();
        assert_eq!((code, count), (0, 0), "exists, but has no such record");
    }

    #[test]
    fn who_is_unknown_inside_is_unknown_and_others_are_asked_for() {
        assert_eq!(ask("ip-10-1-0-5.ec2.internal", TYPE_A).unwrap().0, 3);
        assert_eq!(ask("5.0.1.10.in-addr.arpa", TYPE_PTR).unwrap().0, 3);
        for outside in [
            "example.org",
            "5.113.0.203.in-addr.arpa",
            "xec2.internal",
            "ec2.internal",
            "",
        ] {
            assert_eq!(ask(outside, TYPE_A), None, "{outside}");
        }
    }
}
