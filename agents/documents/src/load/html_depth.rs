//! How deeply a page nests its elements, told before a tree is built: building one takes time that grows with the square of
//! the depth, and turning it into text takes a frame of the stack for each level.

use std::cell::{Cell, RefCell};

use html5ever::LocalName;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

use crate::error::DocumentError;

/// A page is fed in pieces, so that one that is too deep is not read to its end.
const PIECE_BYTES: usize = 64 << 10;
/// Elements that are never open, or that close each other.
const FLAT_TAGS: [&str; 37] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr", "p",
    "li", "dt", "dd", "td", "th", "tr", "tbody", "thead", "tfoot", "colgroup", "caption", "option", "optgroup", "rp",
    "rt", "rb", "rtc", "html", "head", "body", "frame", "keygen",
];

/// Refuses a page that nests elements deeper than `limit`.
pub(super) fn check(html: &str, limit: u32) -> Result<(), DocumentError> {
    let depth = DepthSink { open: RefCell::default(), limit: limit as usize, exceeded: Cell::new(false) };
    let tokenizer = Tokenizer::new(depth, TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() && !tokenizer.sink.exceeded.get() {
        let mut end = rest.len().min(PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        queue.push_back(rest[..end].into());
        rest = &rest[end..];
        let _ = tokenizer.feed(&queue);
    }
    if tokenizer.sink.exceeded.get() {
        return Err(DocumentError::NestedTooDeep { limit: limit.into() });
    }
    Ok(())
}

struct DepthSink {
    open: RefCell<Vec<LocalName>>,
    limit: usize,
    exceeded: Cell<bool>,
}

impl DepthSink {
    fn start(&self, tag: Tag) {
        if FLAT_TAGS.contains(&&*tag.name) || tag.self_closing || self.exceeded.get() {
            return;
        }
        let mut open = self.open.borrow_mut();
        open.push(tag.name);
        if open.len() > self.limit {
            self.exceeded.set(true);
        }
    }

    fn end(&self, tag: &Tag) {
        let mut open = self.open.borrow_mut();
        if let Some(at) = open.iter().rposition(|name| *name == tag.name) {
            open.truncate(at);
        }
    }
}

impl TokenSink for DepthSink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let Token::TagToken(tag) = token else { return TokenSinkResult::Continue };
        if tag.kind == TagKind::EndTag {
            self.end(&tag);
            return TokenSinkResult::Continue;
        }
        let raw = match &*tag.name {
            "script" => Some(RawKind::ScriptData),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => Some(RawKind::Rawtext),
            "textarea" | "title" => Some(RawKind::Rcdata),
            _ => None,
        };
        self.start(tag);
        raw.map_or(TokenSinkResult::Continue, TokenSinkResult::RawData)
    }
}
