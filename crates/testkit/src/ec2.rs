//! A small client of the EC2 Query API, for tests that want to see every answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cumulet_auth::sign::{self, Signer, Unsigned};
use cumulet_domain::Timestamp;

use crate::tree::Tree;

/// The version that calls name unless told otherwise.
pub const VERSION: &str = "2016-11-15";

/// A client with one key; every call opens its own connection and carries a fresh signature.
#[derive(Debug, Clone)]
pub struct Ec2 {
    pub address: SocketAddr,
    pub access_key_id: String,
    pub secret: String,
    pub region: String,
}

/// A call that brought no good answer.
#[derive(Debug)]
pub enum CallError {
    /// No answer came: the request may or may not have been carried out.
    Lost(io::Error),
    /// The cloud refused.
    Refused {
        status: u16,
        code: String,
        message: String,
    },
}

impl CallError {
    /// The error code of a refusal.
    ///
    /// # Panics
    /// When the call was lost.
    pub fn code(&self) -> &str {
        match self {
            CallError::Refused { code, .. } => code,
            CallError::Lost(cause) => panic!("no answer: {cause}"),
        }
    }
}

/// Status, headers in lower case, body.
pub type RawAnswer = (u16, String, Vec<u8>);

impl Ec2 {
    /// Calls an action with parameters.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Tree, CallError> {
        self.call_version(VERSION, action, parameters)
    }

    /// The same under another dated version.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_version(
        &self,
        version: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Tree, CallError> {
        let mut body = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            body.push_str(&format!("&{}={}", encode(name), encode(value)));
        }
        let (status, _, answer) = self.post(body.as_bytes()).map_err(CallError::Lost)?;
        let text =
            String::from_utf8(answer).map_err(|cause| CallError::Lost(io::Error::other(cause)))?;
        if text.is_empty() {
            return Err(CallError::Lost(io::Error::other("an empty answer")));
        }
        let tree = Tree::parse(&text);
        if status == 200 {
            return Ok(tree);
        }
        Err(CallError::Refused {
            status,
            code: tree.texts("Errors/Error/Code").join(","),
            message: tree.texts("Errors/Error/Message").join(","),
        })
    }

    fn post(&self, body: &[u8]) -> io::Result<RawAnswer> {
        let host = self.address.to_string();
        let request = Unsigned {
            method: "POST",
            host: &host,
            raw_path: "/",
            raw_query: None,
            body,
            now: now(),
        };
        let signer = Signer {
            access_key_id: &self.access_key_id,
            secret: &self.secret,
            region: &self.region,
            service: "ec2",
        };
        let headers = sign::v4_headers(&signer, &request, &http::HeaderMap::new())
            .map_err(|cause| io::Error::other(format!("{cause:?}")))?;
        let mut head = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\nconnection: close\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        exchange(self.address, head.as_bytes(), body)
    }
}

/// Sends one request on a connection of its own and reads until the other side closes.
///
/// # Errors
/// Of the connection, and when the answer is cut.
pub fn exchange(address: SocketAddr, head: &[u8], body: &[u8]) -> io::Result<RawAnswer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(head)?;
    stream.write_all(body)?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer)?;
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut");
    let end = answer
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .ok_or_else(cut)?;
    let body = &answer[end + 4..];
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|it| it.trim().parse::<usize>().ok());
    let body = match announced {
        Some(length) if body.len() < length => return Err(cut()),
        Some(_) => body.to_vec(),
        None if head.contains("transfer-encoding: chunked") => unchunk(body).ok_or_else(cut)?,
        None => body.to_vec(),
    };
    Ok((status, head, body))
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = vec![];
    loop {
        let line = rest.windows(2).position(|it| it == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real server are signed with the real time"
)]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.expect("the clock is after 1970").as_millis();
    Timestamp(i64::try_from(since).expect("the clock is in range"))
}
