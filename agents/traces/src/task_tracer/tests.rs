//! The spans of a task follow from its events, in one process or in several.

use std::collections::BTreeMap;

use artel_metrics::TraceMetrics;
use artel_task::event::{Decision, Failure, Nested, Output, Timings, Usage};
use artel_task::graph::{Edge, GraphLimits, GraphParts, Node, NodeKind, RoleRef, RouterNode};
use artel_task::{CallerName, CatalogVersion, GraphName, NodeName, RoleName, Seq, TraceContext};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::*;

/// A text of a caller, which no span may have.
const CANARY: &str = "canary-of-a-caller";

fn role(name: &str) -> RoleName {
    RoleName::parse(name).unwrap()
}

/// A router, and a node whose steps the events say.
fn graph() -> Arc<Graph> {
    let node = |name: &str| NodeName::parse(name).unwrap();
    let edge = |to: Option<&str>| Edge { to: to.map(node), when: None, at_most: None };
    let router = RouterNode { roles: vec![role("writer")], ..RouterNode::default() };
    let work = NodeKind::Role { role: RoleRef::Named(role("writer")), message: None };
    let nodes = BTreeMap::from([
        (node("pick"), Node::new(NodeKind::Router(router), vec![edge(Some("note"))])),
        (node("note"), Node::new(work, vec![edge(None)])),
    ]);
    let parts = GraphParts {
        name: GraphName::parse("desk").unwrap(),
        description: "Notes.".to_owned(),
        start: node("pick"),
        result: None,
        nodes,
        values: BTreeMap::new(),
        fallback: None,
        limits: GraphLimits::default(),
    };
    Arc::new(Graph::new(parts).unwrap())
}

fn spec(trace: Option<&str>) -> TaskSpec {
    TaskSpec {
        graph: GraphName::parse("desk").unwrap(),
        role: None,
        input: CANARY.to_owned(),
        catalog: CatalogVersion::new("0"),
        request: None,
        priority: TaskPriority::Interactive,
        labels: BTreeMap::from([(CANARY.to_owned(), CANARY.to_owned())]),
        forked_from: None,
        decision: None,
        owner: CallerName::parse(CANARY).unwrap(),
        erased: None,
        trace: trace.map(|trace| TraceContext::try_from(trace.to_owned()).unwrap()),
        sampling: None,
        response: None,
        tools: None,
        reasoning: None,
        conversation: None,
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=1";

fn decision() -> Decision {
    Decision {
        role: role("writer"),
        roles: Vec::new(),
        graphs: false,
        confidence: 0.5,
        margin: 0.1,
        otherwise: false,
        signal: "embedding".to_owned(),
        scores: Vec::new(),
        no_match: None,
        elapsed: Duration::from_millis(3),
        tokens: 9,
        warmup_tokens: 0,
    }
}

fn started(step: &str, nested: Option<Nested>) -> EventKind {
    let runs = step.starts_with("note") && nested.is_none();
    EventKind::StepStarted { step: id(step), trigger: None, role: runs.then(|| role("writer")), nested }
}

fn finished(step: &str, source: ResultSource) -> EventKind {
    EventKind::StepFinished {
        step: id(step),
        output: Output::text(CANARY),
        usage: Usage::default(),
        timings: Timings::default(),
        taken: Vec::new(),
        source,
        write: None,
    }
}

fn id(step: &str) -> StepId {
    StepId::parse(step).unwrap()
}

/// A task whose router chooses, and whose second node runs for three items: the first fails once, the second is answered from the
/// cache, and the third never ends.
fn events() -> Vec<Event> {
    let items = Nested::Items(vec![CANARY.into(), 2.into(), 3.into()].into());
    let failure = Failure::new(FailureCode::Timeout, CANARY);
    let kinds = vec![
        EventKind::Accepted(spec(Some(TRACE))),
        started("pick", None),
        EventKind::Routed { step: id("pick"), decision: decision() },
        finished("pick", ResultSource::Run),
        started("note", Some(items)),
        started("note[0]", None),
        started("note[1]", None),
        started("note[2]", None),
        EventKind::StepFailed {
            step: id("note[0]"),
            failure,
            retry_after: Some(Duration::from_secs(2)),
            taken: Vec::new(),
            partial: None,
        },
        started("note#1.2[0]", None),
        finished("note[1]", ResultSource::Cache),
        finished("note#1.2[0]", ResultSource::Run),
        finished("note", ResultSource::Run),
        EventKind::Completed { output: Output::text(CANARY), instead_of: None },
    ];
    let task = TaskId::new(1000, [7; 10]);
    let event = |(seq, kind)| Event { task, seq: Seq(seq), at: Timestamp(1000 + seq), kind };
    (1..).zip(kinds).map(event).collect()
}

/// The spans that a tracer tells from the event of this number on, if another one told those before.
fn spans(events: &[Event], from: usize) -> Vec<Span> {
    let tracer = Tracer::new(1.0, TraceMetrics::default());
    let mut task = match from {
        1 => TaskTracer::begin(&tracer, &events[0], Some(&graph())).unwrap(),
        _ => TaskTracer::resume(&tracer, &events[..from], Some(&graph())).unwrap(),
    };
    events[from..].iter().for_each(|event| task.committed(event));
    tracer.queue().take()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    match attribute(span, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} of {}: {other:?}", span.name),
    }
}

#[test]
fn each_step_is_a_span_inside_of_what_it_runs_in() {
    let spans = spans(&events(), 1);
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [task] = named("invoke_workflow desk")[..] else { panic!("{spans:?}") };
    let [map] = named("map note")[..] else { panic!("{spans:?}") };
    let [route] = named("route pick")[..] else { panic!("{spans:?}") };
    assert_eq!(task.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!((&route.parent_span_id, &map.parent_span_id), (&task.span_id, &task.span_id));
    let agents = named("invoke_agent writer");
    let told: Vec<(&str, StatusCode)> =
        agents.iter().map(|span| (text(span, "artel.step.id"), span.status.as_ref().unwrap().code())).collect();
    let (unset, error) = (StatusCode::Unset, StatusCode::Error);
    assert_eq!(told, [("note[0]", error), ("note[1]", unset), ("note#1.2[0]", unset), ("note[2]", unset)]);
    assert!(agents.iter().all(|span| span.parent_span_id == map.span_id), "{agents:?}");
    assert_eq!(text(agents[0], "error.type"), "timeout");
    assert_eq!(attribute(agents[0], "artel.step.retry_after"), Some(&Value::DoubleValue(2.0)));
    assert_eq!(text(agents[1], "artel.step.source"), "cache");
    assert_eq!(attribute(agents[3], "artel.step.dropped"), Some(&Value::BoolValue(true)));
    assert_eq!(text(agents[0], "gen_ai.agent.name"), "writer");
    assert_eq!(text(route, "artel.router.choice"), "writer");
    assert_eq!((text(task, "artel.task.outcome"), text(task, "gen_ai.workflow.name")), ("completed", "desk"));
    assert_eq!(attribute(task, "artel.task.steps"), Some(&Value::IntValue(6)));
    for span in &spans {
        assert_eq!((span.trace_state.as_str(), span.trace_id[0]), ("vendor=1", 0x4b));
        assert!(span.start_time_unix_nano >= task.start_time_unix_nano, "{span:?}");
        assert!(!format!("{span:?}").contains(CANARY), "{span:?}");
    }
}

#[test]
fn a_task_that_another_process_began_goes_on_in_the_same_spans() {
    let events = events();
    let ids = |spans: &[Span]| -> Vec<(Vec<u8>, Vec<u8>, String, u64)> {
        let id = |span: &Span| {
            (span.span_id.clone(), span.parent_span_id.clone(), span.name.clone(), span.start_time_unix_nano)
        };
        spans.iter().map(id).collect()
    };
    let whole = ids(&spans(&events, 1));
    for from in 2..events.len() {
        let rest = ids(&spans(&events, from));
        assert!(!rest.is_empty() && whole.ends_with(&rest), "from {from}: {rest:?} of {whole:?}");
    }
}

#[test]
fn nothing_is_told_of_a_task_without_a_trace() {
    let tracer = Tracer::new(1.0, TraceMetrics::default());
    let accepted = Event { kind: EventKind::Accepted(spec(None)), ..events().remove(0) };
    assert!(TaskTracer::begin(&tracer, &accepted, Some(&graph())).is_none());
    assert!(TaskTracer::resume(&tracer, &[], Some(&graph())).is_none());
}

#[test]
fn a_graph_that_the_router_chose_has_the_decision_first() {
    let tracer = Tracer::new(1.0, TraceMetrics::default());
    let spec = TaskSpec { decision: Some(Box::new(decision())), ..spec(Some(TRACE)) };
    let accepted = Event { kind: EventKind::Accepted(spec), ..events().remove(0) };
    let mut task = TaskTracer::begin(&tracer, &accepted, Some(&graph())).unwrap();
    task.committed(&Event {
        kind: EventKind::Cancelled { reason: CANARY.to_owned(), partial: Vec::new() },
        ..events().remove(1)
    });
    let spans = tracer.queue().take();
    let [route, task] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((route.name.as_str(), &route.parent_span_id), ("route", &task.span_id));
    assert_eq!(route.end_time_unix_nano - route.start_time_unix_nano, 3_000_000);
    assert_eq!(route.start_time_unix_nano, task.start_time_unix_nano);
    assert_eq!(text(task, "artel.task.outcome"), "cancelled");
}
