//! Decisions of the router outside of a task's graph: the graph of a new task, and previews.

use std::sync::Arc;

use artel_roles::Catalog;
use artel_task::event::Decision;
use artel_task::graph::NodeKind;

use super::{Candidates, Error, Message, PreviewOptions, Runtime, Submission, Target, submission};
use crate::task_runner::route_question;
use artel_routing::RoutingRequest;

/// Sets of candidates that the router is warmed up with: fewer than it remembers.
const MAX_WARM_UP_SETS: usize = 12;

impl Runtime {
    /// Routes a question without a task; nothing is journalled.
    ///
    /// # Errors
    /// [`Error::NoRole`], [`Error::NoGraph`], [`Error::NoRouter`], [`Error::NoCandidates`], [`Error::Failed`].
    pub async fn preview(
        &self,
        question: String,
        candidates: Candidates,
        options: PreviewOptions,
    ) -> Result<Decision, Error> {
        self.check_open()?;
        let catalog = self.catalog();
        let (candidates, mut router) = candidates.resolve(&catalog)?;
        if !options.signals.is_empty() {
            router.signals = options.signals;
        }
        router.settings = options.settings.or(router.settings);
        let request = RoutingRequest::for_node(question, candidates, &router, &catalog).ok_or(Error::NoCandidates)?;
        route_question(&self.supervisor, request).await.map_err(Error::Failed)
    }

    /// Has the router embed every set of candidates that it may have to choose from, if embeddings are kept on disk.
    pub(super) fn warm_up_router(&self, catalog: &Arc<Catalog>) -> Result<(), Error> {
        if self.shared.embedding_cache.is_none() {
            return Ok(());
        }
        let nodes = catalog.graphs().values().flat_map(|graph| {
            let routers = graph.nodes().iter().filter(|(_, node)| matches!(node.kind, NodeKind::Router(_)));
            routers.map(|(name, _)| Candidates::Node {
                graph: graph.name().to_string(),
                node: name.to_string(),
                roles: Vec::new(),
            })
        });
        let graphs = self.routes_graphs().then(|| Candidates::Graphs(Vec::new()));
        let request = |candidates: Candidates| {
            let (candidates, router) = candidates.resolve(catalog).ok()?;
            RoutingRequest::for_node(String::new(), candidates, &router, catalog)
        };
        let requests: Vec<RoutingRequest> = nodes.chain(graphs).filter_map(request).take(MAX_WARM_UP_SETS).collect();
        if requests.is_empty() {
            return Ok(());
        }
        self.supervisor.cast(Message::WarmUpRouter(requests)).map_err(|_| Error::Stopped)
    }

    /// Whether the router chooses the graph of a task that names none.
    fn routes_graphs(&self) -> bool {
        self.options.default_graph.as_ref().is_some_and(|graph| graph.as_str() == submission::AUTO)
    }

    /// Has the router choose the graph of a task that names none, if the daemon is set to that.
    pub(super) async fn choose_graph(
        &self,
        submission: &Submission,
        catalog: &Arc<Catalog>,
    ) -> Result<(Option<Target>, Option<Decision>), Error> {
        let is_auto = self.routes_graphs();
        if !is_auto || submission.target != Target::Default || catalog.graph(submission::AUTO).is_some() {
            return Ok((None, None));
        }
        let candidates = submission::graph_candidates(&[], catalog)?;
        if candidates.is_empty() {
            return Ok((Some(Target::Graph(submission::DEFAULT_GRAPH.to_owned())), None));
        }
        let router = submission::graph_router(catalog);
        let request = RoutingRequest::for_node(submission.input.clone(), candidates, &router, catalog);
        let request = request.ok_or(Error::NoCandidates)?;
        let decision = route_question(&self.supervisor, request).await.map_err(Error::Failed)?;
        Ok((Some(Target::Graph(decision.role.to_string())), Some(decision)))
    }
}
