//! The object `response`, in each of its states.

use artel_proto::v1;
use serde_json::{Map, Value, json};

use super::fault::code_of;
use super::output::OutputItem;
use crate::answer_json::AnswerNotes;
use crate::api_error::ApiError;

/// What is the same in all states of a response.
#[derive(Debug, Clone)]
pub(super) struct ResponseHead {
    /// In seconds since 1970.
    pub(super) created: u64,
    /// The model as the client named it.
    pub(super) model: String,
    /// The fields of the request that a response repeats.
    pub(super) echo: Map<String, Value>,
    pub(super) notes: AnswerNotes,
    /// What the answer cites, once it is whole.
    pub(super) citations: Vec<v1::Citation>,
}

/// How far a response is.
pub(super) enum ResponseState<'r> {
    InProgress,
    Completed(&'r v1::Usage),
    /// The model wrote as many tokens as it may.
    CutOff(&'r v1::Usage),
    Failed(&'r ApiError),
}

impl ResponseState<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed(_) => "completed",
            Self::CutOff(_) => "incomplete",
            Self::Failed(_) => "failed",
        }
    }

    fn error(&self) -> Value {
        match self {
            Self::Failed(error) => json!({"code": code_of(error), "message": error.message}),
            _ => Value::Null,
        }
    }

    fn incomplete_details(&self) -> Value {
        match self {
            Self::CutOff(_) => json!({"reason": "max_output_tokens"}),
            _ => Value::Null,
        }
    }

    fn usage(&self) -> Value {
        match self {
            Self::Completed(usage) | Self::CutOff(usage) => json!({
                "input_tokens": usage.prompt_tokens,
                // Clients require the second one; what is kept for later requests is not counted here.
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.output_tokens,
            }),
            _ => Value::Null,
        }
    }
}

impl ResponseHead {
    pub(super) fn object(&self, state: &ResponseState<'_>, items: &[OutputItem]) -> Value {
        let Self { created, model, echo, notes, citations } = self;
        let output: Vec<Value> = items.iter().map(OutputItem::to_json).collect();
        let mut object = json!({
            "id": format!("resp_{}", notes.task),
            "object": "response",
            "created_at": created,
            "status": state.name(),
            "background": false,
            "error": state.error(),
            "incomplete_details": state.incomplete_details(),
            "model": model,
            "output": output,
            "previous_response_id": null,
            // A response cannot be asked for later; its task can.
            "store": false,
            "usage": state.usage(),
            "artel": notes.with_citations(citations),
        });
        if let Some(object) = object.as_object_mut() {
            object.extend(echo.clone());
        }
        object
    }
}
