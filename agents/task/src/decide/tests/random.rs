//! Random graphs and random orders of events: every run ends within its limits and replays to the same state.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::condition::ListExpression;
use crate::graph::{ForEach, ReplaySafety};

#[derive(Debug, Clone)]
struct NodeSketch {
    edges: Vec<(usize, Option<u32>, bool)>,
    join: u32,
    on_failure: Option<usize>,
    kind: u8,
    once: bool,
}

fn sketch() -> impl Strategy<Value = NodeSketch> {
    let edges = prop::collection::vec((0..7usize, prop::option::of(1..3u32), any::<bool>()), 1..4);
    (edges, 0..4u32, prop::option::weighted(0.2, 0..7usize), 0..8u8, any::<bool>())
        .prop_map(|(edges, join, on_failure, kind, once)| NodeSketch { edges, join, on_failure, kind, once })
}

/// Random graphs, most of which are refused. A few nodes have items or run a sub-graph.
fn graph(inner: Option<Arc<Graph>>) -> impl Strategy<Value = Option<Graph>> {
    prop::collection::vec(sketch(), 6).prop_map(move |sketches| {
        let names = ["a", "b", "c", "d", "e", "f", "done"];
        let edge = |(target, at_most, conditional): &(usize, Option<u32>, bool)| Edge {
            when: conditional.then(|| Condition::parse("size(string(output)) % 2 == 0").unwrap()),
            at_most: *at_most,
            ..to(names[*target])
        };
        let node = |sketch: &NodeSketch| {
            let next = sketch.edges.iter().map(edge).collect();
            let mut node = match (&inner, sketch.kind) {
                (Some(inner), 0 | 1) => Node::new(NodeKind::Graph { graph: inner.clone(), message: None }, next),
                _ => role(next),
            };
            if matches!(sketch.kind, 1 | 2) {
                node.for_each = Some(ForEach {
                    list: ListExpression::parse("['x', 'yy', 'zzz']").unwrap(),
                    parallel: 2,
                    max_items: 9,
                });
            }
            node.join = [None, Some(Join::All), Some(Join::Any), Some(Join::Quorum(1))][sketch.join as usize];
            node.on_failure = sketch.on_failure.map(|target| Edge { at_most: Some(1), ..to(names[target]) });
            node.replay_safety = if sketch.once { ReplaySafety::AtMostOnce } else { ReplaySafety::Pure };
            node
        };
        let nodes = sketches.iter().zip(names).map(|(sketch, n)| (name(n), node(sketch))).collect();
        Graph::new(GraphParts { nodes, ..parts("a", []) }).ok()
    })
}

/// Graphs, some with sub-graphs.
fn nested() -> impl Strategy<Value = Graph> {
    let inner =
        prop::collection::vec(graph(None), 24).prop_map(|found| found.into_iter().flatten().next().map(Arc::new));
    inner
        .prop_flat_map(|inner| prop::collection::vec(graph(inner), 24))
        .prop_filter_map("no graph", |found| found.into_iter().flatten().next())
}

/// The next outcome of one of the running steps.
#[derive(Debug, Clone, Copy)]
enum RandomOutcome {
    Finish(usize),
    Retry,
    Fail,
    Cancel,
    Restart,
    SetAside,
}

fn outcome() -> impl Strategy<Value = (prop::sample::Index, RandomOutcome)> {
    let outcome = prop_oneof![
        12 => (0..5usize).prop_map(RandomOutcome::Finish),
        2 => Just(RandomOutcome::Retry),
        1 => Just(RandomOutcome::Fail),
        1 => Just(RandomOutcome::Cancel),
        1 => Just(RandomOutcome::Restart),
        1 => Just(RandomOutcome::SetAside),
    ];
    (any::<prop::sample::Index>(), outcome)
}

impl ScriptedRun {
    fn outcome(&mut self, running: &mut Vec<StepId>, index: prop::sample::Index, outcome: RandomOutcome) {
        let step = running.remove(index.index(running.len()));
        match outcome {
            RandomOutcome::Finish(length) => self.finish(&step, &"x".repeat(length)),
            RandomOutcome::Retry => {
                let (failure, retry_after) = (Failure::new(FailureCode::Timeout, String::new()), Some(Duration::ZERO));
                self.note(EventKind::StepFailed { step, failure, retry_after, taken: Vec::new(), partial: None });
            }
            RandomOutcome::Fail => self.fail(&step, Failure::new(FailureCode::Template, String::new())),
            RandomOutcome::Cancel => self.fail(&step, Failure::new(FailureCode::Cancelled, String::new())),
            RandomOutcome::Restart => {
                running.clear();
                self.note(EventKind::Resumed);
            }
            RandomOutcome::SetAside => {
                running.clear();
                self.note(EventKind::SetAside { reason: "it stalls".to_owned() });
                assert_eq!(decide(&self.graph, &self.state, self.now, self.now), []);
                self.note(EventKind::Resumed);
            }
        }
    }
}

/// A round of a join needs an arrival from each of its sources, or from its quorum.
fn joins_fire_once(graph: &Graph, events: &[Event]) {
    let mut arrived: BTreeMap<(Vec<PathSegment>, NodeName), BTreeMap<NodeName, usize>> = BTreeMap::new();
    let mut fired: BTreeMap<(Vec<PathSegment>, NodeName), usize> = BTreeMap::new();
    for event in events {
        match &event.kind {
            EventKind::StepStarted { step, trigger: Some(Trigger::Round), .. } => {
                let at = (step.visit.parents.clone(), step.visit.node.clone());
                let rounds = fired.entry(at.clone()).or_default();
                *rounds += 1;
                let arrivals = arrived[&at].values().filter(|n| **n >= *rounds).count();
                let inner = graph.subgraph(&step.visit.parents).unwrap();
                let required = match inner.node(&step.visit.node).unwrap().join {
                    Some(Join::All) => inner.sources(&step.visit.node).unwrap().len(),
                    Some(Join::Quorum(n)) => n as usize,
                    other => panic!("{other:?} has no rounds"),
                };
                assert!(arrivals >= required, "{step} started with {arrivals} of {required}");
            }
            EventKind::StepStarted { step, .. } if step.attempt > 1 => {
                // A run that starts again has no arrivals.
                arrived.retain(|(parents, _), _| !parents.starts_with(&step.visit.child_path()));
                fired.retain(|(parents, _), _| !parents.starts_with(&step.visit.child_path()));
            }
            EventKind::StepFinished { step, taken, .. } | EventKind::StepFailed { step, taken, .. } => {
                for to in taken.iter().filter(|edge| !edge.direct).filter_map(|edge| edge.to.clone()) {
                    let at = arrived.entry((step.visit.parents.clone(), to)).or_default();
                    *at.entry(step.visit.node.clone()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn every_run_of_every_graph_ends_within_its_limits_and_replays(
        graph in nested(),
        outcomes in prop::collection::vec(outcome(), 1..40),
    ) {
        let mut run = ScriptedRun::of(graph);
        let (mut running, mut outcomes) = (Vec::new(), outcomes.into_iter().cycle());
        let mut left = 2000;
        loop {
            running.extend(run.advance());
            running.retain(|step: &StepId| run.state.active_visit(&step.visit).is_some_and(|active| active.attempt == step.attempt));
            if run.state.phase != Phase::Running {
                break;
            }
            prop_assert!(!running.is_empty(), "a running task has a running step");
            let (index, outcome) = outcomes.next().unwrap();
            left -= 1;
            // The task runner bounds the retries of a step; here only the step limit does.
            run.outcome(&mut running, index, if left > 0 { outcome } else { RandomOutcome::Finish(1) });
        }
        prop_assert!(run.state.usage().steps <= run.graph.limits().steps);
        joins_fire_once(&run.graph, &run.events);
        let again = State::replay(&run.events, run.graph.start());
        prop_assert_eq!(again.as_ref(), Ok(&run.state));
    }
}

#[test]
fn a_graph_of_a_thousand_nodes_finishes() {
    let called = |n: usize| format!("n{n}");
    let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
    // A fan of 499 that meets, and a chain of 500.
    let fan = (1..500).map(|n| to(&called(n))).collect();
    nodes.insert(name("n0"), role(fan));
    for n in 1..500 {
        nodes.insert(name(&called(n)), role(vec![to("n500")]));
    }
    for n in 500..1000 {
        let next = if n == 999 { "done".to_owned() } else { called(n + 1) };
        let even = Edge { when: Some(Condition::parse("nodes.n0.text == 'never'").unwrap()), ..to("done") };
        nodes.insert(name(&called(n)), role(vec![even, to(&next)]));
    }
    nodes.get_mut("n500").unwrap().join = Some(Join::All);
    let limits = GraphLimits { steps: 2000, tokens: 100_000, ..GraphLimits::default() };
    let mut run = ScriptedRun::of(Graph::new(GraphParts { nodes, limits, ..parts("n0", []) }).unwrap());
    assert_eq!(run.all(|visit| visit.to_string()).len(), 1000);
    assert!(matches!(&run.state.phase, Phase::Completed(output) if output.text == "n999"));
}
