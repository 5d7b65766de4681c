//! A question to the router, and the engines that it is answered with.

use std::collections::BTreeSet;
use std::sync::Arc;

use artel_hosting::engine_host;
use artel_roles::{Catalog, Model};
use artel_router::RoutingPolicy;
use artel_task::event::Signal;
use artel_task::graph::RouterNode;
use artel_traces::TraceScope;
use ractor::ActorRef;

use crate::candidate::Candidate;

/// The hosts of the engines that a decision needs.
#[derive(Clone)]
pub struct RouterEngines {
    /// That of [`RoutingRequest::embedding_model`].
    pub embedding: ActorRef<engine_host::Message>,
    /// That of [`RoutingRequest::label_model`].
    pub label: Option<ActorRef<engine_host::Message>>,
}

/// A question, its candidates and how to choose among them.
pub struct RoutingRequest {
    pub(crate) text: String,
    /// At least one.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) policy: RoutingPolicy,
    /// The model that embeds the texts.
    pub embedding_model: Arc<Model>,
    /// The model that scores labels, if that signal is used.
    pub label_model: Option<Arc<Model>>,
    /// The span of the decision, if it is traced.
    pub(crate) trace: Option<TraceScope>,
}

impl RoutingRequest {
    /// The request of a router node for a text; `None` if the catalog has no embedding model.
    pub fn for_node(text: String, candidates: Vec<Candidate>, node: &RouterNode, catalog: &Catalog) -> Option<Self> {
        let policy = RoutingPolicy::for_node(node, catalog.router_settings(node.settings.as_ref()));
        let label_model = policy.settings.label_model.as_ref().filter(|_| policy.uses_labels());
        let label_model = label_model.and_then(|name| catalog.model(name.as_str()).cloned());
        let embedding_model = catalog.embedding_model()?.clone();
        Some(Self { text, candidates, policy, embedding_model, label_model, trace: None })
    }

    /// The same as a part of this span.
    pub fn with_trace(self, trace: Option<TraceScope>) -> Self {
        Self { trace, ..self }
    }

    /// The signals to score, without rules.
    pub(crate) fn scored_signals(&self) -> Vec<Signal> {
        self.policy.scored_signals(self.label_model.is_some())
    }

    /// Questions that belong to no candidate.
    pub(crate) fn background(&self) -> &[String] {
        &self.policy.settings.background
    }

    /// The texts of which an index needs the embeddings.
    pub(crate) fn texts(&self) -> BTreeSet<&str> {
        let candidates = self.candidates.iter().flat_map(|candidate| candidate.document().texts());
        candidates.chain(self.background().iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use artel_roles::{YamlSource, shipped};
    use artel_router::CandidateProfile;
    use artel_task::{RoleName, RouterName};

    use super::*;

    /// The shipped catalog with a router whose settings weigh labels.
    fn catalog() -> Catalog {
        let text = "router: judged\nsignals:\n  label: {model: smollm2, weight: 1.0}\n  keyword: {weight: 1.0}\n";
        let source = YamlSource { path: "test.yaml".to_owned(), dir: None, text: text.to_owned() };
        Catalog::parse(vec![shipped::sources(), vec![source]]).unwrap()
    }

    fn request(settings: &str, signals: Vec<Signal>) -> RoutingRequest {
        let profile = CandidateProfile {
            description: "Sails.".to_owned(),
            examples: vec!["Which sail?".to_owned(), "Sails.".to_owned()],
            keywords: vec!["mast".to_owned()],
        };
        let candidates = vec![Candidate::Graph(RoleName::parse("sailor").unwrap(), Arc::new(profile))];
        let node = RouterNode { settings: RouterName::parse(settings).ok(), signals, ..RouterNode::default() };
        RoutingRequest::for_node("?".to_owned(), candidates, &node, &catalog()).unwrap()
    }

    #[test]
    fn a_model_scores_labels_only_if_that_signal_is_used() {
        let model = |request: &RoutingRequest| request.label_model.as_ref().map(|model| model.name.to_string());
        let weighed = request("judged", Vec::new());
        assert_eq!(model(&weighed).as_deref(), Some("smollm2"));
        assert_eq!(weighed.scored_signals(), [Signal::Keyword, Signal::Label]);
        assert_eq!(model(&request("judged", vec![Signal::Keyword])), None);
        let without_model = request("default", vec![Signal::Label, Signal::Keyword]);
        assert_eq!((model(&without_model), without_model.scored_signals()), (None, vec![Signal::Keyword]));
    }

    #[test]
    fn each_text_is_embedded_once_and_so_is_the_background() {
        let request = request("default", Vec::new());
        let texts = request.texts();
        assert!(texts.contains("Sails.") && texts.contains("Which sail?") && !texts.contains("mast"));
        assert_eq!(texts.len(), 2 + request.background().len());
    }
}
