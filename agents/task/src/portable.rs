//! JSON that every client receives as it is.
//!
//! Clients receive JSON as a `google.protobuf.Value`. Its numbers are doubles, which round integers beyond 2^53, and each list
//! and object takes two or three levels of the nesting that protobuf parsers bound. A value that does not fit is refused where
//! it arrives: it is neither rounded nor sent to clients that cannot decode it.

mod repeated_key;

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The deepest nesting of lists and objects. Protobuf parsers of most languages read 100 nested messages. An object takes three
/// of them (the value, the struct and its entry), and the messages around a value take three or four.
pub const MAX_VALUE_DEPTH: usize = 30;

/// The largest magnitude of an integer: up to 2^53 - 1 no other integer has the same double (RFC 7493, section 2.2).
pub const MAX_EXACT_INTEGER: u64 = (1 << 53) - 1;

/// Why a value cannot be sent to clients as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Clients could not decode it.
    #[error("lists and objects nest {depth} deep, the limit is {MAX_VALUE_DEPTH}")]
    TooDeep {
        /// The nesting of its lists and objects.
        depth: usize,
    },
    /// Clients would receive another integer.
    #[error(
        "{}the integer {integer} exceeds ±{MAX_EXACT_INTEGER}, beyond which clients round integers: write it as a string",
        at(.place)
    )]
    InexactInteger {
        /// Where it is in the value, as a JSON pointer; empty for the value itself.
        place: String,
        /// Its digits.
        integer: String,
    },
}

/// Why a text gives no value that can be sent to clients.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not JSON.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// Its value cannot be sent as it is.
    #[error(transparent)]
    NotPortable(#[from] Error),
    /// An object has a key twice, which readers take in different ways.
    #[error("{}the key {key:?} comes twice", at(.place))]
    RepeatedKey {
        /// The object, as a JSON pointer; empty for the value itself.
        place: String,
        /// The key.
        key: String,
    },
}

/// A place in a value for the beginning of a message: `at /a/0: `, or nothing for the value itself.
fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("at {place}: ") }
}

/// Parses a text as JSON that every client receives as it is. A number with a fraction or an exponent is a double, however it
/// is written.
///
/// # Errors
/// The text is not JSON, an object has a key twice, or the value nests too deep or has an integer that clients would round.
pub fn parse(text: &str) -> Result<Value, ParseError> {
    let value: Value = serde_json::from_str(text)?;
    check(&value)?;
    if let Some((place, key)) = repeated_key::find(text) {
        return Err(ParseError::RepeatedKey { place, key });
    }
    // The parser has rounded integers of more than 64 bits to doubles.
    let Some(integer) = wide_integer(text) else { return Ok(value) };
    let rounded = serde_json::from_str::<Number>(integer).ok();
    let place =
        place_of(&value, &|number| Some(number) == rounded.as_ref()).map_or_else(String::new, |(place, _)| place);
    Err(Error::InexactInteger { place, integer: integer.to_owned() }.into())
}

/// Checks that every client receives a value as it is.
///
/// # Errors
/// It nests too deep, or has an integer that clients would round.
pub fn check(value: &Value) -> Result<(), Error> {
    let depth = depth(value);
    if depth > MAX_VALUE_DEPTH {
        return Err(Error::TooDeep { depth });
    }
    match place_of(value, &is_inexact) {
        Some((place, number)) => Err(Error::InexactInteger { place, integer: number.to_string() }),
        None => Ok(()),
    }
}

/// The nesting of lists and objects; 0 for a value that is neither.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn is_inexact(number: &Number) -> bool {
    let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    magnitude.is_some_and(|magnitude| magnitude > MAX_EXACT_INTEGER)
}

/// The first number that matches, and its place as a JSON pointer.
fn place_of<'v>(value: &'v Value, matches: &dyn Fn(&Number) -> bool) -> Option<(String, &'v Number)> {
    let mut place = String::new();
    find(value, matches, &mut place).map(|number| (place, number))
}

fn find<'v>(value: &'v Value, matches: &dyn Fn(&Number) -> bool, place: &mut String) -> Option<&'v Number> {
    let length = place.len();
    match value {
        Value::Number(number) => matches(number).then_some(number),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            place.truncate(length);
            write!(place, "/{index}").expect("a string takes any text");
            find(item, matches, place)
        }),
        Value::Object(fields) => fields.iter().find_map(|(key, field)| {
            place.truncate(length);
            place.push('/');
            place.push_str(&key.replace('~', "~0").replace('/', "~1"));
            find(field, matches, place)
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// The first integer of a JSON text that does not fit into 64 bits.
fn wide_integer(text: &str) -> Option<&str> {
    let (mut in_string, mut is_escaped, mut start) = (false, false, None);
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' => {
                start.get_or_insert(at);
                continue;
            }
            _ => {}
        }
        if let Some(number) = start.take().map(|start| &text[start..at])
            && is_wide(number)
        {
            return Some(number);
        }
    }
    None
}

fn is_wide(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn lists(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn an_integer_that_clients_would_round_is_refused_with_its_place() {
        let largest = r#"{"n": [9007199254740991, -9007199254740991]}"#;
        assert_eq!(parse(largest).unwrap(), json!({"n": [MAX_EXACT_INTEGER, -9_007_199_254_740_991_i64]}));
        for (text, start) in [
            ("9007199254740992", "the integer 9007199254740992 exceeds ±9007199254740991"),
            (r#"{"a": [0, {"b/c": 9007199254740993}]}"#, "at /a/1/b~1c: the integer 9007199254740993 "),
            ("[-9007199254740993]", "at /0: the integer -9007199254740993 "),
            ("[18446744073709551615]", "at /0: the integer 18446744073709551615 "),
            (r#"{"a\"1": 7, "b": 123456789012345678901}"#, "at /b: the integer 123456789012345678901 "),
            ("[1,-99999999999999999999]", "at /1: the integer -99999999999999999999 "),
        ] {
            assert!(message(text).starts_with(start), "{}", message(text));
            assert!(message(text).ends_with("write it as a string"), "{}", message(text));
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_with_its_object() {
        let nested = r#"{"a": [1, {"b/": {"x": 1, "y": {"x": 2}, "\u0078": 3}}]}"#;
        assert_eq!(message(nested), "at /a/1/b~1: the key \"x\" comes twice");
        assert_eq!(message(r#"{"": 1, "": 2}"#), "the key \"\" comes twice");
        assert!(parse(r#"[{"a": {"a": 1}}, {"a": "a"}, "{\"a\":1,\"a\":2}"]"#).is_ok());
    }

    #[test]
    fn doubles_and_digits_in_strings_are_kept() {
        let text = r#"{"9": "9007199254740993 \" 99999999999999999999", "f": [1e20, 0.5, -2.5e10]}"#;
        assert_eq!(parse(text).unwrap()["f"], json!([1e20, 0.5, -2.5e10]));
        assert!(parse("[1e300, 6.02e23, 9007199254740993.5]").is_ok());
        assert!(matches!(parse("1e400"), Err(ParseError::Syntax(_))), "it is no double");
    }

    #[test]
    fn nesting_is_limited() {
        assert!(parse(&lists(MAX_VALUE_DEPTH)).is_ok());
        assert_eq!(message(&lists(60)), "lists and objects nest 60 deep, the limit is 30");
        let objects = (0..=MAX_VALUE_DEPTH).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(check(&objects), Err(Error::TooDeep { depth: MAX_VALUE_DEPTH + 1 }));
    }

    proptest! {
        /// The parser would round a double to its neighbour in a few of a hundred, if it were not told to take the time.
        #[test]
        fn a_double_is_kept_as_it_is(doubles in prop::collection::vec(prop::num::f64::NORMAL, 64)) {
            let text = json!(doubles).to_string();
            let kept = parse(&text).unwrap();
            let given: Vec<Option<f64>> = doubles.into_iter().map(Some).collect();
            let kept: Vec<Option<f64>> = kept.as_array().unwrap().iter().map(Value::as_f64).collect();
            prop_assert_eq!(kept, given);
        }

        #[test]
        fn an_integer_is_kept_or_refused(digits in "-?[1-9][0-9]{0,30}") {
            match parse(&format!("[{digits}]")) {
                Ok(value) => prop_assert_eq!(value[0].as_f64().map(|double| format!("{double:.0}")), Some(digits)),
                Err(error) => prop_assert!(error.to_string().contains(&digits), "{}", error),
            }
        }
    }
}
