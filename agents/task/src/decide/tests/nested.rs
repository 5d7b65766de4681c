//! Items, sub-graphs, questions, failures that do not end a task, values.

use std::sync::Arc;

use super::*;
use crate::condition::ListExpression;
use crate::event::{FinishReason, Nested};
use crate::graph::{AskNode, ForEach, Reducer, ReplaySafety};
use crate::id::ValueName;

fn each(list: &str, parallel: u32, node: Node) -> Node {
    Node { for_each: Some(ForEach { list: ListExpression::parse(list).unwrap(), parallel, max_items: 10_000 }), ..node }
}

fn sub(graph: &Arc<Graph>, next: Vec<Edge>) -> Node {
    Node::new(NodeKind::Graph { graph: graph.clone(), message: None }, next)
}

fn ask(deadline: Option<u64>, next: Vec<Edge>) -> Node {
    let deadline = deadline.map(Duration::from_secs);
    Node::new(NodeKind::Ask(AskNode { message: "?".to_owned(), schema: None, deadline, otherwise: None }), next)
}

/// Plans, then works on each step of the plan, then sums up.
fn mapped(parallel: u32) -> Graph {
    let nodes = [
        ("plan", role(vec![to("work")])),
        ("work", each("nodes.plan.output.steps", parallel, role(vec![to("sum")]))),
        ("sum", role(vec![to("done")])),
    ];
    Graph::new(parts("plan", nodes)).unwrap()
}

fn done(run: &ScriptedRun) -> &str {
    match &run.state.phase {
        Phase::Completed(output) => &output.text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn items_run_in_parallel_within_the_bound_and_are_collected_in_order() {
    let mut run = ScriptedRun::of(mapped(2));
    let plan = run.advance().remove(0);
    run.finish(&plan, r#"{"steps":["a","b","c"]}"#);
    let first: Vec<StepId> = run.advance();
    assert_eq!(first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["work[0]", "work[1]"]);
    assert_eq!(run.state.input_of(&first[1].visit), "b");
    run.finish(&first[1], "B");
    let third = run.advance().remove(0);
    assert_eq!(third.to_string(), "work[2]");
    run.finish(&third, "C");
    assert_eq!(run.advance(), []);
    run.finish(&first[0], "A");
    let sum = run.advance().remove(0);
    assert_eq!(run.state.input_of(&sum.visit), "A\n\nB\n\nC");
    let name = name("work");
    assert_eq!(run.state.root.outputs[&name]["output"], serde_json::json!(["A", "B", "C"]));
    run.finish(&sum, "all");
    run.advance();
    assert_eq!(done(&run), "all");
}

#[test]
fn a_list_without_items_is_done_at_once() {
    let mut run = ScriptedRun::of(mapped(2));
    let plan = run.advance().remove(0);
    run.finish(&plan, r#"{"steps":[]}"#);
    let sum = run.advance().remove(0);
    assert_eq!((sum.to_string(), run.state.input_of(&sum.visit)), ("sum".to_owned(), String::new()));
}

#[test]
fn an_item_that_fails_fails_its_node_and_one_that_is_cancelled_gives_null() {
    for (code, ended) in [(FailureCode::Timeout, false), (FailureCode::Cancelled, true)] {
        let mut run = ScriptedRun::of(mapped(3));
        let plan = run.advance().remove(0);
        run.finish(&plan, r#"{"steps":["a","b"]}"#);
        let items = run.advance();
        run.fail(&items[0], Failure::new(code, "x".to_owned()));
        if ended {
            run.finish(&items[1], "B");
        }
        let next = run.advance();
        match &run.state.phase {
            Phase::Failed(failure) => assert_eq!((failure.code, ended), (code, false)),
            _ => assert_eq!(run.state.input_of(&next[0].visit), "\n\nB"),
        }
    }
}

#[test]
fn a_list_of_ten_thousand_is_not_quadratic() {
    let mut parts = parts("a", [("a", each("[1]", 8, role(vec![to("done")])))]);
    (parts.limits.steps, parts.limits.tokens) = (100_000, 1_000_000);
    let mut run = ScriptedRun::of(Graph::new(parts).unwrap());
    // Longer than any list that an expression can hold.
    let whole = StepId::parse("a").unwrap();
    let nested = Some(Nested::Items(vec![Value::from("item"); 10_000].into()));
    run.note(EventKind::StepStarted { step: whole, trigger: Some(Trigger::Direct), role: None, nested });
    let (mut running, mut finished) = (run.advance(), 0);
    while let Some(step) = running.pop() {
        run.finish(&step, "x");
        running.extend(run.advance());
        assert!(running.len() <= 8);
        finished += 1;
    }
    assert_eq!((finished, matches!(run.state.phase, Phase::Completed(_))), (10_000, true));
    let bytes: usize = run.events.iter().map(|event| serde_json::to_string(&event.kind).unwrap().len()).sum();
    assert!(bytes < 10_000 * 600, "{} bytes an item", bytes / 10_000);
}

#[test]
fn a_sub_graph_sees_its_own_input_and_gives_its_result() {
    let inner = Arc::new(Graph::new(parts("x", [("x", role(vec![to("y")])), ("y", role(vec![to("done")]))])).unwrap());
    let outer =
        parts("a", [("a", role(vec![to("b")])), ("b", sub(&inner, vec![to("c")])), ("c", role(vec![to("done")]))]);
    let mut run = ScriptedRun::of(Graph::new(outer).unwrap());
    let visits = run.all(|visit| visit.to_string());
    assert_eq!(visits, ["a", "b/x", "b/y", "c"]);
    assert_eq!(done(&run), "c");
    assert_eq!(run.state.usage().steps, 5, "the containing step counts too");
    assert_eq!(State::replay(&run.events, run.graph.start()).as_ref(), Ok(&run.state));
}

#[test]
fn a_sub_graph_that_fails_takes_the_failure_edge_and_its_limits_are_its_own() {
    let mut small = parts("x", [("x", role(vec![to("y")])), ("y", role(vec![to("done")]))]);
    small.limits.steps = 1;
    let inner = Arc::new(Graph::new(small).unwrap());
    let rescued = Node { on_failure: Some(to("c")), ..sub(&inner, vec![to("done")]) };
    let outer = |b: Node| Graph::new(parts("b", [("b", b), ("c", role(vec![to("done")]))])).unwrap();
    let mut run = ScriptedRun::of(outer(rescued));
    assert_eq!(run.all(|visit| visit.to_string()), ["b/x", "c"]);
    assert_eq!(done(&run), "c");
    let shown = &run.state.root.outputs[&name("b")]["failure"];
    assert_eq!(shown["code"], "limit_steps");
    let lost = Graph::new(parts("b", [("b", sub(&inner, vec![to("done")]))])).unwrap();
    let mut run = ScriptedRun::of(lost);
    run.all(|visit| visit.to_string());
    assert_eq!(run.failed_with(), FailureCode::LimitSteps);
}

#[test]
fn the_limits_of_the_outer_graph_hold_inside_a_sub_graph() {
    let inner = Arc::new(Graph::new(parts("x", [("x", role(vec![to("y")])), ("y", role(vec![to("done")]))])).unwrap());
    let mut outer = parts("b", [("b", each("[1, 2, 3, 4]", 1, sub(&inner, vec![to("done")])))]);
    outer.limits.steps = 6;
    let mut run = ScriptedRun::of(Graph::new(outer).unwrap());
    run.all(|visit| visit.to_string());
    assert_eq!(run.failed_with(), FailureCode::LimitSteps);
    assert!(run.state.usage().steps <= 6);
}

#[test]
fn a_fallback_replaces_a_failure() {
    let mut falls = parts("x", [("x", role(vec![to("done")]))]);
    falls.fallback = Some("Sorry.".to_owned());
    let falls = Graph::new(falls).unwrap();
    let inner = Arc::new(falls.clone());
    let outer = Graph::new(parts("b", [("b", sub(&inner, vec![to("done")]))])).unwrap();
    for graph in [falls, outer] {
        let mut run = ScriptedRun::of(graph);
        let x = run.advance().remove(0);
        run.fail(&x, Failure::new(FailureCode::Template, "bad".to_owned()));
        run.advance();
        assert_eq!(done(&run), "Sorry.");
    }
}

#[test]
fn a_question_waits_until_its_deadline_and_the_clock_is_stopped() {
    let mut parts = parts("a", [("a", ask(Some(100), vec![to("b")])), ("b", role(vec![to("done")]))]);
    parts.limits.time = Duration::from_secs(10);
    let mut run = ScriptedRun::of(Graph::new(parts).unwrap());
    let a = run.advance().remove(0);
    let deadline = Some(Timestamp(100_000));
    run.note(EventKind::Waiting { step: a.clone(), question: "?".to_owned(), schema: None, deadline });
    assert!(run.state.is_paused());
    assert_eq!(run.state.open_questions(), std::slice::from_ref(&a));
    run.now = Timestamp(40_000);
    assert_eq!(decide(&run.graph, &run.state, run.now, run.now), [NextAction::Wait(Duration::from_secs(60))]);
    // A restart leaves the question open.
    run.note(EventKind::Resumed);
    assert_eq!(run.state.open_questions(), std::slice::from_ref(&a));
    run.now = Timestamp(99_000);
    let mut answered =
        ScriptedRun { graph: run.graph.clone(), events: run.events.clone(), state: run.state.clone(), now: run.now };
    answered.finish(&a, "yes");
    let b = answered.advance().remove(0);
    assert_eq!(answered.state.age(answered.now), Duration::ZERO);
    answered.now = Timestamp(108_000);
    answered.finish(&b, "done");
    answered.advance();
    assert_eq!(done(&answered), "done");
    run.now = Timestamp(100_000);
    assert_eq!(decide(&run.graph, &run.state, run.now, run.now), [NextAction::ExpireQuestion(a)]);
    run.advance();
    assert_eq!(run.failed_with(), FailureCode::NoAnswer);
}

#[test]
fn an_at_most_once_step_is_not_started_again_after_a_restart() {
    let once = Node { replay_safety: ReplaySafety::AtMostOnce, on_failure: Some(to("b")), ..role(vec![to("done")]) };
    let mut run = ScriptedRun::of(Graph::new(parts("a", [("a", once), ("b", role(vec![to("done")]))])).unwrap());
    run.advance();
    run.note(EventKind::Resumed);
    let b = run.advance();
    assert_eq!(b.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b"]);
    assert_eq!(run.state.root.outputs[&name("a")]["failure"]["code"], "interrupted");
}

#[test]
fn a_cancelled_step_ends_its_branch_alone() {
    let nodes = [("s", role(vec![to("a"), to("b")])), ("a", role(vec![to("done")])), ("b", role(vec![to("done")]))];
    let mut run = ScriptedRun::of(Graph::new(parts("s", nodes)).unwrap());
    let s = run.advance().remove(0);
    run.finish(&s, "go");
    let both = run.advance();
    let partial = Output { finish: Some(FinishReason::Cancelled), ..Output::text("half") };
    run.note(EventKind::StepFailed {
        step: both[1].clone(),
        failure: Failure::new(FailureCode::Cancelled, "enough".to_owned()),
        retry_after: None,
        taken: Vec::new(),
        partial: Some(Box::new(partial)),
    });
    assert_eq!(run.advance(), []);
    let shown = &run.state.root.outputs[&name("b")];
    assert_eq!(
        (&shown["text"], &shown["finish"]),
        (&Value::from("half"), &Value::from("cancelled")),
        "what it had written"
    );
    run.finish(&both[0], "a");
    run.advance();
    assert_eq!(done(&run), "a");
}

#[test]
fn branches_write_one_value() {
    let value = |text: &str| ValueName::parse(text).unwrap();
    let write = |text: &str, next| Node { write: Some(value(text)), ..role(next) };
    let nodes = [
        ("s", role(vec![to("a"), to("b"), to("c")])),
        ("a", write("notes", vec![to("j")])),
        ("b", write("notes", vec![to("j")])),
        ("c", write("facts", vec![to("j")])),
        (
            "j",
            joined(
                Join::All,
                vec![Edge { when: Some(Condition::parse("size(values.notes) == 2").unwrap()), ..to("done") }],
            ),
        ),
    ];
    let mut parts = parts("s", nodes);
    parts.values = [("notes", Reducer::Append), ("facts", Reducer::Merge), ("last", Reducer::Last)]
        .into_iter()
        .map(|(name, reducer)| (value(name), reducer))
        .collect();
    let graph = Graph::new(parts).unwrap();
    let mut run = ScriptedRun::of(graph.clone());
    run.all(|visit| if visit.node.as_str() == "c" { r#"{"k":1}"#.to_owned() } else { visit.to_string() });
    let values = scope_values(&run.graph, &run.state.root);
    assert_eq!(*values[&value("notes")], serde_json::json!(["a", "b"]));
    assert_eq!((&*values[&value("facts")], &*values[&value("last")]), (&serde_json::json!({"k": 1}), &Value::Null));
    assert_eq!(done(&run), "j");
    let mut run = ScriptedRun::of(graph);
    run.all(|visit| visit.to_string());
    assert_eq!(run.failed_with(), FailureCode::OutputInvalid);
}

#[test]
fn sub_graph_depth_is_limited_and_values_must_be_declared() {
    let mut graph = Graph::new(parts("x", [("x", role(vec![to("done")]))])).unwrap();
    for _ in 0..crate::id::MAX_DEPTH {
        graph = Graph::new(parts("x", [("x", sub(&Arc::new(graph), vec![to("done")]))])).unwrap();
    }
    let too_deep = Graph::new(parts("x", [("x", sub(&Arc::new(graph), vec![to("done")]))]));
    assert!(matches!(too_deep.unwrap_err()[..], [GraphFault::TooDeep { .. }]));
    let unknown = Node { write: ValueName::parse("v").ok(), ..role(vec![to("done")]) };
    assert!(matches!(Graph::new(parts("a", [("a", unknown)])).unwrap_err()[..], [GraphFault::UnknownValue { .. }]));
}

#[test]
fn events_of_an_older_journal_still_fold() {
    let old = [
        r#"{"kind":"accepted","graph":"test","role":null,"input":"hello","catalog":"0","request":null,"class":"interactive"}"#,
        r#"{"kind":"step_started","step":{"visit":{"node":"a","number":1},"attempt":1},"trigger":"direct","role":"writer"}"#,
        r#"{"kind":"step_failed","step":{"visit":{"node":"a","number":1},"attempt":1},"failure":{"code":"timeout","message":"slow"},"retry_after":{"secs":0,"nanos":0}}"#,
        r#"{"kind":"resumed"}"#,
        r#"{"kind":"step_started","step":{"visit":{"node":"a","number":1},"attempt":2},"trigger":null,"role":"writer"}"#,
        r#"{"kind":"step_finished","step":{"visit":{"node":"a","number":1},"attempt":2},"output":{"text":"hi","role":"writer"},"usage":{"prompt":1,"computed":1,"output":1},"timings":{"queue":{"secs":0,"nanos":0},"prefill":{"secs":0,"nanos":0},"decode":{"secs":0,"nanos":0}},"took":[{"edge":0,"to":null,"direct":true}]}"#,
        r#"{"kind":"completed","output":{"text":"hi","role":"writer"}}"#,
    ];
    let task = TaskId::new(0, [0; 10]);
    let event = |(seq, body): (u64, &str)| Event {
        task,
        seq: Seq(seq),
        at: Timestamp(0),
        kind: serde_json::from_str(body).unwrap(),
    };
    let events: Vec<Event> = (1..).zip(old).map(event).collect();
    let state = State::replay(&events, &name("a")).unwrap();
    assert!(matches!(&state.phase, Phase::Completed(output) if output.text == "hi"));
    // Absent fields are not written either.
    for (event, old) in events.iter().zip(old) {
        let again: Value = serde_json::to_value(&event.kind).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(old).unwrap());
    }
}

#[test]
fn null_is_a_value() {
    let output: Output = serde_json::from_str(r#"{"text":"null","json":null,"role":null}"#).unwrap();
    assert_eq!(output.json, Some(Value::Null));
    let none: Output = serde_json::from_str(r#"{"text":"null","role":null}"#).unwrap();
    assert_eq!(none.json, None);
    for output in [output, none] {
        let text = serde_json::to_string(&output).unwrap();
        assert_eq!(serde_json::from_str::<Output>(&text).unwrap(), output);
    }
}

#[test]
fn the_outputs_of_items_are_bounded_together() {
    let mut run = ScriptedRun::of(mapped(1));
    let plan = run.advance().remove(0);
    run.finish(&plan, r#"{"steps":["a","b"]}"#);
    let half = crate::event::MAX_ITEM_OUTPUTS_BYTES / 2;
    let first = run.advance().remove(0);
    run.finish(&first, &"x".repeat(half));
    let second = run.advance().remove(0);
    let fits = transition(&run.graph, &run.state, &second, &Output::text("y".repeat(half)));
    assert_eq!(fits, Ok(Transition::default()));
    run.finish(&second, &"y".repeat(half + 1));
    run.advance();
    assert_eq!(run.failed_with(), FailureCode::OutputInvalid);
}

#[test]
fn a_value_that_grows_on_each_visit_is_bounded() {
    let notes = ValueName::parse("notes").unwrap();
    let again = Edge { when: Some(Condition::parse("task.id != ''").unwrap()), at_most: Some(9), ..to("a") };
    let mut parts = parts("a", [("a", Node { write: Some(notes.clone()), ..role(vec![again, to("done")]) })]);
    parts.values = [(notes, Reducer::Append)].into();
    let mut run = ScriptedRun::of(Graph::new(parts).unwrap());
    let limit = crate::event::MAX_ITEM_OUTPUTS_BYTES;
    for _ in 0..2 {
        let step = run.advance().remove(0);
        run.finish(&step, &"x".repeat(limit / 2 - 100));
    }
    let third = run.advance().remove(0);
    let refused = transition(&run.graph, &run.state, &third, &Output::text("x".repeat(limit / 2))).unwrap_err();
    let reason = refused.to_string();
    let names_both = reason.contains("value `notes` takes") && reason.contains(&format!("the limit is {limit}"));
    assert!(names_both, "{reason}");
    run.finish(&third, &"x".repeat(limit / 2));
    run.advance();
    assert_eq!(run.failed_with(), FailureCode::OutputInvalid);
}
