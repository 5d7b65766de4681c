//! Reads a located tree field by field: problems are collected, and reading goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use artel_yaml::{Diagnostics, Span, YamlEntry, YamlNode, YamlValue, did_you_mean, shown};

use crate::keys::KeySet;

/// A map of YAML, read key by key. Keys that are not in its [`KeySet`] are refused by [`MapReader::finish`]; former names
/// of keys are read with a warning. In a document from a client, every key is checked against the rules of the network.
pub(crate) struct MapReader<'n> {
    entries: &'n [YamlEntry],
    keys: &'static KeySet,
    /// The keys that were read.
    read: Vec<&'static str>,
    /// Where a missing key is reported.
    span: Span,
    /// The map in words, as in "the role `critic`".
    what: String,
}

impl<'n> MapReader<'n> {
    /// A node that must be a map.
    pub(crate) fn open(
        node: &'n YamlNode,
        what: &str,
        keys: &'static KeySet,
        report: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let YamlValue::Map(entries) = &node.value else {
            wrong(node, &format!("{what} is a map of keys and values"), report);
            return None;
        };
        let reader = Self { entries, keys, read: Vec::new(), span: node.span, what: what.to_owned() };
        reader.check_former_names(report);
        reader.check_network_rules(report);
        Some(reader)
    }

    /// Reports missing keys at another place: the name, rather than the whole map.
    pub(crate) fn at(self, span: Span) -> Self {
        Self { span, ..self }
    }

    /// The value of a key of the set.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'n YamlNode> {
        debug_assert!(self.keys.names().any(|name| name == key), "`{key}` is no key of {}", self.keys.name);
        self.read.push(key);
        self.entry(key).map(|e| &e.value)
    }

    /// The entry under the present or the former name of a key.
    pub(crate) fn entry(&self, key: &str) -> Option<&'n YamlEntry> {
        let former = self.keys.find(key).and_then(|key| key.former_name);
        self.written(key).or_else(|| self.written(former?))
    }

    pub(crate) fn need(&mut self, key: &'static str, report: &mut Diagnostics<'_>) -> Option<&'n YamlNode> {
        let found = self.get(key);
        if found.is_none() {
            let is_slip = |e: &YamlEntry| self.keys.nearest(&e.key) == Some(key);
            // The misspelt key is reported as such.
            if !self.entries.iter().any(is_slip) {
                report.error(self.span, format!("{} has no `{key}`", self.what));
            }
        }
        found
    }

    /// Refuses the keys that are not in the set. `homes` are keys of other maps: (key, where it belongs).
    pub(crate) fn finish(self, homes: &[(&str, &str)], report: &mut Diagnostics<'_>) {
        debug_assert!(
            self.keys.names().all(|name| self.read.contains(&name)),
            "of the keys of {}, only {:?} are read",
            self.keys.name,
            self.read
        );
        let is_unknown = |e: &&YamlEntry| !e.refused && self.keys.find(&e.key).is_none();
        for entry in self.entries.iter().filter(is_unknown) {
            let home = homes.iter().find(|(key, _)| *key == entry.key);
            let hint = home.map(|(key, home)| format!("`{key}` belongs in `{home}`"));
            let near = || self.keys.nearest(&entry.key).map(|name| format!("did you mean `{name}`?"));
            let takes = || format!("{} takes {}", self.what, list(&self.keys.names().collect::<Vec<_>>()));
            let hint = hint.or_else(near).unwrap_or_else(takes);
            report.error_with_hint(entry.key_span, format!("unknown key `{}`", shown(&entry.key)), hint);
        }
    }

    fn written(&self, name: &str) -> Option<&'n YamlEntry> {
        self.entries.iter().find(|e| e.key == name)
    }

    /// Refuses what a document from a client may not name.
    fn check_network_rules(&self, report: &mut Diagnostics<'_>) {
        let (Some(rules), Some(dir)) = (report.rules, report.source.dir.as_deref()) else { return };
        for entry in self.entries {
            // Another key is refused as unknown.
            let Some(key) = self.keys.find(&entry.key) else { continue };
            if let Some(refusal) = rules.refusal(self.keys.name, key.name, &entry.value, dir) {
                let message = format!("`{}` of {} {}", key.name, self.what, refusal.reason);
                report.refuse(entry.value.span, message, refusal.hint);
            }
        }
    }

    fn check_former_names(&self, report: &mut Diagnostics<'_>) {
        for key in self.keys.keys {
            let Some(former) = key.former_name else { continue };
            let Some(entry) = self.written(former) else { continue };
            let name = key.name;
            if self.written(name).is_some() {
                let message = format!("`{former}` is the former name of `{name}`, and both are given");
                report.error_with_hint(entry.key_span, message, format!("remove `{former}`"));
            } else {
                let hint = format!("write `{name}`; `{former}` is read in this version only");
                report.warn(entry.key_span, format!("the key `{former}` is now `{name}`"), hint);
            }
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

/// Reports a node of the wrong kind.
pub(crate) fn wrong(node: &YamlNode, expected: &str, report: &mut Diagnostics<'_>) {
    let hint = match node.value {
        YamlValue::Int(_) | YamlValue::Float(_) | YamlValue::Bool(_) if expected.contains("text") => {
            Some("put it in quotes".to_owned())
        }
        _ => None,
    };
    report.push_error(node.span, format!("{expected}, and this is {}", node.kind()), hint);
}

/// A text with a number of characters in a range.
pub(crate) fn text(
    node: &YamlNode,
    what: &str,
    length: RangeInclusive<usize>,
    report: &mut Diagnostics<'_>,
) -> Option<String> {
    counted_text(node, what, length, str::trim, report)
}

/// A text with a number of characters in a range, where white space counts.
pub(crate) fn text_with_space(
    node: &YamlNode,
    what: &str,
    length: RangeInclusive<usize>,
    report: &mut Diagnostics<'_>,
) -> Option<String> {
    counted_text(node, what, length, |text| text, report)
}

fn counted_text(
    node: &YamlNode,
    what: &str,
    length: RangeInclusive<usize>,
    counted: fn(&str) -> &str,
    report: &mut Diagnostics<'_>,
) -> Option<String> {
    let YamlValue::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is text"), report);
        return None;
    };
    let count = counted(text).chars().count();
    if count == 0 && *length.start() > 0 {
        report.error(node.span, format!("{what} is empty"));
        return None;
    }
    if !length.contains(&count) {
        report.error(node.span, format!("{what} has {count} characters, the limit is {}", length.end()));
        return None;
    }
    Some(text.clone())
}

/// One of several words.
pub(crate) fn choice<T: Copy>(
    node: &YamlNode,
    what: &str,
    words: &[(&str, T)],
    report: &mut Diagnostics<'_>,
) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let YamlValue::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is one of {}", list(&names)), report);
        return None;
    };
    let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        let message = format!("{what} is one of {}, not `{}`", list(&names), shown(text));
        report.push_error(node.span, message, did_you_mean(text, names));
    }
    found
}

/// True or false.
pub(crate) fn boolean(node: &YamlNode, what: &str, report: &mut Diagnostics<'_>) -> Option<bool> {
    let YamlValue::Bool(value) = node.value else {
        wrong(node, &format!("{what} is `true` or `false`"), report);
        return None;
    };
    Some(value)
}

/// A whole number in a range.
pub(crate) fn integer(
    node: &YamlNode,
    what: &str,
    range: RangeInclusive<u32>,
    report: &mut Diagnostics<'_>,
) -> Option<u32> {
    let bounds = format!("{what} is a whole number from {} to {}", range.start(), range.end());
    match node.value {
        YamlValue::Int(i) => match u32::try_from(i).ok().filter(|i| range.contains(i)) {
            None => report.error(node.span, format!("{bounds}, not {i}")),
            found => return found,
        },
        YamlValue::Float(f) => report.error(node.span, format!("{bounds}, not {f}")),
        _ => wrong(node, &bounds, report),
    }
    None
}

/// A number in a range.
pub(crate) fn number(
    node: &YamlNode,
    what: &str,
    range: RangeInclusive<f64>,
    report: &mut Diagnostics<'_>,
) -> Option<f64> {
    let bounds = format!("{what} is a number from {} to {}", range.start(), range.end());
    let value = match node.value {
        YamlValue::Int(i) => i as f64,
        YamlValue::Float(f) => f,
        _ => {
            wrong(node, &bounds, report);
            return None;
        }
    };
    if !range.contains(&value) {
        report.error(node.span, format!("{bounds}, not {value}"));
        return None;
    }
    Some(value)
}

/// The items of a list.
pub(crate) fn items<'n>(
    node: &'n YamlNode,
    what: &str,
    max: usize,
    report: &mut Diagnostics<'_>,
) -> Option<&'n [YamlNode]> {
    let YamlValue::List(items) = &node.value else {
        let hint = matches!(node.value, YamlValue::Str(..))
            .then(|| "put it in brackets, or on a line of its own after `- `".to_owned());
        report.push_error(node.span, format!("{what} is a list, and this is {}", node.kind()), hint);
        return None;
    };
    if items.len() > max {
        report.error(node.span, format!("{what} has {} items, the limit is {max}", items.len()));
        return None;
    }
    Some(items)
}

/// The units of durations, in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration, written as a whole number and a unit.
pub(crate) fn duration(
    node: &YamlNode,
    what: &str,
    range: RangeInclusive<Duration>,
    report: &mut Diagnostics<'_>,
) -> Option<Duration> {
    const FORMS: &str = "write a whole number and a unit, such as `500ms`, `60s`, `5m`, `2h` or `1d`";
    let given = match &node.value {
        YamlValue::Str(text, _) => text.clone(),
        YamlValue::Int(i) => {
            let message = format!("{what} is a duration, and {i} has no unit");
            report.error_with_hint(node.span, message, format!("did you mean `{i}s`?"));
            return None;
        }
        _ => {
            wrong(node, &format!("{what} is a duration"), report);
            return None;
        }
    };
    let Some(duration) = parse_duration(&given) else {
        report.error_with_hint(node.span, format!("{what} is a duration, not `{}`", shown(&given)), FORMS);
        return None;
    };
    if !range.contains(&duration) {
        let (low, high) = (spell(*range.start()), spell(*range.end()));
        report.error(node.span, format!("{what} is from {low} to {high}, not {}", shown(&given)));
        return None;
    }
    Some(duration)
}

/// A duration as settings and flags have it: a whole number and a unit, such as `500ms`, `60s`, `5m`, `2h` or `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*millis)?))
}

/// A duration in the largest unit that divides it.
fn spell(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fitting = UNITS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    fitting.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A list of texts, at most `max` of them, each of at most `max_chars` characters.
pub(crate) fn texts(
    node: &YamlNode,
    what: &str,
    max: usize,
    max_chars: usize,
    report: &mut Diagnostics<'_>,
) -> Vec<String> {
    let nodes = items(node, what, max, report).unwrap_or_default();
    let item = format!("an item of {what}");
    nodes.iter().filter_map(|n| text(n, &item, 1..=max_chars, report)).collect()
}

/// A name of some kind, such as a role's.
pub(crate) fn name<T>(
    node: &YamlNode,
    what: &str,
    parse: impl Fn(&str) -> Result<T, artel_task::id::InvalidName>,
    report: &mut Diagnostics<'_>,
) -> Option<T> {
    const FORM: &str =
        "a name begins with a letter a-z, goes on with a-z, 0-9, `_` and `-`, and has at most 63 characters";
    let YamlValue::Str(text, _) = &node.value else {
        wrong(node, &format!("{what} is a name, which is text"), report);
        return None;
    };
    match parse(text) {
        Ok(name) => Some(name),
        Err(_) => {
            report.error_with_hint(node.span, format!("{what} cannot be named `{}`", shown(text)), FORM);
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
