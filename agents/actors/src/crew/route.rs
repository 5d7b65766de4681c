//! What the router decides outside of a task's graph: which graph a task gets, and what a question would get.

use std::sync::Arc;

use artel_roles::Catalog;
use artel_task::event::Decision;

use super::{Candidates, Crew, Error, Listening, Submission, Target, submission};
use crate::conductor::ask;
use crate::router::Question;

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

    /// Has the router choose the graph of a task that names none, if the daemon is set to that.
    pub(super) async fn choose_graph(
        &self,
        submission: &Submission,
        catalog: &Arc<Catalog>,
    ) -> Result<(Option<Target>, Option<Decision>), Error> {
        let auto = self.options.graph.as_ref().is_some_and(|graph| graph.as_str() == submission::AUTO);
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
