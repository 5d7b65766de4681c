//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::answer_json::json_response;
use crate::front::Front;
use crate::services::{ServedModel, Services};

/// Lists what answers.
pub(crate) async fn list<S: Services>(State(front): State<Front<S>>) -> Response<Body> {
    let models: Vec<Value> = front.directory.list().iter().map(model).collect();
    json_response(&json!({"object": "list", "data": models}))
}

/// Describes one of them.
pub(crate) async fn get<S: Services>(State(front): State<Front<S>>, Path(id): Path<String>) -> Response<Body> {
    match front.served(&id) {
        Ok(served) => json_response(&model(&served)),
        Err(error) => error.into_response(),
    }
}

fn model(served: &ServedModel) -> Value {
    let ServedModel { id, kind, description, context_tokens, created, name: _ } = served;
    let mut model = json!({
        "id": id,
        "object": "model",
        "created": created,
        "owned_by": "artel",
        "kind": kind.word(),
        "description": description,
    });
    if let Some(tokens) = context_tokens {
        // vLLM's name and that of llama.cpp's server.
        model["max_model_len"] = (*tokens).into();
        model["meta"] = json!({ "n_ctx": tokens });
    }
    model
}
