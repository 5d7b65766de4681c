//! A schema in the keywords that llguidance has. What it lacks is left out, which allows more and never less.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::emptiness::Emptiness;
use crate::endless;
use crate::error::Error;
use crate::reference::{DATA_KEYWORDS, References, below};

/// The largest magnitude of an integer that an output may have: beyond it, clients round.
const MAX_EXACT_INTEGER: i64 = (1 << 53) - 1;
/// The formats whose texts llguidance gives all, if perhaps some more.
const WHOLE_FORMATS: [&str; 5] = ["date", "date-time", "ipv4", "time", "uuid"];
/// The formats of which llguidance gives the texts in use.
const PART_FORMATS: [&str; 5] = ["duration", "email", "hostname", "ipv6", "uri"];
/// The range of divisors whose multiples llguidance finds; others have automata of millions of states, or overflow it.
const DIVISORS: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

/// The most remainders of a divisor that its automaton tells apart; factors of ten take none.
const MAX_REMAINDER_ENTRIES: u64 = 10_000;

/// A schema for llguidance.
pub(crate) struct Grammar {
    pub(crate) schema: Value,
    /// Whether it lets an object have keys that it does not name.
    pub(crate) may_repeat_keys: bool,
    /// Whether all is left out that llguidance takes for narrower than it is.
    pub(crate) is_loose: bool,
}

/// Finds a divisor whose automaton has too many states: that shows only after some digits.
pub(crate) fn check_divisors(part: &Value) -> Result<(), Error> {
    match part {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !DATA_KEYWORDS.contains(&key.as_str())) {
                if key == "multipleOf" && value.as_f64().is_some_and(|by| remainders(by) > MAX_REMAINDER_ENTRIES) {
                    let why = format!("`multipleOf: {value}` has more than {MAX_REMAINDER_ENTRIES} remainders");
                    return Err(Error::Costly(why));
                }
                check_divisors(value)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(check_divisors),
        _ => Ok(()),
    }
}

/// How many remainders of a divisor tell its multiples apart. The last digits alone say whether ten, two or five divides a number.
fn remainders(divisor: f64) -> u64 {
    if !DIVISORS.contains(&divisor) {
        return 0;
    }
    let mut whole = divisor;
    while whole.fract() != 0.0 && whole < u32::MAX.into() {
        whole *= 10.0;
    }
    let mut left = whole as u64;
    for factor in [2, 5] {
        while left > 0 && left.is_multiple_of(factor) {
            left /= factor;
        }
    }
    left
}

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Looseness {
    /// What llguidance lacks.
    Exact,
    /// Also what it cannot always combine with the rest.
    Loose,
    /// Also patterns, some of which it reads in another way.
    Looser,
}

/// The forms of a schema, in the order in which they are tried. Its canonical form says in other keywords what `not`, `if` and
/// others say.
pub(crate) fn forms<'s>(schema: &'s Value, emptiness: &'s Emptiness) -> impl Iterator<Item = Grammar> + 's {
    let is_plain = Lowering::of(schema, emptiness, Looseness::Exact, false).grammar().1;
    let canonical = emptiness.canonical.as_ref();
    let exact = [Some((schema, Looseness::Exact, false)), canonical.map(|of| (of, Looseness::Exact, true))];
    let loose = [
        canonical.map(|of| (of, Looseness::Loose, true)),
        Some((schema, Looseness::Loose, false)),
        Some((schema, Looseness::Looser, false)),
    ];
    let [first, second] = exact;
    let exact = if is_plain { [first, second] } else { [second, first] };
    let mut names = HashMap::new();
    collect_names(schema, &mut names);
    exact.into_iter().chain(loose).flatten().map(move |(of, looseness, is_canonical)| {
        let mut lowering = Lowering::of(of, emptiness, looseness, is_canonical);
        lowering.order = is_canonical.then_some(&names);
        lowering.grammar().0
    })
}

/// The names of properties, by where they first come.
fn collect_names<'s>(part: &'s Value, names: &mut HashMap<&'s str, usize>) {
    let Value::Object(map) = part else {
        part.as_array().into_iter().flatten().for_each(|item| collect_names(item, names));
        return;
    };
    for (key, value) in map {
        let named: Vec<&str> = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
            ("required", Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for name in named {
            let next = names.len();
            names.entry(name).or_insert(next);
        }
        collect_names(value, names);
    }
}

struct Lowering<'s> {
    root: &'s Value,
    references: References<'s>,
    emptiness: &'s Emptiness,
    looseness: Looseness,
    /// Whether the pointers are those of the canonical form, of which nothing is known to be empty.
    is_canonical: bool,
    /// How the properties of a canonical form are ordered.
    order: Option<&'s HashMap<&'s str, usize>>,
    /// What is referred to.
    targets: Vec<String>,
    /// Whether no keyword was left out or put in other words.
    is_plain: bool,
    may_repeat_keys: bool,
}

impl<'s> Lowering<'s> {
    fn of(root: &'s Value, emptiness: &'s Emptiness, looseness: Looseness, is_canonical: bool) -> Self {
        let references = References::of(root);
        let (order, targets) = (None, Vec::new());
        Self {
            root,
            references,
            emptiness,
            looseness,
            is_canonical,
            order,
            targets,
            is_plain: true,
            may_repeat_keys: false,
        }
    }

    fn is_loose(&self) -> bool {
        self.looseness >= Looseness::Loose
    }

    fn grammar(mut self) -> (Grammar, bool) {
        let mut schema = match self.schema(self.root, "") {
            Value::Object(map) => map,
            all_or_none => Map::from_iter([("allOf".to_owned(), Value::Array(vec![all_or_none]))]),
        };
        let mut definitions = Map::new();
        while let Some(target) = self.targets.get(definitions.len()).cloned() {
            let lowered = self.root.pointer(&target).map_or(Value::Bool(true), |schema| self.schema(schema, &target));
            definitions.insert(format!("d{}", definitions.len()), lowered);
        }
        schema.insert("$defs".to_owned(), Value::Object(definitions));
        // An alternative of `oneOf` that others overlap is not told apart by a grammar.
        schema.insert("x-guidance".to_owned(), json!({"whitespace_flexible": false, "coerce_one_of": true}));
        let (is_loose, may_repeat_keys) = (self.is_loose(), self.may_repeat_keys);
        let mut schema = Value::Object(schema);
        endless::prune(&mut schema);
        (Grammar { schema, may_repeat_keys, is_loose }, self.is_plain)
    }

    fn schema(&mut self, schema: &Value, pointer: &str) -> Value {
        if !self.is_canonical && self.emptiness.is_empty(pointer) {
            return Value::Bool(false);
        }
        let Value::Object(map) = schema else {
            self.may_repeat_keys |= schema == &Value::Bool(true);
            return schema.clone();
        };
        let mut made = Map::new();
        let is_alone = self.is_loose() && map.contains_key("$ref");
        for (key, value) in map.iter().filter(|(key, _)| !is_alone || *key == "$ref") {
            if let Some(value) = self.keyword(map, key, value, pointer) {
                made.insert(key.clone(), value);
            }
        }
        if let Some(condition) = self.condition(map, pointer) {
            match made.get_mut("allOf").and_then(Value::as_array_mut) {
                Some(all) => all.push(condition),
                None => drop(made.insert("allOf".to_owned(), json!([condition]))),
            }
        }
        if map.contains_key("contains") {
            let least = map.get("minContains").map_or(1, |least| whole(least).as_u64().unwrap_or(0));
            let given = made.get("minItems").and_then(Value::as_u64).unwrap_or(0);
            made.insert("minItems".to_owned(), Value::from(given.max(least)));
        }
        if let Some(names) = map.get("propertyNames").filter(|_| !self.is_loose()) {
            name_properties(&mut made, names);
        }
        if has_type(&made, "integer") && !has_type(&made, "number") {
            bound_integers(&mut made);
        }
        self.may_repeat_keys |= is_open_object(&made);
        Value::Object(made)
    }

    /// The keyword's value for llguidance; none if it says nothing there.
    fn keyword(&mut self, map: &Map<String, Value>, key: &str, value: &Value, pointer: &str) -> Option<Value> {
        let at = below(pointer, key);
        match key {
            "pattern" if self.looseness == Looseness::Looser => None,
            "type" | "required" | "pattern" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                Some(value.clone())
            }
            "const" | "enum" => Some(value.clone()),
            "minLength" | "maxLength" | "minItems" | "maxItems" => Some(whole(value)),
            "minProperties" | "maxProperties" if self.is_loose() => None,
            "minProperties" | "maxProperties" => Some(whole(value)),
            "additionalProperties" if self.is_loose() && map.contains_key("patternProperties") => None,
            "items" | "additionalProperties" => Some(self.schema(value, &at)),
            "patternProperties" if self.is_loose() => None,
            "properties" | "patternProperties" => {
                let named = value.as_object()?.iter();
                let mut made: Vec<(String, Value)> =
                    named.map(|(name, schema)| (name.clone(), self.schema(schema, &below(&at, name)))).collect();
                if let Some(order) = self.order {
                    made.sort_by_key(|(name, _)| order.get(name.as_str()).copied().unwrap_or(usize::MAX));
                }
                Some(Value::Object(made.into_iter().collect()))
            }
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => {
                self.is_plain &= key != "oneOf";
                let items = value.as_array()?.iter().enumerate();
                Some(items.map(|(index, schema)| self.schema(schema, &format!("{at}/{index}"))).collect())
            }
            "$ref" => self.reference(value.as_str()?),
            "format" => self.format(value.as_str()?),
            "multipleOf" => {
                value.as_f64().filter(|by| !self.is_loose() && DIVISORS.contains(by)).map(|_| value.clone())
            }
            "not"
            | "if"
            | "contains"
            | "propertyNames"
            | "dependentRequired"
            | "dependentSchemas"
            | "uniqueItems"
            | "unevaluatedItems"
            | "unevaluatedProperties" => {
                self.is_plain = false;
                None
            }
            // Annotations, definitions, and what belongs to one of the above.
            _ => None,
        }
    }

    fn reference(&mut self, reference: &str) -> Option<Value> {
        let target = self.references.target(reference)?;
        let index = self.targets.iter().position(|known| *known == target).unwrap_or_else(|| {
            self.targets.push(target);
            self.targets.len() - 1
        });
        Some(Value::String(format!("#/$defs/d{index}")))
    }

    fn format(&self, format: &str) -> Option<Value> {
        let is_known = WHOLE_FORMATS.contains(&format) || !self.is_loose() && PART_FORMATS.contains(&format);
        is_known.then(|| Value::from(format))
    }

    /// `if` as alternatives: what satisfies it and `then`, or `else`.
    fn condition(&mut self, map: &Map<String, Value>, pointer: &str) -> Option<Value> {
        let (condition, otherwise) = (map.get("if")?, map.get("else")?);
        let condition = self.schema(condition, &below(pointer, "if"));
        let then = map.get("then").map_or(Value::Bool(true), |then| self.schema(then, &below(pointer, "then")));
        let otherwise = self.schema(otherwise, &below(pointer, "else"));
        Some(json!({"anyOf": [{"allOf": [condition, then]}, otherwise]}))
    }
}

/// Says with `properties` or a pattern which names the properties may have; it may allow more.
fn name_properties(schema: &mut Map<String, Value>, names: &Value) {
    let Some(names) = names.as_object().filter(|_| !schema.contains_key("patternProperties")) else { return };
    let one_of = names.get("enum").and_then(Value::as_array).map(Vec::as_slice);
    let one_of = one_of.or_else(|| names.get("const").map(std::slice::from_ref));
    let pattern = name_pattern(names);
    if one_of.is_none() && pattern.is_none() {
        return;
    }
    let other = schema.insert("additionalProperties".to_owned(), Value::Bool(false)).unwrap_or(Value::Bool(true));
    match (one_of, pattern) {
        (Some(values), _) => {
            let named = schema.entry("properties").or_insert_with(|| Value::Object(Map::new()));
            let Some(named) = named.as_object_mut() else { return };
            let is_allowed = |name: &str| values.iter().any(|value| value == name);
            named.iter_mut().filter(|(name, _)| !is_allowed(name)).for_each(|(_, schema)| *schema = Value::Bool(false));
            for name in values.iter().filter_map(Value::as_str) {
                named.entry(name).or_insert_with(|| other.clone());
            }
        }
        (None, Some(pattern)) => drop(schema.insert("patternProperties".to_owned(), json!({pattern: other}))),
        (None, None) => {}
    }
}

/// A pattern of all names that satisfy a schema.
fn name_pattern(names: &Map<String, Value>) -> Option<String> {
    let count = |key: &str| names.get(key).map(whole).as_ref().and_then(Value::as_u64);
    if let Some(pattern) = names.get("pattern").and_then(Value::as_str) {
        return Some(pattern.to_owned());
    }
    match (count("minLength"), count("maxLength")) {
        (None, None) => None,
        (least, None) => Some(format!("^(?s:.{{{},}})$", least.unwrap_or(0))),
        (least, Some(most)) => Some(format!("^(?s:.{{{},{most}}})$", least.unwrap_or(0))),
    }
}

fn has_type(schema: &Map<String, Value>, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(given)) => given == name,
        Some(Value::Array(given)) => given.iter().any(|given| given == name),
        _ => false,
    }
}

/// A count that may be written as `2.0`.
fn whole(value: &Value) -> Value {
    match value.as_f64() {
        Some(count) if value.as_u64().is_none() && count.fract() == 0.0 && count >= 0.0 => Value::from(count as u64),
        _ => value.clone(),
    }
}

/// Keeps integers within what clients receive.
fn bound_integers(schema: &mut Map<String, Value>) {
    let bound = |schema: &mut Map<String, Value>, key: &str, limit: i64, is_beyond: fn(f64, f64) -> bool| {
        let given = schema.get(key).and_then(Value::as_f64);
        if given.is_none_or(|given| is_beyond(given, limit as f64)) {
            schema.insert(key.to_owned(), Value::from(limit));
        }
    };
    bound(schema, "minimum", -MAX_EXACT_INTEGER, |given, limit| given < limit);
    bound(schema, "maximum", MAX_EXACT_INTEGER, |given, limit| given > limit);
}

/// Whether an object may have keys that the schema does not name.
fn is_open_object(schema: &Map<String, Value>) -> bool {
    let may_be_object = !schema.contains_key("type") || has_type(schema, "object");
    let is_elsewhere = ["const", "enum", "$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| schema.contains_key(*key))
        && !["properties", "required", "patternProperties", "additionalProperties"]
            .iter()
            .any(|key| schema.contains_key(*key));
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
        && schema.get("patternProperties").and_then(Value::as_object).is_none_or(Map::is_empty);
    may_be_object && !is_elsewhere && !is_closed
}
