//! Models that reason before they answer. The demo model does not: a template makes it continue a reasoning.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::submit_request::Target;
use artel_tests::{Daemon, daemon, task_request};

/// The tokens of the roles' budget: fewer than the demo model takes to say what it is asked.
const BUDGET_TOKENS: u64 = 4;
/// More than the marks that end a reasoning take.
const MAX_MARK_TOKENS: u64 = 12;

const CATALOG: &str = r#"---
model: thinking
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 1024
sequences: 2
template: "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
---
model: willing
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 1024
sequences: 2
template: "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
---
role: thinker
description: Reasons, and shows it.
model: thinking
prompt: You are a geography expert.
reasoning: {show: true, budget: 4}
sampling: {temperature: 0, max_tokens: 40}
---
role: silent
description: Reasons, and does not show it.
model: thinking
prompt: You are a geography expert.
reasoning: {budget: 4}
sampling: {temperature: 0, max_tokens: 40}
---
role: quick
description: Does not reason.
model: thinking
prompt: You are a geography expert.
reasoning: {show: true, enabled: false}
sampling: {temperature: 0, max_tokens: 24}
---
role: endless
description: Reasons until its tokens end.
model: thinking
prompt: You are a geography expert.
sampling: {temperature: 0, max_tokens: 5}
---
role: judge
description: Reasons, and judges.
model: thinking
prompt: You judge.
output: {type: object, required: [verdict], additionalProperties: false, properties: {verdict: {enum: [ship, revise]}}}
reasoning: {show: true, budget: 4}
sampling: {temperature: 0, max_tokens: 60}
---
role: plain_judge
description: May reason, and judges.
model: willing
prompt: You judge.
output: {type: object, required: [verdict], additionalProperties: false, properties: {verdict: {enum: [ship, revise]}}}
sampling: {temperature: 0, max_tokens: 60}
---
graph: pair
description: One reasons, a person reads.
start: think
nodes:
  think: {role: thinker, next: ask}
  ask: {ask: {message: "in={{ input }} text={{ nodes.think.text }} reasoning={{ nodes.think.reasoning }}", deadline: 1h}, next: done}
---
graph: hidden
description: One reasons in secret, a person reads.
start: think
nodes:
  think: {role: silent, next: ask}
  ask: {ask: {message: "reasoning={{ nodes.think.reasoning }}", deadline: 1h}, next: done}
"#;

async fn thinking_daemon() -> Daemon {
    daemon().with_yaml(CATALOG).start().await
}

/// What a role made of a question.
struct Seen {
    /// The reasoning in events.
    reasoning: String,
    /// The text in events.
    text: String,
    step: v1::StepFinished,
}

impl Seen {
    fn output(&self) -> &v1::Output {
        self.step.output.as_ref().unwrap()
    }

    fn usage(&self) -> v1::Usage {
        self.step.usage.unwrap()
    }
}

async fn run(daemon: &Daemon, role: &str, reasoning: Option<v1::ReasoningOptions>) -> Seen {
    let target = Some(Target::Role(role.to_owned()));
    let submit = v1::SubmitRequest {
        target,
        input: "What is the capital of France?".to_owned(),
        reasoning,
        ..Default::default()
    };
    let request = v1::RunRequest { submit: Some(submit), cancel_on_disconnect: false };
    let mut stream = daemon.tasks().run(request).await.unwrap().into_inner();
    let (mut reasoning, mut text, mut step) = (String::new(), String::new(), None);
    while let Some(event) = stream.message().await.unwrap() {
        match event.kind.unwrap() {
            Kind::Reasoning(more) => {
                assert_eq!((event.seq, more.offset, more.role.as_str()), (0, reasoning.len() as u64, role));
                assert!(text.is_empty(), "the reasoning comes first");
                reasoning.push_str(&more.text);
            }
            Kind::Token(token) => text.push_str(&token.text),
            Kind::StepFinished(finished) => step = Some(finished),
            Kind::Failed(failed) => panic!("{failed:?}"),
            _ => {}
        }
    }
    Seen { reasoning, text, step: step.unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reasoning_is_shown_apart_and_ends_at_its_budget() {
    let daemon = thinking_daemon().await;
    let seen = run(&daemon, "thinker", None).await;
    assert!(!seen.reasoning.is_empty() && !seen.text.is_empty());
    assert_eq!((&seen.output().reasoning, &seen.output().text), (&seen.reasoning, &seen.text));
    assert!(!seen.text.contains("think>") && !seen.reasoning.contains("think>"), "{} / {}", seen.reasoning, seen.text);
    let usage = seen.usage();
    assert!((BUDGET_TOKENS + 1..=BUDGET_TOKENS + MAX_MARK_TOKENS).contains(&usage.reasoning_tokens), "{usage:?}");
    assert!(usage.forced_tokens > 0 && usage.output_tokens > usage.reasoning_tokens, "{usage:?}");
    let secret = run(&daemon, "silent", None).await;
    assert_eq!((secret.reasoning.as_str(), secret.output().reasoning.as_str()), ("", ""));
    assert_eq!(secret.text, seen.text, "the answer is the same");
    assert_eq!(secret.usage().reasoning_tokens, usage.reasoning_tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reasoning_is_switched_off_by_the_template() {
    let daemon = thinking_daemon().await;
    let seen = run(&daemon, "quick", None).await;
    assert_eq!((seen.reasoning.as_str(), seen.usage().reasoning_tokens), ("", 0));
    assert!(seen.text.contains("Paris"), "{}", seen.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_narrows_what_its_role_allows() {
    let daemon = thinking_daemon().await;
    let off = v1::ReasoningOptions { enabled: Some(false), ..Default::default() };
    let seen = run(&daemon, "thinker", Some(off)).await;
    assert_eq!((seen.reasoning.as_str(), seen.usage().reasoning_tokens), ("", 0));
    let whole = run(&daemon, "thinker", None).await.usage().reasoning_tokens;
    let less = v1::ReasoningOptions { budget: Some(2), ..Default::default() };
    let seen = run(&daemon, "thinker", Some(less)).await;
    assert_eq!(seen.usage().reasoning_tokens, whole - 2, "{:?}", seen.usage());
    let more = v1::ReasoningOptions { show: Some(true), budget: Some(1000), enabled: Some(true) };
    let seen = run(&daemon, "silent", Some(more)).await;
    assert!(seen.usage().reasoning_tokens <= BUDGET_TOKENS + MAX_MARK_TOKENS, "{:?}", seen.usage());
    assert_eq!(seen.reasoning, "", "the role does not show it");
    let hidden = v1::ReasoningOptions { show: Some(false), ..Default::default() };
    let seen = run(&daemon, "thinker", Some(hidden)).await;
    assert_eq!((seen.reasoning.as_str(), seen.output().reasoning.as_str()), ("", ""));
    assert!(seen.usage().reasoning_tokens > BUDGET_TOKENS);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_end_a_reasoning_and_the_output_with_it() {
    let daemon = thinking_daemon().await;
    let seen = run(&daemon, "endless", None).await;
    assert_eq!((seen.text.as_str(), seen.output().finish()), ("", v1::FinishReason::Length));
    assert_eq!((seen.usage().reasoning_tokens, seen.usage().output_tokens), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_begins_behind_the_reasoning() {
    let daemon = thinking_daemon().await;
    let verdicts = [r#"{"verdict":"ship"}"#, r#"{"verdict":"revise"}"#];
    let seen = run(&daemon, "judge", None).await;
    assert!(verdicts.contains(&seen.text.replace(' ', "").as_str()), "{}", seen.text);
    assert!(!seen.reasoning.is_empty() && seen.usage().reasoning_tokens > BUDGET_TOKENS, "{:?}", seen.usage());
    // A model that does not begin to reason gives its JSON at once.
    let seen = run(&daemon, "plain_judge", None).await;
    assert!(verdicts.contains(&seen.text.replace(' ', "").as_str()), "{}", seen.text);
    assert_eq!(seen.usage().reasoning_tokens, 0);
}

async fn question(daemon: &Daemon, graph: &str) -> (String, v1::Output) {
    let request = task_request("What is the capital of France?").with_graph(graph);
    let mut stream = daemon.run(request).await;
    let Kind::StepFinished(finished) = stream.until(|kind| matches!(kind, Kind::StepFinished(_))).await else {
        panic!()
    };
    let Kind::Waiting(waiting) = stream.until(|kind| matches!(kind, Kind::Waiting(_))).await else { panic!() };
    (waiting.message, finished.output.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_node_sees_a_reasoning_only_if_it_asks() {
    let daemon = thinking_daemon().await;
    let (message, output) = question(&daemon, "pair").await;
    assert!(!output.reasoning.is_empty() && !output.text.contains(&output.reasoning));
    let v1::Output { text, reasoning, .. } = output;
    assert_eq!(message, format!("in={text} text={text} reasoning={reasoning}"));
    let (message, _) = question(&daemon, "hidden").await;
    assert!(message == "reasoning=" || message == "reasoning=none", "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_tells_the_reasoning_from_the_answer() {
    let daemon = thinking_daemon().await;
    let run = daemon.cli(["run", "--role", "thinker", "What is the capital of France?"]).run().await;
    let (0, shown, _) = run else { panic!("{run:?}") };
    assert!(shown.contains("thinker reasons │ ") && shown.contains("of reasoning"), "{shown}");
}
