//! The methods of strings in Python. What they look for is found in the revealed text, and what they give is cut from the text as
//! it is.

use std::ops::Range;

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::text::{self, PaidText};
use crate::text_shield::{ShieldedText, TextShield};

/// Whether Python counts it as whitespace.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Calls a method of a string.
pub(crate) fn call(
    shield: &TextShield,
    state: &mut State<'_, '_>,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let shielded = ShieldedText::new(shield, text);
    let plain = shielded.plain();
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<Value>,) = from_args(args)?;
            let (start, end) = (method != "rstrip", method != "lstrip");
            Ok(Value::from(shielded.part(stripped(shield, plain, characters.as_ref(), start, end)?)))
        }
        "split" | "rsplit" => {
            let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(kwargs.get("sep")?);
            let limit = limit.or(kwargs.get("maxsplit")?).and_then(|limit| usize::try_from(limit).ok());
            kwargs.assert_all_used()?;
            let ranges = match separator.filter(|separator| !separator.is_none()) {
                Some(separator) => split(plain, &shield.reveal(string(&separator)?), limit, method == "rsplit")?,
                None => split_at_spaces(plain, limit, method == "rsplit"),
            };
            Ok(ranges.into_iter().map(|range| Value::from(shielded.part(range))).collect())
        }
        "splitlines" => {
            let (keeps_ends, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keeps_ends = keeps_ends.or(kwargs.get("keepends")?).unwrap_or(false);
            kwargs.assert_all_used()?;
            Ok(lines(plain, keeps_ends).into_iter().map(|range| Value::from(shielded.part(range))).collect())
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let separator = shield.reveal(separator);
            refuse_empty(&separator)?;
            let found = if method == "partition" { plain.find(&*separator) } else { plain.rfind(&*separator) };
            let (whole, end) = (0..plain.len(), plain.len()..plain.len());
            let parts = match found {
                Some(at) => [0..at, at..at + separator.len(), at + separator.len()..plain.len()],
                None if method == "partition" => [whole, end.clone(), end],
                None => [0..0, 0..0, whole],
            };
            Ok(Value::from(Tuple::from(parts.map(|range| Value::from(shielded.part(range))))))
        }
        "replace" => {
            let (old, new, count, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
            let count = count.or(kwargs.get("count")?);
            kwargs.assert_all_used()?;
            replace(shield, state, text, old, new, count)
        }
        "removeprefix" | "removesuffix" => {
            let (end,): (&str,) = from_args(args)?;
            let end = shield.reveal(end);
            let range = match method {
                "removeprefix" if plain.starts_with(&*end) => end.len()..plain.len(),
                "removesuffix" if plain.ends_with(&*end) => 0..plain.len() - end.len(),
                _ => 0..plain.len(),
            };
            Ok(Value::from(shielded.part(range)))
        }
        "startswith" | "endswith" => {
            let (ends, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let part = &plain[slice(plain, start, end)];
            let has = |end: &Value| -> Result<bool, Error> {
                let end = shield.reveal(string(end)?);
                Ok(if method == "startswith" { part.starts_with(&*end) } else { part.ends_with(&*end) })
            };
            if ends.as_str().is_some() {
                return Ok(Value::from(has(ends)?));
            }
            let mut ends = ends.try_iter()?;
            let found = ends.try_fold(false, |found, end| Ok::<_, Error>(found || has(&end)?))?;
            Ok(Value::from(found))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (what, range) = (shield.reveal(what), slice(plain, start, end));
            let part = &plain[range.clone()];
            if method == "count" {
                let count = if what.is_empty() { part.chars().count() + 1 } else { part.matches(&*what).count() };
                return Ok(Value::from(count));
            }
            let found = if method.starts_with('r') { part.rfind(&*what) } else { part.find(&*what) };
            match found {
                Some(at) => Ok(Value::from(plain[..range.start + at].chars().count())),
                None if method.ends_with("index") => Err(invalid("substring not found")),
                None => Ok(Value::from(-1)),
            }
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            justified(state, text, plain, method, width, fill.unwrap_or(" "))
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            let mut out = PaidText::new(state);
            for (at, value) in values.try_iter()?.enumerate() {
                if at > 0 {
                    out.push(text)?;
                }
                out.push(string(&value)?)?;
            }
            Ok(Value::from(out.text))
        }
        "format" => {
            let (args,): (Rest<Value>,) = from_args(args)?;
            let printed = |value: &Value| match text::is_plain(value) || value.kind() == ValueKind::Number {
                true => Ok(value.clone()),
                false => text::str(state, value).map(Value::from),
            };
            let args = args.iter().map(printed).collect::<Result<Vec<Value>, Error>>()?;
            pay_for_widths(state, text)?;
            let style = minijinja::formatting::FormatStyle::StrFormat;
            minijinja::formatting::format(style, text, &args).map(Value::from)
        }
        "expandtabs" => {
            let (size,): (Option<usize>,) = from_args(args)?;
            expanded(state, text, size.unwrap_or(8))
        }
        _ => {
            let () = from_args(args).map_err(|error| if is_known(method) { error } else { unknown() })?;
            without_arguments(text, plain, method)
        }
    }
}

/// Pays for the widths that a format string asks for, which minijinja makes whatever they are.
pub(crate) fn pay_for_widths(state: &State<'_, '_>, format: &str) -> Result<(), Error> {
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let bytes = numbers.fold(0, |sum: u64, number| sum.saturating_add(number.parse().unwrap_or(u64::MAX)));
    state.consume_fuel(bytes / text::FUEL_BYTES)
}

/// The methods that take no argument.
const WITHOUT_ARGUMENTS: [&str; 17] = [
    "upper",
    "lower",
    "casefold",
    "swapcase",
    "title",
    "capitalize",
    "isupper",
    "islower",
    "istitle",
    "isspace",
    "isdigit",
    "isnumeric",
    "isdecimal",
    "isalnum",
    "isalpha",
    "isascii",
    "isidentifier",
];

fn is_known(method: &str) -> bool {
    WITHOUT_ARGUMENTS.contains(&method)
}

fn without_arguments(text: &str, plain: &str, method: &str) -> Result<Value, Error> {
    let all = |holds: fn(char) -> bool| Ok(Value::from(!plain.is_empty() && plain.chars().all(holds)));
    match method {
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "casefold" => Ok(Value::from(text.to_lowercase().replace('ß', "ss"))),
        "swapcase" => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Ok(Value::from(text.chars().map(swap).collect::<String>()))
        }
        "title" => Ok(Value::from(title(text))),
        "capitalize" => Ok(Value::from(capitalized(text))),
        "isupper" => Ok(Value::from(plain.chars().any(char::is_uppercase) && !plain.chars().any(char::is_lowercase))),
        "islower" => Ok(Value::from(plain.chars().any(char::is_lowercase) && !plain.chars().any(char::is_uppercase))),
        "istitle" => Ok(Value::from(plain.chars().any(char::is_alphabetic) && title(plain) == plain)),
        "isspace" => all(is_space),
        "isdigit" | "isdecimal" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => Ok(Value::from(plain.is_ascii())),
        "isidentifier" => {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let starts = plain.chars().next().is_some_and(|c| is_word(c) && !c.is_numeric());
            Ok(Value::from(starts && plain.chars().all(is_word)))
        }
        _ => Err(unknown()),
    }
}

/// Each letter after something else is upper case, and each other one lower.
fn title(text: &str) -> String {
    let (mut out, mut is_inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        match is_inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        is_inside = c.is_alphabetic();
    }
    out
}

pub(crate) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

/// What is left of a text without these characters, or without whitespace, at its ends.
pub(crate) fn stripped(
    shield: &TextShield,
    plain: &str,
    characters: Option<&Value>,
    start: bool,
    end: bool,
) -> Result<Range<usize>, Error> {
    let characters = match characters.filter(|characters| !characters.is_none()) {
        Some(characters) => Some(shield.reveal(string(characters)?)),
        None => None,
    };
    let is_removed = |c: char| characters.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    let from = if start { plain.len() - plain.trim_start_matches(is_removed).len() } else { 0 };
    let to = if end { plain.trim_end_matches(is_removed).len() } else { plain.len() };
    Ok(from..to.max(from))
}

/// Replaces a text, at most so often.
pub(crate) fn replace(
    shield: &TextShield,
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<Value, Error> {
    let shielded = ShieldedText::new(shield, text);
    let old = shield.reveal(old);
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let (mut out, mut end) = (PaidText::new(state), 0);
    for (at, found) in shielded.plain().match_indices(&*old).take(count) {
        out.push(shielded.part(end..at))?;
        out.push(new)?;
        end = at + found.len();
    }
    out.push(shielded.part(end..shielded.plain().len()))?;
    Ok(Value::from(out.text))
}

fn split(text: &str, separator: &str, limit: Option<usize>, from_end: bool) -> Result<Vec<Range<usize>>, Error> {
    refuse_empty(separator)?;
    let limit = limit.unwrap_or(usize::MAX);
    let mut cuts: Vec<usize> = match from_end {
        true => text.rmatch_indices(separator).take(limit).map(|(at, _)| at).collect(),
        false => text.match_indices(separator).take(limit).map(|(at, _)| at).collect(),
    };
    cuts.sort_unstable();
    let (mut parts, mut start) = (Vec::with_capacity(cuts.len() + 1), 0);
    for cut in cuts {
        parts.push(start..cut);
        start = cut + separator.len();
    }
    parts.push(start..text.len());
    Ok(parts)
}

/// The words of a text; after so many cuts, the rest.
fn split_at_spaces(text: &str, limit: Option<usize>, from_end: bool) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| !is_space(*c)) {
        let end = at + c.len_utf8();
        match words.last_mut() {
            Some(word) if word.end == at => word.end = end,
            _ => words.push(at..end),
        }
    }
    let Some(limit) = limit.filter(|limit| limit + 1 < words.len()) else { return words };
    if from_end {
        let first = words.len() - limit;
        let rest = words[0].start..words[first - 1].end;
        std::iter::once(rest).chain(words.drain(first..)).collect()
    } else {
        let rest = words[limit].start..text.len();
        words.truncate(limit);
        words.push(rest);
        words
    }
}

fn lines(text: &str, keeps_ends: bool) -> Vec<Range<usize>> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut start) = (Vec::new(), 0);
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if !is_end(c) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && characters.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(start..if keeps_ends { end } else { at });
        start = end;
    }
    if start < text.len() {
        lines.push(start..text.len());
    }
    lines
}

/// The range of a text between two places in characters, which count from its end if they are negative.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Range<usize> {
    if start.is_none() && end.is_none() {
        return 0..text.len();
    }
    let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        let at = if at < 0 { (count + at).max(0) } else { at };
        text.char_indices().nth(usize::try_from(at).unwrap_or(usize::MAX)).map_or(text.len(), |(at, _)| at)
    };
    let (start, end) = (start.map_or(0, place), end.map_or(text.len(), place));
    start..end.max(start)
}

fn justified(
    state: &State<'_, '_>,
    text: &str,
    plain: &str,
    method: &str,
    width: usize,
    fill: &str,
) -> Result<Value, Error> {
    let length = text.chars().count();
    let missing = width.saturating_sub(length);
    if fill.chars().count() != 1 {
        return Err(invalid("the fill character must be exactly one character long"));
    }
    let (left, right) = match method {
        "ljust" => (0, missing),
        // Python puts the odd one to the left if the width is odd.
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            (left, missing - left)
        }
        _ => (missing, 0),
    };
    let mut out = PaidText::new(state);
    let (sign, rest) = match method {
        "zfill" if plain.starts_with(['+', '-']) => text.split_at(text.chars().next().map_or(0, char::len_utf8)),
        _ => ("", text),
    };
    let fill = if method == "zfill" { "0" } else { fill };
    out.push(sign)?;
    (0..left).try_for_each(|_| out.push(fill))?;
    out.push(rest)?;
    (0..right).try_for_each(|_| out.push(fill))?;
    Ok(Value::from(out.text))
}

fn expanded(state: &State<'_, '_>, text: &str, size: usize) -> Result<Value, Error> {
    let (mut out, mut column) = (PaidText::new(state), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                (0..spaces).try_for_each(|_| out.push(" "))?;
                column += spaces;
            }
            c => {
                out.push_char(c)?;
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::from(out.text))
}

fn refuse_empty(separator: &str) -> Result<(), Error> {
    if separator.is_empty() { Err(invalid("empty separator")) } else { Ok(()) }
}

/// A value that must be a string.
pub(crate) fn string(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| match value.kind() {
        ValueKind::Undefined => Error::from(ErrorKind::UndefinedError),
        kind => invalid(&format!("a string is expected here, not a value of type {kind}")),
    })
}

pub(crate) fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}

pub(crate) fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}
