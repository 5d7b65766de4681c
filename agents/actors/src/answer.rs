//! The answers of people.

use artel_roles::{Schema, SchemaMismatch};
use artel_task::event::{MAX_OUTPUT_BYTES, Output};
use artel_task::{StepId, portable};
use serde_json::Value;

/// A person's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A text; where there is a schema, one of the texts that it allows.
    Text(String),
    /// A value that satisfies the schema.
    Json(Value),
}

/// Why an answer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnswerRejection {
    /// The step does not wait for a person, or no longer.
    NotWaiting,
    /// Several steps wait, and none is named.
    AmbiguousStep(Vec<StepId>),
    /// It is no output of this step.
    Invalid(InvalidAnswer),
    /// The journal did not take it.
    Suspended,
}

/// Why an answer cannot be the output of its step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAnswer {
    /// It is JSON, and the step has no schema.
    #[error("the step has no schema: its answer is text")]
    NoSchema,
    /// The text is none that the schema allows.
    #[error("the text does not satisfy the step's schema: {0}")]
    Text(SchemaMismatch),
    /// The value is none that the schema allows.
    #[error("the answer does not satisfy the step's schema: {0}")]
    Json(SchemaMismatch),
    /// No client could receive it.
    #[error(transparent)]
    Unsendable(#[from] UnsendableOutput),
}

/// An output that no client could receive as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsendableOutput {
    /// It does not fit into a message.
    #[error(
        "the output takes {bytes} bytes, the limit is {MAX_OUTPUT_BYTES}: have the roles write less, or, where a node has many \
         items, let a node after it sum them up and be the graph's `result`"
    )]
    TooLarge { bytes: usize },
    /// Clients would read other numbers, or could not decode it.
    #[error("the output cannot be sent to clients: {0}")]
    NotPortable(#[from] portable::Error),
}

impl UnsendableOutput {
    /// An error if a client would not receive the output as it is.
    pub(crate) fn check(output: &Output) -> Result<(), Self> {
        let bytes = output.max_encoded_len();
        if bytes > MAX_OUTPUT_BYTES {
            return Err(Self::TooLarge { bytes });
        }
        if let Some(json) = &output.json {
            portable::check(json)?;
        }
        Ok(())
    }
}

impl Answer {
    /// The output of a step with this schema.
    pub(crate) fn parse(self, schema: Option<&Schema>) -> Result<Output, InvalidAnswer> {
        let output = match (self, schema) {
            (Self::Text(text), None) => Output::text(text),
            (Self::Json(_), None) => return Err(InvalidAnswer::NoSchema),
            (Self::Text(text), Some(schema)) => {
                let value = Value::String(text);
                schema.check(&value).map_err(InvalidAnswer::Text)?;
                Output::json(value)
            }
            (Self::Json(value), Some(schema)) => {
                schema.check(&value).map_err(InvalidAnswer::Json)?;
                Output::json(value)
            }
        };
        UnsendableOutput::check(&output)?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_schema_is_text_that_fits_into_a_message() {
        assert_eq!(Answer::Text("yes".to_owned()).parse(None), Ok(Output::text("yes")));
        assert_eq!(Answer::Json(Value::Bool(true)).parse(None), Err(InvalidAnswer::NoSchema));
        let large = Answer::Text("x".repeat(MAX_OUTPUT_BYTES + 1)).parse(None).unwrap_err().to_string();
        assert!(large.starts_with("the output takes 4128769 bytes, the limit is 4128768: "), "{large}");
    }

    #[test]
    fn an_output_that_clients_would_not_read_as_it_is_is_refused() {
        let deep = (0..60).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        let message = |json| UnsendableOutput::check(&Output::json(json)).unwrap_err().to_string();
        assert_eq!(
            message(deep),
            "the output cannot be sent to clients: lists and objects nest 60 deep, the limit is 30"
        );
        assert!(message(Value::from(u64::MAX)).contains("write it as a string"));
        assert_eq!(UnsendableOutput::check(&Output::json(Value::from(7))), Ok(()));
    }
}
