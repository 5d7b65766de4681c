//! The operators and tags of a chat template that minijinja has otherwise than Python, or not at all. The text of the template is
//! changed to apply filters in their place: an operand of a comparison is read revealed, one of `~` is printed as Python prints it,
//! `%` becomes a filter, and a loop over none is refused.

use std::ops::Range;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use serde_json::Value as Json;

use crate::source_edit::{SourceEdit, range};

/// Which operators a template has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperatorDialect {
    /// Those of minijinja.
    Jinja,
    /// Those of Python.
    Python,
}

const OPEN: &str = "((";
const PLAIN: &str = ")|__plain)";
const CONTAINER: &str = ")|__container)";
const TEXT: &str = ")|__text)";
const ITERABLE: &str = ")|__iterable)";
const PERCENT: &str = ")|__percent(";
const CLOSE: &str = "))";

/// Tags that mark what an assistant said and render it as it is, and those in their place, of the same length.
const MARKING_TAGS: [(&str, &str); 2] = [("generation", "if true   "), ("endgeneration", "endif        ")];

/// Replaces the tags `generation` and `endgeneration`, which only training reads.
pub(crate) fn without_marking_tags(source: &str) -> String {
    let mut text = source.to_owned();
    let mut is_tag = false;
    for (token, span) in tokenize(source, false, SyntaxConfig::default()).map_while(Result::ok) {
        if let Token::Ident(word) = token
            && is_tag
            && let Some((_, other)) = MARKING_TAGS.iter().find(|(tag, _)| *tag == word)
        {
            text.replace_range(span.start_offset as usize..span.end_offset as usize, other);
        }
        is_tag = matches!(token, Token::BlockStart);
    }
    text
}

/// The changes of a template whose syntax tree this is.
pub(crate) fn edits(tree: &Json, source: &str) -> Vec<SourceEdit> {
    let percents = tokenize(source, false, SyntaxConfig::default()).map_while(Result::ok);
    let percents = percents.filter(|(token, _)| matches!(token, Token::Mod));
    let percents = percents.map(|(_, span)| span.start_offset as usize..span.end_offset as usize).collect();
    let mut found = OperatorEdits { source, percents, edits: Vec::new() };
    found.find(tree);
    found.edits
}

struct OperatorEdits<'s> {
    source: &'s str,
    percents: Vec<Range<usize>>,
    edits: Vec<SourceEdit>,
}

impl OperatorEdits<'_> {
    fn find(&mut self, tree: &Json) {
        match tree {
            Json::Array(parts) => parts.iter().for_each(|part| self.find(part)),
            Json::Object(map) => {
                let inner = &tree["inner"][0];
                match map.get("expr").and_then(Json::as_str) {
                    Some("BinOp") => self.binary(inner),
                    Some("Compare") => self.chain(inner),
                    _ => {}
                }
                if map.get("stmt").is_some_and(|statement| statement == "ForLoop") {
                    self.wrap(&inner["iter"], ITERABLE);
                }
                map.values().for_each(|part| self.find(part));
            }
            _ => {}
        }
    }

    fn binary(&mut self, inner: &Json) {
        let (left, right) = (&inner["left"], &inner["right"]);
        match inner["op"].as_str() {
            Some("Eq" | "Ne" | "Lt" | "Lte" | "Gt" | "Gte") => {
                self.wrap(left, PLAIN);
                self.wrap(right, PLAIN);
            }
            Some("In") => {
                self.wrap(left, PLAIN);
                self.wrap(right, CONTAINER);
            }
            Some("Concat") => {
                self.wrap(left, TEXT);
                self.wrap(right, TEXT);
            }
            Some("Rem") => self.percent(left, right),
            _ => {}
        }
    }

    fn chain(&mut self, inner: &Json) {
        self.wrap(&inner["expr"], PLAIN);
        for operator in inner["ops"].as_array().into_iter().flatten() {
            let is_in = matches!(operator["op"].as_str(), Some("In" | "NotIn"));
            self.wrap(&operator["expr"], if is_in { CONTAINER } else { PLAIN });
        }
    }

    /// Applies a filter to an operand. A constant needs none, nor what is a truth value or made of texts.
    fn wrap(&mut self, operand: &Json, close: &'static str) {
        let needs_none = match operand["expr"].as_str() {
            Some("Const") => operand["inner"][0]["value"] != Json::Null,
            Some("Test" | "Compare") => true,
            Some("BinOp") => operand["inner"][0]["op"] == "Concat" && close == TEXT,
            _ => false,
        };
        if !needs_none && let Some(range) = range(operand, self.source) {
            self.edits.extend(SourceEdit::around(range, OPEN, close));
        }
    }

    fn percent(&mut self, left: &Json, right: &Json) {
        let (Some(left), Some(right)) = (range(left, self.source), range(right, self.source)) else { return };
        let operator = self.percents.iter().find(|place| place.start >= left.end && place.end <= right.start);
        let Some(operator) = operator.cloned() else { return };
        self.edits.extend(SourceEdit::around(left.start..right.end, OPEN, CLOSE));
        self.edits.push(SourceEdit::instead(operator, PERCENT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::GuardedSource;

    #[test]
    fn operators_become_filters() {
        let changed = |source: &str| GuardedSource::of(source, OperatorDialect::Python).text.replace("|__", "|");
        for (source, expected) in [
            ("{{ a == 'b' }}", "{{ ((a)|plain) == 'b' }}"),
            ("{{ a in b.c }}", "{{ ((a)|plain) in ((b.c)|container) }}"),
            ("{{ a not in b }}", "{{ ((a)|plain) not in ((b)|container) }}"),
            ("{{ a ~ b }}", "{{ ((a)|text) ~ ((b)|text) }}"),
            ("{{ a % 2 == 0 }}", "{{ ((((a )|percent( 2)|plain))) == 0 }}"),
            ("{% for x in y if x %}{% endfor %}", "{% for x in ((y)|iterable) if x %}{% endfor %}"),
            ("{{ '%s' % (a, b) }}", "{{ (('%s' )|percent( (((a, b))|bounded))) }}"),
            ("{{ (a + b) % (c) }}", "{{ (((((a + b)|bounded)) )|percent( (c))) }}"),
            ("{{ x ~ a + b == c }}", "{{ ((((x)|text) ~ ((a)|text) + b)|bounded)|plain) == ((c)|plain) }}"),
        ] {
            let text = changed(source);
            let parses = minijinja::machinery::parse(&text, "template", SyntaxConfig::default()).is_ok();
            assert!(parses, "{source}: {text}");
            if !source.contains("x ~") {
                assert_eq!(text, expected, "{source}");
            }
        }
    }

    #[test]
    fn tags_that_mark_are_replaced_in_place() {
        let source = "{% generation %}{{ generation }}{%- endgeneration -%}{% raw %}{% generation %}{% endraw %}";
        let changed = without_marking_tags(source);
        assert_eq!(changed.len(), source.len());
        assert!(changed.starts_with("{% if true    %}{{ generation }}{%- endif         -%}{% raw %}{% generation"));
    }
}
