//! The chains of operators in a template. minijinja bounds how deeply brackets and blocks nest, but not how many operators
//! follow each other, and its compiler recurses once for each of them.

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The most operators, brackets and dots of one tag, and the most `elif` of a template. A long expression has twenty; the compiler
/// takes some hundred bytes of a stack for each.
pub(crate) const MAX_TAG_PARTS: usize = 500;

/// The place of the first operator that is one too many.
pub(crate) fn excess(source: &str) -> Option<std::ops::Range<usize>> {
    let (mut operators, mut branches) = (0usize, 0usize);
    // A text that is no template is refused by the compiler, with words of its own.
    for (token, span) in tokenize(source, false, SyntaxConfig::default()).map_while(Result::ok) {
        match token {
            Token::VariableStart | Token::BlockStart => operators = 0,
            Token::Ident("elif") => branches += 1,
            token if is_operator(&token) => operators += 1,
            _ => {}
        }
        if operators.max(branches) > MAX_TAG_PARTS {
            return Some(range(span));
        }
    }
    None
}

fn range(span: Span) -> std::ops::Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Whether it may make an expression one level deeper.
fn is_operator(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => matches!(*word, "and" | "or" | "not" | "in" | "is" | "if" | "else"),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::FloorDiv
        | Token::Pow
        | Token::Mod
        | Token::Dot
        | Token::Tilde
        | Token::Pipe
        | Token::Eq
        | Token::Ne
        | Token::Gt
        | Token::Gte
        | Token::Lt
        | Token::Lte
        | Token::BracketOpen
        | Token::ParenOpen => true,
        _ => false,
    }
}
