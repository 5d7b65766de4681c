//! From YAML text to located trees, within budgets.
//!
//! Only the parts of YAML that a catalog needs: keys are text, there are no tags and no merge keys. The parser is
//! pulled event by event and never recurses, so depth is bounded here before a tree exists.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use crate::node::{Span, TextStyle, YamlEntry, YamlNode, YamlValue};
use crate::problem::{Diagnostics, shown};

/// The deepest nesting: a graph with conditions has six levels, a large schema twenty.
pub const MAX_DEPTH: usize = 64;
/// The most nodes of one file, with aliases expanded.
pub const MAX_NODES: usize = 200_000;

/// The documents of a source. A syntax error ends the reading; `is_complete` is then false.
pub fn parse(report: &mut Diagnostics<'_>) -> ParsedYaml {
    let text = report.source.text.as_str();
    let mut tree = TreeBuilder::default();
    let mut parser = Parser::new_from_str(text);
    let is_complete = loop {
        match step(&mut parser, &mut tree, report) {
            Ok(true) => {}
            Ok(false) => break true,
            Err(ParseAborted) => break false,
        }
    };
    ParsedYaml { documents: tree.documents, is_complete }
}

/// The content of a source.
pub struct ParsedYaml {
    /// The documents up to the first syntax error.
    pub documents: Vec<YamlNode>,
    /// Whether the source was read to its end.
    pub is_complete: bool,
}

/// Reading cannot go on; the reason is reported.
struct ParseAborted;

type YamlParser<'a> = Parser<'a, StrInput<'a>>;

fn step(
    parser: &mut YamlParser<'_>,
    tree: &mut TreeBuilder,
    report: &mut Diagnostics<'_>,
) -> Result<bool, ParseAborted> {
    match parser.next_event() {
        None | Some(Ok((Event::StreamEnd, _))) => Ok(false),
        Some(Err(error)) => {
            syntax(&error, report);
            Err(ParseAborted)
        }
        Some(Ok((event, span))) => tree.event(event, convert(span), report).map(|()| true),
    }
}

fn convert(span: saphyr_parser::Span) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (start, end) = (span.start, span.end);
    Span {
        line: number(start.line()),
        column: number(start.col() + 1),
        end_line: number(end.line()),
        end_column: number(end.col() + 1),
    }
}

fn syntax(error: &ScanError, report: &mut Diagnostics<'_>) {
    let mark = error.marker();
    let span =
        Span::point(u32::try_from(mark.line()).unwrap_or(u32::MAX), u32::try_from(mark.col() + 1).unwrap_or(u32::MAX));
    let info = error.info();
    let line = crate::node::line_of(&report.source.text, span.line).unwrap_or_default();
    let hint = if info.contains("tab") || line.trim_start_matches(' ').starts_with('\t') {
        Some("indent with spaces; YAML allows no tabs there")
    } else if info.contains("mapping values are not allowed") {
        Some("text that contains `: ` goes in quotes; otherwise look at the indentation")
    } else if info.contains("quoted scalar") {
        Some("is the quote that opens here closed, and is all of its text indented?")
    } else if info.contains("unknown anchor") {
        Some("an alias needs its anchor before it; text that begins with `*` goes in quotes")
    } else if info.contains("recursion limit") {
        Some("brackets nest too deep")
    } else if line.contains("{{") || line.contains("{%") {
        Some("a template goes in quotes or on its own lines below `|`")
    } else {
        None
    };
    report.push_error(span, format!("bad YAML: {}", shown(info)), hint.map(str::to_owned));
}

#[derive(Default)]
struct TreeBuilder {
    documents: Vec<YamlNode>,
    open: Vec<OpenCollection>,
    anchors: BTreeMap<usize, AnchoredNode>,
    nodes: usize,
}

/// A complete node that aliases may repeat.
struct AnchoredNode {
    node: YamlNode,
    size: usize,
    depth: usize,
}

/// A list or map that is being read.
struct OpenCollection {
    span: Span,
    anchor: usize,
    /// The count of nodes before it.
    nodes_before: usize,
    /// The depth below it so far.
    depth: usize,
    items: Collection,
}

/// A key whose value is still to come.
struct PendingKey {
    text: String,
    span: Span,
    refused: bool,
}

enum Collection {
    List(Vec<YamlNode>),
    Map { entries: Vec<YamlEntry>, seen: HashMap<String, u32>, key: Option<PendingKey> },
}

impl TreeBuilder {
    fn event(&mut self, event: Event<'_>, span: Span, report: &mut Diagnostics<'_>) -> Result<(), ParseAborted> {
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span, report);
                self.count(1, span, report)?;
                if self.wants_key() {
                    return self.key(text.into_owned(), style, span, report);
                }
                refuse_wide_integer(&text, style, span, report);
                let value = scalar(text.into_owned(), style);
                self.put(YamlNode { span, value }, anchor, 1, 0);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span, report);
                self.begin(span, anchor, Collection::List(Vec::new()), report)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span, report);
                let items = Collection::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.begin(span, anchor, items, report)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span, report)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn refuse_tag(&self, tagged: bool, span: Span, report: &mut Diagnostics<'_>) {
        if tagged {
            report.error_with_hint(span, "tags such as `!!str` or `!name` have no meaning here", "remove the tag");
        }
    }

    fn count(&mut self, nodes: usize, span: Span, report: &mut Diagnostics<'_>) -> Result<(), ParseAborted> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        report.error(
            span,
            format!("the file has more than {MAX_NODES} values, aliases counted as often as they are used"),
        );
        Err(ParseAborted)
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(OpenCollection { items: Collection::Map { key: None, .. }, .. }))
    }

    fn key(
        &mut self,
        text: String,
        style: ScalarStyle,
        span: Span,
        report: &mut Diagnostics<'_>,
    ) -> Result<(), ParseAborted> {
        let plain = matches!(style, ScalarStyle::Plain);
        let mut refused = plain;
        if plain && text == "<<" {
            report.error_with_hint(span, "merge keys (`<<`) have no meaning here", "write the keys out");
        } else if plain && text.is_empty() {
            report.error(span, "a key is missing before the `:`");
        } else if plain && !matches!(scalar(text.clone(), style), YamlValue::Str(..)) {
            let message = format!("keys are text, and `{}` is not", shown(&text));
            report.error_with_hint(span, message, format!("put it in quotes: \"{}\"", shown(&text)));
        } else {
            refused = false;
        }
        if let Some(OpenCollection { items: Collection::Map { seen, key, .. }, .. }) = self.open.last_mut() {
            if let Some(first) = seen.insert(text.clone(), span.line) {
                report.error(span, format!("the key `{}` was given before, in line {first}", shown(&text)));
            }
            *key = Some(PendingKey { text, span, refused });
        }
        Ok(())
    }

    fn begin(
        &mut self,
        span: Span,
        anchor: usize,
        items: Collection,
        report: &mut Diagnostics<'_>,
    ) -> Result<(), ParseAborted> {
        if self.wants_key() {
            report.error_with_hint(
                span,
                "a key cannot be a list or a map",
                "a template that begins with `{{` goes in quotes or on its own lines below `|`",
            );
            return Err(ParseAborted);
        }
        if self.open.len() >= MAX_DEPTH {
            report.error(span, format!("lists and maps nest deeper than {MAX_DEPTH}"));
            return Err(ParseAborted);
        }
        let nodes_before = self.nodes;
        self.count(1, span, report)?;
        self.open.push(OpenCollection { span, anchor, nodes_before, depth: 0, items });
        Ok(())
    }

    fn end(&mut self, end: Span) {
        let Some(frame) = self.open.pop() else { return };
        let (start, size) = (frame.span, self.nodes - frame.nodes_before);
        let value = match frame.items {
            Collection::List(items) => YamlValue::List(items),
            Collection::Map { entries, .. } => YamlValue::Map(entries),
        };
        let span = Span { end_line: end.end_line, end_column: end.end_column, ..start };
        self.put(YamlNode { span, value }, frame.anchor, size, frame.depth + 1);
    }

    fn alias(&mut self, anchor: usize, span: Span, report: &mut Diagnostics<'_>) -> Result<(), ParseAborted> {
        if self.wants_key() {
            report.error(span, "a key cannot be an alias");
            return Err(ParseAborted);
        }
        let Some(AnchoredNode { node, size, depth }) = self.anchors.get(&anchor) else {
            report.error_with_hint(
                span,
                "this alias has no anchor before it",
                "an anchor holds in its own document, after its end",
            );
            return Err(ParseAborted);
        };
        let (size, depth) = (*size, *depth);
        if self.open.len() + depth > MAX_DEPTH {
            report.error(span, format!("with this alias, lists and maps nest deeper than {MAX_DEPTH}"));
            return Err(ParseAborted);
        }
        // Counted before it is copied, so that a bomb of aliases costs nothing.
        let node = if self.nodes + size <= MAX_NODES { Some(node.clone()) } else { None };
        self.count(size, span, report)?;
        if let Some(node) = node {
            self.put(node, 0, size, depth);
        }
        Ok(())
    }

    fn put(&mut self, node: YamlNode, anchor: usize, size: usize, depth: usize) {
        if anchor > 0 {
            // The copy counts too: anchors inside anchors would otherwise multiply memory by the depth.
            self.nodes = self.nodes.saturating_add(size);
            if self.nodes <= MAX_NODES {
                self.anchors.insert(anchor, AnchoredNode { node: node.clone(), size, depth });
            }
        }
        let Some(frame) = self.open.last_mut() else { return self.documents.push(node) };
        frame.depth = frame.depth.max(depth);
        match &mut frame.items {
            Collection::List(items) => items.push(node),
            Collection::Map { entries, key, .. } => {
                if let Some(PendingKey { text, span, refused }) = key.take() {
                    entries.push(YamlEntry { key: text, key_span: span, refused, value: node });
                }
            }
        }
    }
}

/// An integer of more than 64 bits would be rounded to a double.
fn refuse_wide_integer(text: &str, style: ScalarStyle, span: Span, report: &mut Diagnostics<'_>) {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if matches!(style, ScalarStyle::Plain) && is_integer && text.parse::<i64>().is_err() {
        let message = format!("the integer `{}` does not fit into 64 bits", shown(text));
        report.error_with_hint(span, message, "put it in quotes, as text");
    }
}

/// The core schema of YAML 1.2: `yes`, `on` and `1:30` are text.
fn scalar(text: String, style: ScalarStyle) -> YamlValue {
    match style {
        ScalarStyle::Plain => plain(text),
        ScalarStyle::Literal => YamlValue::Str(text, TextStyle::Literal),
        ScalarStyle::Folded | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            YamlValue::Str(text, TextStyle::Flow)
        }
    }
}

fn plain(text: String) -> YamlValue {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => YamlValue::Null,
        "true" | "True" | "TRUE" => YamlValue::Bool(true),
        "false" | "False" | "FALSE" => YamlValue::Bool(false),
        _ => number(&text).unwrap_or(YamlValue::Str(text, TextStyle::Flow)),
    }
}

fn number(text: &str) -> Option<YamlValue> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(YamlValue::Int);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(YamlValue::Int);
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(YamlValue::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(YamlValue::Float(f64::NAN));
    }
    let is_number = digits.bytes().any(|b| b.is_ascii_digit())
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !is_number {
        return None;
    }
    text.parse().map(YamlValue::Int).ok().or_else(|| text.parse().map(YamlValue::Float).ok())
}
