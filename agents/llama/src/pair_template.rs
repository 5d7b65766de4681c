//! The template by which a file wants a query and a document to be read together.

use std::ops::Range;

use artel_engine::backend::Error;
use artel_engine::{PooledTokens, Token};
use artel_template::TextShield;

use crate::control_tokens::{ControlTokens, TextPart};
use crate::raw::model::LlamaModel;

/// What stands for the query and the document. Source: llama.cpp's server.
const QUERY_MARK: &str = "{query}";
const DOCUMENT_MARK: &str = "{document}";

/// A template. The text as a whole is tokenized, with the control tokens of the model known, but for those in the texts of clients.
pub(crate) struct PairTemplate {
    parts: Vec<TemplatePart>,
    control: ControlTokens,
    shield: TextShield,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Query,
    Document,
}

impl PairTemplate {
    pub(crate) fn new(source: &str, model: &LlamaModel) -> Self {
        let control = ControlTokens::of(model);
        Self { parts: template_parts(source), shield: control.shield(), control }
    }

    /// The text with the texts of clients shielded, and where the document is in it.
    fn render(&self, query: &str, document: &str) -> (String, Range<usize>) {
        let (mut text, mut place) = (String::new(), 0..0);
        for part in &self.parts {
            match part {
                TemplatePart::Text(own) => text.push_str(own),
                TemplatePart::Query => text.push_str(&self.shield.shield(query)),
                TemplatePart::Document => {
                    let start = text.len();
                    text.push_str(&self.shield.shield(document));
                    place = start..text.len();
                }
            }
        }
        (text, place)
    }

    pub(crate) fn tokenize(&self, model: &LlamaModel, query: &str, document: &str) -> Result<PooledTokens, Error> {
        let (text, place) = self.render(query, document);
        let mut pair = PooledTokens::default();
        for part in self.control.split(&text) {
            let (start, plain) = match part {
                TextPart::Control(token) => {
                    pair.tokens.push(Token(token));
                    continue;
                }
                TextPart::Plain(start, plain) => (start, plain),
            };
            let tokens = model.tokenize(&self.shield.reveal(plain), false, false);
            let tokens = tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))?;
            // The document has no control tokens, and is in one part.
            let within = overlap(&place, start, plain.len());
            if !within.is_empty() {
                let revealed = |to: usize| self.shield.reveal(&plain[..to]).len();
                let bytes = revealed(within.start)..revealed(within.end);
                let found = tokens_within(&piece_lengths(model, &tokens), &bytes);
                pair.cuttable = pair.tokens.len() + found.start..pair.tokens.len() + found.end;
            }
            pair.tokens.extend(tokens.into_iter().map(Token));
        }
        Ok(pair)
    }
}

/// The part of a range that is in a text of this length from `start` on, relative to it.
fn overlap(range: &Range<usize>, start: usize, length: usize) -> Range<usize> {
    range.start.clamp(start, start + length) - start..range.end.clamp(start, start + length) - start
}

fn piece_lengths(model: &LlamaModel, tokens: &[i32]) -> Vec<usize> {
    let length = |token: &i32| {
        let mut bytes = Vec::new();
        model.append_piece(*token, false, &mut bytes);
        bytes.len()
    };
    tokens.iter().map(length).collect()
}

/// The tokens that lie wholly within a range of bytes, by their lengths.
fn tokens_within(lengths: &[usize], bytes: &Range<usize>) -> Range<usize> {
    let (mut at, mut first, mut end) = (0, None, 0);
    for (index, length) in lengths.iter().enumerate() {
        if at >= bytes.start && at + length <= bytes.end {
            first.get_or_insert(index);
            end = index + 1;
        }
        at += length;
    }
    first.map_or(0..0, |first| first..end)
}

/// The parts of a template: its text, and where the query and the document stand.
fn template_parts(template: &str) -> Vec<TemplatePart> {
    let (mut parts, mut rest) = (Vec::new(), template);
    loop {
        let marks = [(QUERY_MARK, TemplatePart::Query), (DOCUMENT_MARK, TemplatePart::Document)];
        let found = marks.into_iter().filter_map(|(mark, part)| Some((rest.find(mark)?, mark, part)));
        let Some((at, mark, part)) = found.min_by_key(|(at, ..)| *at) else { break };
        if at > 0 {
            parts.push(TemplatePart::Text(rest[..at].to_owned()));
        }
        parts.push(part);
        rest = &rest[at + mark.len()..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_its_text_and_the_places_of_both() {
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        let parts = template_parts("<s>Q: {query}\nD: {document}</s>");
        assert_eq!(parts, [text("<s>Q: "), TemplatePart::Query, text("\nD: "), TemplatePart::Document, text("</s>")]);
        assert_eq!(template_parts("{document}{query}"), [TemplatePart::Document, TemplatePart::Query]);
        assert_eq!(template_parts("{other}"), [text("{other}")]);
    }

    #[test]
    fn only_tokens_that_are_of_the_document_alone_may_be_cut() {
        assert_eq!(tokens_within(&[3, 2, 4, 1], &(3..9)), 1..3);
        assert_eq!(tokens_within(&[3, 2, 4, 1], &(4..8)), 0..0, "each is partly of the template");
        assert_eq!(tokens_within(&[], &(0..0)), 0..0);
        assert_eq!((overlap(&(5..9), 4, 3), overlap(&(5..9), 20, 3)), (1..3, 0..0));
    }
}
