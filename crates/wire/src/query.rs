//! Parameters of the Query APIs, from the URL and from a form body.
//!
//! Names are case-sensitive.  Lists are written `Name.1`, `Name.2`; structures
//! `Name.1.Member`.  What is signed is the decoded text, so that decoding is
//! strict: a malformed escape or bad UTF-8 is refused and not guessed at.

use std::collections::BTreeMap;

/// Most parameters of one request.
pub const PARAMETERS_MAX: usize = 4_000;
/// Longest name.
pub const NAME_LEN_MAX: usize = 256;
/// Longest value; user data of 16 KiB in base64 fits many times.
pub const VALUE_LEN_MAX: usize = 512 * 1024;
/// Biggest index of a list.
pub const INDEX_MAX: u32 = 10_000;

/// Why a query string was refused.  The texts are for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("The query string holds a malformed escape")]
    Escape,
    #[error("The query string is not UTF-8")]
    Utf8,
    #[error("The parameter {0} is given more than once")]
    Repeated(String),
    #[error("The request has more than {PARAMETERS_MAX} parameters")]
    TooMany,
    #[error("The name of a parameter is longer than {NAME_LEN_MAX} bytes")]
    LongName,
    #[error("The value of the parameter {0} is too long")]
    LongValue(String),
}

/// Decoded parameters, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    values: BTreeMap<String, String>,
}

impl Params {
    /// Adds the pairs of a query string or a form body.
    ///
    /// # Errors
    /// See [`QueryError`]; a name that is there already (also from the other place) is refused.
    pub fn add_encoded(&mut self, text: &str) -> Result<(), QueryError> {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if name.len() > NAME_LEN_MAX {
                return Err(QueryError::LongName);
            }
            self.insert(name, decode(value)?)?;
        }
        Ok(())
    }

    /// Adds a pair that is decoded already.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn insert(&mut self, name: String, value: String) -> Result<(), QueryError> {
        if name.len() > NAME_LEN_MAX {
            return Err(QueryError::LongName);
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(QueryError::LongValue(name));
        }
        if self.values.len() >= PARAMETERS_MAX {
            return Err(QueryError::TooMany);
        }
        if self.values.contains_key(&name) {
            return Err(QueryError::Repeated(name));
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// Parameters from a URL's query and a form body together.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(query: Option<&str>, form: Option<&[u8]>) -> Result<Self, QueryError> {
        let mut params = Self::default();
        params.add_encoded(query.unwrap_or_default())?;
        let form = std::str::from_utf8(form.unwrap_or_default()).map_err(|_| QueryError::Utf8)?;
        params.add_encoded(form.trim_end_matches(['\r', '\n']))?;
        Ok(params)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// In the order of names, by bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values of `Name.n` in the order of their numbers; gaps are no error, as EC2 allows them.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let mut found: Vec<(u32, &str)> = self
            .with_prefix(name)
            .filter_map(|(rest, value)| Some((parse_index(rest)?, value)))
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The numbers that occur in `Name.n.…`, in order.
    pub fn indexes(&self, name: &str) -> Vec<u32> {
        let mut found: Vec<u32> = self
            .with_prefix(name)
            .filter_map(|(rest, _)| parse_index(rest.split('.').next().unwrap_or_default()))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Pairs below `name.`, with the rest of their names.
    fn with_prefix<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = format!("{name}.");
        let start = prefix.clone();
        self.values
            .range(start..)
            .take_while({
                let prefix = prefix.clone();
                move |(key, _)| key.starts_with(&prefix)
            })
            .map(move |(key, value)| (&key[prefix.len()..], value.as_str()))
    }
}

/// A list index: decimal, from 1 (0 is tolerated, as old clients count from it), bounded.
pub fn parse_index(text: &str) -> Option<u32> {
    let is_number =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let index: u32 = if is_number {
        text.parse().ok()?
    } else {
        return None;
    };
    (index <= INDEX_MAX).then_some(index)
}

/// Decodes `%XX` and `+`.
///
/// # Errors
/// [`QueryError::Escape`] and [`QueryError::Utf8`].
pub fn decode(text: &str) -> Result<String, QueryError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let high = rest.next().and_then(hex_value).ok_or(QueryError::Escape)?;
                let low = rest.next().and_then(hex_value).ok_or(QueryError::Escape)?;
                bytes.push(high << 4 | low);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| QueryError::Utf8)
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Encodes as AWS signs it: everything but `A-Z a-z 0-9 - . _ ~` becomes `%XX` in capitals.
pub fn encode(text: &str) -> String {
    encode_except(text, b"")
}

/// As [`encode`], leaving the bytes of `kept` as they are.
pub fn encode_except(text: &str, kept: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn url_and_form_are_one_request() {
        let params = Params::parse(
            Some("Action=RunInstances&X.2=b"),
            Some(b"X.10=c&X.1=a%20b+c\r\n"),
        )
        .unwrap();
        assert_eq!(params.get("Action"), Some("RunInstances"));
        assert_eq!(params.list("X"), ["a b c", "b", "c"]);
        assert_eq!(params.indexes("X"), [1, 2, 10]);
        assert_eq!(params.list("Y"), Vec::<&str>::new());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, error) in [
            ("a=%", QueryError::Escape),
            ("a=%4", QueryError::Escape),
            ("a=%zz", QueryError::Escape),
            ("a=%ff", QueryError::Utf8),
            ("a=1&a=2", QueryError::Repeated("a".into())),
        ] {
            assert_eq!(Params::parse(Some(text), None), Err(error), "{text}");
        }
        assert_eq!(
            Params::parse(Some("a=1"), Some(b"a=1")),
            Err(QueryError::Repeated("a".into()))
        );
        let many: String = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=&")).collect();
        assert_eq!(Params::parse(Some(&many), None), Err(QueryError::TooMany));
    }

    proptest! {
        #[test]
        fn encoding_is_undone_by_decoding(text in ".{0,60}") {
            prop_assert_eq!(decode(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = Params::parse(Some(&text), Some(text.as_bytes()));
        }
    }
}
