//! What a step does, as its span tells it.

use artel_task::event::{Decision, Nested};
use artel_task::graph::{Node, NodeKind};
use artel_task::{RoleName, StepId};

use crate::attributes::SpanAttributes;

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepWork {
    /// A role runs.
    Agent(RoleName),
    /// A router chooses a role.
    Route,
    /// A person is asked.
    Ask,
    /// The node runs once for each item of a list.
    Map,
    /// Another graph runs.
    Workflow(String),
    /// A knowledge is searched.
    Search,
    /// An answer is checked against passages.
    Check,
    /// The graph does not have the node.
    Unknown,
}

impl StepWork {
    /// The work of a step that starts, with its role, its nested work and its node, if there are any.
    pub(crate) fn of(role: Option<&RoleName>, nested: Option<&Nested>, node: Option<&Node>) -> Self {
        match (role, nested, node.map(|node| &node.kind)) {
            (_, Some(Nested::Items(_)), _) => Self::Map,
            (_, Some(Nested::Graph { graph, .. }), _) => Self::Workflow(graph.to_string()),
            (Some(role), ..) => Self::Agent(role.clone()),
            (_, _, Some(NodeKind::Router(_))) => Self::Route,
            (_, _, Some(NodeKind::Ask(_))) => Self::Ask,
            (_, _, Some(NodeKind::Search(_))) => Self::Search,
            (_, _, Some(NodeKind::Check(_))) => Self::Check,
            _ => Self::Unknown,
        }
    }

    /// Whether other steps run inside of it.
    pub(crate) fn has_inner_steps(&self) -> bool {
        matches!(self, Self::Map | Self::Workflow(_))
    }

    /// The name of the span.
    pub(crate) fn span_name(&self, step: &StepId) -> String {
        let node = &step.visit.node;
        match self {
            Self::Agent(role) => format!("invoke_agent {role}"),
            Self::Workflow(graph) => format!("invoke_workflow {graph}"),
            Self::Route => format!("route {node}"),
            Self::Ask => format!("ask {node}"),
            Self::Search => format!("search {node}"),
            Self::Check => format!("check {node}"),
            Self::Map => format!("map {node}"),
            Self::Unknown => format!("step {node}"),
        }
    }

    /// What is known when it starts.
    pub(crate) fn attributes(&self, step: &StepId) -> SpanAttributes {
        let attributes = match self {
            Self::Agent(role) => SpanAttributes::of_operation("invoke_agent").text("gen_ai.agent.name", role.as_str()),
            Self::Workflow(graph) => {
                SpanAttributes::of_operation("invoke_workflow").text("gen_ai.workflow.name", graph.as_str())
            }
            Self::Route | Self::Ask | Self::Search | Self::Check | Self::Map | Self::Unknown => {
                SpanAttributes::default()
            }
        };
        attributes.text("artel.step.id", step.to_string()).integer("artel.step.attempt", step.attempt)
    }
}

/// What is told of a decision. Its scores are not: they say what the text was about, and an erase removes them from the journal.
pub(crate) fn decision_attributes(decision: &Decision) -> SpanAttributes {
    let candidates = i64::try_from(decision.scores.len()).unwrap_or(i64::MAX);
    SpanAttributes::default()
        .text("artel.router.choice", decision.role.as_str())
        .text("artel.router.signal", decision.signal.as_str())
        .boolean("artel.router.otherwise", decision.otherwise)
        .integer("artel.router.candidates", candidates)
        .integer("artel.router.tokens", decision.tokens)
}
