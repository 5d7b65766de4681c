//! What is learned before anybody asks: at the start, and when the catalog changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use artel_task::event::Failure;
use ractor::call;
use tokio::sync::watch;

use super::super::{Candidate, Keepers, Question, needs_vectors};
use super::Memory;
use crate::keeper;

/// Texts that are embedded at once: a question that comes meanwhile waits for these, and for a few milliseconds.
const CHUNK: usize = 4;

/// A question that is being decided.
pub(crate) struct Asking(Arc<Memory>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.send_modify(|asking| *asking -= 1);
    }
}

impl Memory {
    /// As long as this is held, nothing is learned ahead.
    pub(crate) fn asking(self: &Arc<Self>) -> Asking {
        self.asking.send_modify(|asking| *asking += 1);
        Asking(self.clone())
    }

    /// Learns the candidates of these questions, one chunk at a time while nobody asks anything and no task is busy.
    pub(crate) async fn learn_ahead(
        self: Arc<Self>,
        questions: Vec<(Question, Keepers)>,
        mut busy: watch::Receiver<usize>,
    ) {
        for (question, keepers) in &questions {
            if let Err(failure) = self.learn_one(question, keepers, &mut busy).await {
                tracing::warn!(reason = %failure.message, "the roles are learned when the first question comes");
                return;
            }
        }
    }

    async fn learn_one(
        &self,
        question: &Question,
        keepers: &Keepers,
        busy: &mut watch::Receiver<usize>,
    ) -> Result<(), Failure> {
        let asked = question.asked();
        if needs_vectors(&asked) {
            rest(busy).await;
            // The first question must not wait for the model either.
            keeper::unwrap(call!(keepers.embedding, keeper::Message::Engine))?;
            let mut idle = self.asking.subscribe();
            while !self.learn_some(question, keepers, &mut idle).await? {
                rest(busy).await;
            }
        }
        self.prepare(question, &asked, keepers, || true).await.map(drop)
    }

    /// Learns one chunk; true when there is nothing left to learn.
    async fn learn_some(
        &self,
        question: &Question,
        keepers: &Keepers,
        idle: &mut watch::Receiver<usize>,
    ) -> Result<bool, Failure> {
        rest(idle).await;
        let _learning = self.learning.lock().await;
        self.be_of(&question.model).await?;
        let texts = question.candidates.iter().flat_map(Candidate::texts).chain(&question.routing.background);
        let texts: BTreeSet<&String> = texts.collect();
        let known = self.known(&texts);
        let missing: Vec<&String> = texts.into_iter().filter(|text| !known.contains_key(*text)).take(CHUNK).collect();
        if missing.is_empty() {
            return Ok(true);
        }
        self.embed(&missing, keepers).await?;
        Ok(false)
    }
}

/// Until there is none of what is counted; if nobody counts any more, there is nobody to wait for.
async fn rest(count: &mut watch::Receiver<usize>) {
    let _ = count.wait_for(|count| *count == 0).await;
}
