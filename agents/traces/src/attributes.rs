//! The attributes of a span.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};

/// What `gen_ai.provider.name` says: who computes the answers.
const PROVIDER: &str = "artel";

/// The attributes of a span, in the order in which they were added. Names are those of OpenTelemetry's semantic conventions, or
/// begin with `artel.`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanAttributes(Vec<KeyValue>);

impl SpanAttributes {
    /// Those of an operation of generative AI.
    pub(crate) fn of_operation(operation: &str) -> Self {
        Self::default().text("gen_ai.operation.name", operation).text("gen_ai.provider.name", PROVIDER)
    }

    /// With a text.
    #[must_use]
    pub fn text(self, key: &str, value: impl Into<String>) -> Self {
        self.with(key, Value::StringValue(value.into()))
    }

    /// With texts.
    #[must_use]
    pub fn texts(self, key: &str, values: &[&str]) -> Self {
        let text = |value: &&str| AnyValue { value: Some(Value::StringValue((*value).to_owned())) };
        self.with(key, Value::ArrayValue(ArrayValue { values: values.iter().map(text).collect() }))
    }

    /// With a whole number.
    #[must_use]
    pub fn integer(self, key: &str, value: impl Into<i64>) -> Self {
        self.with(key, Value::IntValue(value.into()))
    }

    /// With a number.
    #[must_use]
    pub fn number(self, key: &str, value: f64) -> Self {
        self.with(key, Value::DoubleValue(value))
    }

    /// With a truth value.
    #[must_use]
    pub fn boolean(self, key: &str, value: bool) -> Self {
        self.with(key, Value::BoolValue(value))
    }

    /// With those of another one behind its own.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    pub(crate) fn into_key_values(self) -> Vec<KeyValue> {
        self.0
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
        self
    }
}
