//! A YAML document as a tree in which every node has its span.

use serde_json::Value as Json;

/// A range of the file: lines and columns from 1, in characters; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Its first line.
    pub line: u32,
    /// Its first column.
    pub column: u32,
    /// The line of its end.
    pub end_line: u32,
    /// The column behind its last character.
    pub end_column: u32,
}

impl Span {
    /// A single character.
    pub fn point(line: u32, column: u32) -> Self {
        Self { line, column, end_line: line, end_column: column + 1 }
    }
}

/// A value and its span.
#[derive(Debug, Clone)]
pub struct YamlNode {
    /// Where it is written.
    pub span: Span,
    /// What it is.
    pub value: YamlValue,
}

/// A value by the core schema of YAML 1.2.
#[derive(Debug, Clone)]
pub enum YamlValue {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text, and how it was written.
    Str(String, TextStyle),
    /// A list.
    List(Vec<YamlNode>),
    /// A map, as its entries are written.
    Map(Vec<YamlEntry>),
}

/// How a text was written, by which a place inside it is found in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStyle {
    /// On its own lines below `|`.
    Literal,
    /// In any other way.
    Flow,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct YamlEntry {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub key_span: Span,
    /// Whether it was reported already that this is no key.
    pub refused: bool,
    /// The value.
    pub value: YamlNode,
}

impl YamlNode {
    /// The kind of the value, in words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            YamlValue::Null => "nothing",
            YamlValue::Bool(_) => "true or false",
            YamlValue::Int(_) | YamlValue::Float(_) => "a number",
            YamlValue::Str(..) => "text",
            YamlValue::List(_) => "a list",
            YamlValue::Map(_) => "a map",
        }
    }

    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&YamlNode> {
        match &self.value {
            YamlValue::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The node at a JSON pointer, or the last node on its path that exists.
    pub fn pointer(&self, pointer: &str) -> &YamlNode {
        let mut at = self;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let next = match &at.value {
                YamlValue::List(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
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
    pub fn json(&self) -> Json {
        match &self.value {
            YamlValue::Null => Json::Null,
            YamlValue::Bool(b) => Json::Bool(*b),
            YamlValue::Int(i) => Json::from(*i),
            YamlValue::Float(f) => Json::from(*f),
            YamlValue::Str(text, _) => Json::from(text.as_str()),
            YamlValue::List(items) => Json::Array(items.iter().map(YamlNode::json).collect()),
            YamlValue::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect()),
        }
    }

    /// The span in the file of a line and column (both from 1, in characters) inside a text node; the span of the node
    /// where the file's text and the node's differ, as in folded and escaped texts.
    pub fn inside(&self, file: &str, line: u32, column: u32, width: u32) -> Span {
        self.locate(file, line, column).map_or(self.span, |(line, column)| Span {
            line,
            column,
            end_line: line,
            end_column: column + width.max(1),
        })
    }

    fn locate(&self, file: &str, line: u32, column: u32) -> Option<(u32, u32)> {
        let YamlValue::Str(text, style) = &self.value else { return None };
        let wanted = line_of(text, line)?;
        let (file_line, from) = match style {
            // The parser's span of such a text begins at its first line that is not blank.
            TextStyle::Literal => {
                let blank = text.bytes().take_while(|b| *b == b'\n').count();
                ((self.span.line + line).checked_sub(1 + u32::try_from(blank).ok()?)?, 0)
            }
            TextStyle::Flow if self.span.line == self.span.end_line => (self.span.line, self.span.column as usize - 1),
            TextStyle::Flow => return None,
        };
        let raw: Vec<char> = line_of(file, file_line)?.chars().collect();
        let wanted: Vec<char> = wanted.chars().collect();
        let indent = match style {
            TextStyle::Literal => raw.ends_with(&wanted).then(|| raw.len() - wanted.len())?,
            TextStyle::Flow => from + raw.get(from..)?.windows(wanted.len().max(1)).position(|w| w == wanted)?,
        };
        Some((file_line, u32::try_from(indent).ok()? + column))
    }
}

/// A line of a text, from 1, without its end; lines end as YAML ends them.
pub fn line_of(text: &str, line: u32) -> Option<&str> {
    let mut rest = text;
    for _ in 1..line {
        let end = rest.find(['\n', '\r'])?;
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
    }
    (line > 0).then(|| rest.find(['\n', '\r']).map_or(rest, |end| &rest[..end]))
}
