//! Values below `nodes`: what is missing there is empty rather than an error, however long the chain.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr, Serde};
use minijinja::{Environment, Value};
use serde_json::Value as Json;

/// A JSON map, or nothing; what is missing in it is nothing again.
#[derive(Debug)]
pub(super) enum Lenient {
    Nothing,
    Map(serde_json::Map<String, Json>),
}

impl Lenient {
    pub(super) fn value(json: Json) -> Value {
        match json {
            Json::Null => Self::empty(),
            Json::Object(map) => Value::from_object(Self::Map(map)),
            Json::Array(items) => items.into_iter().map(Self::value).collect(),
            other => Value::from(Serde(other)),
        }
    }

    pub(super) fn empty() -> Value {
        Value::from_object(Self::Nothing)
    }

    fn get(&self, key: &str) -> Value {
        match self {
            Self::Map(map) => map.get(key).cloned().map_or_else(Self::empty, Self::value),
            Self::Nothing => Self::empty(),
        }
    }
}

impl Object for Lenient {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(key.as_str().map_or_else(Self::empty, |key| self.get(key)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.as_ref() {
            Self::Nothing => Enumerator::Empty,
            Self::Map(_) => self.mapped_enumerator(|this| match this {
                Self::Nothing => Box::new(std::iter::empty()),
                Self::Map(map) => Box::new(map.keys().map(|key| Value::from(key.as_str()))),
            }),
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        match self.as_ref() {
            Self::Nothing => Some(0),
            Self::Map(map) => Some(map.len()),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_ref() {
            Self::Nothing => Ok(()),
            Self::Map(map) => f.write_str(&serde_json::to_string(map).map_err(|_| fmt::Error)?),
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    matches!(value.downcast_object_ref(), Some(Lenient::Nothing))
}

/// Makes `default`, `is defined` and their kin take nothing for undefined.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_test("defined", |value: &Value| !value.is_undefined() && !is_nothing(value));
    environment.add_test("undefined", |value: &Value| value.is_undefined() || is_nothing(value));
    environment.add_test("none", |value: &Value| value.is_none() || is_nothing(value));
}

fn default(value: &Value, other: Option<Value>, falsy: Option<bool>) -> Value {
    let missing = value.is_undefined() || is_nothing(value) || (falsy == Some(true) && !value.is_true());
    if missing { other.unwrap_or_else(|| Value::from("")) } else { value.clone() }
}
