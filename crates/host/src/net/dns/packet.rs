//! The few parts of a DNS message that are looked at or made (RFC 1035).
//!
//! Read by hand, since guests choose what is in it; everything behind the
//! question is passed on unread.

use std::net::Ipv4Addr;

const HEADER_LEN: usize = 12;
const NAME_LEN_MAX: usize = 255;
const LABEL_LEN_MAX: u8 = 63;
pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_PTR: u16 = 12;
pub(super) const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;
/// Seconds for which an answer of ours may be kept.
const TTL: u32 = 60;

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rcode {
    Ok = 0,
    ServerFailure = 2,
    NoSuchName = 3,
}

/// One record of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(Ipv4Addr),
    /// A host name, for a reverse question.
    Pointer(String),
}

/// A question, and the bytes that it came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    message: &'a [u8],
    /// Where the question ends.
    question_end: usize,
    /// In lower case, without the dot at the end.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) is_internet: bool,
}

impl<'a> Query<'a> {
    /// Reads a standard query with one question; anything else is none of ours.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let header = message.get(..HEADER_LEN)?;
        let is_query = header[2] & 0xf8 == 0;
        if !is_query || header[4..6] != [0, 1] || header[6..8] != [0, 0] {
            return None;
        }
        let mut labels = vec![];
        let mut at = HEADER_LEN;
        loop {
            let len = *message.get(at)?;
            at += 1;
            if len == 0 {
                break;
            }
            // Also refuses compression, which has no place in a question.
            if len > LABEL_LEN_MAX || at > HEADER_LEN + NAME_LEN_MAX {
                return None;
            }
            let label = message.get(at..at + usize::from(len))?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += usize::from(len);
        }
        let number = |at: usize| {
            Some(u16::from_be_bytes(
                message.get(at..at + 2)?.try_into().ok()?,
            ))
        };
        Some(Self {
            message,
            question_end: at + 4,
            name: labels.join("."),
            kind: number(at)?,
            is_internet: number(at + 2)? == CLASS_IN,
        })
    }

    /// Whether `answer` is a response to this very question.
    pub(super) fn is_answered_by(&self, answer: &[u8]) -> bool {
        let same = |from: usize, to: usize| answer.get(from..to) == self.message.get(from..to);
        same(0, 2)
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && same(HEADER_LEN, self.question_end)
    }

    /// An answer of ours with these records.
    pub(super) fn answer(&self, records: &[Record]) -> Vec<u8> {
        self.respond(Rcode::Ok, records)
    }

    /// An answer of ours without records.
    pub(super) fn refuse(&self, rcode: Rcode) -> Vec<u8> {
        self.respond(rcode, &[])
    }

    fn respond(&self, rcode: Rcode, records: &[Record]) -> Vec<u8> {
        let id = self.message.get(..2).unwrap_or_default();
        let is_recursion_desired = self.message.get(2).copied().unwrap_or_default() & 1;
        let mut message = id.to_vec();
        // A response; recursion as asked for, and available.
        message.extend([0x80 | is_recursion_desired, 0x80 | rcode as u8]);
        let count = u16::try_from(records.len()).unwrap_or(0);
        for number in [1, count, 0, 0] {
            message.extend(number.to_be_bytes());
        }
        message.extend(
            self.message
                .get(HEADER_LEN..self.question_end)
                .unwrap_or_default(),
        );
        for record in records.iter().take(usize::from(count)) {
            let (kind, data) = match record {
                Record::Address(address) => (TYPE_A, address.octets().to_vec()),
                Record::Pointer(name) => (TYPE_PTR, encode_name(name)),
            };
            // The name is the question's, at its place behind the header.
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend(CLASS_IN.to_be_bytes());
            message.extend(TTL.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            message.extend(data);
        }
        message
    }
}

/// A name of ours, whose labels are short and not empty.
fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = vec![];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let len = u8::try_from(label.len())
            .unwrap_or(LABEL_LEN_MAX)
            .min(LABEL_LEN_MAX);
        bytes.push(len);
        bytes.extend(label.bytes().take(usize::from(len)));
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A question as a guest's resolver puts it.
    pub(in super::super) fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = question("IP-10-1-0-4.ec2.Internal", TYPE_A);
        let query = Query::parse(&message).unwrap();
        assert_eq!(
            (query.name.as_str(), query.kind),
            ("ip-10-1-0-4.ec2.internal", TYPE_A)
        );
        let answer = query.answer(&[Record::Address(Ipv4Addr::new(10, 1, 0, 4))]);
        assert!(query.is_answered_by(&answer));
        assert_eq!(answer[..8], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(
            answer[message.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 0, 4]
        );
        assert_eq!(query.refuse(Rcode::NoSuchName)[3], 0x83);
        let root = question("", TYPE_A);
        assert_eq!(Query::parse(&root).unwrap().name, "");
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let message = question("a.example", TYPE_A);
        let query = Query::parse(&message).unwrap();
        assert!(!query.is_answered_by(&message), "a question is no answer");
        for other in [
            question("b.example", TYPE_A),
            question("a.example", TYPE_PTR),
        ] {
            let answer = Query::parse(&other).unwrap().answer(&[]);
            assert!(!query.is_answered_by(&answer));
        }
        let mut stale = query.answer(&[]);
        stale[0] ^= 1;
        assert!(!query.is_answered_by(&stale));
        assert!(!query.is_answered_by(&[]));
    }

    #[test]
    fn damaged_questions_are_survived() {
        let whole = question("ip-10-1-0-4.ec2.internal", TYPE_A);
        for len in 0..whole.len() {
            assert_eq!(Query::parse(&whole[..len]), None, "{len}");
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Some(query) = Query::parse(&damaged) {
                    assert!(query.is_answered_by(&query.answer(&[])));
                }
            }
        }
        let mut long = whole[..HEADER_LEN].to_vec();
        long.extend([1, b'a'].repeat(400));
        long.extend([0, 0, 1, 0, 1]);
        assert_eq!(Query::parse(&long), None);
    }
}
