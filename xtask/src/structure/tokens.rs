//! The tokens of a file, and the paths in them.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// A token, as far as imports need it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceToken {
    Word(String),
    /// `::`.
    PathSeparator,
    /// `->` or `=>`.
    Arrow,
    Sign(char),
    Open(char),
    Close(char),
    Literal,
}

/// The tokens of a file without its tests, with groups spread out.
#[derive(Debug)]
pub(super) struct Tokens(Vec<SourceToken>);

/// The modules of a crate: a path, as in `crate::a::b` without `crate`, and the tokens of its file.
pub(super) type Modules = BTreeMap<Vec<String>, Tokens>;

/// An imported or named path, and the name under which a `use` brings it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemPath {
    pub(super) parts: Vec<String>,
    pub(super) alias: String,
}

/// What a file says of items.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// `use` without `pub`.
    pub(super) imports: Vec<ItemPath>,
    /// `pub use`.
    pub(super) exports: Vec<ItemPath>,
    /// Paths of two or more parts elsewhere.
    pub(super) paths: Vec<Vec<String>>,
    /// The names of its items.
    pub(super) definitions: Vec<String>,
}

impl Tokens {
    pub(super) fn parse(text: &str, path: &str) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(|e| anyhow!("{path} is not Rust: {e}"))?;
        let mut tokens = Vec::new();
        spread(stream, &mut tokens);
        Ok(Self(without_tests(&tokens)))
    }

    pub(super) fn items(&self) -> Items {
        let (tokens, mut items, mut at) = (&self.0, Items::default(), 0);
        while at < tokens.len() {
            at = match word(tokens, at) {
                Some("use") => {
                    let end = position_of(tokens, at, &SourceToken::Sign(';'));
                    let mut found = Vec::new();
                    read_tree(&tokens[at + 1..end], &[], &mut found);
                    let list = if is_public(tokens, at) { &mut items.exports } else { &mut items.imports };
                    list.append(&mut found);
                    end + 1
                }
                Some("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" | "macro_rules") => {
                    let name = if tokens.get(at + 1) == Some(&SourceToken::Sign('!')) { at + 2 } else { at + 1 };
                    items.definitions.extend(word(tokens, name).map(str::to_owned));
                    at + 1
                }
                Some(_) if !follows_path(tokens, at) => {
                    let (parts, end) = read_path(tokens, at);
                    if parts.len() > 1 {
                        items.paths.push(parts);
                    }
                    end
                }
                _ => at + 1,
            };
        }
        items
    }
}

/// The results in these tokens whose error is `String`.
pub(super) fn untyped_errors(tokens: &Tokens) -> usize {
    let tokens = &tokens.0;
    let begins =
        |at: &usize| word(tokens, *at) == Some("Result") && tokens.get(at + 1) == Some(&SourceToken::Sign('<'));
    let is_untyped = |at: usize| {
        let (mut depth, mut last) = (0_usize, Vec::new());
        for token in &tokens[at + 1..] {
            match token {
                SourceToken::Sign('<') | SourceToken::Open(_) => depth += 1,
                SourceToken::Sign('>') | SourceToken::Close(_) => depth = depth.saturating_sub(1),
                SourceToken::Sign(',') if depth == 1 => {
                    last.clear();
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            last.push(token);
        }
        last == [&SourceToken::Word("String".to_owned())]
    };
    (0..tokens.len()).filter(begins).filter(|at| is_untyped(*at)).count()
}

fn spread(stream: TokenStream, tokens: &mut Vec<SourceToken>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Ident(word) => tokens.push(SourceToken::Word(word.to_string())),
            TokenTree::Literal(_) => tokens.push(SourceToken::Literal),
            TokenTree::Punct(sign) => {
                let next = trees.peek().and_then(|next| match next {
                    TokenTree::Punct(next) if sign.spacing() == Spacing::Joint => Some(next.as_char()),
                    _ => None,
                });
                let double = match (sign.as_char(), next) {
                    (':', Some(':')) => Some(SourceToken::PathSeparator),
                    ('-' | '=', Some('>')) => Some(SourceToken::Arrow),
                    _ => None,
                };
                if double.is_some() {
                    trees.next();
                }
                tokens.push(double.unwrap_or(SourceToken::Sign(sign.as_char())));
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ('(', ')'),
                    Delimiter::Brace => ('{', '}'),
                    Delimiter::Bracket => ('[', ']'),
                    // Only a macro's expansion has such a group.
                    Delimiter::None => (' ', ' '),
                };
                tokens.push(SourceToken::Open(open));
                spread(group.stream(), tokens);
                tokens.push(SourceToken::Close(close));
            }
        }
    }
}

/// Leaves out every item, field or arm under `#[cfg(test)]`.
fn without_tests(tokens: &[SourceToken]) -> Vec<SourceToken> {
    let cfg_test = [
        SourceToken::Sign('#'),
        SourceToken::Open('['),
        SourceToken::Word("cfg".to_owned()),
        SourceToken::Open('('),
        SourceToken::Word("test".to_owned()),
        SourceToken::Close(')'),
        SourceToken::Close(']'),
    ];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].starts_with(&cfg_test) {
            at = item_end(tokens, at + cfg_test.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The position after the item, field or arm that begins here: after its `;`, `,` or braces, or where its group ends.
fn item_end(tokens: &[SourceToken], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        match token {
            SourceToken::Open(_) => depth += 1,
            SourceToken::Close(_) if depth == 0 => return at,
            SourceToken::Close(sign) => {
                depth -= 1;
                if depth == 0 && *sign == '}' {
                    return at + 1;
                }
            }
            SourceToken::Sign(';' | ',') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

fn word(tokens: &[SourceToken], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some(SourceToken::Word(word)) => Some(word),
        _ => None,
    }
}

fn position_of(tokens: &[SourceToken], from: usize, wanted: &SourceToken) -> usize {
    tokens[from..].iter().position(|token| token == wanted).map_or(tokens.len(), |offset| from + offset)
}

/// Whether `pub` or `pub(...)` stands before this position.
fn is_public(tokens: &[SourceToken], at: usize) -> bool {
    let before = match at.checked_sub(1).map(|before| &tokens[before]) {
        Some(SourceToken::Close(')')) => {
            tokens[..at].iter().rposition(|token| *token == SourceToken::Open('(')).and_then(|open| open.checked_sub(1))
        }
        _ => at.checked_sub(1),
    };
    before.is_some_and(|before| word(tokens, before) == Some("pub"))
}

/// Whether this word is the later part of a path, a field or a method.
fn follows_path(tokens: &[SourceToken], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| &tokens[before]);
    matches!(before, Some(SourceToken::PathSeparator | SourceToken::Sign('.')))
}

/// The path that begins here, and the position after it.
fn read_path(tokens: &[SourceToken], at: usize) -> (Vec<String>, usize) {
    let (mut parts, mut end) = (vec![word(tokens, at).unwrap_or_default().to_owned()], at + 1);
    while tokens.get(end) == Some(&SourceToken::PathSeparator)
        && let Some(part) = word(tokens, end + 1)
    {
        parts.push(part.to_owned());
        end += 2;
    }
    (parts, end)
}

/// The paths of a `use` tree.
fn read_tree(tree: &[SourceToken], prefix: &[String], paths: &mut Vec<ItemPath>) {
    let (mut parts, mut alias) = (prefix.to_vec(), None);
    for (at, token) in tree.iter().enumerate() {
        match token {
            SourceToken::Word(part) if part == "as" => alias = word(tree, at + 1).map(str::to_owned),
            SourceToken::Word(part) if alias.is_none() => parts.push(part.clone()),
            SourceToken::Sign('*') => parts.push("*".to_owned()),
            SourceToken::Open('{') => {
                let inner = tree[at + 1..].strip_suffix(&[SourceToken::Close('}')]).unwrap_or(&tree[at + 1..]);
                return split_at_commas(inner).into_iter().for_each(|branch| read_tree(branch, &parts, paths));
            }
            _ => {}
        }
    }
    if parts.last().is_some_and(|last| last == "self") {
        parts.pop();
    }
    if parts.len() > prefix.len() || (!prefix.is_empty() && !tree.is_empty()) {
        let alias = alias.or_else(|| parts.last().cloned()).unwrap_or_default();
        paths.push(ItemPath { parts, alias });
    }
}

fn split_at_commas(tokens: &[SourceToken]) -> Vec<&[SourceToken]> {
    let (mut branches, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            SourceToken::Open(_) => depth += 1,
            SourceToken::Close(_) => depth = depth.saturating_sub(1),
            SourceToken::Sign(',') if depth == 0 => {
                branches.push(&tokens[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tokens[begin..]);
    branches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Items {
        Tokens::parse(text, "a.rs").unwrap().items()
    }

    #[test]
    fn trees_are_spread_and_renamed() {
        let items = items("use crate::a::{self, B, c::{D as E, *}};\npub(crate) use super::F;");
        let imports: Vec<String> =
            items.imports.iter().map(|path| format!("{} {}", path.parts.join("::"), path.alias)).collect();
        assert_eq!(imports, ["crate::a a", "crate::a::B B", "crate::a::c::D E", "crate::a::c::* *"]);
        assert_eq!(items.exports[0].parts, ["super", "F"]);
    }

    #[test]
    fn paths_are_read_in_macros_and_not_in_texts_comments_or_tests() {
        let text = "fn a() { x!(b::c(), \"d::e\"); self.f::<g::H>(); } // i::j\n\
                    #[cfg(test)]\nmod tests { use k::l; }\n#[cfg(test)]\nuse m::n;\nenum O { #[cfg(test)] P(q::R), S(t::U) }";
        let items = items(text);
        assert_eq!(items.paths, [vec!["b", "c"], vec!["g", "H"], vec!["t", "U"]]);
        assert!(items.imports.is_empty());
        assert_eq!(items.definitions, ["a", "O"]);
    }

    #[test]
    fn only_a_text_as_the_error_is_untyped() {
        let text = "fn a() -> Result<Vec<(u8, String)>, String> {}\nfn b() -> Result<String, Error> {}\n\
                    fn c() -> Result<impl Fn() -> u8, String> {}\nfn d() -> Result<String> {}";
        assert_eq!(untyped_errors(&Tokens::parse(text, "a.rs").unwrap()), 2);
    }
}
