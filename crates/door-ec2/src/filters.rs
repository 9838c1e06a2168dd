//! `Filter.n.Name` and `Filter.n.Value.m`: all filters must match, each by any of its values.
//!
//! Values may hold `*` (any text), `?` (any character) and a backslash before
//! one that is meant literally; they are compared case-sensitively.

use cumulet_domain::shown;
use cumulet_ec2_model::Request;

use crate::error::Refused;

/// Most filters of one request, and most values of all of them together; EC2's own limits are 50
/// and 200.
const FILTERS_MAX: usize = 50;
const VALUES_MAX: usize = 200;

/// Which filters an operation has.
pub(crate) struct Known {
    /// Those that something here can match.  A name that ends in `:` stands for all that begin with
    /// it.
    pub(crate) names: &'static [&'static str],
    /// Those that EC2 has and for which nothing here has a value: they match nothing.
    pub(crate) without_value: &'static [&'static str],
}

impl Known {
    fn has(&self, name: &str) -> bool {
        let is_named =
            |known: &&str| *known == name || (known.ends_with(':') && name.starts_with(*known));
        self.names.iter().chain(self.without_value).any(is_named)
    }
}

/// The filters of a request.
pub(crate) struct Filters<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Filters<'a> {
    /// # Errors
    /// `InvalidParameterValue` for a filter that EC2 does not have here; `MissingParameter`.
    pub(crate) fn of(request: &Request<'a>, known: &Known) -> Result<Self, Refused> {
        let filters = request.filters()?;
        let values: usize = filters.iter().map(|(_, values)| values.len()).sum();
        if filters.len() > FILTERS_MAX || values > VALUES_MAX {
            return Err(Refused::new(
                400,
                "FilterLimitExceeded",
                format!("A request has at most {FILTERS_MAX} filters with {VALUES_MAX} values"),
            ));
        }
        for (name, _) in &filters {
            if !known.has(name) {
                let name = shown(name);
                return Err(Refused::invalid(format!("The filter '{name}' is invalid")));
            }
        }
        Ok(Self(filters))
    }

    /// Whether something passes whose values `of` gives by the filter's name.
    pub(crate) fn pass(&self, of: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let values = of(name);
            wanted
                .iter()
                .any(|pattern| values.iter().any(|value| is_like(pattern, value)))
        })
    }
}

/// Whether `text` matches a pattern with `*`, `?` and `\`.
fn is_like(pattern: &str, text: &str) -> bool {
    let pattern = tokens(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not match.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Star) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(Token::Any) => {
                p += 1;
                t += 1;
            }
            Some(Token::Literal(character)) if text.get(t) == Some(character) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, from)) = retry else {
                    return false;
                };
                retry = Some((star, from + 1));
                p = star + 1;
                t = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|token| *token == Token::Star)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Literal(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = vec![];
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Literal(characters.next().unwrap_or('\\')),
            other => Token::Literal(other),
        });
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, is_match) in [
            ("running", "running", true),
            ("running", "Running", false),
            ("run*", "running", true),
            ("*ing", "running", true),
            ("r*n*g", "running", true),
            ("r?nning", "running", true),
            ("*", "", true),
            ("?", "", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("", "x", false),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(is_like(pattern, text), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn known_names_are_exact_or_families() {
        let known = Known {
            names: &["image-id", "tag:"],
            without_value: &["vpc-id"],
        };
        assert!(known.has("image-id") && known.has("tag:Name") && known.has("vpc-id"));
        assert!(!known.has("image-ids") && !known.has("vpc-id2"));
    }
}
