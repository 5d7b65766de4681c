//! Conversations that callers bring: what a role makes of them, and what a graph does.

use artel_proto::v1;
use artel_tests::{Daemon, TaskRequest, daemon, task_request, test_catalog};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

/// A model that repeats its whole prompt, a line after the other.
const CATALOG: &str = r#"
model: talk
file: talk.script
---
model: minilm
file: talk.script
use: embedding
---
role: plain
description: Continues.
model: talk
prompt: You talk.
---
role: framed
description: Frames each question.
model: talk
prompt: You talk.
message: "Q: {{ task.input }}"
---
role: placed
description: Places the turns itself.
model: talk
prompt: "You talk.{% for turn in history %} {{ turn.role }}={{ turn.content }}{% endfor %}"
---
role: closed
description: Takes no instructions.
model: talk
prompt: You talk.
caller_system: false
---
graph: pair
description: One that sees the history, and one that does not.
start: first
nodes:
  first: {role: placed, next: second}
  second: {role: plain, message: "{{ input }} + {{ task.input }}", next: done}
"#;

fn script() -> Value {
    json!({"replies": [{"say": "{prompt}"}]})
}

async fn talking_daemon() -> Daemon {
    daemon().with_yaml(CATALOG).with_failpoints(&script()).start().await
}

fn message(role: v1::ChatRole, text: &str) -> v1::ChatMessage {
    v1::ChatMessage { role: role.into(), text: text.to_owned(), ..v1::ChatMessage::default() }
}

fn conversation() -> Vec<v1::ChatMessage> {
    vec![
        message(v1::ChatRole::System, "Be brief."),
        message(v1::ChatRole::User, "Hi"),
        message(v1::ChatRole::Assistant, "Hello."),
        message(v1::ChatRole::User, "How are you?"),
    ]
}

fn request(messages: Vec<v1::ChatMessage>) -> TaskRequest {
    task_request("").with_messages(messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_continues_a_conversation_with_its_own_prompt_first() {
    let daemon = talking_daemon().await;
    for (role, prompt) in [
        ("plain", "You talk. /  / Be brief. / Hi / Hello. / How are you?"),
        ("framed", "You talk. /  / Be brief. / Q: Hi / Hello. / Q: How are you?"),
        ("placed", "You talk. system=Be brief. user=Hi assistant=Hello. / How are you?"),
    ] {
        let mut run = daemon.run(request(conversation()).with_role(role)).await;
        assert_eq!(run.end().await.text(), prompt, "{role}");
        assert_eq!(daemon.task(&run.id).await.input, "How are you?");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_their_results_are_turns() {
    let daemon = talking_daemon().await;
    let call = v1::ToolCall { id: "c1".to_owned(), name: "add".to_owned(), arguments: "{\"a\": 2}".to_owned() };
    let calling = v1::ChatMessage { calls: vec![call], ..message(v1::ChatRole::Assistant, "I add.") };
    let result = v1::ChatMessage { call_id: "c1".to_owned(), ..message(v1::ChatRole::Tool, " 4\n") };
    let turns = [conversation(), vec![calling.clone(), result.clone()]].concat();
    let mut run = daemon.run(request(turns).with_role("plain")).await;
    assert_eq!(run.end().await.text(), "You talk. /  / Be brief. / Hi / Hello. / How are you? / I add. /  4");
    let early = [conversation(), vec![result, calling]].concat();
    let refused = daemon.submit(request(early).with_role("plain")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("messages[4]: is the result of call `c1`"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_answers_the_last_turn_and_its_templates_read_those_before() {
    let daemon = talking_daemon().await;
    let mut run = daemon.run(request(conversation()).with_graph("pair")).await;
    let first = "You talk. system=Be brief. user=Hi assistant=Hello. / How are you?";
    assert_eq!(run.end().await.text(), format!("You talk. / {first} + How are you?"));
    let open = [conversation(), vec![message(v1::ChatRole::Assistant, "Well")]].concat();
    let refused = daemon.submit(request(open).with_graph("pair")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("messages: must end with one of the user"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_does_not_take_is_refused_in_words() {
    let daemon = talking_daemon().await;
    let refused = daemon.submit(request(conversation()).with_role("closed")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("its `caller_system` is false"), "{}", refused.message());
    let mut run = daemon.run(request(conversation()[1..].to_vec()).with_role("closed")).await;
    assert_eq!(run.end().await.text(), "You talk. / Hi / Hello. / How are you?");
    let both = task_request("Hi").with_messages(conversation()).with_role("plain");
    let refused = daemon.submit(both).await.unwrap_err();
    assert!(refused.message().contains("is given beside `input`"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_the_conversation_too_and_a_restart_keeps_it() {
    let daemon = talking_daemon().await;
    let of = |messages| request(messages).with_role("plain").with_request_id("one");
    let task = daemon.submit(of(conversation())).await.unwrap();
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.restart().await;
    assert_eq!(daemon.submit(of(conversation())).await.unwrap().id, task.id);
    let other = daemon.submit(of(conversation()[1..].to_vec())).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let again = v1::ForkRequest { task_id: task.id.clone(), ..v1::ForkRequest::default() };
    let fork = daemon.tasks().fork(again).await.unwrap().into_inner();
    let text = daemon.watch(&fork.id, 0).await.end().await.text();
    assert_eq!(text, "You talk. /  / Be brief. / Hi / Hello. / How are you?");
}

/// The turns of one client with a real model: each prompt begins as the one before it went on.
#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_turn_computes_its_new_tokens_alone() {
    /// Tokens of an answer and of the question around it, with the marks of the template, and what is computed of a batch again.
    const MAX_NEW_TOKENS: u64 = 80;
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let long =
        "The river Rhine flows from the Alps to the North Sea, through six countries and past many castles. ".repeat(6);
    let mut messages = Vec::new();
    let mut last = v1::Usage::default();
    for turn in 0..5 {
        let text = format!("{long} Which number is this? {turn}");
        messages.push(message(v1::ChatRole::User, &text));
        let mut run = daemon.run(request(messages.clone()).with_role("short")).await;
        let answer = run.end().await.text();
        messages.push(message(v1::ChatRole::Assistant, &answer));
        let usage = daemon.task(&run.id).await.usage.unwrap();
        println!("turn {}: {usage:?}", turn + 1);
        if turn > 0 {
            let new = usage.prompt_tokens - last.prompt_tokens;
            assert!(usage.prefill_tokens <= new + MAX_NEW_TOKENS, "turn {turn}: {usage:?} after {last:?}");
            assert!(usage.cached_tokens > 100, "turn {turn}: {usage:?}");
        }
        last = usage;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_a_cancellation_is_kept() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut run = daemon.run(task_request("Tell a long story.").with_role("teller")).await;
    run.until_token().await;
    let step = daemon.task(&run.id).await.steps[0].id.clone();
    let cancelled = daemon.cancel(&run.id).await;
    run.end().await;
    let streamed = run.tokens(&step);
    let kept = cancelled.steps[0].output.clone().unwrap();
    assert_eq!(kept.finish(), v1::FinishReason::Cancelled);
    assert!(!kept.text.is_empty() && streamed.starts_with(&kept.text), "{kept:?} of {streamed:?}");
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.restart().await;
    assert_eq!(daemon.task(&run.id).await.steps[0].output, Some(kept));
}

/// A client that comes late reads everything that was written, from the first token on.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_watcher_reads_the_answer_from_its_first_token() {
    let daemon = daemon().with_yaml(&test_catalog()).start().await;
    let mut run = daemon.run(task_request("Tell a long story.").with_role("teller")).await;
    run.until_token().await;
    run.until_token().await;
    let step = daemon.task(&run.id).await.steps[0].id.clone();
    let mut late = daemon.watch(&run.id, 0).await;
    late.until_token().await;
    late.until_token().await;
    daemon.cancel(&run.id).await;
    run.end().await;
    late.end().await;
    let (whole, late) = (run.tokens(&step), late.tokens(&step));
    let common = whole.len().min(late.len());
    assert!(common > 0 && whole[..common] == late[..common], "{whole:?} and {late:?}");
}
