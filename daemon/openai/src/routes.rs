//! The table of routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::front::Front;
use crate::services::{ModelDirectory, Services};
use crate::{chat, completions, embeddings, models, rerank, responses, search};

/// The routes of OpenAI's interface and those of the same kind, over these services. The layers around them limit the bodies, which are read as a whole, and
/// answer what is at no route.
pub fn routes<S: Services>(services: S, directory: Arc<dyn ModelDirectory>) -> Router {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::get))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/rerank", post(rerank::create))
        .route("/v1/search", post(search::create))
        .with_state(Front::new(services, directory))
}
