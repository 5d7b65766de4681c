//! Reading a located tree field by field: what is wrong is collected, and reading goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::node::{Entry, Node, Span, Value};
use crate::problem::{Report, did_you_mean, shown};

/// The fields of a map; keys that nobody asked for are refused by [`Fields::finish`].
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    known: Vec<&'static str>,
    /// Where to say that a key is missing.
    place: Span,
    /// What the map is, as in "the role `critic`".
    what: String,
}

impl<'n> Fields<'n> {
    /// The fields of a node that must be a map.
    pub(crate) fn open(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong(node, &format!("{what} is a map of keys and values"), report);
            return None;
        };
        Some(Self { entries, known: Vec::new(), place: node.span, what: what.to_owned() })
    }

    /// With another place to say that a key is missing: the name, rather than the whole map.
    pub(crate) fn at(self, place: Span) -> Self {
        Self { place, ..self }
    }

    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        self.entry(key).map(|e| &e.value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    pub(crate) fn need(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let slip = self.entries.iter().find(|e| did_you_mean(&e.key, [key]).is_some());
            // The misspelt key is reported as such.
            if slip.is_none() {
                report.add(self.place, format!("{} has no `{key}`", self.what));
            }
        }
        found
    }

    /// Refuses the keys that nobody asked for. `homes` are known keys of other maps: (key, where it belongs).
    pub(crate) fn finish(self, homes: &[(&str, &str)], report: &mut Report<'_>) {
        let unknown = |e: &&Entry| !e.refused && !self.known.contains(&e.key.as_str());
        for entry in self.entries.iter().filter(unknown) {
            let home = homes.iter().find(|(key, _)| *key == entry.key);
            let hint = home.map(|(key, home)| format!("`{key}` belongs into `{home}`"));
            let hint = hint.or_else(|| did_you_mean(&entry.key, self.known.iter().copied()));
            let hint = hint.unwrap_or_else(|| format!("{} takes {}", self.what, list(&self.known)));
            report.add_with(entry.key_span, format!("unknown key `{}`", shown(&entry.key)), hint);
        }
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Says that a node is of the wrong kind.
pub(crate) fn wrong(node: &Node, expected: &str, report: &mut Report<'_>) {
    let hint = match node.value {
        Value::Int(_) | Value::Float(_) | Value::Bool(_) if expected.contains("text") => {
            Some("put it in quotes".to_owned())
        }
        _ => None,
    };
    report.push(node.span, format!("{expected}, and this is {}", node.kind()), hint);
}

/// A text of so many characters.
pub(crate) fn text(node: &Node, what: &str, length: RangeInclusive<usize>, report: &mut Report<'_>) -> Option<String> {
    let Value::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is text"), report);
        return None;
    };
    let count = text.trim().chars().count();
    if count == 0 && *length.start() > 0 {
        report.add(node.span, format!("{what} is empty"));
        return None;
    }
    if !length.contains(&count) {
        report.add(node.span, format!("{what} has {count} characters, the limit is {}", length.end()));
        return None;
    }
    Some(text.clone())
}

/// One of several words.
pub(crate) fn choice<T: Copy>(node: &Node, what: &str, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let Value::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is one of {}", list(&names)), report);
        return None;
    };
    let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        let message = format!("{what} is one of {}, not `{}`", list(&names), shown(text));
        report.push(node.span, message, did_you_mean(text, names));
    }
    found
}

/// True or false.
pub(crate) fn boolean(node: &Node, what: &str, report: &mut Report<'_>) -> Option<bool> {
    let Value::Bool(value) = node.value else {
        wrong(node, &format!("{what} is `true` or `false`"), report);
        return None;
    };
    Some(value)
}

/// A whole number in a range.
pub(crate) fn integer(node: &Node, what: &str, range: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    let bounds = format!("{what} is a whole number from {} to {}", range.start(), range.end());
    match node.value {
        Value::Int(i) => match u32::try_from(i).ok().filter(|i| range.contains(i)) {
            None => report.add(node.span, format!("{bounds}, not {i}")),
            found => return found,
        },
        Value::Float(f) => report.add(node.span, format!("{bounds}, not {f}")),
        _ => wrong(node, &bounds, report),
    }
    None
}

/// A number in a range.
pub(crate) fn number(node: &Node, what: &str, range: RangeInclusive<f64>, report: &mut Report<'_>) -> Option<f64> {
    let bounds = format!("{what} is a number from {} to {}", range.start(), range.end());
    let value = match node.value {
        Value::Int(i) => i as f64,
        Value::Float(f) => f,
        _ => {
            wrong(node, &bounds, report);
            return None;
        }
    };
    if !range.contains(&value) {
        report.add(node.span, format!("{bounds}, not {value}"));
        return None;
    }
    Some(value)
}

/// The items of a list.
pub(crate) fn items<'n>(node: &'n Node, what: &str, most: usize, report: &mut Report<'_>) -> Option<&'n [Node]> {
    let Value::List(items) = &node.value else {
        let hint = matches!(node.value, Value::Str(..))
            .then(|| "put it in brackets, or on a line of its own after `- `".to_owned());
        report.push(node.span, format!("{what} is a list, and this is {}", node.kind()), hint);
        return None;
    };
    if items.len() > most {
        report.add(node.span, format!("{what} has {} items, the limit is {most}", items.len()));
        return None;
    }
    Some(items)
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration, written as a whole number and a unit.
pub(crate) fn duration(
    node: &Node,
    what: &str,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    const FORMS: &str = "write a whole number and a unit, such as `500ms`, `60s`, `5m`, `2h` or `1d`";
    let given = match &node.value {
        Value::Str(text, _) => text.clone(),
        Value::Int(i) => {
            let message = format!("{what} is a duration, and {i} has no unit");
            report.add_with(node.span, message, format!("did you mean `{i}s`?"));
            return None;
        }
        _ => {
            wrong(node, &format!("{what} is a duration"), report);
            return None;
        }
    };
    let Some(duration) = parse_duration(&given) else {
        report.add_with(node.span, format!("{what} is a duration, not `{}`", shown(&given)), FORMS);
        return None;
    };
    if !range.contains(&duration) {
        let (low, high) = (spell(*range.start()), spell(*range.end()));
        report.add(node.span, format!("{what} is from {low} to {high}, not {}", shown(&given)));
        return None;
    }
    Some(duration)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*millis)?))
}

/// A duration in the largest unit that fits it.
fn spell(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fitting = UNITS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    fitting.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A name of some kind, such as a role's.
pub(crate) fn name<T>(
    node: &Node,
    what: &str,
    parse: impl Fn(&str) -> Result<T, artel_task::id::InvalidName>,
    report: &mut Report<'_>,
) -> Option<T> {
    const FORM: &str =
        "a name begins with a letter a-z, goes on with a-z, 0-9, `_` and `-`, and has at most 63 characters";
    let Value::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is a name, which is text"), report);
        return None;
    };
    match parse(text) {
        Ok(name) => Some(name),
        Err(_) => {
            report.add_with(node.span, format!("{what} cannot be named `{}`", shown(text)), FORM);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "5 s", "1.5s", "-1s", "99999999999999999999s", "18446744073709551615d", "5min"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(spell(Duration::from_secs(90)), "90s");
        assert_eq!(spell(Duration::from_secs(120)), "2m");
    }
}
