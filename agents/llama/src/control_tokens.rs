//! The control tokens of a vocabulary in a text.

use aho_corasick::{AhoCorasick, MatchKind};
use artel_template::TextShield;

use crate::raw::model::{ControlToken, LlamaModel};

/// The control tokens of a vocabulary, such as the end of a turn, by their texts.
pub(crate) struct ControlTokens {
    tokens: Vec<ControlToken>,
    /// Finds their texts; none if there are none.
    finder: Option<AhoCorasick>,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextPart<'t> {
    /// What lies between control tokens, and where it begins.
    Plain(usize, &'t str),
    /// A control token.
    Control(i32),
}

impl ControlTokens {
    pub(crate) fn of(model: &LlamaModel) -> Self {
        Self::new(model.control_tokens())
    }

    fn new(mut tokens: Vec<ControlToken>) -> Self {
        tokens.retain(|token| !token.text.is_empty());
        // What users write cannot contain the others.
        let shield = TextShield::of(tokens.iter().map(|token| token.text.as_str()));
        tokens.retain(|token| shield.covers(&token.text));
        let texts = tokens.iter().map(|token| &token.text);
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        Self { finder: finder.ok().filter(|_| !tokens.is_empty()), tokens }
    }

    /// What keeps them out of people's texts.
    pub(crate) fn shield(&self) -> TextShield {
        TextShield::of(self.tokens.iter().map(|token| token.text.as_str()))
    }

    /// The parts of a text. As in llama.cpp, some tokens take the whitespace beside them along.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Vec<TextPart<'t>> {
        let (mut parts, mut end) = (Vec::new(), 0);
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            let token = &self.tokens[found.pattern().as_usize()];
            // The token before may have taken whitespace with which this one begins.
            let before = text.get(end..found.start()).unwrap_or_default();
            let before = if token.strips_left { before.trim_end_matches(is_space) } else { before };
            if !before.is_empty() {
                parts.push(TextPart::Plain(end, before));
            }
            parts.push(TextPart::Control(token.id));
            end = found.end();
            if token.strips_right {
                end = text.len() - text[end..].trim_start_matches(is_space).len();
            }
        }
        if end < text.len() {
            parts.push(TextPart::Plain(end, &text[end..]));
        }
        parts
    }
}

/// What C counts as whitespace.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: i32, text: &str) -> ControlToken {
        ControlToken { id, text: text.to_owned(), strips_left: false, strips_right: false }
    }

    #[test]
    fn a_text_is_split_at_the_longest_control_tokens() {
        let stripping = ControlToken { strips_left: true, strips_right: true, ..token(3, "<mask>") };
        let tokens = ControlTokens::new(vec![token(1, "<s>"), token(2, "<s>x</s>"), stripping, token(4, "")]);
        let (plain, control) = (TextPart::Plain, TextPart::Control);
        assert_eq!(tokens.split("<s>a<s>x</s>"), [control(1), plain(3, "a"), control(2)]);
        assert_eq!(tokens.split("a <mask>\n b"), [plain(0, "a"), control(3), plain(10, "b")]);
        assert_eq!(tokens.split("plain"), [plain(0, "plain")]);
        assert_eq!(tokens.split(""), []);
        assert_eq!(ControlTokens::new(Vec::new()).split("<s>"), [plain(0, "<s>")]);
        assert_eq!(tokens.split(&tokens.shield().shield("<s>")).len(), 1);
    }
}
