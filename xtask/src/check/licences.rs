//! Reads licence expressions (SPDX), as far as crates use them.
//!
//! `AND` needs both sides, `OR` and the old `/` need one, `WITH` belongs to the
//! name before it, and a `+` after a name means "or later", which includes the
//! version named.

/// Whether the expression can be met with the allowed licences.
///
/// # Errors
/// When it is not an expression.
pub(crate) fn is_allowed(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut parser = Parser {
        words: spaced.split_whitespace().collect(),
        next: 0,
        allowed,
    };
    let met = parser.either()?;
    match parser.peek() {
        None => Ok(met),
        Some(word) => Err(format!("unexpected {word:?} in the licence {expression:?}")),
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    next: usize,
    allowed: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<bool, String> {
        let mut met = self.both()?;
        while self.take("OR") {
            met |= self.both()?;
        }
        Ok(met)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.either()?;
            return match self.take(")") {
                true => Ok(met),
                false => Err("a parenthesis of a licence is not closed".to_owned()),
            };
        }
        let word = self.peek().ok_or("a licence ends early")?;
        self.next += 1;
        let mut name = word.trim_end_matches('+').to_owned();
        if self.take("WITH") {
            let exception = self.peek().ok_or("a licence ends early")?;
            self.next += 1;
            name = format!("{name} WITH {exception}");
        }
        Ok(self.allowed.contains(&name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC", "MPL-2.0"];
        let cases = [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("MIT OR GPL-3.0 AND ISC", true),
            ("(MIT OR GPL-3.0) AND GPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MPL-2.0+", true),
        ];
        for (expression, expected) in cases {
            assert_eq!(
                is_allowed(expression, &allowed),
                Ok(expected),
                "{expression}"
            );
        }
        for broken in ["", "MIT AND", "(MIT", "MIT ISC", "MIT WITH"] {
            assert!(is_allowed(broken, &allowed).is_err(), "{broken:?}");
        }
    }
}
