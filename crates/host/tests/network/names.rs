//! The name server of the instances, asked by guests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::{Guest, config, inside, network, on_a_host, port, try_sh};

/// The name server that the host uses, in the world outside.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 210, 0, 1)), 53);
const SERVER_FAILURE: u8 = 2;

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Answers every question, in both ways, with itself marked as an answer and a mark behind it.
fn serve_upstream() {
    let (udp, tcp) = inside("outside", || {
        (
            UdpSocket::bind((UPSTREAM, 53)).unwrap(),
            TcpListener::bind((UPSTREAM, 53)).unwrap(),
        )
    });
    let answer_to = |question: &[u8]| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer.extend(b"mark");
        answer
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, peer)) = udp.recv_from(&mut buffer) {
            let answer = answer_to(&buffer[..len]);
            // An answer to something else comes first and must be passed over.
            let mut forged = answer.clone();
            forged[0] ^= 1;
            udp.send_to(&forged, peer).unwrap();
            udp.send_to(&answer, peer).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let message = read_message(&mut stream);
            stream
                .write_all(&with_length(&answer_to(&message)))
                .unwrap();
        }
    });
}

fn with_length(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes(), message].concat()
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn ask(guest: &Guest, name: &str) -> Vec<u8> {
    let question = question(name);
    guest.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket.send_to(&question, GATEWAY).unwrap();
        let mut buffer = [0; 512];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, GATEWAY);
        buffer[..len].to_vec()
    })
}

#[test]
fn guests_find_each_other_and_the_world_by_name() {
    on_a_host(|| {
        serve_upstream();
        let mut config = config("0a1b2c3d", 210);
        // The first does not answer; the second is asked then.
        config.dns_upstreams = Some(vec![Ipv4Addr::new(192, 0, 2, 99), UPSTREAM]);
        let network = network(&config);
        let guest = Guest::boot(&network, &port(&config, 4));
        let lease = guest.dhcp();
        assert!(
            lease.lines().any(|line| line == "dns=10.210.0.1"),
            "{lease}"
        );
        let own = ask(&guest, "ip-10-210-0-4.ec2.internal");
        assert_eq!(own[own.len() - 4..], [10, 210, 0, 4]);
        assert_eq!(
            ask(&guest, "ip-10-210-0-5.ec2.internal")[3] & 15,
            3,
            "no such name"
        );
        assert!(ask(&guest, "example.org").ends_with(b"mark"));
        let long = guest.inside(|| {
            let mut stream = TcpStream::connect(GATEWAY).unwrap();
            let mut ask = |name: &str| {
                stream.write_all(&with_length(&question(name))).unwrap();
                read_message(&mut stream)
            };
            let own = ask("ip-10-210-0-4.ec2.internal");
            assert_eq!(own[own.len() - 4..], [10, 210, 0, 4]);
            ask("example.org")
        });
        assert!(long.ends_with(b"mark"), "over a connection");
        let from_host = "timeout 1 bash -c 'exec 3<>/dev/tcp/10.210.0.1/53'";
        assert!(!try_sh(from_host).status.success(), "guests only");
    });
}

#[test]
fn without_name_servers_guests_still_have_their_own_names() {
    on_a_host(|| {
        let mut config = config("0a1b2c3d", 210);
        config.dns_upstreams = Some(vec![]);
        let network = network(&config);
        let guest = Guest::with_lease(&network, &port(&config, 4));
        let own = ask(&guest, "ip-10-210-0-4.ec2.internal");
        assert_eq!(own[own.len() - 4..], [10, 210, 0, 4]);
        assert_eq!(ask(&guest, "example.org")[3] & 15, SERVER_FAILURE);
    });
}
