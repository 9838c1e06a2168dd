//! A connection of the server to a keeper: one line of request.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{Answer, Request};

/// Until a connected server must have said what it wants.
pub(super) const CLIENT_MAX: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 4096;

pub(super) struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    /// When it has had its time.
    pub(super) until: Instant,
}

pub(super) enum Heard {
    Nothing,
    End,
    /// `None` if it could not be understood.
    Request(Option<Request>),
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            request: vec![],
            until: Instant::now() + CLIENT_MAX,
        })
    }

    pub(super) fn descriptor(&self) -> &UnixStream {
        &self.stream
    }

    /// A server that has gone meanwhile does not matter.
    pub(super) fn answer(mut self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            let _ = self.stream.write_all(&line);
        }
    }

    pub(super) fn read(&mut self) -> Heard {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End,
                Ok(length) => {
                    self.request
                        .extend_from_slice(buffer.get(..length).unwrap_or_default());
                    if let Some(end) = self.request.iter().position(|it| *it == b'\n') {
                        let line = self.request.get(..end).unwrap_or_default();
                        return Heard::Request(serde_json::from_slice(line).ok());
                    }
                    if self.request.len() > REQUEST_BYTES_MAX {
                        return Heard::End;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(_) => return Heard::End,
            }
        }
    }
}
