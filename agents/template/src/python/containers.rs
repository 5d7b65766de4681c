//! The methods of dicts and lists that Jinja's sandbox allows: those that change nothing.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, Value};

use super::strings::{invalid, unknown};

/// Calls a method of a map, or of a list.
pub(crate) fn call(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map => map(value, method, args),
        ValueKind::Seq | ValueKind::Iterable => list(value, method, args),
        _ => Err(unknown()),
    }
}

fn map(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if matches!(method, "clear" | "pop" | "popitem" | "setdefault" | "update") {
        return Err(changes(method));
    }
    match method {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(key)?;
            Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found })
        }
        "keys" | "values" | "items" => {
            let (_kwargs,): (Kwargs,) = from_args(args)?;
            let mut found = Vec::new();
            for key in value.try_iter()? {
                found.push(match method {
                    "keys" => key,
                    "values" => value.get_item(&key)?,
                    _ => {
                        let item = value.get_item(&key)?;
                        Value::from(Tuple::from([key, item]))
                    }
                });
            }
            Ok(Value::from(found))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ => Err(unknown()),
    }
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if matches!(method, "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort") {
        return Err(changes(method));
    }
    match method {
        "count" => {
            let (what,): (&Value,) = from_args(args)?;
            Ok(Value::from(value.try_iter()?.filter(|item| item == what).count()))
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what);
            at.map(Value::from).ok_or_else(|| invalid("the list has no such item"))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ => Err(unknown()),
    }
}

fn changes(method: &str) -> Error {
    invalid(&format!("`{method}` changes a value, which no chat template may"))
}
