//! The commands' side of the control socket: one blocking request.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;
use zeroize::Zeroizing;

use super::socket_path;
use crate::operator;

/// Biggest answer.
const ANSWER_MAX: u64 = 256 * 1024 * 1024;

/// No server answers on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// What came back.
pub(crate) type Answer = Result<anyhow::Result<Value>, Unreachable>;

/// Asks the running server.  The outer error says that there is none.
pub(crate) fn ask(data_dir: &Path, request: &operator::Request) -> Answer {
    let (_directory, path) = match socket_path(data_dir) {
        Ok(found) => found,
        Err(_) => return Err(Unreachable),
    };
    match UnixStream::connect(&path) {
        Ok(stream) => Ok(exchange(stream, request)),
        Err(cause) => match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Err(Unreachable),
            _ => Ok(Err(anyhow::Error::from(cause).context(format!(
                "the server of {} cannot be asked; you may have to be the user who started it",
                data_dir.display()
            )))),
        },
    }
}

/// Whether a server listens on the socket of this data directory.
pub(crate) fn answers(data_dir: &Path) -> bool {
    socket_path(data_dir).is_ok_and(|(_directory, path)| UnixStream::connect(path).is_ok())
}

fn exchange(mut stream: UnixStream, request: &operator::Request) -> anyhow::Result<Value> {
    let body = Zeroizing::new(serde_json::to_vec(request)?);
    let head = format!(
        "POST /v1/operator HTTP/1.1\r\nHost: cumulet\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    let mut answer = Zeroizing::new(vec![]);
    stream
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .context("the server broke off its answer")?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the server gave no answer")?;
    let (head, body) = answer.split_at(end + 4);
    let status = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.split(' ').nth(1))
        .context("the server's answer cannot be read")?;
    let value: Value =
        serde_json::from_slice(body).context("the server's answer cannot be read")?;
    if status == "200" {
        return Ok(value);
    }
    bail!(
        "{}",
        value["error"].as_str().unwrap_or("the server refused")
    )
}
