//! What the router decides outside of a task's graph: which graph a task gets, and what a question would get.

use std::sync::Arc;

use artel_roles::Catalog;
use artel_task::event::Decision;
use artel_task::graph::NodeKind;

use super::{Candidates, Crew, Error, Listening, Message, Submission, Target, submission};
use crate::conductor::ask;
use crate::router::Question;

/// Sets of candidates that are learned before anybody asks: fewer than a router remembers.
const MOST_AHEAD: usize = 12;

impl Crew {
    /// What the router would decide; nothing is journalled.
    ///
    /// # Errors
    /// [`Error::NoRole`], [`Error::NoGraph`], [`Error::NoRouter`], [`Error::NoCandidates`], [`Error::Failed`].
    pub async fn preview(
        &self,
        question: String,
        candidates: Candidates,
        listening: Listening,
    ) -> Result<Decision, Error> {
        self.is_open()?;
        let catalog = self.catalog();
        let (candidates, mut node) = candidates.resolve(&catalog)?;
        if !listening.signals.is_empty() {
            node.signals = listening.signals;
        }
        node.settings = listening.settings.or(node.settings);
        let question = Question::of(question, candidates, &node, &catalog).ok_or(Error::NoCandidates)?;
        ask(&self.supervisor, question).await.map_err(Error::Failed)
    }

    /// Has the router learn every set of candidates that it may be asked to choose from, if it keeps what it learns.
    pub(super) fn learn_ahead(&self, catalog: &Arc<Catalog>) -> Result<(), Error> {
        if self.links.vectors.is_none() {
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
        let graphs = self.chooses_graphs().then(|| Candidates::Graphs(Vec::new()));
        let question = |candidates: Candidates| {
            let (candidates, node) = candidates.resolve(catalog).ok()?;
            Question::of(String::new(), candidates, &node, catalog)
        };
        let questions: Vec<Question> = nodes.chain(graphs).filter_map(question).take(MOST_AHEAD).collect();
        if questions.is_empty() {
            return Ok(());
        }
        self.supervisor.cast(Message::Learn(questions)).map_err(|_| Error::Ended)
    }

    /// Whether the router chooses the graph of a task that names none.
    fn chooses_graphs(&self) -> bool {
        self.options.graph.as_ref().is_some_and(|graph| graph.as_str() == submission::AUTO)
    }

    /// Has the router choose the graph of a task that names none, if the daemon is set to that.
    pub(super) async fn choose_graph(
        &self,
        submission: &Submission,
        catalog: &Arc<Catalog>,
    ) -> Result<(Option<Target>, Option<Decision>), Error> {
        let auto = self.chooses_graphs();
        if !auto || submission.target != Target::Default || catalog.graph(submission::AUTO).is_some() {
            return Ok((None, None));
        }
        let candidates = submission::graphs(&[], catalog)?;
        if candidates.is_empty() {
            return Ok((Some(Target::Graph(submission::DEFAULT_GRAPH.to_owned())), None));
        }
        let question = Question::of(submission.input.clone(), candidates, &submission::entry(catalog), catalog);
        let question = question.ok_or(Error::NoCandidates)?;
        let decision = ask(&self.supervisor, question).await.map_err(Error::Failed)?;
        Ok((Some(Target::Graph(decision.role.to_string())), Some(decision)))
    }
}
