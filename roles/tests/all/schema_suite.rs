//! The public test suite of JSON Schema: what is valid decodes, and what is invalid is not decoded, or found afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use artel_constraint::{Compiler, byte_vocabulary};
use serde_json::{Map, Number, Value, json};

use super::schemas::{output, wrapped};

/// Files of optional tests that are about what is supported here.
const OPTIONAL_FILES: [&str; 16] = [
    "ecmascript-regex",
    "non-bmp-regex",
    "float-overflow",
    "format/date",
    "format/date-time",
    "format/duration",
    "format/email",
    "format/hostname",
    "format/ipv4",
    "format/ipv6",
    "format/json-pointer",
    "format/regex",
    "format/time",
    "format/uri",
    "format/uri-reference",
    "format/uuid",
];
/// The most ways of writing a value that are tried: a grammar has the keys of objects in one order.
const MAX_TRIED_VALUES: usize = 1000;

/// The words with which groups are refused though values satisfy their schema, how many they are, and why.
const REFUSED_GROUPS: [(&str, usize, &str); 3] = [
    (
        "`$ref` leads out of the schema",
        51,
        "a catalog fetches no other documents, and parts of a schema have no addresses of their own",
    ),
    ("unknown schema keyword `$dynamicRef`", 3, "it is for extending schemas of others"),
    ("exceeds ±9007199254740991", 1, "clients would round the integer"),
];
/// Files and groups that are not tested, and why.
const OTHER_GROUPS: [(&str, &str); 2] = [
    ("format: ", "`format` is held to here, and these say that it need not be; the files of each format are tested"),
    ("vocabulary: schema that uses custom metaschema", "a metaschema of others changes nothing here"),
];
/// Valid values that are not decoded, and why.
const MISSED_VALUES: [(&str, &str); 10] = [
    ("optional/ecmascript-regex: ECMA 262 \\s matches whitespace: zero-width whitespace matches", WHITE_SPACE),
    (
        "optional/float-overflow: all integers are multiples of 0.5, if overflow is handled: valid if optional overflow handling is implemented",
        "clients would round the integer",
    ),
    (
        "optional/format/email: validation of e-mail addresses: a quoted string with a space in the local part is valid",
        QUOTED_ADDRESS,
    ),
    (
        "optional/format/email: validation of e-mail addresses: a quoted string with a double dot in the local part is valid",
        QUOTED_ADDRESS,
    ),
    (
        "optional/format/email: validation of e-mail addresses: a quoted string with a @ in the local part is valid",
        QUOTED_ADDRESS,
    ),
    (
        "optional/format/email: validation of e-mail addresses: an IPv6-address-literal after the @ is valid",
        QUOTED_ADDRESS,
    ),
    (
        "optional/format/ipv6: validation of IPv6 addresses: mixed format with the ipv4 section as decimal octets",
        MIXED_ADDRESS,
    ),
    (
        "optional/format/ipv6: validation of IPv6 addresses: mixed format with double colons between the sections",
        MIXED_ADDRESS,
    ),
    (
        "optional/format/ipv6: validation of IPv6 addresses: mixed format with leading double colons (ipv4-mapped ipv6 address)",
        MIXED_ADDRESS,
    ),
    ("optional/format/ipv6: validation of IPv6 addresses: a long valid ipv6", MIXED_ADDRESS),
];
const WHITE_SPACE: &str = "the decoder's `\\s` has no byte order mark";
const QUOTED_ADDRESS: &str = "the decoder writes local parts without quotes, and domains by name or IPv4 address";
const MIXED_ADDRESS: &str = "the decoder writes IPv6 addresses in hexadecimal alone";

struct Group {
    name: String,
    schema: Value,
    tests: Vec<(String, Value, bool)>,
}

/// `ARTEL_TEST_JSON_SCHEMA_SUITE`, or where `cargo xtask setup` puts it.
fn suite() -> Vec<Group> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let cache = variable("ARTEL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("artel")))
        .unwrap_or_else(|| variable("HOME").unwrap().join(".cache/artel"));
    let dir = variable("ARTEL_TEST_JSON_SCHEMA_SUITE").unwrap_or_else(|| cache.join("json-schema-suite-4.26.0"));
    assert!(dir.is_dir(), "{} is missing: `cargo xtask setup` fetches it", dir.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.extend(OPTIONAL_FILES.map(|name| dir.join(format!("optional/{name}.json"))));
    files.sort();
    files.iter().flat_map(|file| groups(file, &dir)).collect()
}

fn groups(file: &PathBuf, dir: &PathBuf) -> Vec<Group> {
    let text = fs::read_to_string(file).unwrap();
    let groups: Vec<Value> = serde_json::from_str(&text).unwrap();
    let file = file.strip_prefix(dir).unwrap().with_extension("").display().to_string();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let group = |group: &Value| Group {
        name: format!("{file}: {}", text(&group["description"])),
        schema: group["schema"].clone(),
        tests: group["tests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|test| (text(&test["description"]), test["data"].clone(), test["valid"].as_bool().unwrap()))
            .collect(),
    };
    groups.iter().map(group).collect()
}

/// The schema as that of a property: references to its root lead there.
fn as_property(schema: &Value) -> Value {
    fn moved(part: &Value) -> Value {
        match part {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| match (key.as_str(), value.as_str()) {
                    ("$ref", Some("#")) => (key.clone(), json!("#/properties/v")),
                    ("$ref", Some(target)) if target.starts_with("#/") => {
                        (key.clone(), json!(format!("#/properties/v{}", &target[1..])))
                    }
                    ("const" | "enum", _) => (key.clone(), value.clone()),
                    _ => (key.clone(), moved(value)),
                })
                .collect(),
            Value::Array(items) => items.iter().map(moved).collect(),
            other => other.clone(),
        }
    }
    let mut schema = moved(schema);
    if let Some(map) = schema.as_object_mut() {
        map.shift_remove("$schema");
        map.shift_remove("$id");
    }
    wrapped(&schema)
}

/// The ways to write a value: with its keys in other orders, and with whole numbers as integers.
fn writings(value: &Value) -> Vec<Value> {
    let plain = |number: &Number| match number.as_f64() {
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < 9e15 => Number::from(double as i64),
        _ => number.clone(),
    };
    match value {
        Value::Number(number) if plain(number) != *number => {
            vec![Value::Number(plain(number)), value.clone()]
        }
        Value::Array(items) => {
            let empty = vec![Vec::new()];
            let lists = items.iter().fold(empty, |lists, item| {
                let items = writings(item);
                let longer = |list: &Vec<Value>| {
                    items.iter().map(|item| [list.as_slice(), std::slice::from_ref(item)].concat()).collect::<Vec<_>>()
                };
                lists.iter().flat_map(longer).take(MAX_TRIED_VALUES).collect()
            });
            lists.into_iter().map(Value::Array).collect()
        }
        Value::Object(map) if !map.is_empty() => {
            let with_first = |(key, first): (&String, &Value)| {
                let mut rest = map.clone();
                rest.shift_remove(key);
                let rests = writings(&Value::Object(rest));
                let mut found = Vec::new();
                for first in writings(first) {
                    for rest in &rests {
                        let mut whole = Map::from_iter([(key.clone(), first.clone())]);
                        whole.extend(rest.as_object().unwrap().clone());
                        found.push(Value::Object(whole));
                    }
                }
                found
            };
            map.iter().flat_map(with_first).take(MAX_TRIED_VALUES).collect()
        }
        other => vec![other.clone()],
    }
}

/// Whether the decoder lets a model write the value.
fn is_decoded(compiler: &Compiler, schema: &Value, value: &Value) -> bool {
    writings(&json!({"v": value})).iter().any(|written| {
        let mut constraint = compiler.compile(schema).unwrap();
        let bytes = written.to_string().into_bytes();
        bytes.into_iter().all(|byte| constraint.accept(byte.into()).is_ok()) && constraint.may_end()
    })
}

#[test]
fn what_is_valid_decodes_and_what_is_not_is_found() {
    let compiler = Compiler::new(&byte_vocabulary()).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    let (mut refused, mut missed, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = [0; REFUSED_GROUPS.len()];
    for Group { name, schema, tests } in suite() {
        if OTHER_GROUPS.iter().any(|(other, _)| name.starts_with(other)) {
            continue;
        }
        let whole = as_property(&schema);
        let has_value = tests.iter().any(|(_, _, is_valid)| *is_valid);
        let schema = match output(&whole) {
            Ok(schema) => schema,
            Err(message) => {
                let line = message.lines().next().unwrap().to_owned();
                let is_unsatisfiable = line.contains("no value satisfies");
                let kind = if has_value { "groups refused" } else { "groups without a value, refused" };
                *counts.entry(kind).or_default() += 1;
                if has_value && is_unsatisfiable {
                    wrong.push(format!("{name}: {line}"));
                }
                match REFUSED_GROUPS.iter().position(|(words, ..)| line.contains(words)) {
                    Some(at) if has_value => known[at] += 1,
                    None if has_value => refused.push(format!("{name}: {line}")),
                    _ => {}
                }
                continue;
            }
        };
        *counts.entry("groups").or_default() += 1;
        for (test, value, is_valid) in tests {
            let is_checked = schema.check(&json!({"v": value})).is_ok();
            let is_decoded = is_decoded(&compiler, schema.json(), &value);
            let name = format!("{name}: {test}");
            let kind = match (is_valid, is_decoded, is_checked) {
                (true, true, true) => "valid, decoded",
                (true, false, true) => {
                    if !MISSED_VALUES.iter().any(|(value, _)| *value == name) {
                        missed.push(name);
                    }
                    "valid, not decoded"
                }
                (false, false, _) => "invalid, not decoded",
                (false, true, false) => "invalid, found after decoding",
                _ => {
                    wrong.push(name);
                    "wrong"
                }
            };
            *counts.entry(kind).or_default() += 1;
        }
    }
    println!("{counts:#?}");
    println!("refused:\n{}\nmissed:\n{}\nwrong:\n{}", refused.join("\n"), missed.join("\n"), wrong.join("\n"));
    assert_eq!(known, REFUSED_GROUPS.map(|(_, count, _)| count));
    assert!(refused.is_empty() && missed.is_empty() && wrong.is_empty());
}
