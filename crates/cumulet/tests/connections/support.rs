//! A cloud under watch: its records, its memory, its descriptors, and a client that behaves.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cumulet_auth::sign::{self, Signer, Unsigned};
use cumulet_domain::Timestamp;
use cumulet_testkit::cloud::{Cloud, wait_until};
use cumulet_testkit::ec2::{Ec2, exchange};

/// How long the server may take for anything on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Key pairs and an object that must stay as they are.
const KEPT: [&str; 2] = ["kept-one", "kept-two"];
pub(crate) const BUCKET: &str = "kept-bucket";

/// A cloud with a few records, and a client that is at work on it.
pub(crate) struct Watched {
    pub(crate) cloud: Cloud,
    before: Records,
    descriptors: usize,
}

/// What the cloud has, as its clients see it.
#[derive(Debug, PartialEq, Eq)]
struct Records {
    key_pairs: Vec<String>,
    instances: usize,
    images: usize,
    buckets: String,
    objects: String,
}

impl Watched {
    /// Starts a cloud with these limits, and gives it its records.
    pub(crate) fn start(limits: &[(&str, &str)]) -> Self {
        let mut settings = vec![
            ("CUMULET_COMPUTE", "simulated"),
            ("CUMULET_INSTANCES_MEMORY_MIB", "10000000"),
        ];
        settings.extend_from_slice(limits);
        let cloud = Cloud::start(env!("CARGO_BIN_EXE_cumulet"), &settings);
        let client = cloud.ec2();
        for name in KEPT {
            client.call("CreateKeyPair", &[("KeyName", name)]).unwrap();
        }
        assert_eq!(s3(&client, "PUT", &format!("/{BUCKET}"), b"").0, 200);
        let object = format!("/{BUCKET}/object");
        assert_eq!(s3(&client, "PUT", &object, b"some bytes").0, 200);
        let before = records(&client);
        let mut watched = Self {
            cloud,
            before,
            descriptors: 0,
        };
        watched.descriptors = watched.descriptors();
        watched
    }

    pub(crate) fn client(&self) -> Ec2 {
        self.cloud.ec2()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.cloud.address())
    }

    /// Open descriptors of the server.
    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid());
        fs::read_dir(folder).expect("the server runs").count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.cloud.server_pid().expect("the server runs")
    }

    /// Most memory that the server ever had, in bytes.
    pub(crate) fn memory_peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words = line.expect("a line of the peak").split_whitespace();
        words.clone().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits until the server has closed what bad clients had open.
    pub(crate) fn wait_for_descriptors(&self) {
        // The pools of threads and files may keep a few.
        let most = self.descriptors + 8;
        let what = format!("no more than {most} descriptors");
        wait_until(&what, PATIENCE, || {
            (self.descriptors() <= most).then_some(())
        });
    }

    /// Everything is as it was, and nothing in the log says otherwise.
    pub(crate) fn check(&self) {
        assert_eq!(records(&self.client()), self.before, "the records changed");
        let log = self.cloud.log_text();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Whether the server has closed the connection; takes in what came before that.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(cause) => return cause.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A connection whose client waits long for an answer, but not for ever.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn records(client: &Ec2) -> Records {
    let call = |action: &str| client.call(action, &[]).unwrap();
    let text = |path: &str| {
        let (status, body) = s3(client, "GET", path, b"");
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    };
    let instances = call("DescribeInstances");
    Records {
        key_pairs: call("DescribeKeyPairs").texts("keySet/item/keyName"),
        instances: instances.at("reservationSet/item/instancesSet/item").len(),
        images: call("DescribeImages").at("imagesSet/item").len(),
        buckets: text("/"),
        objects: text(&format!("/{BUCKET}")),
    }
}

const GOOD: &str = "good-";

/// A client that behaves: describes, writes, puts and gets until it is stopped.
pub(crate) struct Good {
    stop: Arc<AtomicBool>,
    is_short: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Good {
    pub(crate) fn start(watched: &Watched) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_short = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let client = watched.client();
        let path = format!("/{BUCKET}/object");
        let thread = {
            let (stop, is_short, rounds) = (stop.clone(), is_short.clone(), rounds.clone());
            // As the SDKs do: what the server could not do for now is asked again.
            let put_or_get = move |method: &str, path: &str, body: &[u8]| {
                loop {
                    // The shortage may begin or end while the server works.
                    let was_short = is_short.load(Ordering::Relaxed);
                    let answer = s3(&client, method, path, body);
                    let may_refuse = was_short || is_short.load(Ordering::Relaxed);
                    if !(may_refuse && answer.0 == 503) {
                        return answer;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            };
            let client = watched.client();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    // A rest, so that the crowd has the processors.
                    std::thread::sleep(Duration::from_millis(20));
                    client.call("DescribeKeyPairs", &[]).expect("a list");
                    let own = format!("/{BUCKET}/{GOOD}{round}");
                    assert_eq!(put_or_get("PUT", &own, b"its own").0, 200);
                    assert_eq!(put_or_get("DELETE", &own, b"").0, 204);
                    assert_eq!(put_or_get("GET", &path, b"").1, b"some bytes");
                }
            })
        };
        Self {
            stop,
            is_short,
            rounds,
            thread,
        }
    }

    /// From now on the server may (or may no more) be short of what it needs to write: a 503 is
    /// then answered by asking again.
    pub(crate) fn allow_shortage(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    /// Waits until it has been served a few times from now on.
    pub(crate) fn is_served(&self) {
        let from = self.rounds.load(Ordering::Relaxed);
        wait_until("the client that behaves is served", PATIENCE, || {
            let is_over = self.thread.is_finished();
            assert!(!is_over, "a call of the client that behaves failed");
            (self.rounds.load(Ordering::Relaxed) > from + 2).then_some(())
        });
    }

    /// Ends it; panics when one of its calls was not answered well.
    pub(crate) fn end(self) {
        self.is_served();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every call is answered well");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature needs the time of the real server"
)]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since.unwrap().as_millis()).unwrap())
}

/// The head of a signed request over this body; `length` is what it announces.
pub(crate) fn signed_head(
    client: &Ec2,
    service: &str,
    (method, path): (&str, &str),
    body: &[u8],
    framing: &str,
) -> String {
    let host = client.address.to_string();
    let request = Unsigned {
        method,
        host: &host,
        raw_path: path,
        raw_query: None,
        body,
        now: now(),
    };
    let signer = Signer {
        access_key_id: &client.access_key_id,
        secret: &client.secret,
        region: &client.region,
        service,
    };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{framing}\r\n");
    if service == "ec2" {
        head.push_str("content-type: application/x-www-form-urlencoded\r\n");
    }
    for (name, value) in sign::v4_headers(&signer, &request, &http::HeaderMap::new()).unwrap() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// One signed S3 request: status and body.
pub(crate) fn s3(client: &Ec2, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let framing = format!("content-length: {}\r\nconnection: close", body.len());
    let head = signed_head(client, "s3", (method, path), body, &framing);
    let (status, _, answer) = exchange(client.address, head.as_bytes(), body).expect("an answer");
    (status, answer)
}

/// Sends what the server takes of the bytes, and gives what it said before it closed; nothing when
/// it closed without a word, or reset.
pub(crate) fn say(address: SocketAddr, bytes: &[u8], ends: bool) -> String {
    let mut stream = connect(address);
    // A server that has refused does not read on.
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = vec![];
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => answer.extend_from_slice(&piece[..size]),
            Err(cause) => {
                let is_late = matches!(
                    cause.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                assert!(!is_late, "the server neither answers nor closes");
                break;
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer, 0 when there is none.
pub(crate) fn status_of(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1).unwrap_or("0");
    word.parse().unwrap_or(0)
}
