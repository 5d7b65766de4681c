//! The graph language, from outside: questions to people, items, forks.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{SCRIPTED_CATALOG, model_script};
use artel_tests::{Daemon, daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use tonic_types::StatusExt as _;

const GRAPHS: &str = "---
graph: confirmed
description: A person has the last word.
start: say
nodes:
  say: {role: brief, next: confirm}
  confirm:
    ask: {message: 'Ship {{ nodes.say.text }}?', output: {enum: ['yes', 'no']}, deadline: 1h}
    next: done
---
graph: spelled
description: One step for each item, then a person.
start: each
result: each
nodes:
  each: {role: brief, for_each: '[\"one\", \"two\", \"three\"]', message: 'Say {{ item }}.', next: done}
---
graph: hurried
description: No answer comes in time.
start: confirm
nodes:
  confirm: {ask: {message: 'Well?', deadline: 1s}, next: done}
";

async fn daemon_with_graphs() -> Daemon {
    daemon().with_yaml(&format!("{}{GRAPHS}", test_catalog())).start().await
}

async fn answer(daemon: &Daemon, id: &str, text: &str) -> Result<v1::Task, tonic::Status> {
    let answer = Some(v1::answer_request::Answer::Text(text.to_owned()));
    let request = v1::AnswerRequest { task_id: id.to_owned(), step_id: String::new(), answer };
    daemon.tasks().answer(request).await.map(tonic::Response::into_inner)
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_person_survives_a_kill_and_takes_the_answer() {
    let daemon = daemon_with_graphs().await;
    let mut run = daemon.run(task_request("Hello").with_graph("confirmed")).await;
    let Kind::Waiting(waiting) = run.until(|kind| matches!(kind, Kind::Waiting(_))).await else { panic!() };
    assert!(
        waiting.message.starts_with("Ship ") && waiting.schema.is_some() && waiting.deadline.is_some(),
        "{waiting:?}"
    );
    assert_eq!(daemon.task(&run.id).await.state(), v1::TaskState::Waiting);
    let (id, last_seq) = (run.id.clone(), run.last_seq());
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    let task = daemon.task(&id).await;
    assert_eq!((task.state(), task.steps.last().unwrap().state()), (v1::TaskState::Waiting, v1::StepState::Waiting));
    let invalid = answer(&daemon, &id, "perhaps").await.unwrap_err();
    assert_eq!((invalid.code(), reason(&invalid)), (tonic::Code::InvalidArgument, "BAD_REQUEST".to_owned()));
    answer(&daemon, &id, "yes").await.unwrap();
    let repeated = answer(&daemon, &id, "yes").await.unwrap_err();
    assert_eq!((repeated.code(), reason(&repeated)), (tonic::Code::FailedPrecondition, "NOT_WAITING".to_owned()));
    let mut rest = daemon.watch(&id, last_seq).await;
    assert_eq!(rest.end().await.text(), "yes");
    let seqs = rest.seqs();
    assert_eq!(seqs, (last_seq + 1..=last_seq + seqs.len() as u64).collect::<Vec<_>>());
    let confirmed = daemon.task(&id).await.steps.into_iter().find(|step| step.node == "confirm").unwrap();
    assert_eq!(confirmed.source(), v1::ResultSource::Person);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_refused() {
    let daemon = daemon_with_graphs().await;
    let mut run = daemon.run(task_request("Hello").with_graph("hurried")).await;
    let artel_tests::TaskOutcome::Failed(code, message) = run.end().await else { panic!("no answer came") };
    assert_eq!((code, message.contains("confirm")), (v1::FailureCode::NoAnswer, true), "{message}");
    let late = answer(&daemon, &run.id, "yes").await.unwrap_err();
    assert_eq!(reason(&late), "NOT_WAITING");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_steps_of_their_own_and_the_command_line_shows_answers_and_forks() {
    let daemon = daemon_with_graphs().await;
    let mut run = daemon.run(task_request("Hello").with_graph("spelled")).await;
    run.end().await.text();
    let task = daemon.task(&run.id).await;
    let mut items: Vec<Option<u32>> = task.steps.iter().map(|step| step.item).collect();
    items.sort();
    assert_eq!(items, [None, Some(0), Some(1), Some(2)]);
    let (code, out, _) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert!(code == 0 && out.contains("item 2"), "{out}");

    let mut run = daemon.run(task_request("Hello").with_graph("confirmed")).await;
    run.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let (code, out, err) = daemon.cli(["task", "answer"]).arg(&run.id).arg("no").run().await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(run.end().await.text(), "no");
    let (code, out, _) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert!(code == 0 && out.contains("answered by a person"), "{out}");
    let (code, _, err) = daemon.cli(["task", "answer"]).arg(&run.id).arg("no").run().await;
    assert!(code != 0 && err.contains("waits"), "{err}");
    let (code, fork, err) = daemon.cli(["task", "fork", "--from", "confirm"]).arg(&run.id).run().await;
    assert_eq!(code, 0, "{err}");
    let fork = fork.trim().to_owned();
    let mut forked = daemon.watch(&fork, 0).await;
    forked.until(|kind| matches!(kind, Kind::Waiting(_))).await;
    let (code, _, err) = daemon.cli(["task", "cancel", "--step", "confirm"]).arg(&fork).run().await;
    assert_eq!(code, 0, "{err}");
    let artel_tests::TaskOutcome::Failed(code, _) = forked.end().await else { panic!("its only branch was cancelled") };
    let task = daemon.task(&fork).await;
    assert_eq!((code, task.forked_from_task_id.as_str()), (v1::FailureCode::Cancelled, run.id.as_str()));
}

/// The finished steps of a node: of its items, and the one of the node as a whole.
fn steps<'t>(task: &'t v1::Task, node: &str) -> Vec<&'t v1::Step> {
    task.steps.iter().filter(|step| step.node == node && step.state() == v1::StepState::Finished).collect()
}

fn json(answer: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind as K;
    let field = |(key, value): (&String, &serde_json::Value)| {
        let text = value.as_str().expect("answers here are objects of texts").to_owned();
        (key.clone(), prost_types::Value { kind: Some(K::StringValue(text)) })
    };
    let fields = answer.as_object().unwrap().iter().map(field).collect();
    prost_types::Value { kind: Some(K::StructValue(prost_types::Struct { fields })) }
}

/// The shipped graph with the demo model: the texts differ between machines, the sequence of steps does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_path_leads_from_a_goal_over_experts_to_a_plan_that_a_person_confirms() {
    let daemon = daemon().start().await;
    let mut run =
        daemon.run(task_request("Answer our customers with a small model of our own.").with_graph("path")).await;
    for verdict in
        [serde_json::json!({"verdict": "revise", "reason": "Shorter."}), serde_json::json!({"verdict": "accept"})]
    {
        let Kind::Waiting(waiting) = run.until(|kind| matches!(kind, Kind::Waiting(_))).await else { panic!() };
        let task = daemon.task(&run.id).await;
        assert_eq!((waiting.node.as_str(), task.state()), ("confirm", v1::TaskState::Waiting));
        let plan = steps(&task, "plan").last().unwrap().output.as_ref().unwrap().text.clone();
        assert!(!plan.is_empty() && waiting.message.contains(&plan), "{waiting:?}");
        let answer = Some(v1::answer_request::Answer::Json(json(&verdict)));
        let request = v1::AnswerRequest { task_id: run.id.clone(), step_id: waiting.step_id, answer };
        daemon.tasks().answer(request).await.unwrap();
    }
    let result = run.end().await.text();
    let task = daemon.task(&run.id).await;
    let [split] = steps(&task, "split")[..] else { panic!("{task:?}") };
    let plan_steps: serde_json::Value = serde_json::from_str(&split.output.as_ref().unwrap().text).unwrap();
    let plan_steps = plan_steps["steps"].as_array().unwrap();
    let fits = |step: &serde_json::Value| (8..=120).contains(&step.as_str().unwrap().chars().count());
    assert!((2..=5).contains(&plan_steps.len()) && plan_steps.iter().all(fits), "{plan_steps:?}");
    let (route, advise) = (steps(&task, "route"), steps(&task, "advise"));
    for item in 0..plan_steps.len() as u32 {
        let of = |steps: &[&v1::Step]| steps.iter().find(|step| step.item == Some(item)).copied().cloned().unwrap();
        let (routed, advised) = (of(&route), of(&advise));
        assert_eq!(routed.output.unwrap().text, plan_steps[item as usize].as_str().unwrap());
        assert_eq!(routed.decision.unwrap().role, advised.role, "each step goes to the expert that was chosen for it");
    }
    assert_eq!(
        (route.len(), advise.len()),
        (plan_steps.len() + 1, plan_steps.len() + 1),
        "each item once, and the node as a whole"
    );
    let (plans, answers) = (steps(&task, "plan"), steps(&task, "confirm"));
    assert_eq!((plans.len(), answers.len()), (2, 2));
    assert!(answers.iter().all(|answer| answer.source() == v1::ResultSource::Person), "{answers:?}");
    assert_eq!((task.state(), result), (v1::TaskState::Completed, plans[1].output.as_ref().unwrap().text.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_of_a_successor_is_prefilled_while_its_predecessor_decodes() {
    let chain = "---
role: teller
description: Tells.
model: smollm2
prompt: You tell long stories in plain words.
sampling: {temperature: 0, max_tokens: 128}
---
role: listener
description: Listens.
model: smollm2
prompt: You say in one word what a story is about.
sampling: {temperature: 0, max_tokens: 2}
---
graph: told
description: The listener reads what the teller writes.
start: tell
nodes:
  tell: {role: teller, next: listen}
  listen: {role: listener, message: 'A story: {{ nodes.tell.text }} That was it.', next: done}
";
    let daemon = daemon().with_yaml(chain).start().await;
    let mut run =
        daemon.run(task_request("Tell me a long story about a ship and its captain.").with_graph("told")).await;
    let mut finished = async || {
        let Kind::StepFinished(step) = run.until(|kind| matches!(kind, Kind::StepFinished(_))).await else { panic!() };
        step.usage.unwrap()
    };
    let (teller, listener) = (finished().await, finished().await);
    assert!(teller.output_tokens > 64, "{teller:?}");
    // Without speculative prefill, all of the story would be computed after its end.
    assert!(listener.prefill_tokens < teller.output_tokens / 2, "{teller:?} {listener:?}");
}

const ENDS: &str = "---
role: cut
description: Is cut after a few tokens.
model: talk
prompt: You sail.
sampling: {max_tokens: 3}
---
role: halted
description: Ends at a space.
model: talk
prompt: You sail.
sampling: {stop: [' ']}
---
graph: ends
description: Goes on where an output was cut.
start: first
nodes:
  first: {role: cut, next: [{to: second, when: 'nodes.first.finish == \"length\"'}, {to: done}]}
  second: {role: halted, message: one two, next: [{to: third, when: 'nodes.second.finish == \"stop_text\"'}, {to: done}]}
  third: {role: sailor, message: '{{ nodes.first.finish }} {{ nodes.second.finish }}', next: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_an_end_is_told_and_decides_on_edges() {
    let yaml = format!("{SCRIPTED_CATALOG}{ENDS}");
    let daemon = daemon().with_yaml(&yaml).with_failpoints(&model_script()).start().await;
    let mut run = daemon.run(task_request("Hello").with_graph("ends")).await;
    assert_eq!(run.end().await.text(), "<length stop_text>");
    let task = daemon.task(&run.id).await;
    let outputs: Vec<_> = task.steps.iter().map(|step| step.output.as_ref().unwrap()).collect();
    let expected = [
        ("<He", v1::FinishReason::Length),
        ("<one", v1::FinishReason::StopText),
        ("<length stop_text>", v1::FinishReason::Stop),
    ];
    assert_eq!(outputs.iter().map(|output| (output.text.as_str(), output.finish())).collect::<Vec<_>>(), expected);
    let (code, out, err) = daemon.cli(["task", "show"]).arg(&run.id).run().await;
    assert_eq!((code, out.matches("cut at max_tokens").count()), (0, 1), "{out}{err}");
}
