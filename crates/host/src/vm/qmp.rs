//! QEMU's monitor protocol, as far as a keeper needs it.
//!
//! Lines of JSON, events between answers.  QEMU runs hostile guests, so lines
//! are bounded and what is not understood is passed over.

use std::io;

use serde::Deserialize;

/// Longer lines are not for us.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Something that QEMU said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Greeting,
    /// The answer to the command of this id.
    Returned {
        id: u64,
    },
    Refused {
        id: u64,
        detail: String,
    },
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The machine went down and is paused; `is_guest` if the guest did it; QEMU's word for the
    /// reason.
    Shutdown {
        is_guest: bool,
        reason: String,
    },
    Reset,
    GuestPanicked,
    /// A write failed since the host's disk is full; the guest is paused.
    OutOfRoom,
    Other,
}

/// A command without arguments, ready to be sent.
pub(crate) fn command(name: &str, id: u64) -> Vec<u8> {
    let mut line = serde_json::json!({ "execute": name, "id": id })
        .to_string()
        .into_bytes();
    line.push(b'\n');
    line
}

/// Cuts a stream of bytes into lines and lines into messages.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Takes what was read and yields what is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> io::Result<Vec<Message>> {
        self.pending.extend_from_slice(bytes);
        let mut messages = vec![];
        while let Some(end) = self.pending.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            messages.extend(parse(&line));
        }
        if self.pending.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "QEMU's monitor sent an endless line",
            ));
        }
        Ok(messages)
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<serde_json::Value>,
    id: Option<u64>,
    #[serde(default, rename = "return", deserialize_with = "present")]
    returned: Option<serde_json::Value>,
    error: Option<Failure>,
    event: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    desc: String,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    guest: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    action: String,
}

/// `null` counts as an answer.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

fn parse(line: &[u8]) -> Option<Message> {
    let line: Line = serde_json::from_slice(line).ok()?;
    if line.greeting.is_some() {
        return Some(Message::Greeting);
    }
    if let Some(event) = line.event {
        return Some(Message::Event(match event.as_str() {
            "SHUTDOWN" => Event::Shutdown {
                is_guest: line.data.guest,
                reason: line.data.reason,
            },
            "RESET" => Event::Reset,
            "GUEST_PANICKED" => Event::GuestPanicked,
            "BLOCK_IO_ERROR" if line.data.action == "stop" => Event::OutOfRoom,
            _ => Event::Other,
        }));
    }
    let id = line.id?;
    match (line.returned, line.error) {
        (Some(_), _) => Some(Message::Returned { id }),
        (None, Some(failure)) => Some(Message::Refused {
            id,
            detail: failure.desc,
        }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_between_answers() {
        let mut reader = Reader::default();
        let said = concat!(
            "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n",
            "{\"return\": {}, \"id\": 1}\r\n",
            "{\"timestamp\": {\"seconds\": 1}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n",
            "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n",
            "{\"event\": \"GUEST_PANICKED\", \"data\": {\"action\": \"pause\", \"info\": {}}}\r\n",
            "nonsense\r\n",
        );
        let mut messages = vec![];
        for piece in said.as_bytes().chunks(7) {
            messages.extend(reader.feed(piece).unwrap());
        }
        assert_eq!(
            messages,
            [
                Message::Greeting,
                Message::Returned { id: 1 },
                Message::Event(Event::Shutdown {
                    is_guest: true,
                    reason: "guest-shutdown".into()
                }),
                Message::Refused {
                    id: 2,
                    detail: "no".into()
                },
                Message::Event(Event::GuestPanicked),
            ]
        );
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = Reader::default();
        assert!(reader.feed(&vec![b'{'; LINE_BYTES_MAX + 1]).is_err());
    }
}
