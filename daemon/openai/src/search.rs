//! `POST /v1/search`: passages of a knowledge, for programs that retrieve and then ask a model.

use std::collections::HashMap;
use std::time::Duration;

use artel_proto::v1;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::answer_json::{json_response, page_number};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::field_names::FieldNames;
use crate::fields::{Fields, text_of, wrong_type};
use crate::front::Front;
use crate::services::Services;

/// Finds passages.
pub(crate) async fn create<S: Services>(State(front): State<Front<S>>, request: Request) -> Response<Body> {
    search(&front, request).await.unwrap_or_else(ApiError::into_response)
}

async fn search<S: Services>(front: &Front<S>, request: Request) -> Result<Response<Body>, ApiError> {
    let call = Call::read(request).await?;
    let request = parse(&call.fields())?;
    let knowledge = request.knowledge.clone();
    let found = front.services.search(call.to_service(request)).await;
    let found = found.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    let v1::SearchKnowledgeResponse { passages, timings, stale } = found.into_inner();
    Ok(json_response(&json!({
        "object": "list",
        "knowledge": knowledge,
        "data": passages.iter().map(passage).collect::<Vec<_>>(),
        "stale": stale,
        "timings_ms": timings.map(millis),
    })))
}

fn parse(fields: &Fields<'_>) -> Result<v1::SearchKnowledgeRequest, ApiError> {
    let mode = match fields.text("mode")? {
        None => v1::SearchMode::Unspecified,
        Some("hybrid") => v1::SearchMode::Hybrid,
        Some("vector") => v1::SearchMode::Vector,
        Some("keyword") => v1::SearchMode::Keyword,
        Some(other) => {
            return Err(fields.invalid("mode", format!("is `{other}`: it is `hybrid`, `vector` or `keyword`")));
        }
    };
    let top = fields.count("top")?;
    if top == Some(0) {
        return Err(fields.invalid("top", "is 0, and must be at least 1"));
    }
    Ok(v1::SearchKnowledgeRequest {
        knowledge: fields.required_text("knowledge")?.to_owned(),
        query: fields.required_text("query")?.to_owned(),
        top: top.unwrap_or_default(),
        mode: mode.into(),
        sources: sources(fields)?,
        labels: labels(fields)?,
    })
}

/// One pattern, or a list of them.
fn sources(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    match fields.value("sources") {
        None => Ok(Vec::new()),
        Some(Value::String(pattern)) => Ok(vec![pattern.clone()]),
        Some(Value::Array(patterns)) => {
            let place = |at: usize| move || format!("sources[{at}]");
            (0..).zip(patterns).map(|(at, pattern)| text_of(pattern, place(at)).map(str::to_owned)).collect()
        }
        Some(other) => Err(wrong_type("sources", "a pattern or a list of patterns", other)),
    }
}

fn labels(fields: &Fields<'_>) -> Result<HashMap<String, String>, ApiError> {
    let Some(labels) = fields.object("labels")? else { return Ok(HashMap::new()) };
    labels.names().map(|name| Ok((name.to_owned(), labels.required_text(name)?.to_owned()))).collect()
}

fn passage(passage: &v1::Passage) -> Value {
    json!({
        "rank": passage.rank,
        "score": passage.score,
        "source": passage.source,
        "page": page_number(passage.page),
        "lines": [passage.first_line, passage.last_line],
        "bytes": [passage.first_byte, passage.end_byte],
        "context": passage.context,
        "header": passage.header,
        "text": passage.text,
        "labels": passage.labels,
        "keyword_score": passage.keyword_score,
        "vector_score": passage.vector_score,
        "rerank_score": passage.rerank_score,
    })
}

fn millis(timings: v1::SearchTimings) -> Value {
    let millis = |duration: Option<prost_types::Duration>| {
        let duration = duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default();
        (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
    };
    let v1::SearchTimings { embedding, keyword, vector, fusion, rerank } = timings;
    json!({
        "embedding": millis(embedding),
        "keyword": millis(keyword),
        "vector": millis(vector),
        "fusion": millis(fusion),
        "rerank": millis(rerank),
    })
}
