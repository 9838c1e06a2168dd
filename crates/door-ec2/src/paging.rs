//! Pages of long lists: `MaxResults` and an opaque `NextToken`.
//!
//! A token says after which id the next page begins, so that it needs no
//! memory here and holds over restarts.  Lists are in the order of their ids.

use std::fmt::Display;
use std::str::FromStr;

use cumulet_domain::shown;
use cumulet_ec2_model::Request;
use cumulet_wire::base64;

use crate::error::Refused;

/// Most results of one page, whatever is asked for.
const RESULTS_MAX: usize = 1_000;
/// Longest token that is looked at.
const TOKEN_LEN_MAX: usize = 1024;

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// `None`: everything.
    size: Option<usize>,
    /// The key of the last result of the page before.
    after: Option<String>,
}

impl Page {
    /// Reads the request.  `least` is EC2's lower bound for this operation; `list` names its
    /// parameter of ids, which excludes paging.
    ///
    /// # Errors
    /// `InvalidParameterValue`, `InvalidNextToken`, `InvalidParameterCombination`.
    pub(crate) fn of(request: &Request<'_>, least: usize, list: &str) -> Result<Self, Refused> {
        let size = request.number::<usize>("MaxResults")?;
        if let Some(size) = size
            && size < least
        {
            return Err(Refused::invalid(format!(
                "Value ( {size} ) for parameter maxResults is invalid. Expecting a value of at least {least}."
            )));
        }
        let token = request.text("NextToken").filter(|token| !token.is_empty());
        let paged = match (size, token) {
            (Some(_), _) => Some("maxResults"),
            (None, Some(_)) => Some("nextToken"),
            (None, None) => None,
        };
        if let Some(parameter) = paged
            && !request.list(list).is_empty()
        {
            return Err(Refused::combination(format!(
                "The parameter {list} cannot be used with the parameter {parameter}"
            )));
        }
        let after = token
            .map(|token| after_of(request.operation.name, token))
            .transpose()?;
        // A token without a size continues with full pages.
        let size = size.or(after.as_ref().map(|_| RESULTS_MAX));
        Ok(Self {
            size: size.map(|size| size.min(RESULTS_MAX)),
            after,
        })
    }

    /// How many results the page may have; `None`: all of them.
    pub(crate) fn size(&self) -> Option<usize> {
        self.size
    }

    /// The id after which the page begins.
    ///
    /// # Errors
    /// `InvalidNextToken` when the token holds something else.
    pub(crate) fn after<T: FromStr>(&self) -> Result<Option<T>, Refused> {
        let parse = |text: &String| text.parse().map_err(|_| bad_token(text));
        self.after.as_ref().map(parse).transpose()
    }

    /// Cuts the page out of a list, and gives the token of the next one.
    pub(crate) fn cut<T>(
        &self,
        operation: &str,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let mut keyed: Vec<(String, T)> = items
            .into_iter()
            .map(|item| (key(&item), item))
            .filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after))
            .collect();
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        let Some(size) = self.size else {
            return (keyed.into_iter().map(|(_, item)| item).collect(), None);
        };
        let mut page = vec![];
        let mut last = None;
        for (key, item) in keyed {
            if page.len() >= size {
                return (page, last.map(|last| token_of(operation, last)));
            }
            last = Some(key);
            page.push(item);
        }
        (page, None)
    }

    /// As [`Self::cut`], of what comes in the order of its ids and from after [`Self::after`] on.
    /// Costs what the page looks at, not what there is.
    pub(crate) fn take<T>(
        &self,
        operation: &str,
        mut items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let Some(size) = self.size else {
            return (items.collect(), None);
        };
        let page: Vec<T> = items.by_ref().take(size).collect();
        let last = page.last().map(key);
        let next = last.filter(|_| items.next().is_some());
        (page, next.map(|last| token_of(operation, last)))
    }
}

/// The token of the page that begins after this id.
pub(crate) fn token_of(operation: &str, after: impl Display) -> String {
    base64::encode(format!("1 {operation} {after}").as_bytes())
}

fn after_of(operation: &str, token: &str) -> Result<String, Refused> {
    let read = || {
        let bytes = base64::decode(token, TOKEN_LEN_MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let after = text.strip_prefix(&format!("1 {operation} "))?;
        Some(after.to_owned())
    };
    read().ok_or_else(|| bad_token(token))
}

fn bad_token(token: &str) -> Refused {
    let token = shown(token);
    let message = format!("The specified NextToken is not valid: '{token}'");
    Refused::new(400, "InvalidNextToken", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_end() {
        let items = ["d", "b", "a", "c", "e"];
        let mut page = Page {
            size: Some(2),
            after: None,
        };
        let mut seen = vec![];
        loop {
            let (cut, token) = page.cut("Op", items, ToString::to_string);
            assert!(cut.len() <= 2);
            seen.extend(cut);
            let Some(token) = token else { break };
            page.after = Some(after_of("Op", &token).unwrap());
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        assert!(after_of("Other", &token_of("Op", "a")).is_err());
        assert!(after_of("Op", "garbage").is_err());
    }
}
