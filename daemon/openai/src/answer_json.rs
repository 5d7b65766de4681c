//! What the answers of several endpoints have in common, as JSON.

use std::fmt::Display;

use artel_proto::v1;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Response};
use serde_json::{Value, json};

use crate::answer::{AnswerFinish, AnswerHead};
use crate::api_error::TASK_HEADER;

/// The header that names what was not taken of a request.
const NOT_TAKEN_HEADER: HeaderName = HeaderName::from_static("x-artel-not-taken");
/// As much of a catalog's version tells it apart from others, as OpenAI's fingerprints have it.
const FINGERPRINT_CHARS: usize = 10;

/// What this daemon says of an answer beside what OpenAI does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerNotes {
    /// The task; several, separated by a comma and a space, if a request begins several.
    pub(crate) task: String,
    /// The fields of the request that the role fixes, or that a graph does not have.
    pub(crate) not_taken: Vec<&'static str>,
}

impl AnswerNotes {
    pub(crate) fn to_json(&self) -> Value {
        json!({"task": self.task, "not_taken": self.not_taken})
    }

    /// With the passages that an answer cites, if it cites any.
    pub(crate) fn with_citations(&self, citations: &[v1::Citation]) -> Value {
        let mut json = self.to_json();
        if !citations.is_empty() {
            json["citations"] = citations.iter().map(citation).collect();
        }
        json
    }

    /// Adds them to the head of a response.
    pub(crate) fn with_headers(&self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        if let Ok(task) = HeaderValue::from_str(&self.task) {
            headers.insert(TASK_HEADER, task);
        }
        let names = self.not_taken.join(", ");
        if let Some(names) = HeaderValue::from_str(&names).ok().filter(|names| !names.is_empty()) {
            headers.insert(NOT_TAKEN_HEADER, names);
        }
        response
    }
}

/// A page of JSON, which is a value or its text.
pub(crate) fn json_response(value: &impl Display) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What tells the configuration that answered apart from others: the version of the catalog.
pub(crate) fn fingerprint(head: &AnswerHead) -> String {
    format!("fp_{}", head.catalog_version.chars().take(FINGERPRINT_CHARS).collect::<String>())
}

/// `finish_reason`.
pub(crate) fn finish_word(finish: AnswerFinish) -> &'static str {
    match finish {
        AnswerFinish::Stop => "stop",
        AnswerFinish::Length => "length",
        AnswerFinish::Calls => "tool_calls",
    }
}

fn citation(citation: &v1::Citation) -> Value {
    let v1::Citation { number, knowledge, source, page, first_line, last_line, context, quote } = citation;
    json!({
        "number": number,
        "knowledge": knowledge,
        "source": source,
        "page": page_number(*page),
        "lines": [first_line, last_line],
        "context": context,
        "quote": quote,
    })
}

/// The page of a document; `None` for one that has no pages.
pub(crate) fn page_number(page: u32) -> Option<u32> {
    Some(page).filter(|page| *page > 0)
}

/// `usage` of chat completions and completions.
pub(crate) fn usage(used: &v1::Usage) -> Value {
    json!({
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.prompt_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    })
}

/// `logprobs` of a choice.
pub(crate) fn logprobs(tokens: &[v1::TokenLogprob]) -> Value {
    let token = |token: &v1::TokenLogprob| {
        let top = token.top.iter().map(|top| entry(&top.bytes, top.logprob)).collect::<Vec<_>>();
        let mut written = entry(&token.bytes, token.logprob);
        written["top_logprobs"] = top.into();
        written
    };
    json!({"content": tokens.iter().map(token).collect::<Vec<_>>(), "refusal": null})
}

fn entry(bytes: &[u8], logprob: f32) -> Value {
    json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes})
}
