//! The service over real connections, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cumulet_domain::Timestamp;
use cumulet_door_metadata::{Facts, Metadata, PublicKey, Source, TokenKey, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct One(Arc<Facts>);

impl Source for One {
    fn instance_at(&self, address: Ipv4Addr) -> Option<Arc<Facts>> {
        (address == self.0.local_ipv4).then(|| self.0.clone())
    }
}

fn facts() -> Facts {
    Facts {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        image: "ami-0123456789abcdef0".parse().unwrap(),
        manifest_path: None,
        launch_index: 0,
        reservation: "r-0123456789abcdef0".parse().unwrap(),
        local_host_name: "ip-127-0-0-2.ec2.internal".into(),
        public_host_name: String::new(),
        local_ipv4: Ipv4Addr::new(127, 0, 0, 2),
        public_ipv4: None,
        mac: "02:c5:7f:00:00:02".into(),
        instance_type: "m1.small".into(),
        architecture: "x86_64".into(),
        zone: "us-east-1a".into(),
        region: "us-east-1".into(),
        account: "598916040194".parse().unwrap(),
        launched: Timestamp(0),
        security_groups: vec!["default".into()],
        public_key: Some(PublicKey {
            name: "k".into(),
            openssh: "ssh-rsa AAAA".into(),
        }),
        product_codes: vec![],
        user_data: Some(Bytes::from_static(b"\x00\x01raw")),
        kernel: None,
        ramdisk: None,
        block_devices: vec![],
        services_domain: "amazonaws.com".into(),
        is_enabled: true,
        is_token_required: false,
        hop_limit: 1,
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metadata = Arc::new(Metadata {
        source: Arc::new(One(Arc::new(facts()))),
        key: TokenKey::new(&[3; 32]),
        now: Arc::new(|| Timestamp(1_000_000)),
    });
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, metadata, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop,
        task,
    }
}

impl Running {
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends the bytes and reads until the server closes.
    async fn talk(&self, from: [u8; 4], request: &str) -> String {
        let mut stream = self.connect(from).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        // A server that refuses may reset; what it said before that counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

const GUEST: [u8; 4] = [127, 0, 0, 2];

#[tokio::test]
async fn old_and_new_clients_are_served() {
    let server = start().await;
    let old = server
        .talk(GUEST, "GET /1.0/meta-data/instance-id HTTP/1.0\r\n\r\n")
        .await;
    assert!(
        old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("\r\n\r\ni-0123456789abcdef0"),
        "{old}"
    );
    let two = "GET /latest/meta-data/ami-launch-index HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n\
               HEAD /latest/user-data HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
    let new = server.talk(GUEST, two).await;
    assert_eq!(new.matches("HTTP/1.1 200 OK").count(), 2, "{new}");
    assert!(
        new.contains("content-length: 5\r\n") && new.ends_with("\r\n\r\n"),
        "{new}"
    );
    server.end().await;
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let server = start().await;
    let stranger = server
        .talk([127, 0, 0, 3], "GET /latest/user-data HTTP/1.0\r\n\r\n")
        .await;
    assert!(stranger.starts_with("HTTP/1.0 404"), "{stranger}");
    let forged = "GET /latest/user-data HTTP/1.0\r\nX-Forwarded-For: 127.0.0.2\r\n\r\n";
    assert!(
        server
            .talk([127, 0, 0, 3], forged)
            .await
            .starts_with("HTTP/1.0 404")
    );
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(40_000));
    let answer = server.talk(GUEST, &long).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    let answer = server.talk(GUEST, "nonsense\r\n\r\n").await;
    assert!(!answer.contains(" 200 "), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn a_token_ends_its_connection() {
    let server = start().await;
    let request = "PUT /latest/api/token HTTP/1.1\r\nHost: a\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
                   Content-Length: 0\r\n\r\nGET /latest/user-data HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = server.talk(GUEST, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let token = answer.lines().last().unwrap();
    let get =
        format!("GET /latest/user-data HTTP/1.0\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n");
    assert!(server.talk(GUEST, &get).await.ends_with("\u{0}\u{1}raw"));
    server.end().await;
}

#[tokio::test]
async fn one_guest_cannot_take_all_connections() {
    let server = start().await;
    let mut held = vec![];
    for _ in 0..32 {
        let mut stream = server.connect(GUEST).await;
        stream
            .write_all(b"GET /latest/user-data HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        held.push(stream);
    }
    let more = server.talk(GUEST, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(more, "", "one too many is closed");
    let other = server.talk([127, 0, 0, 3], "GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        other.starts_with("HTTP/1.0 404"),
        "others are served: {other}"
    );
    server.end().await;
}

/// One guest does whatever it likes with all the connections it can get: slow heads, bodies that
/// never come, answers that it does not take.  Another one asks meanwhile, and is answered.
#[tokio::test]
async fn slow_and_greedy_guests_hinder_nobody_else() {
    let server = start().await;
    let head = "GET /latest/user-data HTTP/1.1\r\nHost: a\r\n";
    let mut held = vec![];
    for number in 0..300 {
        let mut stream = server.connect(GUEST).await;
        let bytes = match number % 4 {
            0 => head.to_owned(),
            1 => format!("{head}Content-Length: 1000000\r\n\r\na"),
            2 => format!("{head}\r\n").repeat(1000),
            _ => format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"),
        };
        // Those beyond the guest's share are closed at once, at any byte.
        let sent = tokio::time::timeout(Duration::from_millis(50), async {
            let _ = stream.write_all(bytes.as_bytes()).await;
        });
        let _ = sent.await;
        held.push(stream);
        if number % 30 == 0 {
            let other = server.talk([127, 0, 0, 3], "GET / HTTP/1.0\r\n\r\n").await;
            assert!(other.starts_with("HTTP/1.0 404"), "{number}: {other}");
        }
    }
    drop(held);
    // Its places come back, and then it is served too.
    loop {
        let again = server
            .talk(GUEST, "GET /latest/user-data HTTP/1.0\r\n\r\n")
            .await;
        if again.ends_with("\u{0}\u{1}raw") {
            break;
        }
        assert_eq!(again, "", "closed, or answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.end().await;
}
