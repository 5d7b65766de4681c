//! Graphs run by a scripted hand: each step is started and finished as `decide` and `leave` say.

mod inner;
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::condition::{Condition, Scope};
use crate::event::{Accepted, Class, Event, Inner, Kind, Timings, Usage};
use crate::graph::{Ask, Edge, Fault, Limits, Node, Parts, RoleRef, Router, Work};
use crate::id::{CatalogVersion, GraphName, RoleName, Seq, TaskId};

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
    let work = Work::Role { role: RoleRef::Named(RoleName::parse("writer").unwrap()), message: None };
    Node::new(work, next)
}

fn joined(join: Join, next: Vec<Edge>) -> Node {
    Node { join: Some(join), ..role(next) }
}

fn parts<const N: usize>(start: &str, nodes: [(&str, Node); N]) -> Parts {
    Parts {
        name: GraphName::parse("test").unwrap(),
        description: String::new(),
        start: name(start),
        result: None,
        nodes: nodes.into_iter().map(|(n, node)| (name(n), node)).collect(),
        limits: Limits::default(),
        values: BTreeMap::new(),
        fallback: None,
    }
}

/// A task with its journal.
struct Run {
    graph: Graph,
    events: Vec<Event>,
    state: State,
    now: Timestamp,
}

impl Run {
    fn of(graph: Graph) -> Self {
        let accepted = Accepted {
            graph: graph.name().clone(),
            role: None,
            input: "hello".to_owned(),
            catalog: CatalogVersion::new("0"),
            request: None,
            class: Class::Interactive,
            labels: BTreeMap::new(),
            forked: None,
            decision: None,
        };
        let task = TaskId::new(0, [0; 10]);
        let event = Event { task, seq: Seq(1), at: Timestamp(0), kind: Kind::Accepted(accepted) };
        let state = State::begin(&event, graph.start()).unwrap();
        Self { graph, events: vec![event], state, now: Timestamp(0) }
    }

    fn note(&mut self, kind: Kind) {
        let event = Event { task: self.state.task, seq: self.state.last.next(), at: self.now, kind };
        self.state.apply(&event).unwrap();
        self.events.push(event);
    }

    /// Does what can be done, and says which steps wait for somebody to work.
    fn advance(&mut self) -> Vec<StepId> {
        let mut began = Vec::new();
        loop {
            let before = self.state.last;
            for next in decide(&self.graph, &self.state, self.now) {
                began.extend(self.perform(next));
            }
            if self.state.last == before {
                began.retain(|step| self.state.live(&step.visit).is_some_and(|live| live.inner.is_none()));
                return began;
            }
        }
    }

    fn perform(&mut self, next: Next) -> Option<StepId> {
        match next {
            Next::Start { step, trigger } => {
                let inner = self.inner(&step);
                self.note(Kind::StepStarted { step: step.clone(), trigger, role: None, inner });
                return Some(step);
            }
            Next::Finish { step, output, source } => self.finish_with(&step, output, source),
            Next::Break { step, failure } => self.fail(&step, failure),
            Next::Lapse(step) => self.fail(&step, failure(Code::NoAnswer, "late".to_owned())),
            Next::Complete { output, instead_of } => self.note(Kind::Completed { output, instead_of }),
            Next::Fail(failure) => self.note(Kind::Failed { failure }),
            Next::Wait(_) => {}
        }
        None
    }

    fn inner(&self, step: &StepId) -> Option<Inner> {
        let node = self.graph.node_of(&step.visit)?;
        let scope = self.state.scope(&step.visit.within)?;
        match (&node.each, &node.work) {
            (Some(each), _) if step.visit.item.is_none() => {
                let values = values(self.graph.inner(&step.visit.within)?, scope);
                let seen = Scope { task: &scope.task, nodes: &scope.outputs, values: &values, output: &Value::Null };
                Some(Inner::Items(each.list.items(seen).unwrap().into()))
            }
            (_, Work::Graph { graph, .. }) => {
                let input = self.state.input_of(&step.visit);
                Some(Inner::Graph { graph: graph.name().clone(), start: graph.start().clone(), input })
            }
            _ => None,
        }
    }

    fn fail(&mut self, step: &StepId, failure: Failure) {
        let took = rescue(&self.graph, &self.state, &step.visit);
        self.note(Kind::StepFailed { step: step.clone(), failure, retry_after: None, took });
    }

    fn finish(&mut self, step: &StepId, text: &str) {
        let json = serde_json::from_str(text).ok().filter(|json: &Value| json.is_object());
        self.finish_with(step, Output { text: text.to_owned(), json, role: None }, Source::Run);
    }

    fn finish_with(&mut self, step: &StepId, output: Output, source: Source) {
        match leave(&self.graph, &self.state, step, &output) {
            Ok(Way { took, wrote }) => {
                let (usage, timings) =
                    (Usage { prompt: 10, computed: 10, output: 1, ..Usage::default() }, Timings::default());
                self.note(Kind::StepFinished { step: step.clone(), output, usage, timings, took, source, wrote });
            }
            Err(way) => self.fail(step, failure(way.code(), way.to_string())),
        }
    }

    /// Runs to the end; `answer` says what each visit gives. Returns the visits in order.
    fn all(&mut self, answer: impl Fn(&Visit) -> String) -> Vec<String> {
        let (mut visits, mut running) = (Vec::new(), Vec::new());
        loop {
            let began = self.advance();
            visits.extend(began.iter().map(ToString::to_string));
            running.extend(began);
            if self.state.phase != Phase::Running {
                return visits;
            }
            assert!(!running.is_empty(), "a task that runs has something to do");
            let step = running.remove(0);
            let text = answer(&step.visit);
            self.finish(&step, &text);
        }
    }

    fn failed_with(&self) -> Code {
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
fn each_node_knows_how_far_the_end_is() {
    let nodes = [
        ("plan", role(vec![to("write")])),
        ("write", role(vec![to("check")])),
        ("check", role(vec![if_revise("write", 2), to("send")])),
        ("send", role(vec![to("done")])),
    ];
    let graph = Graph::new(parts("plan", nodes)).unwrap();
    let left = |node: &str| graph.left(&Visit { within: Vec::new(), node: name(node), number: 1, item: None });
    assert_eq!(["plan", "write", "check", "send"].map(left), [3, 2, 1, 0]);
}

#[test]
fn what_lies_ahead_is_known_through_sub_graphs_and_up_to_people() {
    let inner =
        Graph::new(parts("first", [("first", role(vec![to("second")])), ("second", role(vec![to("done")]))])).unwrap();
    let confirm = Ask { message: "Well?".to_owned(), schema: None, deadline: None, otherwise: None };
    let nodes = [
        ("plan", role(vec![to("deep")])),
        ("deep", Node::new(Work::Graph { graph: Arc::new(inner), message: None }, vec![to("check")])),
        ("check", role(vec![if_revise("plan", 2), to("confirm")])),
        ("confirm", Node::new(Work::Ask(confirm), vec![to("send")])),
        ("send", role(vec![to("done")])),
    ];
    let graph = Graph::new(parts("plan", nodes)).unwrap();
    let visit = |node: &str| Visit { within: Vec::new(), node: name(node), number: 1, item: None };
    let ahead = |visit: &Visit, most| -> Vec<String> {
        graph.ahead(visit, most).iter().map(|(steps, visit)| format!("{steps} {visit}")).collect()
    };
    let all = ["1 deep/first", "2 deep/second", "3 check", "4 plan", "4 confirm"];
    assert_eq!(ahead(&visit("plan"), 9), all);
    assert_eq!(ahead(&visit("plan"), 2), all[..2]);
    let inside = graph.ahead(&visit("plan"), 1)[0].1.clone();
    assert_eq!(ahead(&inside, 2), ["1 deep/second", "2 check"]);
    assert!(ahead(&visit("confirm"), 9).is_empty() && ahead(&visit("plan"), 0).is_empty());
}

#[test]
fn a_critic_sends_back_as_often_as_the_edge_allows() {
    let mut run = Run::of(mentor());
    let visits = run.all(|visit| if visit.node.as_str() == "check" { "revise".into() } else { visit.to_string() });
    assert_eq!(visits, ["answer", "check", "answer#2", "check#2", "answer#3", "check#3"]);
    assert!(matches!(&run.state.phase, Phase::Completed(output) if output.text == "answer#3"));
}

#[test]
fn the_way_is_certain_where_no_condition_is_left() {
    let mut run = Run::of(mentor());
    let mut ways = Vec::new();
    for text in ["first", "revise", "second", "revise", "third", "revise"] {
        let step = run.advance().remove(0);
        let edges = certain(&run.graph, &run.state, &step.visit);
        let names = edges.iter().map(|edge| edge.to.as_ref().map_or("done", NodeName::as_str));
        ways.push(format!("{} -> {}", step.visit, names.collect::<Vec<_>>().join(" ")));
        run.finish(&step, text);
    }
    let wanted =
        ["answer -> check", "check -> ", "answer#2 -> check", "check#2 -> ", "answer#3 -> check", "check#3 -> done"];
    assert_eq!(ways, wanted);
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
    let mut run = Run::of(council(Join::All, straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan"]);
    let mut run = Run::of(council(Join::Quorum(2), straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan"]);
    let mut run = Run::of(council(Join::Any, straight()));
    assert_eq!(run.all(|visit| visit.to_string()), ["start", "a", "b", "c", "plan", "plan#2", "plan#3"]);
}

#[test]
fn a_join_reads_all_that_came() {
    let mut run = Run::of(council(Join::All, straight()));
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
fn a_join_that_waits_in_vain_fails_the_task() {
    let away = Edge { when: Some(Condition::parse("output == 'c'").unwrap()), ..to("done") };
    let mut run = Run::of(council(Join::All, [vec![to("plan")], vec![to("plan")], vec![away, to("plan")]]));
    run.all(|visit| visit.node.to_string());
    assert_eq!(run.failed_with(), Code::JoinStuck);
}

#[test]
fn no_edge_fails_the_task() {
    let only = Edge { when: Some(Condition::parse("output == 'never'").unwrap()), ..to("done") };
    let mut run = Run::of(Graph::new(parts("a", [("a", role(vec![only]))])).unwrap());
    run.all(|_| "text".into());
    assert_eq!(run.failed_with(), Code::NoEdge);
}

#[test]
fn limits_end_a_task() {
    let limited = |limits| {
        let parts = Parts { limits, ..parts("a", [("a", role(vec![to("b")])), ("b", role(vec![to("done")]))]) };
        let mut run = Run::of(Graph::new(parts).unwrap());
        run.all(|_| String::new());
        run.failed_with()
    };
    assert_eq!(limited(Limits { steps: 1, ..Limits::default() }), Code::LimitSteps);
    assert_eq!(limited(Limits { tokens: 10, ..Limits::default() }), Code::LimitTokens);
    assert_eq!(limited(Limits { time: Duration::ZERO, ..Limits::default() }), Code::LimitTime);
}

#[test]
fn a_failed_attempt_waits_and_begins_anew() {
    let mut run = Run::of(mentor());
    let step = run.advance().remove(0);
    let failure = Failure { code: Code::Timeout, message: "slow".to_owned(), step: None };
    let retry_after = Some(Duration::from_secs(2));
    run.note(Kind::StepFailed { step, failure, retry_after, took: Vec::new() });
    assert_eq!(decide(&run.graph, &run.state, Timestamp(500)), [Next::Wait(Duration::from_millis(1500))]);
    let due = decide(&run.graph, &run.state, Timestamp(2000));
    assert!(matches!(&due[..], [Next::Start { step, trigger: None }] if step.to_string() == "answer#1.2"));
}

#[test]
fn a_restart_begins_running_attempts_anew() {
    let mut run = Run::of(council(Join::All, straight()));
    let start = run.advance().remove(0);
    run.finish(&start, "go");
    run.advance();
    run.note(Kind::Resumed);
    let again: Vec<String> = run.advance().iter().map(ToString::to_string).collect();
    assert_eq!(again, ["a#1.2", "b#1.2", "c#1.2"]);
}

#[test]
fn events_that_do_not_follow_change_nothing() {
    let mut run = Run::of(mentor());
    let before = run.state.clone();
    let step = StepId::parse("answer").unwrap();
    let output = Output::text("");
    let (usage, timings) = (Usage::default(), Timings::default());
    let (took, source, wrote) = (Vec::new(), Source::Run, None);
    let kind = Kind::StepFinished { step, output, usage, timings, took, source, wrote };
    let event = |seq, kind| Event { task: before.task, seq: Seq(seq), at: Timestamp(0), kind };
    assert!(run.state.apply(&event(2, kind)).is_err());
    assert!(run.state.apply(&event(3, Kind::Resumed)).is_err());
    assert_eq!(run.state, before);
}

#[test]
fn what_cannot_end_is_no_graph() {
    let faults = |parts| Graph::new(parts).unwrap_err();
    let looped = parts("a", [("a", role(vec![to("b"), to("done")])), ("b", role(vec![to("a")]))]);
    assert_eq!(faults(looped), [Fault::Unbounded(vec![name("a"), name("b"), name("a")])]);
    let lost = parts("a", [("a", role(vec![to("done")])), ("b", role(vec![to("done")]))]);
    assert_eq!(faults(lost), [Fault::Unreachable(name("b"))]);
    let trap = parts("a", [("a", role(vec![to("b")])), ("b", role(vec![Edge { at_most: Some(1), ..to("b") }]))]);
    assert_eq!(faults(trap), [Fault::NoEnd(name("a")), Fault::NoEnd(name("b"))]);
    let nowhere = parts("x", [("a", role(vec![to("b")]))]);
    let wanted = [Fault::Start(name("x")), Fault::Target { node: name("a"), edge: 0, to: name("b") }];
    assert_eq!(faults(nowhere), wanted);
    let open = [
        ("s", role(vec![to("a"), to("b")])),
        ("a", role(vec![to("c")])),
        ("b", role(vec![to("c")])),
        ("c", role(vec![to("done")])),
    ];
    assert_eq!(faults(parts("s", open)), [Fault::JoinMissing { node: name("c"), sources: 2 }]);
}

#[test]
fn a_role_from_a_router_needs_the_router_first() {
    let from = |next| Node::new(Work::Role { role: RoleRef::From(name("pick")), message: None }, next);
    let router = Router { roles: vec![RoleName::parse("a").unwrap()], confidence: 0.0, ..Router::default() };
    let pick = Node::new(Work::Router(router), vec![to("answer")]);
    let good = parts("pick", [("pick", pick.clone()), ("answer", from(vec![to("done")]))]);
    assert!(Graph::new(good).is_ok());
    let early = parts(
        "s",
        [("s", role(vec![if_revise("answer", 1), to("pick")])), ("pick", pick), ("answer", from(vec![to("done")]))],
    );
    assert_eq!(Graph::new(early).unwrap_err(), [Fault::BeforeRouter { node: name("answer"), from: name("pick") }]);
}

#[test]
fn time_without_a_daemon_counts_against_no_limit() {
    let mut parts = parts("a", [("a", role(vec![to("done")]))]);
    parts.limits.time = Duration::from_secs(10);
    let mut run = Run::of(Graph::new(parts).unwrap());
    run.advance();
    let at = |seconds: u64| Timestamp(seconds * 1000);
    assert!(matches!(decide(&run.graph, &run.state, at(10))[..], [Next::Fail(_)]));
    let resumed = Event { task: run.state.task, seq: run.state.last.next(), at: at(1000), kind: Kind::Resumed };
    run.state.apply(&resumed).unwrap();
    assert!(!matches!(decide(&run.graph, &run.state, at(1009))[..], [Next::Fail(_)]));
    assert!(matches!(decide(&run.graph, &run.state, at(1010))[..], [Next::Fail(_)]));
}
