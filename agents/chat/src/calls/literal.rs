//! The marks of calls in what a model writes.

use super::format::CallPart;

/// The longest id that a model makes up.
const MAX_ID_CHARS: usize = 64;

/// How a text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// With the wanted one, which takes so many bytes.
    Full(usize),
    /// The wanted one may still come.
    Partial,
    /// With another one.
    No,
}

/// Whether bytes begin with a text, however much white space either has. White space behind it is not taken.
pub(crate) fn literal(wanted: &str, bytes: &[u8]) -> Match {
    let (mut at, mut end) = (0, 0);
    for byte in wanted.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        match bytes.get(at) {
            None => return Match::Partial,
            Some(given) if *given == byte => at += 1,
            Some(_) => return Match::No,
        }
        end = at;
    }
    Match::Full(end)
}

/// Whether bytes begin with these parts.
pub(crate) fn parts(wanted: &[CallPart], bytes: &[u8]) -> Match {
    let mut at = 0;
    for part in wanted {
        let rest = &bytes[at..];
        let matched = match part {
            CallPart::Text(text) => literal(text, rest),
            CallPart::Id => {
                characters(rest, MAX_ID_CHARS, |byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            }
            CallPart::Index => characters(rest, MAX_ID_CHARS, |byte| byte.is_ascii_digit()),
        };
        match matched {
            Match::Full(bytes) => at += bytes,
            other => return other,
        }
    }
    Match::Full(at)
}

/// The first of several that bytes begin with; the longest of them that does.
pub(crate) fn any<'w>(wanted: impl Iterator<Item = &'w [CallPart]>, bytes: &[u8]) -> Match {
    let mut best = Match::No;
    for wanted in wanted {
        match (parts(wanted, bytes), best) {
            (Match::Full(given), Match::Full(known)) => best = Match::Full(given.max(known)),
            (Match::Full(given), _) => best = Match::Full(given),
            (Match::Partial, Match::No) => best = Match::Partial,
            _ => {}
        }
    }
    best
}

fn characters(bytes: &[u8], most: usize, is_one: impl Fn(u8) -> bool) -> Match {
    let count = bytes.iter().take_while(|byte| is_one(**byte)).count();
    match count {
        0 if bytes.is_empty() => Match::Partial,
        0 => Match::No,
        count if count > most => Match::No,
        count if count == bytes.len() => Match::Partial,
        count => Match::Full(count),
    }
}

/// Where a text begins in bytes.
pub(crate) fn find(wanted: &[u8], bytes: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len().max(1)).position(|window| window == wanted)
}

/// How many bytes at the end may be the beginning of a text.
pub(crate) fn held(wanted: &[u8], bytes: &[u8]) -> usize {
    let longest = wanted.len().saturating_sub(1).min(bytes.len());
    (1..=longest).rev().find(|count| bytes.ends_with(&wanted[..*count])).unwrap_or(0)
}
