//! Pages of lists: sizes, and tokens that belong to one set of filters.

use artel_proto::v1::ErrorReason;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use super::status::{bad, status};

const DEFAULT: u32 = 50;
const MOST: u32 = 1000;

/// How many items a page has at most.
pub(super) fn size(asked: i32) -> Result<usize, Status> {
    match u32::try_from(asked) {
        Ok(0) => Ok(DEFAULT as usize),
        Ok(size) => Ok(size.min(MOST) as usize),
        Err(_) => Err(bad("page_size", "it is below 0")),
    }
}

/// The filters of a list, as a short word that page tokens begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filters(String);

impl Filters {
    pub(super) fn of(filters: &impl std::fmt::Debug) -> Self {
        let hash = Sha256::digest(format!("{filters:?}"));
        Self(hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// A token for the page after `last`.
    pub(super) fn token(&self, last: impl std::fmt::Display) -> String {
        format!("{}.{last}", self.0)
    }

    /// What the page before ended with; `None` for the first page.
    pub(super) fn after<T>(&self, token: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let last = token.split_once('.').filter(|(filters, _)| *filters == self.0).and_then(|(_, last)| parse(last));
        last.map(Some).ok_or_else(|| bad("page_token", "this daemon did not give it, or it belongs to other filters"))
    }
}

/// One page of a list that is at hand as a whole, and the token of the next one. `version` changes with the list.
pub(super) fn slice<T>(
    items: Vec<T>,
    size: usize,
    filters: &Filters,
    token: &str,
    version: &str,
) -> Result<(Vec<T>, String), Status> {
    let parse = |last: &str| {
        let (at, version) = last.split_once('.')?;
        Some((at.parse::<usize>().ok()?, version.to_owned()))
    };
    let from = match filters.after(token, parse)? {
        Some((_, other)) if other != version => {
            let message = "the list changed since its first page; begin again";
            return Err(status(Code::Aborted, ErrorReason::CatalogChanged, message));
        }
        Some((from, _)) => from,
        None => 0,
    };
    let total = items.len();
    let page: Vec<T> = items.into_iter().skip(from).take(size).collect();
    let end = from + page.len();
    let next = if end < total { filters.token(format_args!("{end}.{version}")) } else { String::new() };
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let filters = Filters::of(&"all");
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let (page, next) = slice((0..7).collect(), 3, &filters, &token, "v1").unwrap();
            seen.extend(page);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn tokens_of_other_lists_are_refused() {
        let filters = Filters::of(&"all");
        let (_, token) = slice((0..7).collect(), 3, &filters, "", "v1").unwrap();
        let refused = |filters: &Filters, token: &str, version: &str| {
            slice((0..7).collect::<Vec<i32>>(), 3, filters, token, version).unwrap_err().code()
        };
        assert_eq!(refused(&Filters::of(&"some"), &token, "v1"), Code::InvalidArgument);
        assert_eq!(refused(&filters, "nonsense", "v1"), Code::InvalidArgument);
        assert_eq!(refused(&filters, &token, "v2"), Code::Aborted);
        assert_eq!((size(0).unwrap(), size(5000).unwrap()), (50, 1000));
        assert!(size(-1).is_err());
    }
}
