//! What all routes share: the services, the models that are served, and how a task is run for a client.

use std::sync::Arc;

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use axum::http::Extensions;
use futures::StreamExt as _;

use crate::answer::AnswerHead;
use crate::answer_fold::{AnswerFold, AnsweringNodes};
use crate::api_error::ApiError;
use crate::attachments::{AttachedClient, Attachments};
use crate::call::{Call, request_of};
use crate::field_names::FieldNames;
use crate::run_options::RunOptions;
use crate::running_answer::{AnswerEvents, RunningAnswer};
use crate::services::{GRAPH_PREFIX, ModelDirectory, ServedKind, ServedModel, Services};

/// The state of the routes.
#[derive(Clone)]
pub(crate) struct Front<S> {
    pub(crate) services: S,
    pub(crate) directory: Arc<dyn ModelDirectory>,
    attachments: Attachments,
}

/// A task that is on disk.
struct AcceptedTask {
    first: v1::Event,
    events: AnswerEvents,
    client: Option<AttachedClient>,
}

impl<S: Services> Front<S> {
    pub(crate) fn new(services: S, directory: Arc<dyn ModelDirectory>) -> Self {
        Self { services, directory, attachments: Attachments::default() }
    }

    /// The model of a request.
    pub(crate) fn served(&self, id: &str) -> Result<ServedModel, ApiError> {
        self.directory.find(id).ok_or_else(|| ApiError::no_model(id))
    }

    /// Runs a task of a model, or attaches to that of the idempotency key. The key and the labels of the options are added to
    /// `submit`. `is_streamed` says whether parts are wanted before the end.
    pub(crate) async fn run(
        &self,
        call: &Call,
        kind: &ServedKind,
        options: RunOptions,
        submit: v1::SubmitRequest,
        names: FieldNames,
        is_streamed: bool,
    ) -> Result<RunningAnswer, ApiError> {
        let RunOptions { idempotency_key, detach, events: mode, labels } = options;
        let cancel_on_disconnect = idempotency_key.is_none() && !detach;
        let request_id = idempotency_key.clone().unwrap_or_default();
        let submit = Some(v1::SubmitRequest { request_id, labels, ..submit });
        let run = v1::RunRequest { submit, cancel_on_disconnect };
        let accepted = match idempotency_key {
            Some(key) => self.run_attached(call.extensions().clone(), run, names.clone(), key, detach).await?,
            None => {
                let (first, events) = begin(&self.services, call.extensions(), run, &names).await?;
                AcceptedTask { first, events, client: None }
            }
        };
        let AcceptedTask { first, events, client } = accepted;
        let head = head(&first);
        let fold = AnswerFold::new(head.task.clone(), self.answering_nodes(kind, &first), mode, is_streamed);
        let mut answer = RunningAnswer::new(head, events, fold, names, client);
        answer.push(first);
        Ok(answer)
    }

    /// Runs the task of a key. If the client is gone before the task is on disk, it is attached all the same, and leaves.
    async fn run_attached(
        &self,
        extensions: Extensions,
        run: v1::RunRequest,
        names: FieldNames,
        key: String,
        detach: bool,
    ) -> Result<AcceptedTask, ApiError> {
        let (services, attachments) = (self.services.clone(), self.attachments.clone());
        let accepted = tokio::spawn(async move {
            let _arriving = attachments.arrive(&key).await;
            let (first, events) = begin(&services, &extensions, run, &names).await?;
            let client = Some(attachments.attach(&first.task_id, key, services, extensions, detach));
            Ok(AcceptedTask { first, events, client })
        });
        accepted.await.map_err(|_| ApiError::interrupted("that was not begun"))?
    }

    /// The nodes of a task that answer: those of what was asked for or, for `auto`, of what its first event names.
    fn answering_nodes(&self, kind: &ServedKind, first: &v1::Event) -> AnsweringNodes {
        let chosen = match (kind, &first.kind) {
            (ServedKind::Auto, Some(Kind::Accepted(accepted))) => {
                self.directory.find(&format!("{GRAPH_PREFIX}{}", accepted.graph)).map(|served| served.kind)
            }
            _ => None,
        };
        match chosen.as_ref().unwrap_or(kind) {
            ServedKind::Role(_) => AnsweringNodes::Every,
            ServedKind::Graph(facts) => AnsweringNodes::Named(facts.answer_nodes.clone()),
            ServedKind::Auto | ServedKind::Embedding | ServedKind::Reranker => AnsweringNodes::Unknown,
        }
    }
}

/// Runs a task until it is on disk: its first event, and those that follow.
async fn begin<S: Services>(
    services: &S,
    extensions: &Extensions,
    run: v1::RunRequest,
    names: &FieldNames,
) -> Result<(v1::Event, AnswerEvents), ApiError> {
    let refused = |status| ApiError::from_status(&status, names);
    let events = services.run(request_of(extensions, run)).await.map_err(refused)?.into_inner();
    let mut events: AnswerEvents = Box::pin(events);
    let first = events.next().await.transpose().map_err(refused)?;
    first.map(|first| (first, events)).ok_or_else(|| ApiError::interrupted("that was not begun"))
}

fn head(first: &v1::Event) -> AnswerHead {
    let catalog_version = match &first.kind {
        Some(Kind::Accepted(accepted)) => accepted.catalog_version.clone(),
        _ => String::new(),
    };
    let seconds = first.time.as_ref().map_or(0, |time| time.seconds);
    AnswerHead { task: first.task_id.clone(), created: u64::try_from(seconds).unwrap_or(0), catalog_version }
}
