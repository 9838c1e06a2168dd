//! Pages of long lists: `MaxResults` and an opaque `NextToken`.
//!
//! A token says after which id the next page begins, so that it needs no
//! memory here and holds over restarts.  Lists are in the order of their ids.

use cumulet_ec2_model::Request;
use cumulet_wire::base64;

use crate::error::Refused;

/// Most results of one page, whatever is asked for.
const RESULTS_MAX: usize = 1_000;
/// Longest token that is looked at.
const TOKEN_LEN_MAX: usize = 256;

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
        if size.is_some() && !request.list(list).is_empty() {
            return Err(Refused::combination(format!(
                "The parameter {list} cannot be used with the parameter maxResults"
            )));
        }
        let after = request
            .text("NextToken")
            .filter(|token| !token.is_empty())
            .map(|token| after_of(request.operation.name, token))
            .transpose()?;
        // A token without a size continues with full pages.
        let size = size.or(after.as_ref().map(|_| RESULTS_MAX));
        Ok(Self {
            size: size.map(|size| size.min(RESULTS_MAX)),
            after,
        })
    }

    /// Cuts the page out of a list, and gives the token of the next one.  `weight` is how much an
    /// item counts (a reservation as many as it has instances).
    pub(crate) fn cut<T>(
        &self,
        operation: &str,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
        weight: impl Fn(&T) -> usize,
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
        let mut count = 0;
        for (key, item) in keyed {
            let weight = weight(&item).max(1);
            // A reservation that is bigger than the page is given whole: it is not split.
            if count > 0 && count + weight > size {
                return (page, last.map(|last| token_of(operation, last)));
            }
            count += weight;
            last = Some(key);
            page.push(item);
        }
        (page, None)
    }
}

fn token_of(operation: &str, after: String) -> String {
    base64::encode(format!("1 {operation} {after}").as_bytes())
}

fn after_of(operation: &str, token: &str) -> Result<String, Refused> {
    let read = || {
        let bytes = base64::decode(token, TOKEN_LEN_MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let after = text.strip_prefix(&format!("1 {operation} "))?;
        Some(after.to_owned())
    };
    read().ok_or_else(|| {
        Refused::new(
            400,
            "InvalidNextToken",
            "The specified NextToken is not valid.",
        )
    })
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
            let (cut, token) = page.cut("Op", items, ToString::to_string, |_| 1);
            assert!(cut.len() <= 2);
            seen.extend(cut);
            let Some(token) = token else { break };
            page.after = Some(after_of("Op", &token).unwrap());
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        assert!(after_of("Other", &token_of("Op", "a".into())).is_err());
        assert!(after_of("Op", "garbage").is_err());
    }

    #[test]
    fn what_is_bigger_than_a_page_is_a_page() {
        let page = Page {
            size: Some(5),
            after: None,
        };
        let (cut, token) = page.cut("Op", ["a", "b"], ToString::to_string, |_| 20);
        assert_eq!(cut, ["a"]);
        assert!(token.is_some());
    }
}
