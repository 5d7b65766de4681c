//! Requests for previews of routing decisions, with the flags of a command.

use std::time::Duration;

use artel_args::RouteArgs;
use artel_proto::v1::{self, Decision, ListFeedbackRequest, PreviewRequest, PreviewResponse};
use artel_roles::LabelledQuestion;
use artel_router::SignalValues;
use artel_task::RoleName;
use artel_task::event::Signal;

use crate::connect::with_deadline;
use crate::error::Error;
use crate::json::struct_value;
use crate::render::time::from_proto;
use crate::session::ClientSession;

/// Entries of one page, the maximum that the daemon allows.
const PAGE_ITEMS: i32 = 1000;

/// A client of previews with the same flags.
pub(super) struct PreviewClient<'s> {
    session: &'s ClientSession,
    template: PreviewRequest,
}

/// The scores of a decision by candidate and by signal.
pub(super) struct PreviewScores {
    /// The candidates, best first.
    pub(super) candidates: Vec<String>,
    /// The signal values of each candidate.
    pub(super) values: Vec<SignalValues>,
    /// The signal values of "no match".
    pub(super) no_match: SignalValues,
    pub(super) confidence: f64,
    pub(super) latency: Duration,
    pub(super) prefill_tokens: u32,
}

impl<'s> PreviewClient<'s> {
    pub(super) fn new(session: &'s ClientSession, route: &RouteArgs) -> Self {
        let template = PreviewRequest {
            question: String::new(),
            roles: route.roles.clone(),
            graph: route.graph.clone().unwrap_or_default(),
            node: route.node.clone().unwrap_or_default(),
            signals: Vec::new(),
            settings: route.settings.clone().unwrap_or_default(),
            graphs: Vec::new(),
            any_graph: route.graphs,
        };
        Self { session, template }
    }

    pub(super) async fn preview(&self, question: String, signals: Vec<String>) -> Result<PreviewResponse, Error> {
        let request = PreviewRequest { question, signals, ..self.template.clone() };
        // The first decision waits for the embedding model, and until the texts of all candidates are embedded.
        Ok(self.session.daemon.router().preview(request).await?.into_inner())
    }

    /// The scores of a question by these signals; empty: by those that the settings weigh.
    pub(super) async fn signal_scores(&self, question: &str, signals: &[Signal]) -> Result<PreviewScores, Error> {
        let signals = signals.iter().map(ToString::to_string).collect();
        let answer = self.preview(question.to_owned(), signals).await?;
        let decision = answer.decision.ok_or(Error::IncompleteAnswer("the decision"))?;
        Ok(preview_scores(&decision))
    }

    /// The stored feedback as labelled cases.
    pub(super) async fn feedback(&self) -> Result<Vec<LabelledQuestion>, Error> {
        let (mut cases, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListFeedbackRequest { page_size: PAGE_ITEMS, page_token };
            let page = self.session.daemon.router().list_feedback(with_deadline(request)).await?.into_inner();
            let case = |entry: v1::FeedbackEntry| LabelledQuestion {
                text: entry.text,
                role: RoleName::parse(&entry.role).ok(),
                tags: vec!["feedback".to_owned()],
            };
            cases.extend(page.entries.into_iter().map(case));
            if page.next_page_token.is_empty() {
                return Ok(cases);
            }
            page_token = page.next_page_token;
        }
    }

    /// The `router` definition of this name: its background and chat model are not fitted.
    pub(super) async fn settings(&self, name: &str) -> Result<serde_json::Value, Error> {
        let kind = v1::DefinitionKind::Router.into();
        let request = v1::GetCatalogRequest { kind, name: name.to_owned() };
        let definition = self.session.daemon.catalog().get(with_deadline(request)).await?.into_inner();
        let content = definition.content.ok_or(Error::IncompleteAnswer("the definition's content"))?;
        Ok(struct_value(&content))
    }
}

fn preview_scores(decision: &Decision) -> PreviewScores {
    let values = |signals: &std::collections::HashMap<String, f64>| -> SignalValues {
        signals.iter().filter_map(|(name, value)| Some((Signal::parse(name)?, *value))).collect()
    };
    let name = |score: &v1::Score| if score.role.is_empty() { score.graph.clone() } else { score.role.clone() };
    PreviewScores {
        candidates: decision.scores.iter().map(name).collect(),
        values: decision.scores.iter().map(|score| values(&score.signals)).collect(),
        no_match: decision.no_match.as_ref().map(|no_match| values(&no_match.signals)).unwrap_or_default(),
        confidence: decision.confidence,
        latency: from_proto(decision.duration.as_ref()),
        prefill_tokens: decision.prefill_tokens,
    }
}
