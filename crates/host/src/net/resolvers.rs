//! The host's name servers: all of them, and those that guests can reach.

use std::net::Ipv4Addr;

/// Where the host says which name servers it uses; the second file is the truth behind a local stub.
const FILES: &[&str] = &["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Clients look at no more than three; a stub and what is behind it may both be listed.
const RESOLVERS_MAX: usize = 4;

/// Name servers that this host itself uses, whatever guests can reach.  The list may be empty.
pub fn host_resolvers() -> Vec<Ipv4Addr> {
    let mut found = vec![];
    for file in FILES {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for address in parse(&text) {
            if !address.is_unspecified() && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.truncate(RESOLVERS_MAX);
    found
}

/// Name servers of this host that guests can ask by themselves: on another machine, and in a range
/// that is allowed to them.  Often empty; then guests are told of none.
pub fn reachable_resolvers(is_private_uplink_allowed: bool) -> Vec<Ipv4Addr> {
    let own = own_addresses();
    let mut found = host_resolvers();
    found.retain(|address| {
        let is_private = address.is_private() || is_shared(*address);
        !address.is_loopback()
            && !address.is_link_local()
            && !own.contains(address)
            && (is_private_uplink_allowed || !is_private)
    });
    found
}

/// 100.64.0.0/10, which carriers use as if it were private.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

fn parse(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

/// Addresses of the host, which guests never reach; none where they cannot be listed.
fn own_addresses() -> Vec<Ipv4Addr> {
    let Ok(links) = nix::ifaddrs::getifaddrs() else {
        return vec![];
    };
    links
        .filter_map(|link| Some(link.address?.as_sockaddr_in()?.ip()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_the_file() {
        let text = "# made by hand\nsearch example.com\nnameserver 192.0.2.53\nnameserver ::1\n nameserver\t9.9.9.9\n";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(
            found,
            [Ipv4Addr::new(192, 0, 2, 53), Ipv4Addr::new(9, 9, 9, 9)]
        );
    }
}
