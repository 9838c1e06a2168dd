//! Base64 as EC2 reads it: characters outside the alphabet are ignored, unlike in RFC 3548, and
//! missing padding is forgiven.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    #[error("the text is not base64")]
    Malformed,
    #[error("the data is longer than {0} bytes")]
    TooLong(usize),
}

/// Decodes up to `bytes_max` bytes.
///
/// # Errors
/// See [`Base64Error`].
pub fn decode(text: &str, bytes_max: usize) -> Result<Vec<u8>, Base64Error> {
    let is_of_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let letters: Vec<u8> = text.bytes().filter(is_of_alphabet).collect();
    if letters.len() / 4 * 3 > bytes_max.saturating_add(3) {
        return Err(Base64Error::TooLong(bytes_max));
    }
    let bytes = STANDARD_NO_PAD
        .decode(letters)
        .map_err(|_| Base64Error::Malformed)?;
    if bytes.len() > bytes_max {
        Err(Base64Error::TooLong(bytes_max))
    } else {
        Ok(bytes)
    }
}

/// Where a text that [`decode`] finds malformed ceases to be base64, for users.  Of the text itself,
/// which may be a secret, nothing is said.
pub fn fault(text: &str) -> String {
    let is_end = |it: char| it == '=' || it.is_ascii_whitespace();
    let mut letters = text.trim_end_matches(is_end).chars();
    let is_foreign =
        |it: char| !(it.is_ascii_alphanumeric() || "+/".contains(it) || it.is_ascii_whitespace());
    letters.position(is_foreign).map_or_else(
        || "it has one letter too many, or too few".into(),
        |index| format!("character {} is not of its alphabet", index + 1),
    )
}

/// One line, padded.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Lines of 76 characters, as GetConsoleOutput printed them in 2007.
pub fn encode_lines(bytes: &[u8]) -> String {
    let line = encode(bytes);
    let mut out = String::with_capacity(line.len() + line.len() / 76 + 1);
    for (index, character) in line.chars().enumerate() {
        if index > 0 && index % 76 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_ignore_what_is_not_of_the_alphabet() {
        assert_eq!(
            decode("VGhpcyBp\ncyBiYXNl IDY0IQ==", 100).unwrap(),
            b"This is base 64!"
        );
        assert_eq!(
            decode("VGhpcyBpcyBiYXNlIDY0IQ", 16).unwrap(),
            b"This is base 64!"
        );
        assert_eq!(
            decode("VGhpcyBpcyBiYXNlIDY0IQ", 15),
            Err(Base64Error::TooLong(15))
        );
        assert_eq!(decode("A", 15), Err(Base64Error::Malformed));
        for (text, said) in [
            ("hunter22\u{e9}-5", "character 9 is"),
            ("AA=AAA\n", "character 3 is"),
            ("AAA A A==\n", "one letter"),
        ] {
            assert_eq!(decode(text, 100), Err(Base64Error::Malformed));
            assert!(fault(text).contains(said), "{}", fault(text));
        }
        assert_eq!(
            encode_lines(&[0; 60])
                .lines()
                .map(str::len)
                .collect::<Vec<_>>(),
            [76, 4]
        );
    }
}
