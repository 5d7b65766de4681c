//! Knowledge of a daemon.

use std::time::Duration;

use artel_proto::v1::knowledge_client::KnowledgeClient;
use artel_proto::v1::{KnowledgeStatus, ListKnowledgeRequest};

use crate::{CallerChannel, Daemon};

/// No test waits longer for an index.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);

impl Daemon {
    /// A client of `Knowledge`.
    pub fn knowledge(&self) -> KnowledgeClient<CallerChannel> {
        KnowledgeClient::new(self.owner())
    }

    /// How far the index of a knowledge is; `None` while the catalog has no such knowledge.
    pub async fn knowledge_status(&self, name: &str) -> Option<KnowledgeStatus> {
        let known = self.knowledge().list(ListKnowledgeRequest {}).await.unwrap().into_inner().knowledge;
        known.into_iter().find(|status| status.name == name)
    }

    /// Waits until this holds of a knowledge that has nothing left to do.
    pub async fn until_index(&self, name: &str, holds: impl Fn(&KnowledgeStatus) -> bool) {
        let indexed = async {
            loop {
                let status = self.knowledge_status(name).await;
                if status
                    .is_some_and(|status| status.pending == 0 && !status.rebuilding && !status.stale && holds(&status))
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(INDEX_TIMEOUT, indexed).await.is_err() {
            panic!("{:?}", self.knowledge_status(name).await);
        }
    }

    /// Waits until every file of a knowledge that has some is indexed.
    pub async fn until_indexed(&self, name: &str) {
        self.until_index(name, |status| status.sources > 0).await;
    }
}
