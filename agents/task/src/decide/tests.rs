//! Graphs run by a script: each step is started and finished as `decide` and `transition` say.

mod nested;
mod random;
mod set_aside;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::condition::{Condition, ConditionScope};
use crate::event::{Event, EventKind, Nested, TaskPriority, TaskSpec, Timings, Usage};
use crate::graph::{AskNode, Edge, GraphFault, GraphLimits, GraphParts, Node, NodeKind, RoleRef, RouterNode};
use crate::id::{CallerName, CatalogVersion, GraphName, RoleName, Seq, TaskId};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn to(target: &str) -> Edge {
    Edge { to: (target != "done").then(|| name(target)), when: None, at_most: None }
}

fn if_revise(target: &str, at_most: u32) -> Edge {
    Edge { when: Some(Condition::parse("output == 'revise'").unwrap()), at_most: Some(at_most), ..to(target) }
}

fn role(next: Vec<Edge>) -> Node {
    let kind = NodeKind::Role { role: RoleRef::Named(RoleName::parse("writer").unwrap()), message: None };
    Node::new(kind, next)
}

fn joined(join: Join, next: Vec<Edge>) -> Node {
    Node { join: Some(join), ..role(next) }
}

fn parts<const N: usize>(start: &str, nodes: [(&str, Node); N]) -> GraphParts {
    GraphParts {
        name: GraphName::parse("test").unwrap(),
        description: String::new(),
        start: name(start),
        result: None,
        nodes: nodes.into_iter().map(|(n, node)| (name(n), node)).collect(),
        limits: GraphLimits::default(),
        values: BTreeMap::new(),
        fallback: None,
    }
}

/// A task with its events.
struct ScriptedRun {
    graph: Graph,
    events: Vec<Event>,
    state: State,
    now: Timestamp,
}

impl ScriptedRun {
    fn of(graph: Graph) -> Self {
        let spec = TaskSpec {
            graph: graph.name().clone(),
            role: None,
            input: "hello".to_owned(),
            catalog: CatalogVersion::new("0"),
            request: None,
            priority: TaskPriority::Interactive,
            labels: BTreeMap::new(),
            forked_from: None,
            owner: CallerName::owner(),
            erased: None,
            trace: None,
            sampling: None,
            response: None,
            tools: None,
            reasoning: None,
            conversation: None,
            decision: None,
        };
        let task = TaskId::new(0, [0; 10]);
        let event = Event { task, seq: Seq(1), at: Timestamp(0), kind: EventKind::Accepted(spec) };
        let state = State::begin(&event, graph.start()).unwrap();
        Self { graph, events: vec![event], state, now: Timestamp(0) }
    }

    fn note(&mut self, kind: EventKind) {
        let event = Event { task: self.state.task, seq: self.state.last_seq.next(), at: self.now, kind };
        self.state.apply(&event).unwrap();
        self.events.push(event);
    }

    /// Performs all actions that are possible, and returns the started steps that have no nested work.
    fn advance(&mut self) -> Vec<StepId> {
        let mut started = Vec::new();
        loop {
            let before = self.state.last_seq;
            for action in decide(&self.graph, &self.state, self.now, self.now) {
                started.extend(self.perform(action));
            }
            if self.state.last_seq == before {
                started
                    .retain(|step| self.state.active_visit(&step.visit).is_some_and(|active| active.nested.is_none()));
                return started;
            }
        }
    }

    fn perform(&mut self, action: NextAction) -> Option<StepId> {
        match action {
            NextAction::StartStep { step, trigger } => {
                let nested = self.nested(&step);
                self.note(EventKind::StepStarted { step: step.clone(), trigger, role: None, nested });
                return Some(step);
            }
            NextAction::FinishStep { step, output, source } => self.finish_with(&step, output, source),
            NextAction::FailStep { step, failure } => self.fail(&step, failure),
            NextAction::ExpireQuestion(step) => {
                self.fail(&step, Failure::new(FailureCode::NoAnswer, "late"));
            }
            NextAction::CompleteTask { output, instead_of } => self.note(EventKind::Completed { output, instead_of }),
            NextAction::FailTask(failure) => self.note(EventKind::Failed { failure }),
            NextAction::Wait(_) => {}
        }
        None
    }

    fn nested(&self, step: &StepId) -> Option<Nested> {
        let node = self.graph.node_at(&step.visit)?;
        let scope = self.state.scope(&step.visit.parents)?;
        match (&node.for_each, &node.kind) {
            (Some(each), _) if step.visit.item.is_none() => {
                let values = scope_values(self.graph.subgraph(&step.visit.parents)?, scope);
                let variables =
                    ConditionScope { task: &scope.task, nodes: &scope.outputs, values: &values, output: &Value::Null };
                Some(Nested::Items(each.list.items(variables).unwrap().into()))
            }
            (_, NodeKind::Graph { graph, .. }) => {
                let input = self.state.input_of(&step.visit);
                Some(Nested::Graph { graph: graph.name().clone(), start: graph.start().clone(), input })
            }
            _ => None,
        }
    }

    fn fail(&mut self, step: &StepId, failure: Failure) {
        let taken = failure_edges(&self.graph, &self.state, &step.visit);
        self.note(EventKind::StepFailed { step: step.clone(), failure, retry_after: None, taken, partial: None });
    }

    fn finish(&mut self, step: &StepId, text: &str) {
        let json = serde_json::from_str(text).ok().filter(|json: &Value| json.is_object());
        self.finish_with(step, Output { json, ..Output::text(text) }, ResultSource::Run);
    }

    fn finish_with(&mut self, step: &StepId, output: Output, source: ResultSource) {
        match transition(&self.graph, &self.state, step, &output) {
            Ok(Transition { edges: taken, write }) => {
                let (usage, timings) =
                    (Usage { prompt: 10, computed: 10, output: 1, ..Usage::default() }, Timings::default());
                self.note(EventKind::StepFinished { step: step.clone(), output, usage, timings, taken, source, write });
            }
            Err(error) => self.fail(step, Failure::new(error.code(), error.to_string())),
        }
    }

    /// Runs to the end with the outputs of `answer`. Returns the visits in order.
    fn all(&mut self, answer: impl Fn(&Visit) -> String) -> Vec<String> {
        let (mut visits, mut running) = (Vec::new(), Vec::new());
        loop {
            let started = self.advance();
            visits.extend(started.iter().map(ToString::to_string));
            running.extend(started);
            if self.state.phase != Phase::Running {
                return visits;
            }
            assert!(!running.is_empty(), "a running task has a running step");
            let step = running.remove(0);
            let text = answer(&step.visit);
            self.finish(&step, &text);
        }
    }

    fn failed_with(&self) -> FailureCode {
        match &self.state.phase {
            Phase::Failed(failure) => failure.code,
            other => panic!("{other:?}"),
        }
    }
}

fn mentor() -> Graph {
    let mut parts = parts(
        "answer",
        [("answer", role(vec![to("check")])), ("check", role(vec![if_revise("answer", 2), to("done")]))],
    );
    parts.result = Some(name("answer"));
    Graph::new(parts).unwrap()
}

#[test]
fn each_node_knows_its_remaining_steps() {
    let nodes = [
        ("plan", role(vec![to("write")])),
        ("write", role(vec![to("check")])),
        ("check", role(vec![if_revise("write", 2), to("send")])),
        ("send", role(vec![to("done")])),
    ];
    let graph = Graph::new(parts("plan", nodes)).unwrap();
    let remaining =
        |node: &str| graph.remaining_steps(&Visit { parents: Vec::new(), node: name(node), number: 1, item: None });
    assert_eq!(["plan", "write", "check", "send"].map(remaining), [3, 2, 1, 0]);
}

#[test]
fn lookahead_enters_and_leaves_sub_graphs_and_stops_at_questions() {
    let inner =
        Graph::new(parts("first", [("first", role(vec![to("second")])), ("second", role(vec![to("done")]))])).unwrap();
    let confirm = AskNode { message: "Well?".to_owned(), schema: None, deadline: None, otherwise: None };
    let nodes = [
        ("plan", role(vec![to("deep")])),
        ("deep", Node::new(NodeKind::Graph { graph: Arc::new(inner), message: None }, vec![to("check")])),
        ("check", role(vec![if_revise("plan", 2), to("confirm")])),
        ("confirm", Node::new(NodeKind::Ask(confirm), vec![to("send")])),
        ("send", role(vec![to("done")])),
    ];
    let graph = Graph::new(parts("plan", nodes)).unwrap();
    let visit = |node: &str| Visit { parents: Vec::new(), node: name(node), number: 1, item: None };
    let ahead = |visit: &Visit, most| -> Vec<String> {
        graph.lookahead(visit, most).iter().map(|(steps, visit)| format!("{steps} {visit}")).collect()
    };
    let all = ["1 deep/first", "2 deep/second", "3 check", "4 plan", "4 confirm"];
    assert_eq!(ahead(&visit("plan"), 9), all);
    assert_eq!(ahead(&visit("plan"), 2), all[..2]);
    let inside = graph.lookahead(&visit("plan"), 1)[0].1.clone();
    assert_eq!(ahead(&inside, 2), ["1 deep/second", "2 check"]);
    assert!(ahead(&visit("confirm"), 9).is_empty() && ahead(&visit("plan"), 0).is_empty());
}

#[test]
fn a_critic_sends_back_as_often_as_the_edge_allows() {
    let mut run = ScriptedRun::of(mentor());
    let visits = run.all(|visit| if visit.node.as_str() == "check" { "revise".into() } else { visit.to_string() });
    assert_eq!(visits, ["answer", "check", "answer#2", "check#2", "answer#3", "check#3"]);
    assert!(matches!(&run.state.phase, Phase::Completed(output) if output.text == "answer#3"));
}

#[test]
fn edges_are_unconditional_where_no_condition_is_available() {
    let mut run = ScriptedRun::of(mentor());
    let mut transitions = Vec::new();
    for text in ["first", "revise", "second", "revise", "third", "revise"] {
        let step = run.advance().remove(0);
        let edges = unconditional_edges(&run.graph, &run.state, &step.visit);
        let names = edges.iter().map(|edge| edge.to.as_ref().map_or("done", NodeName::as_str));
        transitions.push(format!("{} -> {}", step.visit, names.collect::<Vec<_>>().join(" ")));
        run.finish(&step, text);
    }
    let wanted =
        ["answer -> check", "check -> ", "answer#2 -> check", "check#2 -> ", "answer#3 -> check", "check#3 -> done"];
    assert_eq!(transitions, wanted);
}

fn council(join: Join, branches: [Vec<Edge>; 3]) -> Graph {
    let [a, b, c] = branches;
    let nodes = [
        ("start", role(vec![to("a"), to("b"), to("c")])),
        ("a", role(a)),
        ("b", role(b)),
        ("c", role(c)),
        ("plan", joined(join, vec![to("done")])),
    ];
    Graph::new(parts("start", nodes)).unwrap()
}

fn straight() -> [Vec<Edge>; 3] {
    [vec![to("plan")], vec![to("plan")], vec![to("plan")]]
}

#[test]
fn branches_run_side_by_side_and_meet_once() {
    let mut run = ScriptedRun::of(council(Join::All, straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan"]);
    let mut run = ScriptedRun::of(council(Join::Quorum(2), straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan"]);
    let mut run = ScriptedRun::of(council(Join::Any, straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan", "plan#2", "plan#3"]);
}

#[test]
fn a_join_reads_all_arrivals() {
    let mut run = ScriptedRun::of(council(Join::All, straight()));
    let start = run.advance().remove(0);
    assert_eq!(run.state.input_of(&start.visit), "hello");
    run.finish(&start, "go");
    for step in run.advance() {
        assert_eq!(run.state.input_of(&step.visit), "go");
        run.finish(&step, step.visit.node.as_str());
    }
    let plan = run.advance().remove(0);
    assert_eq!(run.state.input_of(&plan.visit), "a\n\nb\n\nc");
}

#[test]
fn a_join_that_cannot_be_satisfied_fails_the_task() {
    let away = Edge { when: Some(Condition::parse("output == 'c'").unwrap()), ..to("done") };
    let mut run = ScriptedRun::of(council(Join::All, [vec![to("plan")], vec![to("plan")], vec![away, to("plan")]]));
    run.all(|visit| visit.node.to_string());
    assert_eq!(run.failed_with(), FailureCode::JoinStuck);
}

#[test]
fn no_edge_fails_the_task() {
    let only = Edge { when: Some(Condition::parse("output == 'never'").unwrap()), ..to("done") };
    let mut run = ScriptedRun::of(Graph::new(parts("a", [("a", role(vec![only]))])).unwrap());
    run.all(|_| "text".into());
    assert_eq!(run.failed_with(), FailureCode::NoEdge);
}

#[test]
fn limits_end_a_task() {
    let limited = |limits| {
        let parts = GraphParts { limits, ..parts("a", [("a", role(vec![to("b")])), ("b", role(vec![to("done")]))]) };
        let mut run = ScriptedRun::of(Graph::new(parts).unwrap());
        run.all(|_| String::new());
        run.failed_with()
    };
    assert_eq!(limited(GraphLimits { steps: 1, ..GraphLimits::default() }), FailureCode::LimitSteps);
    assert_eq!(limited(GraphLimits { tokens: 10, ..GraphLimits::default() }), FailureCode::LimitTokens);
    assert_eq!(limited(GraphLimits { time: Duration::ZERO, ..GraphLimits::default() }), FailureCode::LimitTime);
}

#[test]
fn a_failed_attempt_is_retried_after_its_delay() {
    let mut run = ScriptedRun::of(mentor());
    let step = run.advance().remove(0);
    let failure = Failure { code: FailureCode::Timeout, message: "slow".to_owned(), step: None };
    let retry_after = Some(Duration::from_secs(2));
    run.note(EventKind::StepFailed { step, failure, retry_after, taken: Vec::new(), partial: None });
    assert_eq!(
        decide(&run.graph, &run.state, Timestamp(500), Timestamp(500)),
        [NextAction::Wait(Duration::from_millis(1500))]
    );
    let due = decide(&run.graph, &run.state, Timestamp(2000), Timestamp(2000));
    assert!(matches!(&due[..], [NextAction::StartStep { step, trigger: None }] if step.to_string() == "answer#1.2"));
}

#[test]
fn a_restart_starts_running_attempts_again() {
    let mut run = ScriptedRun::of(council(Join::All, straight()));
    let start = run.advance().remove(0);
    run.finish(&start, "go");
    run.advance();
    run.note(EventKind::Resumed);
    let again: Vec<String> = run.advance().iter().map(ToString::to_string).collect();
    assert_eq!(again, ["a#1.2", "b#1.2", "c#1.2"]);
}

#[test]
fn events_that_do_not_follow_change_nothing() {
    let mut run = ScriptedRun::of(mentor());
    let before = run.state.clone();
    let step = StepId::parse("answer").unwrap();
    let output = Output::text("");
    let (usage, timings) = (Usage::default(), Timings::default());
    let (taken, source, write) = (Vec::new(), ResultSource::Run, None);
    let kind = EventKind::StepFinished { step, output, usage, timings, taken, source, write };
    let event = |seq, kind| Event { task: before.task, seq: Seq(seq), at: Timestamp(0), kind };
    assert!(run.state.apply(&event(2, kind)).is_err());
    assert!(run.state.apply(&event(3, EventKind::Resumed)).is_err());
    assert_eq!(run.state, before);
}

#[test]
fn a_graph_that_cannot_end_is_refused() {
    let faults = |parts| Graph::new(parts).unwrap_err();
    let looped = parts("a", [("a", role(vec![to("b"), to("done")])), ("b", role(vec![to("a")]))]);
    assert_eq!(faults(looped), [GraphFault::UnboundedCycle(vec![name("a"), name("b"), name("a")])]);
    let lost = parts("a", [("a", role(vec![to("done")])), ("b", role(vec![to("done")]))]);
    assert_eq!(faults(lost), [GraphFault::Unreachable(name("b"))]);
    let trap = parts("a", [("a", role(vec![to("b")])), ("b", role(vec![Edge { at_most: Some(1), ..to("b") }]))]);
    assert_eq!(faults(trap), [GraphFault::NoPathToDone(name("a")), GraphFault::NoPathToDone(name("b"))]);
    let nowhere = parts("x", [("a", role(vec![to("b")]))]);
    let wanted =
        [GraphFault::UnknownStart(name("x")), GraphFault::UnknownTarget { node: name("a"), edge: 0, to: name("b") }];
    assert_eq!(faults(nowhere), wanted);
    let open = [
        ("s", role(vec![to("a"), to("b")])),
        ("a", role(vec![to("c")])),
        ("b", role(vec![to("c")])),
        ("c", role(vec![to("done")])),
    ];
    assert_eq!(faults(parts("s", open)), [GraphFault::MissingJoin { node: name("c"), sources: 2 }]);
}

#[test]
fn a_role_from_a_router_needs_the_router_first() {
    let from = |next| Node::new(NodeKind::Role { role: RoleRef::From(name("pick")), message: None }, next);
    let router = RouterNode { roles: vec![RoleName::parse("a").unwrap()], confidence: 0.0, ..RouterNode::default() };
    let pick = Node::new(NodeKind::Router(router), vec![to("answer")]);
    let good = parts("pick", [("pick", pick.clone()), ("answer", from(vec![to("done")]))]);
    assert!(Graph::new(good).is_ok());
    let early = parts(
        "s",
        [("s", role(vec![if_revise("answer", 1), to("pick")])), ("pick", pick), ("answer", from(vec![to("done")]))],
    );
    assert_eq!(Graph::new(early).unwrap_err(), [GraphFault::BeforeRouter { node: name("answer"), from: name("pick") }]);
}

#[test]
fn time_without_a_daemon_counts_against_no_limit() {
    let mut parts = parts("a", [("a", role(vec![to("done")]))]);
    parts.limits.time = Duration::from_secs(10);
    let mut run = ScriptedRun::of(Graph::new(parts).unwrap());
    run.advance();
    let at = |seconds: u64| Timestamp(seconds * 1000);
    assert!(matches!(decide(&run.graph, &run.state, at(10), at(10))[..], [NextAction::FailTask(_)]));
    let resumed =
        Event { task: run.state.task, seq: run.state.last_seq.next(), at: at(1000), kind: EventKind::Resumed };
    run.state.apply(&resumed).unwrap();
    assert!(!matches!(decide(&run.graph, &run.state, at(1009), at(1009))[..], [NextAction::FailTask(_)]));
    assert!(matches!(decide(&run.graph, &run.state, at(1010), at(1010))[..], [NextAction::FailTask(_)]));
}
