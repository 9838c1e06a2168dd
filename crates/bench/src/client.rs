//! A client that keeps its connection and signs every request anew.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cumulet_auth::sign::{Signer, Unsigned, v4_headers};
use cumulet_domain::Timestamp;
use cumulet_testkit::cloud::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// One connection.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

/// What came back, and how long it took from the first byte sent to the last received.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

impl Answer {
    /// Texts of all elements of this name.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.body);
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(&open)
            .skip(1)
            .filter_map(|rest| rest.split(&close).next())
            .map(str::to_owned)
            .collect()
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        Ok(Self {
            reader: BufReader::with_capacity(256 * 1024, stream),
            host: address.to_string(),
        })
    }

    /// An action of EC2.
    pub(crate) fn ec2(&mut self, parameters: &str) -> anyhow::Result<Answer> {
        let body = format!("{parameters}&Version=2016-11-15");
        self.signed("ec2", "POST", "/", body.as_bytes())
    }

    /// A request of S3.
    pub(crate) fn s3(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        self.signed("s3", method, path, body)
    }

    /// A page of the cloud's own that nobody signs for and that says next to nothing.
    pub(crate) fn health(&mut self) -> anyhow::Result<Answer> {
        let message = format!(
            "GET /_cumulet/health HTTP/1.1\r\nhost: {}\r\n\r\n",
            self.host
        );
        let start = Instant::now();
        self.reader.get_mut().write_all(message.as_bytes())?;
        let (status, body) = self.read()?;
        if status != 200 {
            bail!("answer {status}");
        }
        Ok(Answer {
            body,
            took: start.elapsed(),
        })
    }

    fn signed(
        &mut self,
        service: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let signer = Signer {
            access_key_id: ACCESS_KEY_ID,
            secret: SECRET_ACCESS_KEY,
            region: "us-east-1",
            service,
        };
        let request = Unsigned {
            method,
            host: &self.host,
            raw_path: path,
            raw_query: None,
            body,
            now: now(),
        };
        let headers = v4_headers(&signer, &request, &http::HeaderMap::new())?;
        let mut message = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        );
        if service == "ec2" {
            message.push_str("content-type: application/x-www-form-urlencoded\r\n");
        }
        for (name, value) in headers {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        let start = Instant::now();
        if body.len() < 64 * 1024 {
            message.extend_from_slice(body);
            self.reader.get_mut().write_all(&message)?;
        } else {
            self.reader.get_mut().write_all(&message)?;
            self.reader.get_mut().write_all(body)?;
        }
        let (status, body) = self.read()?;
        let took = start.elapsed();
        if !(200..300).contains(&status) {
            bail!("answer {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(Answer { body, took })
    }

    fn read(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no answer")?.parse()?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_chunked |= header == "transfer-encoding: chunked";
        }
        let mut body = vec![];
        if !is_chunked {
            body.resize(length, 0);
            self.reader.read_exact(&mut body)?;
            return Ok((status, body));
        }
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.reader.read_exact(&mut body[start..])?;
            line.clear();
            self.reader.read_line(&mut line)?;
            if size == 0 {
                return Ok((status, body));
            }
        }
    }
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
