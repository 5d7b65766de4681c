//! Previews, as the flags want them.

use std::time::Duration;

use artel_proto::v1::{self, Decision, ListFeedbackRequest, PreviewRequest, PreviewResponse};
use artel_roles::LabelledQuestion;
use artel_roles::routing::SignalValues;
use artel_task::RoleName;
use artel_task::event::Signal;

use super::super::Session;
use super::super::connect::prompt;
use super::super::error::Error;
use super::super::render::time::sent;
use crate::args::Route;

/// Entries of one page of feedback.
const PAGE: i32 = 1000;

/// Asks with the flags of a call.
pub(super) struct Asker<'s> {
    session: &'s Session,
    like: PreviewRequest,
}

/// What a decision says, by candidate.
pub(super) struct Heard {
    /// Best first.
    pub(super) names: Vec<String>,
    pub(super) numbers: Vec<SignalValues>,
    pub(super) nobody: SignalValues,
    pub(super) confidence: f64,
    pub(super) took: Duration,
    pub(super) tokens: u32,
}

impl<'s> Asker<'s> {
    pub(super) fn new(session: &'s Session, route: &Route) -> Self {
        let like = PreviewRequest {
            question: String::new(),
            roles: route.roles.clone(),
            graph: route.graph.clone().unwrap_or_default(),
            node: route.node.clone().unwrap_or_default(),
            signals: Vec::new(),
            settings: route.settings.clone().unwrap_or_default(),
            graphs: Vec::new(),
            any_graph: route.graphs,
        };
        Self { session, like }
    }

    pub(super) async fn preview(&self, question: String, signals: Vec<String>) -> Result<PreviewResponse, Error> {
        let request = PreviewRequest { question, signals, ..self.like.clone() };
        Ok(self.session.daemon.router().preview(prompt(request)).await?.into_inner())
    }

    /// What these signals say of a question; none asks those that the settings weigh.
    pub(super) async fn hear(&self, question: &str, signals: &[Signal]) -> Result<Heard, Error> {
        let signals = signals.iter().map(ToString::to_string).collect();
        let answer = self.preview(question.to_owned(), signals).await?;
        let decision = answer.decision.ok_or(Error::Answer("the decision"))?;
        Ok(heard(&decision))
    }

    /// The text and the role of each word of feedback.
    pub(super) async fn feedback(&self) -> Result<Vec<LabelledQuestion>, Error> {
        let (mut cases, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListFeedbackRequest { page_size: PAGE, page_token };
            let page = self.session.daemon.router().list_feedback(prompt(request)).await?.into_inner();
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

    /// The background and the chat model of a router's settings, which no fitting changes.
    pub(super) async fn settings(&self, name: &str) -> Result<serde_json::Value, Error> {
        let kind = v1::DefinitionKind::Router.into();
        let request = v1::GetCatalogRequest { kind, name: name.to_owned() };
        let definition = self.session.daemon.catalog().get(prompt(request)).await?.into_inner();
        let content = definition.content.ok_or(Error::Answer("the definition's content"))?;
        Ok(super::super::json::Json::json(&content))
    }
}

fn heard(decision: &Decision) -> Heard {
    let numbers = |signals: &std::collections::HashMap<String, f64>| -> SignalValues {
        signals.iter().filter_map(|(name, number)| Some((Signal::parse(name)?, *number))).collect()
    };
    let name = |score: &v1::Score| if score.role.is_empty() { score.graph.clone() } else { score.role.clone() };
    Heard {
        names: decision.scores.iter().map(name).collect(),
        numbers: decision.scores.iter().map(|score| numbers(&score.signals)).collect(),
        nobody: decision.none.as_ref().map(|none| numbers(&none.signals)).unwrap_or_default(),
        confidence: decision.confidence,
        took: sent(decision.duration.as_ref()),
        tokens: decision.computed_tokens,
    }
}
