//! `POST /v1/responses`, stateless: each call has its whole conversation, and no response is kept. Its task is.

mod fault;
mod item_id;
mod items;
mod object;
mod output;
mod references;
mod request;
mod sequence;
mod writer;

use artel_proto::v1;
use artel_proto::v1::ChatRole;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;

use crate::answer::AnswerHead;
use crate::answer_json::{AnswerNotes, json_response};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::front::Front;
use crate::run_options::RunOptions;
use crate::services::{ServedModel, Services};
use crate::sse;
use crate::target::model_name;
use fault::renamed;
use object::ResponseHead;
use request::ResponseCall;
use writer::ResponseWriter;

/// What the services name, in the names of the request; the first that fits counts.
const FIELD_NAMES: FieldNames = FieldNames::new(&[
    ("messages", "input"),
    ("sampling.max_tokens", "max_output_tokens"),
    ("response.json_schema_text", "text.format.schema"),
    ("response", "text.format"),
    ("reasoning", "reasoning"),
    ("input", "input"),
]);

/// Answers a conversation.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    respond(front, request).await.unwrap_or_else(|error| renamed(error).into_response())
}

async fn respond<S: Services>(front: Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let fields = call.fields();
    let model = model_name(&fields)?;
    let options = RunOptions::parse(&call.headers, &fields)?;
    let ServedModel { name, kind, .. } = front.served(&model)?;
    let request = request::parse(&fields, name, &kind)?;
    let ResponseCall { submit, instructions, items, is_streamed, echo, not_taken } = request;
    let items = references::resolved(items, &front.services, &call).await?;
    let (mut messages, mut places) = items::messages(items);
    if let Some(text) = instructions {
        messages.insert(0, items::message(ChatRole::System, text));
        // It has no place among the items, and is never at fault alone.
        places.insert(0, 0);
    }
    let submit = v1::SubmitRequest { messages, ..submit };
    let names = FIELD_NAMES.with_message_places(places);
    let mut answer = front.run(&call, &kind, options, submit, names, is_streamed).await?;
    let AnswerHead { task, created, .. } = answer.head().clone();
    let notes = AnswerNotes { task, not_taken };
    let head = ResponseHead { created, model, echo, notes: notes.clone(), citations: Vec::new() };
    let response = if is_streamed {
        answer.hold_head().await?;
        sse::response(answer.into_parts(), ResponseWriter::new(head))
    } else {
        let (_, finished) = answer.whole().await?;
        json_response(&writer::whole(head, finished))
    };
    Ok(notes.with_headers(response))
}
