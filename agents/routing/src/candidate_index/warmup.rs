//! The warm-up: indexes candidates in the background, at the start and when the catalog changes.

use std::sync::Arc;

use artel_hosting::engine_host;
use artel_router::needs_embeddings;
use artel_task::event::Failure;
use ractor::call;
use tokio::sync::watch;

use super::CandidateIndex;
use crate::request::{RouterEngines, RoutingRequest};

/// Texts that are embedded at once: a question that comes meanwhile waits for them, so they are few.
const CHUNK_TEXTS: usize = 4;

/// Counts a decision as in progress until it is dropped.
pub(crate) struct DecisionGuard(Arc<CandidateIndex>);

impl Drop for DecisionGuard {
    fn drop(&mut self) {
        self.0.decisions.send_modify(|decisions| *decisions -= 1);
    }
}

impl CandidateIndex {
    /// Pauses the warm-up until the guard is dropped.
    pub(crate) fn begin_decision(self: &Arc<Self>) -> DecisionGuard {
        self.decisions.send_modify(|decisions| *decisions += 1);
        DecisionGuard(self.clone())
    }

    /// Indexes the candidates of these requests, one chunk at a time while no decision is in progress and no task is busy.
    pub(crate) async fn warm_up(
        self: Arc<Self>,
        requests: Vec<(RoutingRequest, RouterEngines)>,
        mut busy: watch::Receiver<usize>,
    ) {
        for (request, engines) in &requests {
            if let Err(failure) = self.warm_up_one(request, engines, &mut busy).await {
                let reason = &failure.message;
                tracing::warn!(%reason, "failed to warm the router up: it indexes the roles with the first question");
                return;
            }
        }
    }

    async fn warm_up_one(
        &self,
        request: &RoutingRequest,
        engines: &RouterEngines,
        busy: &mut watch::Receiver<usize>,
    ) -> Result<(), Failure> {
        let signals = request.scored_signals();
        if needs_embeddings(&signals) {
            wait_for_zero(busy).await;
            // Loads the model, for which the first question must not wait either.
            engine_host::lease_or_failure(call!(engines.embedding, engine_host::Message::Acquire))?;
            let mut decisions = self.decisions.subscribe();
            while !self.embed_chunk(request, engines, &mut decisions).await? {
                wait_for_zero(busy).await;
            }
        }
        self.prepare(request, &signals, engines, || true).await.map(drop)
    }

    /// Embeds one chunk; true when no text is left.
    async fn embed_chunk(
        &self,
        request: &RoutingRequest,
        engines: &RouterEngines,
        decisions: &mut watch::Receiver<usize>,
    ) -> Result<bool, Failure> {
        wait_for_zero(decisions).await;
        let _indexing = self.indexing.lock().await;
        self.use_model(&request.embedding_model).await?;
        let texts = request.texts();
        let known = self.known(&texts);
        let missing: Vec<&str> =
            texts.into_iter().filter(|text| !known.contains_key(*text)).take(CHUNK_TEXTS).collect();
        if missing.is_empty() {
            return Ok(true);
        }
        self.embed(&missing, &request.embedding_model, engines).await?;
        Ok(false)
    }
}

/// Waits until the count is zero, or its sender is gone and nothing is counted any more.
async fn wait_for_zero(count: &mut watch::Receiver<usize>) {
    let _ = count.wait_for(|count| *count == 0).await;
}
