//! Events without the text of their caller.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Decision, EventKind, Failure, Nested, Output, TaskSpec, Timestamp};

/// Stands for the messages and reasons of an erased task: they may quote its text, and an empty one would read as none.
pub const ERASED_TEXT: &str = "[erased]";

impl EventKind {
    /// The event as it is kept once the text of its task is erased, at this time. The same again changes nothing.
    ///
    /// What stays is what happened, when, and how much it took: kinds, steps, roles, edges, token counts, durations and failure
    /// codes. What a client or a model wrote goes, and so does what follows from it alone, such as the scores of a decision.
    #[must_use]
    pub fn without_text(self, at: Timestamp) -> Self {
        match self {
            Self::Accepted(spec) => Self::Accepted(TaskSpec {
                input: String::new(),
                request: None,
                labels: BTreeMap::new(),
                decision: spec.decision.map(|decision| Box::new(without_evidence(*decision))),
                erased: spec.erased.or(Some(at)),
                trace: None,
                sampling: None,
                response: None,
                tools: None,
                conversation: None,
                ..spec
            }),
            Self::Routed { step, decision } => Self::Routed { step, decision: without_evidence(decision) },
            Self::StepStarted { step, trigger, role, nested } => {
                Self::StepStarted { step, trigger, role, nested: nested.map(without_items) }
            }
            Self::Waiting { step, deadline, .. } => {
                Self::Waiting { step, question: ERASED_TEXT.to_owned(), schema: None, deadline }
            }
            Self::StepFinished { step, output, usage, timings, taken, source, write } => {
                Self::StepFinished { step, output: without_output(output), usage, timings, taken, source, write }
            }
            Self::StepFailed { step, failure, retry_after, taken, partial: _ } => {
                Self::StepFailed { step, failure: without_message(failure), retry_after, taken, partial: None }
            }
            Self::Resumed => Self::Resumed,
            Self::SetAside { .. } => Self::SetAside { reason: ERASED_TEXT.to_owned() },
            Self::Completed { output, instead_of } => {
                Self::Completed { output: without_output(output), instead_of: instead_of.map(without_message) }
            }
            Self::Failed { failure } => Self::Failed { failure: without_message(failure) },
            Self::Cancelled { .. } => Self::Cancelled { reason: ERASED_TEXT.to_owned(), partial: Vec::new() },
        }
    }
}

/// The decision alone: its scores say what the text was about.
fn without_evidence(decision: Decision) -> Decision {
    let (scores, no_match) = (Vec::new(), None);
    Decision { confidence: 0.0, margin: 0.0, scores, no_match, ..decision }
}

/// As many items as before: steps are numbered by them.
fn without_items(nested: Nested) -> Nested {
    match nested {
        Nested::Items(items) => Nested::Items(vec![Value::Null; items.len()].into()),
        Nested::Graph { graph, start, input: _ } => Nested::Graph { graph, start, input: String::new() },
    }
}

fn without_output(output: Output) -> Output {
    Output { role: output.role, finish: output.finish, ..Output::text("") }
}

fn without_message(failure: Failure) -> Failure {
    Failure { message: ERASED_TEXT.to_owned(), ..failure }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::Citation;
    use super::*;
    use crate::event::{
        CandidateScore, Conversation, FailureCode, FinishReason, ForkOrigin, NoMatch, PartialOutput, RequestSampling,
        ResponseFormat, ResultSource, Speaker, TakenEdge, TaskPriority, Timings, ToolCall, ToolSet, Turn, Usage,
    };
    use crate::id::{CallerName, CatalogVersion, GraphName, NodeName, RequestId, RoleName, StepId, TaskId};
    use crate::trace::TraceContext;

    const CANARY: &str = "canary-of-a-caller";

    fn decision() -> Decision {
        let role = RoleName::parse("gguf").unwrap();
        Decision {
            role: role.clone(),
            roles: Vec::new(),
            graphs: false,
            confidence: 0.75,
            margin: 0.5,
            otherwise: false,
            signal: "embedding".to_owned(),
            scores: vec![CandidateScore { role, score: 0.75, signals: BTreeMap::new() }],
            no_match: Some(NoMatch { score: 0.25, signals: BTreeMap::new() }),
            elapsed: Duration::from_millis(3),
            tokens: 9,
            warmup_tokens: 2,
        }
    }

    /// One event of each kind, with the canary wherever there is free text.
    fn kinds() -> Vec<EventKind> {
        let text = || CANARY.to_owned();
        let step = StepId::parse("answer").unwrap();
        let role = RoleName::parse("gguf").ok();
        let output = Output {
            text: text(),
            json: Some(json!({ CANARY: [CANARY] })),
            role: role.clone(),
            finish: Some(FinishReason::Length),
            reasoning: Some(text()),
            calls: vec![ToolCall { id: text(), name: text(), arguments: text() }],
            citations: vec![Citation {
                number: 1,
                knowledge: text(),
                source: text(),
                page: Some(1),
                first_line: 1,
                last_line: 2,
                context: vec![text()],
                quote: text(),
            }],
            alternatives: vec![Output::text(CANARY)],
            logprobs: None,
        };
        let failure = Failure { code: FailureCode::Router, message: text(), step: Some(step.clone()) };
        let spec = TaskSpec {
            graph: GraphName::parse("mentor").unwrap(),
            role: None,
            input: text(),
            catalog: CatalogVersion::new("c"),
            request: RequestId::parse(CANARY),
            priority: TaskPriority::Batch,
            labels: BTreeMap::from([(text(), text())]),
            forked_from: Some(ForkOrigin { task: TaskId::from_bytes([1; 16]), step: None, copied: 0 }),
            decision: Some(Box::new(decision())),
            owner: CallerName::parse("alice").unwrap(),
            erased: None,
            reasoning: None,
            conversation: Conversation::of(vec![Turn::new(Speaker::System, text()), Turn::new(Speaker::User, text())])
                .map(|(_, conversation)| conversation.into())
                .ok(),
            trace: Some(
                TraceContext::try_from(format!("00-{}-{}-01 {CANARY}", "1".repeat(32), "2".repeat(16))).unwrap(),
            ),
            sampling: Some(Box::new(RequestSampling { stop: vec![text()], ..RequestSampling::default() })),
            response: Some(Box::new(ResponseFormat::JsonSchema(json!({ "const": CANARY })))),
            tools: Some(std::sync::Arc::new(ToolSet {
                tools: vec![artel_model::Tool {
                    name: text(),
                    description: text(),
                    parameters: json!({ CANARY: CANARY }),
                }],
                ..ToolSet::default()
            })),
        };
        let items = Nested::Items(vec![json!(CANARY), json!([CANARY])].into());
        let (graph, start) = (spec.graph.clone(), NodeName::parse("a").unwrap());
        let graph = Nested::Graph { graph, start, input: text() };
        let started = |nested| EventKind::StepStarted { step: step.clone(), trigger: None, role: role.clone(), nested };
        let partial = vec![PartialOutput { step: step.clone(), output: output.clone() }];
        vec![
            EventKind::Accepted(spec),
            EventKind::Routed { step: step.clone(), decision: decision() },
            started(Some(items)),
            started(Some(graph)),
            EventKind::Waiting {
                step: step.clone(),
                question: text(),
                schema: Some(json!({ "enum": [CANARY] })),
                deadline: Some(Timestamp(7)),
            },
            EventKind::StepFinished {
                step: step.clone(),
                output: output.clone(),
                usage: Usage { prompt: 5, output: 6, ..Usage::default() },
                timings: Timings { decode: Duration::from_millis(8), ..Timings::default() },
                taken: vec![TakenEdge { edge: 0, to: None, direct: true }],
                source: ResultSource::Person,
                write: None,
            },
            EventKind::StepFailed {
                step,
                failure: failure.clone(),
                retry_after: Some(Duration::from_secs(1)),
                taken: Vec::new(),
                partial: Some(Box::new(output.clone())),
            },
            EventKind::Resumed,
            EventKind::SetAside { reason: text() },
            EventKind::Completed { output, instead_of: Some(failure.clone()) },
            EventKind::Failed { failure },
            EventKind::Cancelled { reason: text(), partial },
        ]
    }

    #[test]
    fn no_event_keeps_text_and_each_keeps_its_kind() {
        for kind in kinds() {
            let before = serde_json::to_value(&kind).unwrap();
            let erased = kind.without_text(Timestamp(99));
            let after = serde_json::to_value(&erased).unwrap();
            assert!(!after.to_string().contains(CANARY), "{after}");
            assert_eq!(after["kind"], before["kind"]);
            assert_eq!(erased.clone().without_text(Timestamp(100)), erased, "the same again changes nothing");
            assert_eq!(serde_json::from_value::<EventKind>(after).unwrap(), erased);
        }
    }

    #[test]
    fn the_figures_stay() {
        let erased: Vec<EventKind> = kinds().into_iter().map(|kind| kind.without_text(Timestamp(99))).collect();
        let EventKind::Accepted(spec) = &erased[0] else { panic!("{:?}", erased[0]) };
        assert_eq!((spec.owner.as_str(), spec.erased), ("alice", Some(Timestamp(99))));
        assert!(spec.forked_from.is_some());
        let EventKind::Routed { decision, .. } = &erased[1] else { panic!("{:?}", erased[1]) };
        assert_eq!((decision.role.as_str(), decision.tokens, decision.scores.len()), ("gguf", 9, 0));
        assert!(
            matches!(&erased[2], EventKind::StepStarted { nested: Some(Nested::Items(items)), .. } if items.len() == 2)
        );
        let EventKind::StepFinished { usage, timings, output, taken, .. } = &erased[5] else {
            panic!("{:?}", erased[5])
        };
        assert_eq!((usage.total(), timings.decode, taken.len()), (11, Duration::from_millis(8), 1));
        assert_eq!(output.role.as_ref().map(RoleName::as_str), Some("gguf"));
        assert!(matches!(&erased[10], EventKind::Failed { failure } if failure.code == FailureCode::Router));
    }
}
