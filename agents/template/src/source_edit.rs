//! Changes of the text of a template, and where its expressions are in it.

use std::cmp::Reverse;
use std::ops::Range;

use serde_json::Value as Json;

/// A change of the source at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceEdit {
    pub(crate) at: usize,
    pub(crate) order: EditOrder,
    /// The bytes of the source that it replaces.
    pub(crate) replaced: usize,
    pub(crate) text: &'static str,
}

/// What comes first of several edits at one place: what ends there, innermost first, ends before anything begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EditOrder {
    /// The end of what began at this place.
    End(Reverse<usize>),
    EndOfAttribute,
    Begin,
}

impl SourceEdit {
    /// What goes around a range.
    pub(crate) fn around(range: Range<usize>, open: &'static str, close: &'static str) -> [Self; 2] {
        let end = EditOrder::End(Reverse(range.start));
        [
            Self { at: range.start, order: EditOrder::Begin, replaced: 0, text: open },
            Self { at: range.end, order: end, replaced: 0, text: close },
        ]
    }

    /// What goes in the place of a range.
    pub(crate) fn instead(range: Range<usize>, text: &'static str) -> Self {
        Self { at: range.start, order: EditOrder::Begin, replaced: range.len(), text }
    }
}

/// Where an expression is, maybe without its outermost parentheses.
pub(crate) fn range(expression: &Json, source: &str) -> Option<Range<usize>> {
    let end = offset(expression, "end_offset")?;
    start(expression, source).filter(|start| *start < end).map(|start| start..end)
}

/// Where an expression begins, maybe inside of its parentheses: the parser records the place of a filter, and not that of its value.
fn start(expression: &Json, source: &str) -> Option<usize> {
    let inner = &expression["inner"][0];
    let recorded = offset(expression, "start_offset")?;
    match expression["expr"].as_str()? {
        "Filter" | "Slice" | "GetAttr" | "GetItem" | "Call" | "Test" => start(&inner["expr"], source),
        "Tuple" if source.as_bytes().get(recorded) != Some(&b'(') => start(&inner["items"][0], source),
        _ => Some(recorded),
    }
}

fn offset(expression: &Json, key: &str) -> Option<usize> {
    expression["inner"][1][key].as_u64().and_then(|offset| usize::try_from(offset).ok())
}
