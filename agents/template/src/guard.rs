//! Bounds the values of a template. minijinja's fuel pays for what a template writes and visits, but not for what its values hold: a
//! list that is joined with itself forty times takes all memory, and one that contains itself twice, forty times over, is compared
//! for ever. Its lists are lazy, too, and each use of one that was made of another passes through all of them.
//!
//! So every list and map that a template makes is counted with all that it holds, with fuel and a limit, before it is used further,
//! and lists are written out. The text of the template is changed for that, from `a + b` to `((a + b)|__bounded)`; the limits of
//! what operators do by themselves need no more than that. A namespace changes after it is counted, so what is set in it is counted
//! too, and nothing may hold one.
//!
//! In a chat template, the operators that Python has otherwise are changed in the same way: see [`crate::operators`].

use std::ops::Range;

use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use crate::namespace::{attribute_values, is_namespace};
use crate::operators::{self, OperatorDialect};
use crate::source_edit::{EditOrder, SourceEdit, range};

/// The most values that a list or a map holds, with those inside of them: a list of 10,000 records has some hundred thousand.
const MAX_HELD_VALUES: usize = 400_000;
/// The values that are counted for one instruction.
const INSTRUCTION_VALUES: u64 = 2;
/// How deep macros and recursive loops may call themselves, as minijinja counts: forty macros, and values are nested thirty times.
const MAX_CALL_DEPTH: usize = 200;

const OPEN: &str = "((";
const CLOSE: &str = ")|__bounded)";
const CLOSE_ATTRIBUTE: &str = ")|__attribute)";
const FILTER_ATTRIBUTE: &str = "|__attribute";

/// The text of a template whose values are bounded.
#[derive(Debug)]
pub(crate) struct GuardedSource {
    pub(crate) text: String,
    /// Where the source was changed and by how many more bytes, in order.
    grown: Vec<(usize, usize)>,
}

impl GuardedSource {
    /// Guards a template. A text that does not parse stays as it is, and so does its error.
    pub(crate) fn of(source: &str, dialect: OperatorDialect) -> Self {
        let tree = parse(source, "template", SyntaxConfig::default()).ok();
        let tree = tree.and_then(|tree| serde_json::to_value(tree).ok()).unwrap_or_default();
        let mut places = Vec::new();
        find(&tree, source, &mut places);
        let mut edits: Vec<SourceEdit> =
            places.into_iter().flat_map(|place| SourceEdit::around(place, OPEN, CLOSE)).collect();
        if tree != Json::Null {
            edits.extend(attribute_values(source).into_iter().flat_map(around_attribute));
        }
        if dialect == OperatorDialect::Python {
            edits.extend(operators::edits(&tree, source));
        }
        edits.sort_by_key(|edit| (edit.at, edit.order));
        let (mut text, mut copied) = (String::with_capacity(source.len()), 0);
        for edit in &edits {
            text.push_str(source.get(copied..edit.at).unwrap_or_default());
            text.push_str(edit.text);
            copied = edit.at + edit.replaced;
        }
        text.push_str(source.get(copied..).unwrap_or_default());
        let grown = edits.into_iter().map(|edit| (edit.at, edit.text.len().saturating_sub(edit.replaced))).collect();
        Self { text, grown }
    }

    /// The place in the source of an error.
    pub(crate) fn place_of(&self, error: &Error) -> Option<Range<usize>> {
        error.range().map(|range| self.original(range.start)..self.original(range.end))
    }

    /// The place in the source of a place in the text.
    fn original(&self, place: usize) -> usize {
        let mut shift = 0;
        for (at, bytes) in &self.grown {
            if at + shift >= place {
                break;
            }
            shift += bytes;
        }
        place.saturating_sub(shift)
    }
}

/// What is inserted around the value of an attribute, or after the filters of a block.
fn around_attribute(place: Range<usize>) -> Vec<SourceEdit> {
    let end = |text| SourceEdit { at: place.end, order: EditOrder::EndOfAttribute, replaced: 0, text };
    match place.is_empty() {
        true => vec![end(FILTER_ATTRIBUTE)],
        false => {
            let [begin, _] = SourceEdit::around(place.clone(), OPEN, CLOSE_ATTRIBUTE);
            vec![begin, end(CLOSE_ATTRIBUTE)]
        }
    }
}

/// Finds the expressions that may give a list or a map.
fn find(tree: &Json, source: &str, places: &mut Vec<Range<usize>>) {
    match tree {
        Json::Array(parts) => parts.iter().for_each(|part| find(part, source, places)),
        Json::Object(map) => {
            let inner = &tree["inner"][0];
            let may_hold_values = match map.get("expr").and_then(Json::as_str) {
                Some("BinOp") => matches!(inner["op"].as_str(), Some("Add" | "Mul")),
                Some("List" | "Map" | "Tuple" | "Slice") => true,
                // Without a value, it is the filter of a block.
                Some("Filter") => has_value(tree),
                // `loop` is called by a name of its own.
                Some("Call") => inner["expr"]["inner"][0]["id"] != "loop",
                _ => false,
            };
            places.extend(range(tree, source).filter(|_| may_hold_values));
            // Names that are set are no expressions.
            let values = map.iter().filter(|(key, _)| *key != "target" && *key != "assignments");
            values.for_each(|(_, part)| find(part, source, places));
            let assignments = map.get("assignments").and_then(Json::as_array);
            assignments.into_iter().flatten().for_each(|pair| find(&pair[1], source, places));
        }
        _ => {}
    }
}

/// Whether a filter, and each that it is applied to, has a value in the end.
fn has_value(filter: &Json) -> bool {
    match &filter["inner"][0]["expr"] {
        Json::Null => false,
        inner if inner["expr"] == "Filter" => has_value(inner),
        _ => true,
    }
}

/// Adds the filter of guarded templates, and takes away what makes values that it does not see.
pub(crate) fn install(environment: &mut Environment<'_>) {
    environment.set_recursion_limit(MAX_CALL_DEPTH);
    environment.add_filter("__bounded", bounded);
    environment.add_filter("__attribute", attribute);
    environment.remove_filter("chain");
    environment.add_filter("sum", sum);
}

/// The value, counted; a list is written out.
fn bounded(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let mut counted = 0;
    let is_list = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => true,
        ValueKind::Map => false,
        _ => return Ok(value),
    };
    let result = if is_list {
        let mut items = Vec::new();
        for item in value.try_iter()? {
            count(&item, &mut counted)?;
            items.push(item);
        }
        if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) }
    } else {
        // The map itself may be a namespace; what it holds may not.
        for key in value.try_iter()? {
            count(&value.get_item(&key)?, &mut counted)?;
        }
        value
    };
    state.consume_fuel(counted as u64 / INSTRUCTION_VALUES)?;
    Ok(result)
}

/// The value of an attribute of a namespace, counted.
fn attribute(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    refuse_namespace(&value)?;
    bounded(state, value)
}

fn refuse_namespace(value: &Value) -> Result<(), Error> {
    match is_namespace(value) {
        true => Err(Error::new(ErrorKind::InvalidOperation, "no value may hold a namespace")),
        false => Ok(()),
    }
}

/// Counts a value with all that it holds.
fn count(value: &Value, counted: &mut usize) -> Result<(), Error> {
    *counted += 1;
    if *counted > MAX_HELD_VALUES {
        let message = format!("a list or map holds more than {MAX_HELD_VALUES} values");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    refuse_namespace(value)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| count(&item, counted)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| count(&value.get_item(&key)?, counted)),
        _ => Ok(()),
    }
}

/// The sum of numbers; the filter that it replaces joins lists, too.
fn sum(
    state: &State<'_, '_>,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let given = start.clone().or_else(|| kwargs.peek::<Value>("start").ok());
    if given.is_some_and(|start| !start.is_number()) {
        return Err(Error::new(ErrorKind::InvalidOperation, "`sum` begins with a number"));
    }
    minijinja::filters::sum(state, values, attribute, start, kwargs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_values_is_guarded_and_nothing_else() {
        let guarded = |source: &str| {
            GuardedSource::of(source, OperatorDialect::Jinja)
                .text
                .replace("|__bounded", "|b")
                .replace("|__attribute", "|a")
        };
        for (source, expected) in [
            ("a + b {{ x.y }} {{ 1 - 2 }}", "a + b {{ x.y }} {{ 1 - 2 }}"),
            ("{{ a + b }}", "{{ ((a + b)|b) }}"),
            ("{{ a + b + c }}", "{{ ((((a + b)|b) + c)|b) }}"),
            ("{{ a + (b + c) * 2 }}", "{{ ((a + (((((b + c)|b)) * 2)|b))|b) }}"),
            ("{{ (a + b)|upper }}", "{{ (((((a + b)|b))|upper)|b) }}"),
            ("{{ x.y|upper|lower ~ z }}", "{{ ((((x.y|upper)|b)|lower)|b) ~ z }}"),
            ("{{ x[1:2] }}{{ x[0] }}", "{{ ((x[1:2])|b) }}{{ x[0] }}"),
            ("{% set a, b = [1, x] %}", "{% set a, b = (([1, x])|b) %}"),
            ("{% set a = 1, x %}", "{% set a = ((1, x)|b) %}"),
            ("{% for k, v in x|items if v %}{% endfor %}", "{% for k, v in ((x|items)|b) if v %}{% endfor %}"),
            ("{% with (a, b) = (1, 2) %}{% endwith %}", "{% with (a, b) = (((1, 2))|b) %}{% endwith %}"),
            ("{% filter upper|trim %}a{% endfilter %}", "{% filter upper|trim %}a{% endfilter %}"),
            ("{% set x | upper %}a{% endset %}", "{% set x | upper %}a{% endset %}"),
            ("{{ {'a': x} is mapping }}", "{{ (({'a': x})|b) is mapping }}"),
            ("{{ range(3) }}", "{{ ((range(3))|b) }}"),
            ("{{ x.items() }}", "{{ ((x.items())|b) }}"),
            (
                "{% for i in x recursive %}{{ loop(i) }}{% endfor %}",
                "{% for i in x recursive %}{{ loop(i) }}{% endfor %}",
            ),
            ("{% set n.a = x + y %}", "{% set n.a =(( ((x + y)|b))|a) %}"),
            ("{% set n.a=x+y%}", "{% set n.a=((((x+y)|b))|a)%}"),
            ("{% set n.a, n.b = x, y -%}", "{% set n.a, n.b =(( ((x, y)|b))|a) -%}"),
            ("{% set n.a | upper %}a{% endset %}", "{% set n.a | upper|a %}a{% endset %}"),
            ("{{ not a }", "{{ not a }"),
        ] {
            let changed = guarded(source);
            assert_eq!(changed, expected, "{source}");
            let parses = |text: &str| parse(text, "template", SyntaxConfig::default()).is_ok();
            assert_eq!(parses(&changed), parses(source), "{changed}");
        }
    }

    #[test]
    fn a_place_in_the_text_is_one_in_the_source() {
        let source = "{{ a + b }}{{ c|nope }}";
        let guarded = GuardedSource::of(source, OperatorDialect::Jinja);
        for (at, c) in source.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()) {
            let place = guarded.text.match_indices(c).find(|(place, _)| guarded.original(*place) == at);
            assert!(place.is_some(), "{c}");
        }
    }
}
