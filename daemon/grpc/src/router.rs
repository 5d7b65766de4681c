//! `artel.v1.Router`.

use artel_actors::{Candidates, PreviewOptions};
use artel_feedback::FeedbackRecord;
use artel_proto::v1;
use artel_proto::v1::router_server::Router;
use artel_roles::{Catalog, DefinitionKind};
use artel_task::RouterName;
use artel_task::event::Signal;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::field_error::FieldError;
use crate::page::{self, PageFilters};
use crate::state::ServiceState;
use crate::status::{RpcResponse, Violations, internal, no_definition};
use crate::tasks::input_text;
use crate::viewer::viewer_of;

/// Candidates of one question: more than a catalog has.
const MAX_CANDIDATES: usize = 10_000;

#[tonic::async_trait]
impl Router for ServiceState {
    async fn preview(&self, request: Request<v1::PreviewRequest>) -> RpcResponse<v1::PreviewResponse> {
        let v1::PreviewRequest { question, roles, graph, node, signals, settings, graphs, any_graph } =
            request.into_inner();
        let mut violations = Violations::default();
        violations.check("question", input_text(&question));
        if graph.is_empty() != node.is_empty() {
            let missing = if graph.is_empty() { "graph" } else { "node" };
            violations.add(missing, "`graph` and `node` must be set together");
        }
        violations.check("roles", candidate_count(&roles));
        violations.check("graphs", candidate_count(&graphs));
        let of_graphs = any_graph || !graphs.is_empty();
        if of_graphs && !(roles.is_empty() && graph.is_empty()) {
            violations.add("graphs", "candidates are either graphs or roles");
        }
        let signals = violations.check("signals", parse_signals(&signals)).unwrap_or_default();
        violations.finish()?;
        let candidates = match (of_graphs, graph.is_empty(), roles.is_empty()) {
            (true, ..) => Candidates::Graphs(graphs),
            (_, false, _) => Candidates::Node { graph, node, roles },
            (_, true, false) => Candidates::Roles(roles),
            (_, true, true) => Candidates::All,
        };
        let catalog = self.runtime.catalog();
        let settings = match settings.as_str() {
            "" => None,
            name => Some(router_definition(&catalog, name)?),
        };
        let catalog_version = catalog.version().as_str().to_owned();
        let listening = PreviewOptions { signals, settings };
        let decision = self.runtime.preview(question, candidates, listening).await.map_err(|e| self.status_of(e))?;
        let decision = Some(convert::decision(&decision));
        Ok(Response::new(v1::PreviewResponse { decision, catalog_version }))
    }

    async fn list_feedback(&self, request: Request<v1::ListFeedbackRequest>) -> RpcResponse<v1::ListFeedbackResponse> {
        let viewer = viewer_of(&request);
        let v1::ListFeedbackRequest { page_size, page_token } = request.into_inner();
        let (size, filters) = (page::size(page_size)?, PageFilters::of(&("feedback", viewer.only())));
        let from = filters.after(&page_token, |last| last.parse().ok())?.unwrap_or(0usize);
        let (feedback, only) = (self.feedback.clone(), viewer.only().cloned());
        let records = move || feedback.records(only.as_ref(), from, size);
        let entries = tokio::task::spawn_blocking(records).await.map_err(|_| internal())?;
        let entries = entries.map_err(|error| {
            tracing::error!(%error, "failed to read the feedback");
            internal()
        })?;
        let next = from + entries.len();
        let next_page_token = if entries.len() == size { filters.token(next) } else { String::new() };
        let entries = entries.into_iter().map(entry).collect();
        Ok(Response::new(v1::ListFeedbackResponse { entries, next_page_token }))
    }
}

fn entry(record: FeedbackRecord) -> v1::FeedbackEntry {
    v1::FeedbackEntry {
        task_id: record.task.to_string(),
        step_id: record.step,
        text: record.text,
        chosen: record.chosen.to_string(),
        role: record.role.map(|role| role.to_string()).unwrap_or_default(),
        comment: record.comment,
        caller: record.caller.to_string(),
    }
}

fn candidate_count(names: &[String]) -> Result<(), FieldError> {
    match names.len() {
        entries if entries > MAX_CANDIDATES => Err(FieldError::TooManyEntries { entries, limit: MAX_CANDIDATES }),
        _ => Ok(()),
    }
}

fn parse_signals(names: &[String]) -> Result<Vec<Signal>, FieldError> {
    let known = || Signal::ALL.iter().map(|signal| signal.as_str()).collect();
    let mut signals = Vec::new();
    for name in names {
        let signal = Signal::parse(name).ok_or_else(|| FieldError::UnknownSignal { known: known() })?;
        if !signals.contains(&signal) {
            signals.push(signal);
        }
    }
    Ok(signals)
}

/// A router definition of the catalog by its name.
fn router_definition(catalog: &Catalog, name: &str) -> Result<RouterName, Status> {
    let known = || catalog.definitions().iter().filter(|d| d.kind == DefinitionKind::Router).map(|d| d.name.as_str());
    match RouterName::parse(name) {
        Ok(found) if known().any(|known| known == name) => Ok(found),
        _ => Err(no_definition(catalog, DefinitionKind::Router, name)),
    }
}
