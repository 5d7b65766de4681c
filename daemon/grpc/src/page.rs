//! Pagination: page sizes, and page tokens that are bound to a set of filters.

use artel_proto::v1::ErrorReason;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use crate::status::{invalid_field, status};

const DEFAULT_PAGE_ITEMS: u32 = 50;
const MAX_PAGE_ITEMS: u32 = 1000;

/// The maximum number of items of a page.
pub(crate) fn size(asked: i32) -> Result<usize, Status> {
    match u32::try_from(asked) {
        Ok(0) => Ok(DEFAULT_PAGE_ITEMS as usize),
        Ok(size) => Ok(size.min(MAX_PAGE_ITEMS) as usize),
        Err(_) => Err(invalid_field("page_size", "is below 0")),
    }
}

/// A hash of the filters of a list, the prefix of its page tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageFilters(String);

impl PageFilters {
    pub(crate) fn of(filters: &impl std::fmt::Debug) -> Self {
        let hash = Sha256::digest(format!("{filters:?}"));
        Self(hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// A token for the page after `last`.
    pub(crate) fn token(&self, last: impl std::fmt::Display) -> String {
        format!("{}.{last}", self.0)
    }

    /// The last item of the previous page; `None` for the first page.
    pub(crate) fn after<T>(&self, token: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let last = token.split_once('.').filter(|(filters, _)| *filters == self.0).and_then(|(_, last)| parse(last));
        last.map(Some).ok_or_else(|| invalid_field("page_token", "was not issued by this daemon, or for other filters"))
    }
}

/// One page of a list in memory that changes between pages, and the token of the next page: the items are sorted by their names,
/// and those after the last one of the previous page follow, whether that is still there or not.
pub(crate) fn slice_by_name<T>(
    mut items: Vec<T>,
    name: impl Fn(&T) -> String,
    size: usize,
    filters: &PageFilters,
    token: &str,
) -> Result<(Vec<T>, String), Status> {
    items.sort_by_cached_key(&name);
    if let Some(last) = filters.after(token, |last| Some(last.to_owned()))? {
        items.retain(|item| name(item) > last);
    }
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(|last| filters.token(name(last))).unwrap_or_default();
    Ok((items, next))
}

/// One page of a list in memory, and the token of the next page. `version` changes with the list.
pub(crate) fn slice<T>(
    items: Vec<T>,
    size: usize,
    filters: &PageFilters,
    token: &str,
    version: &str,
) -> Result<(Vec<T>, String), Status> {
    let parse = |last: &str| {
        let (at, version) = last.split_once('.')?;
        Some((at.parse::<usize>().ok()?, version.to_owned()))
    };
    let from = match filters.after(token, parse)? {
        Some((_, other)) if other != version => {
            let message = "the list changed since its first page; start again";
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
    fn pages_cover_the_whole_list_in_order() {
        let filters = PageFilters::of(&"all");
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
    fn items_that_come_and_go_between_pages_hide_no_other() {
        let (filters, name) = (PageFilters::of(&"all"), |item: &&str| (*item).to_owned());
        let (page, next) = slice_by_name(vec!["c", "a", "e", "b"], name, 2, &filters, "").unwrap();
        assert_eq!(page, ["a", "b"]);
        let (page, last) = slice_by_name(vec!["e", "c", "aa"], name, 2, &filters, &next).unwrap();
        assert_eq!((page, last.as_str()), (vec!["c", "e"], ""));
        assert!(slice_by_name(vec!["a"], name, 2, &PageFilters::of(&"some"), &next).is_err());
    }

    #[test]
    fn tokens_of_other_lists_are_rejected() {
        let filters = PageFilters::of(&"all");
        let (_, token) = slice((0..7).collect(), 3, &filters, "", "v1").unwrap();
        let rejected = |filters: &PageFilters, token: &str, version: &str| {
            slice((0..7).collect::<Vec<i32>>(), 3, filters, token, version).unwrap_err().code()
        };
        assert_eq!(rejected(&PageFilters::of(&"some"), &token, "v1"), Code::InvalidArgument);
        assert_eq!(rejected(&filters, "nonsense", "v1"), Code::InvalidArgument);
        assert_eq!(rejected(&filters, &token, "v2"), Code::Aborted);
        assert_eq!((size(0).unwrap(), size(5000).unwrap()), (50, 1000));
        assert!(size(-1).is_err());
    }
}
