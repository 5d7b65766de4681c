//! A YAML document as a tree in which every node knows its place.

use serde_json::Value as Json;

/// From one place to another, lines and columns from 1, in characters; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) end_line: u32,
    pub(crate) end_column: u32,
}

impl Span {
    /// A single character.
    pub(crate) fn point(line: u32, column: u32) -> Self {
        Self { line, column, end_line: line, end_column: column + 1 }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String, Style),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// How a text was written: what is needed to find a place inside it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// On its own lines below `|`.
    Literal,
    /// In any other way.
    Flow,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    /// Whether the report says already that this is no key.
    pub(crate) refused: bool,
    pub(crate) value: Node,
}

impl Node {
    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(..) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The node that a JSON pointer leads to, or the last one on the way.
    pub(crate) fn pointer(&self, pointer: &str) -> &Node {
        let mut at = self;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let next = match &at.value {
                Value::List(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => at.get(&part),
            };
            match next {
                Some(node) => at = node,
                None => break,
            }
        }
        at
    }

    /// As JSON; a number that JSON cannot hold becomes null.
    pub(crate) fn json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Float(f) => Json::from(*f),
            Value::Str(text, _) => Json::from(text.as_str()),
            Value::List(items) => Json::Array(items.iter().map(Node::json).collect()),
            Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect()),
        }
    }

    /// The place in the file of a line and column (both from 1, in characters) inside a text node; the node itself
    /// where the file's text and the node's differ, as in folded and escaped texts.
    pub(crate) fn inside(&self, file: &str, line: u32, column: u32, width: u32) -> Span {
        self.locate(file, line, column).map_or(self.span, |(line, column)| Span {
            line,
            column,
            end_line: line,
            end_column: column + width.max(1),
        })
    }

    fn locate(&self, file: &str, line: u32, column: u32) -> Option<(u32, u32)> {
        let Value::Str(text, style) = &self.value else { return None };
        let wanted = line_of(text, line)?;
        let (file_line, from) = match style {
            // The parser's place of such a text is its first line that is not blank.
            Style::Literal => {
                let blank = text.bytes().take_while(|b| *b == b'\n').count();
                ((self.span.line + line).checked_sub(1 + u32::try_from(blank).ok()?)?, 0)
            }
            Style::Flow if self.span.line == self.span.end_line => (self.span.line, self.span.column as usize - 1),
            Style::Flow => return None,
        };
        let raw: Vec<char> = line_of(file, file_line)?.chars().collect();
        let wanted: Vec<char> = wanted.chars().collect();
        let indent = match style {
            Style::Literal => raw.ends_with(&wanted).then(|| raw.len() - wanted.len())?,
            Style::Flow => from + raw.get(from..)?.windows(wanted.len().max(1)).position(|w| w == wanted)?,
        };
        Some((file_line, u32::try_from(indent).ok()? + column))
    }
}

/// A line of a text, from 1, without its end; lines end as YAML ends them.
pub(crate) fn line_of(text: &str, line: u32) -> Option<&str> {
    let mut rest = text;
    for _ in 1..line {
        let end = rest.find(['\n', '\r'])?;
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
    }
    (line > 0).then(|| rest.find(['\n', '\r']).map_or(rest, |end| &rest[..end]))
}
