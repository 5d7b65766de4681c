//! Reads the fields of a JSON object. A field that is null is absent, and one of a wrong type is an error that names it.

use serde_json::{Map, Value};

use crate::api_error::ApiError;

/// An object and where it stands in the request.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Empty for the request itself.
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of the request itself.
    pub(crate) fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The fields of a value that must be an object.
    pub(crate) fn of(value: &'a Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The full name of a field.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// An error in a field. `what` follows its name.
    pub(crate) fn invalid(&self, name: &str, what: impl std::fmt::Display) -> ApiError {
        ApiError::invalid(self.path(name), what)
    }

    /// A field that is not taken. `why` follows its name.
    pub(crate) fn unsupported(&self, name: &str, why: impl std::fmt::Display) -> ApiError {
        ApiError::unsupported(self.path(name), why)
    }

    /// The names of the fields that are not null.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }

    /// A field of any type.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a text", Value::as_str)
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, name: &str) -> Result<&'a str, ApiError> {
        self.text(name)?.ok_or_else(|| self.invalid(name, "is missing: it must be a text"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, ApiError> {
        // Numbers beyond f32 become infinite, which every limit refuses.
        self.typed(name, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, "an integer", whole)
    }

    /// An integer from 0 to the largest of 32 bits.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        let count = u32::try_from(number);
        count.map(Some).map_err(|_| self.invalid(name, format!("is {number}, and must be from 0 to {}", u32::MAX)))
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.typed(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, ApiError> {
        self.value(name).map(|value| Self::of(value, self.path(name))).transpose()
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong_type(self.path(name), expected, value))
    }
}

/// A text in a list, with the path of its place.
pub(crate) fn text_of(value: &Value, path: impl FnOnce() -> String) -> Result<&str, ApiError> {
    value.as_str().ok_or_else(|| wrong_type(path(), "a text", value))
}

/// The error of a value of a wrong type.
pub(crate) fn wrong_type(path: impl Into<String>, expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() && expected == "an integer" => "no whole number of 64 bits",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ApiError::invalid(path, format!("must be {expected}, and is {found}")).with_code("invalid_type")
}

/// An integer, also one that is written with a fraction of zero.
fn whole(value: &Value) -> Option<i64> {
    /// Up to here every integer is a double of its own.
    const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_991.0;
    let rounded = || value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER);
    value.as_i64().or_else(|| rounded().map(|number| number as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_of_a_wrong_type_is_named_and_null_is_absent() {
        let value = json!({"n": "two", "stop": null, "seed": 1.5, "top_k": -1, "whole": 3.0, "inner": {"name": 4}});
        let fields = Fields::of(&value, "").unwrap();
        assert_eq!(fields.count("n").unwrap_err().message, "`n` must be an integer, and is a text");
        assert_eq!(fields.list("stop").unwrap(), None);
        assert_eq!(
            fields.integer("seed").unwrap_err().message,
            "`seed` must be an integer, and is no whole number of 64 bits"
        );
        assert_eq!(fields.count("top_k").unwrap_err().message, "`top_k` is -1, and must be from 0 to 4294967295");
        assert_eq!(fields.count("whole").unwrap(), Some(3));
        let inner = fields.object("inner").unwrap().unwrap();
        let refused = inner.required_text("name").unwrap_err();
        assert_eq!((refused.param.as_deref(), refused.code), (Some("inner.name"), Some("invalid_type")));
    }
}
