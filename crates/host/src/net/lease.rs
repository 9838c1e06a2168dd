//! What DHCP answers to a packet: a pure function of the packet and the port
//! on whose tap it came.
//!
//! Every port has one lease, for ever.  Nothing in a packet can ask for more
//! than a repetition of it, so that there is no pool to exhaust and nothing to
//! remember.  Clients from BOOTP to systemd-networkd are answered.
//!
//! The few bytes that matter are read by hand: a guest chooses what is in
//! them, and a general decoder of all options (dhcproto 0.15) has assertions
//! that a wrong length of an option trips.

use std::net::Ipv4Addr;

use crate::api::Port;

/// BOOTP's length of a packet; old clients drop shorter ones.
const REPLY_LEN_MIN: usize = 300;
/// The fields before the options.
const HEADER_LEN: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const BROADCAST_FLAG: u8 = 0x80;
/// A lease that never ends.
const FOREVER: u32 = u32::MAX;
const MTU: u16 = 1_500;

/// Numbers of options (RFC 2132).
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVERS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const WANTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const END: u8 = 255;
}

/// Types of messages.
mod message {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const INFORM: u8 = 8;
}

/// What all leases of a cloud have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) gateway: Ipv4Addr,
    pub(super) prefix: u8,
    /// Domain of the host names; none is sent when empty.
    pub(super) domain: String,
    /// Name servers; none are sent when empty.
    pub(super) resolvers: Vec<Ipv4Addr>,
}

impl Terms {
    fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0)
    }

    fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) | !self.mask())
    }
}

/// A packet and where it goes; port 68.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) to: Ipv4Addr,
}

/// What is looked at of a client's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    /// The client's mark, repeated in the answer.
    transaction: [u8; 4],
    flags: [u8; 2],
    /// The address that the client uses already, or 0.0.0.0.
    current: Ipv4Addr,
    relay: Ipv4Addr,
    mac: [u8; 6],
    /// `None` for BOOTP.
    message: Option<u8>,
    wanted: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Request {
    fn parse(packet: &[u8]) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(HEADER_LEN)?;
        // A request, over Ethernet, with six bytes of address.
        if header.get(..3)? != [1, 1, 6] {
            return None;
        }
        let address = |at: usize| bytes::<4>(header, at).map(Ipv4Addr::from);
        let mut request = Self {
            transaction: bytes(header, 4)?,
            flags: bytes(header, 10)?,
            current: address(12)?,
            relay: address(24)?,
            mac: bytes(header, 28)?,
            message: None,
            wanted: None,
            server: None,
        };
        if let Some(options) = rest.strip_prefix(&COOKIE) {
            request.read_options(options);
        }
        Some(request)
    }

    /// Reads up to the end or to the first option that is cut off; wrong lengths are passed over.
    fn read_options(&mut self, mut rest: &[u8]) {
        while let Some((code, after)) = rest.split_first() {
            match *code {
                option::END => return,
                option::PAD => {
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let Some((len, after)) = after.split_first() else {
                return;
            };
            let Some((value, after)) = after.split_at_checked(usize::from(*len)) else {
                return;
            };
            let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
            match *code {
                option::MESSAGE => self.message = value.first().copied(),
                option::WANTED => self.wanted = address(),
                option::SERVER => self.server = address(),
                _ => {}
            }
            rest = after;
        }
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

/// What kind of answer a message gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The lease, in a message of this type; BOOTP has no types.
    Lease(Option<u8>),
    /// Settings without an address, for who has one already.
    Settings,
    /// "That is not your address."
    Refusal,
}

/// The answer to `packet` that came on the port's tap, if it deserves one.
pub(super) fn answer(packet: &[u8], port: &Port, terms: &Terms) -> Option<Reply> {
    let request = Request::parse(packet)?;
    if request.mac != port.mac.0 || !request.relay.is_unspecified() {
        return None;
    }
    let kind = kind_of(&request, port, terms)?;
    let is_broadcast = request.flags[0] & BROADCAST_FLAG != 0;
    let to = if kind == Kind::Refusal {
        Ipv4Addr::BROADCAST
    } else if request.current == port.address || !is_broadcast {
        // The neighbour entry is permanent: no ARP is needed, which the client could not answer.
        port.address
    } else {
        Ipv4Addr::BROADCAST
    };
    let bytes = write_reply(&request, kind, port, terms);
    Some(Reply { bytes, to })
}

fn kind_of(request: &Request, port: &Port, terms: &Terms) -> Option<Kind> {
    match request.message {
        None => Some(Kind::Lease(None)),
        Some(message::DISCOVER) => Some(Kind::Lease(Some(message::OFFER))),
        Some(message::INFORM) => Some(Kind::Settings),
        Some(message::REQUEST) => {
            if request.server.is_some_and(|server| server != terms.gateway) {
                return None;
            }
            let wanted = request.wanted.unwrap_or(request.current);
            Some(if wanted == port.address {
                Kind::Lease(Some(message::ACK))
            } else {
                Kind::Refusal
            })
        }
        // Releasing or declining a lease that never ends changes nothing.
        Some(_) => None,
    }
}

/// Options, one after the other.
struct Options(Vec<u8>);

impl Options {
    /// Adds one; a value that is empty or longer than an option can be is left out.
    fn add(&mut self, code: u8, value: &[u8]) {
        if let Ok(len) = u8::try_from(value.len())
            && len > 0
        {
            self.0.extend([code, len]);
            self.0.extend(value);
        }
    }
}

fn write_reply(request: &Request, kind: Kind, port: &Port, terms: &Terms) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let (kept, given) = match kind {
        Kind::Lease(_) => (request.current, port.address),
        Kind::Settings => (request.current, none),
        Kind::Refusal => (none, none),
    };
    let mut reply = Vec::with_capacity(REPLY_LEN_MIN);
    reply.extend([2, 1, 6, 0]);
    reply.extend(request.transaction);
    reply.extend([0, 0]);
    reply.extend(request.flags);
    for address in [kept, given, none, none] {
        reply.extend(address.octets());
    }
    reply.extend(port.mac.0);
    reply.resize(HEADER_LEN, 0);
    reply.extend(COOKIE);

    let mut options = Options(reply);
    let message = match kind {
        Kind::Lease(message) => message,
        Kind::Settings => Some(message::ACK),
        Kind::Refusal => Some(message::NAK),
    };
    if let Some(message) = message {
        // First, since some clients look for it there only.
        options.add(option::MESSAGE, &[message]);
        options.add(option::SERVER, &terms.gateway.octets());
    }
    if matches!(kind, Kind::Lease(Some(_))) {
        options.add(option::LEASE_TIME, &FOREVER.to_be_bytes());
    }
    if kind != Kind::Refusal {
        let resolvers: Vec<u8> = terms.resolvers.iter().flat_map(Ipv4Addr::octets).collect();
        options.add(option::MASK, &terms.mask().to_be_bytes());
        options.add(option::ROUTER, &terms.gateway.octets());
        options.add(option::RESOLVERS, &resolvers);
        options.add(option::HOST_NAME, port.host_name.as_bytes());
        options.add(option::DOMAIN, terms.domain.as_bytes());
        options.add(option::MTU, &MTU.to_be_bytes());
        options.add(option::BROADCAST, &terms.broadcast().octets());
    }
    let mut reply = options.0;
    reply.push(option::END);
    reply.resize(reply.len().max(REPLY_LEN_MIN), option::PAD);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Mac;

    const MAC: [u8; 6] = [2, 0xc5, 10, 1, 0, 4];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn port() -> Port {
        Port {
            instance: "i-0123456789abcdef0".parse().unwrap(),
            mac: Mac(MAC),
            address: ADDRESS,
            host_name: "ip-10-1-0-4".into(),
        }
    }

    fn terms() -> Terms {
        Terms {
            gateway: GATEWAY,
            prefix: 16,
            domain: "ec2.internal".into(),
            resolvers: vec![],
        }
    }

    fn packet(options: &[(u8, &[u8])], current: Ipv4Addr, is_broadcast: bool) -> Vec<u8> {
        let mut packet = vec![1, 1, 6, 0, 0, 0, 0, 77, 0, 0];
        packet.extend([if is_broadcast { 0x80 } else { 0 }, 0]);
        packet.extend(current.octets());
        packet.resize(28, 0);
        packet.extend(MAC);
        packet.resize(HEADER_LEN, 0);
        packet.extend(COOKIE);
        let mut written = Options(packet);
        for (code, value) in options {
            written.add(*code, value);
        }
        let mut packet = written.0;
        packet.push(option::END);
        packet
    }

    /// An answer, taken apart.
    struct Answer {
        current: Ipv4Addr,
        given: Ipv4Addr,
        to: Ipv4Addr,
        bytes: Vec<u8>,
    }

    impl Answer {
        fn option(&self, code: u8) -> Option<&[u8]> {
            let mut rest = &self.bytes[HEADER_LEN + 4..];
            while rest[0] != option::END {
                let len = usize::from(rest[1]);
                if rest[0] == code {
                    return Some(&rest[2..2 + len]);
                }
                rest = &rest[2 + len..];
            }
            None
        }
    }

    fn ask(packet: &[u8]) -> Option<Answer> {
        let Reply { bytes, to } = answer(packet, &port(), &terms())?;
        assert!(bytes.len() >= REPLY_LEN_MIN);
        assert_eq!(
            (bytes[0], &bytes[4..8], &bytes[28..34]),
            (2, &[0, 0, 0, 77][..], &MAC[..])
        );
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        Some(Answer {
            current: address(12),
            given: address(16),
            to,
            bytes,
        })
    }

    #[test]
    fn a_client_gets_its_lease_for_ever() {
        let offer = ask(&packet(
            &[(option::MESSAGE, &[message::DISCOVER])],
            NONE,
            true,
        ))
        .unwrap();
        assert_eq!((offer.given, offer.to), (ADDRESS, Ipv4Addr::BROADCAST));
        assert_eq!(offer.option(option::MESSAGE), Some(&[message::OFFER][..]));
        let wish: [(u8, &[u8]); 3] = [
            (option::MESSAGE, &[message::REQUEST]),
            (option::WANTED, &ADDRESS.octets()),
            (option::SERVER, &GATEWAY.octets()),
        ];
        let ack = ask(&packet(&wish, NONE, false)).unwrap();
        assert_eq!((ack.given, ack.to), (ADDRESS, ADDRESS));
        let wanted: [(u8, &[u8]); 9] = [
            (option::MESSAGE, &[message::ACK]),
            (option::SERVER, &[10, 1, 0, 1]),
            (option::MASK, &[255, 255, 0, 0]),
            (option::ROUTER, &[10, 1, 0, 1]),
            (option::BROADCAST, &[10, 1, 255, 255]),
            (option::LEASE_TIME, &[255; 4]),
            (option::HOST_NAME, b"ip-10-1-0-4"),
            (option::DOMAIN, b"ec2.internal"),
            (option::MTU, &[5, 220]),
        ];
        for (code, value) in wanted {
            assert_eq!(ack.option(code), Some(value), "option {code}");
        }
        assert_eq!(ack.option(option::RESOLVERS), None);
    }

    #[test]
    fn renewing_and_informing_use_the_clients_address() {
        let ack = ask(&packet(
            &[(option::MESSAGE, &[message::REQUEST])],
            ADDRESS,
            true,
        ))
        .unwrap();
        assert_eq!(
            (ack.given, ack.current, ack.to),
            (ADDRESS, ADDRESS, ADDRESS)
        );
        let ack = ask(&packet(
            &[(option::MESSAGE, &[message::INFORM])],
            ADDRESS,
            false,
        ))
        .unwrap();
        assert_eq!((ack.given, ack.to), (NONE, ADDRESS));
        assert_eq!(ack.option(option::LEASE_TIME), None);
        assert!(ack.option(option::ROUTER).is_some());
    }

    #[test]
    fn another_address_is_refused_and_bootp_is_served() {
        let wish: [(u8, &[u8]); 2] = [
            (option::MESSAGE, &[message::REQUEST]),
            (option::WANTED, &[10, 1, 0, 5]),
        ];
        let nak = ask(&packet(&wish, NONE, false)).unwrap();
        assert_eq!(nak.option(option::MESSAGE), Some(&[message::NAK][..]));
        assert_eq!((nak.given, nak.to), (NONE, Ipv4Addr::BROADCAST));
        let bootp = ask(&packet(&[], NONE, false)).unwrap();
        assert_eq!(
            (bootp.given, bootp.option(option::MESSAGE)),
            (ADDRESS, None)
        );
        let mut bare = packet(&[], NONE, false);
        bare.truncate(HEADER_LEN);
        assert_eq!(
            ask(&bare).unwrap().given,
            ADDRESS,
            "BOOTP without any cookie"
        );
    }

    #[test]
    fn who_is_not_the_port_gets_nothing() {
        let discover = packet(&[(option::MESSAGE, &[message::DISCOVER])], NONE, true);
        assert!(ask(&discover).is_some());
        for (at, value) in [(33, 9), (27, 1), (0, 2), (1, 6), (2, 16)] {
            let mut other = discover.clone();
            other[at] = value;
            assert!(answer(&other, &port(), &terms()).is_none(), "byte {at}");
        }
        let elsewhere: [(u8, &[u8]); 2] = [
            (option::MESSAGE, &[message::REQUEST]),
            (option::SERVER, &[10, 1, 0, 9]),
        ];
        assert!(ask(&packet(&elsewhere, NONE, false)).is_none());
        for quiet in [4, 7, 99] {
            assert!(ask(&packet(&[(option::MESSAGE, &[quiet])], ADDRESS, false)).is_none());
        }
    }

    #[test]
    fn damaged_packets_are_survived() {
        let whole = packet(
            &[
                (option::MESSAGE, &[message::REQUEST]),
                (option::WANTED, &ADDRESS.octets()),
                (option::HOST_NAME, b"guest"),
            ],
            NONE,
            false,
        );
        // A small generator with a fixed seed: the same packets every time.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        for round in 0..20_000 {
            let mut packet = whole.clone();
            for _ in 0..=round % 8 {
                let place = if round % 2 == 0 {
                    random(packet.len())
                } else {
                    HEADER_LEN + random(packet.len() - HEADER_LEN)
                };
                packet[place] = u8::try_from(random(256)).unwrap();
            }
            if round % 3 == 0 {
                packet.truncate(random(whole.len()));
            }
            if let Some(reply) = answer(&packet, &port(), &terms()) {
                assert!(reply.to == ADDRESS || reply.to == Ipv4Addr::BROADCAST);
            }
        }
    }
}
