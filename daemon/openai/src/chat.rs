//! `POST /v1/chat/completions`.

mod chunks;
mod message;
mod request;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::answer::{AnswerHead, FinishedAnswer};
use crate::answer_json::{AnswerNotes, fingerprint, finish_word, json_response, logprobs, usage};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::front::Front;
use crate::services::Services;
use crate::sse;
use chunks::ChunkWriter;
use message::message;
use request::ChatRequest;

/// Answers a conversation.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    complete(front, request).await.unwrap_or_else(ApiError::into_response)
}

async fn complete<S: Services>(front: Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let request = ChatRequest::parse(&call, |id| front.served(id))?;
    let ChatRequest { model, kind, submit, options, names, stream, not_taken } = request;
    let mut answer = front.run(&call, &kind, options, submit, names, stream.is_some()).await?;
    let notes = AnswerNotes { task: answer.head().task.clone(), not_taken };
    let response = match stream {
        None => {
            let (head, finished) = answer.whole().await?;
            json_response(&completion(&head, &model, &finished, &notes))
        }
        Some(stream) => {
            answer.hold_head().await?;
            let writer = ChunkWriter::new(answer.head(), &model, stream, notes.clone());
            sse::response(answer.into_parts(), writer)
        }
    };
    Ok(notes.with_headers(response))
}

/// The whole answer.
fn completion(head: &AnswerHead, model: &str, finished: &FinishedAnswer, notes: &AnswerNotes) -> Value {
    let choices: Vec<Value> = finished
        .outputs()
        .enumerate()
        .map(|(index, (output, finish))| {
            json!({
                "index": index,
                "message": message(output),
                "logprobs": output.logprobs.as_ref().map(|all| logprobs(&all.tokens)),
                "finish_reason": finish_word(finish),
            })
        })
        .collect();
    json!({
        "id": format!("chatcmpl-{}", head.task),
        "object": "chat.completion",
        "created": head.created,
        "model": model,
        "system_fingerprint": fingerprint(head),
        "choices": choices,
        "usage": usage(&finished.usage),
        "artel": notes.with_citations(&finished.output.citations),
    })
}
