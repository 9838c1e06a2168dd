//! Parameters of the Query APIs, from the URL and from a form body.
//!
//! Names are case-sensitive.  Lists are written `Name.1`, `Name.2`; structures
//! `Name.1.Member`.  What is signed is the decoded text, so that decoding is
//! strict: a malformed escape or bad UTF-8 is refused and not guessed at.

use std::collections::BTreeMap;

use crate::shown;

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
    /// The escape as it stands.
    #[error("The query string holds a malformed escape: '{0}'")]
    Escape(String),
    /// Where it ceases to be; never what it is, which may be a secret.
    #[error("The query string is not UTF-8: {0}")]
    Utf8(String),
    #[error("The parameter {0} is given more than once")]
    Repeated(String),
    #[error("The request has more than {PARAMETERS_MAX} parameters")]
    TooMany,
    /// How it begins.
    #[error("The name of a parameter is longer than {NAME_LEN_MAX} bytes: '{0}...'")]
    LongName(String),
    /// The name, and how long the value is.
    #[error("The value of the parameter {0} is longer than {VALUE_LEN_MAX} bytes: it has {1}")]
    LongValue(String, usize),
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
            let name = decode(name).map_err(|cause| cause.within("the name of a parameter"))?;
            if name.len() > NAME_LEN_MAX {
                return Err(QueryError::LongName(shown(&name)));
            }
            let value = decode(value).map_err(|cause| cause.within(&shown(&name)))?;
            self.insert(name, value)?;
        }
        Ok(())
    }

    /// Adds a pair that is decoded already.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn insert(&mut self, name: String, value: String) -> Result<(), QueryError> {
        if name.len() > NAME_LEN_MAX {
            return Err(QueryError::LongName(shown(&name)));
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(QueryError::LongValue(name, value.len()));
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
        let form = form.unwrap_or_default();
        let form = std::str::from_utf8(form).map_err(|cause| not_utf8(form, cause))?;
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

impl QueryError {
    /// Says of which text a place is told.
    fn within(self, what: &str) -> Self {
        match self {
            QueryError::Utf8(place) => QueryError::Utf8(format!("{place} of {what}")),
            other => other,
        }
    }
}

/// The first character that is none, counted from 1.
fn place(bytes: &[u8]) -> String {
    let good = bytes.utf8_chunks().next().map_or("", |it| it.valid());
    format!("character {}", good.chars().count() + 1)
}

/// Tells of bytes that are no text in which parameter they cease to be one, and where there.
fn not_utf8(bytes: &[u8], cause: std::str::Utf8Error) -> QueryError {
    let good = bytes.get(..cause.valid_up_to()).unwrap_or_default();
    let start = good.iter().rposition(|byte| *byte == b'&');
    let rest = bytes
        .get(start.map_or(0, |it| it + 1)..)
        .unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'&');
    let pair = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let split = pair.iter().position(|byte| *byte == b'=');
    let (name, value) = split.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
    match std::str::from_utf8(name) {
        Ok(name) => QueryError::Utf8(place(value)).within(&shown(name)),
        Err(_) => QueryError::Utf8(place(name)).within("the name of a parameter"),
    }
}

/// A list index: decimal, from 1 (0 is tolerated, as old clients count from it), bounded.
///
/// With leading zeros it is none: `Tag.01.Key` and `Tag.1.Key` would be one item by two names, and
/// what is looked up by the one would not find the other.
pub fn parse_index(text: &str) -> Option<u32> {
    let is_number = !text.is_empty()
        && text.len() <= 5
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
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
    let mut rest = text.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || rest.next().and_then(|(_, byte)| hex_value(byte));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    let escape = text.get(at..).unwrap_or_default();
                    return Err(QueryError::Escape(escape.chars().take(3).collect()));
                };
                bytes.push(high << 4 | low);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|cause| QueryError::Utf8(place(cause.as_bytes())))
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
            ("a=b%", QueryError::Escape("%".into())),
            ("a=b%4", QueryError::Escape("%4".into())),
            ("a=%20%zzz", QueryError::Escape("%zz".into())),
            ("a=%\u{e9}", QueryError::Escape("%\u{e9}".into())),
            ("a=b%ff", QueryError::Utf8("character 2 of a".into())),
            (
                "a=1&%c3%a9%e9=2",
                QueryError::Utf8("character 2 of the name of a parameter".into()),
            ),
            ("a=1&a=2", QueryError::Repeated("a".into())),
        ] {
            assert_eq!(Params::parse(Some(text), None), Err(error), "{text}");
        }
        assert_eq!(
            Params::parse(Some("a=1"), Some(b"a=1")),
            Err(QueryError::Repeated("a".into()))
        );
        for (form, place) in [
            (&b"a=1&b=hunter\xe9&c=1"[..], "character 7 of b"),
            (b"a=1&b\xe9", "character 2 of the name of a parameter"),
            (b"\xe9=1", "character 1 of the name of a parameter"),
        ] {
            let refused = Params::parse(None, Some(form));
            assert_eq!(refused, Err(QueryError::Utf8(place.into())));
        }
        let long = "N".repeat(NAME_LEN_MAX + 1);
        let refused = Params::parse(Some(&long), None).unwrap_err().to_string();
        assert!(
            refused.ends_with(&format!("'{}...'", "N".repeat(120))),
            "{refused}"
        );
        let long = format!("Name={}", "v".repeat(VALUE_LEN_MAX + 1));
        let refused = Params::parse(Some(&long), None).unwrap_err().to_string();
        assert!(
            refused.contains("Name is longer") && refused.ends_with("524289"),
            "{refused}"
        );
        let many: String = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=&")).collect();
        assert_eq!(Params::parse(Some(&many), None), Err(QueryError::TooMany));
    }

    #[test]
    fn an_item_of_a_list_has_one_name() {
        for (text, index) in [("0", 0), ("1", 1), ("10", 10), ("10000", 10_000)] {
            assert_eq!(parse_index(text), Some(index), "{text}");
        }
        for text in [
            "", "00", "01", "001", "10001", "-1", "+1", " 1", "n", "\u{661}",
        ] {
            assert_eq!(parse_index(text), None, "{text}");
        }
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
