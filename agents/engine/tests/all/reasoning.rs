//! Reasoning before an answer: told apart, counted, ended at its budget, and without effect on schemas, stop texts and drafts.

use std::sync::Arc;

use artel_chat::ReasoningPhase;
use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_engine::{
    CallDelta, Chunk, DraftMode, EngineHandle, FinishReason, FinishSummary, Options, ReasoningParams, Request, ToolSet,
};
use artel_model::Tool;
use serde_json::json;

use crate::requests::ask;

const LIMITS: EngineLimits = EngineLimits {
    context_tokens: 512,
    sequences: 2,
    batch_tokens: 32,
    prefill_multiple: 1,
    can_truncate_kv: true,
    can_shift: false,
};

/// An engine whose replies begin in this phase.
async fn engine(draft_mode: DraftMode, phase: ReasoningPhase, reply: &'static str) -> EngineHandle {
    let model = ScriptedBackend::new(LIMITS, move |_| reply.to_owned()).with_reasoning("<think>", "</think>", phase);
    EngineHandle::spawn("test", Options { draft_mode, ..Options::default() }, || Ok(model)).await.unwrap()
}

/// Reasoning, answer and end of an output.
async fn both(engine: &EngineHandle, request: Request) -> (String, String, FinishSummary) {
    let (mut reasoning, mut text) = (String::new(), String::new());
    let mut stream = engine.generate(request).await.unwrap();
    loop {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Reasoning { text: more, .. } => {
                assert!(text.is_empty(), "the reasoning comes first");
                reasoning.push_str(&more);
            }
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Finished(finish) => return (reasoning, text, finish),
            Chunk::Failed(error) => panic!("{error}"),
            Chunk::Calls(_) => panic!("there are no tools"),
            Chunk::Prefill { .. } | Chunk::Scores(_) => {}
        }
    }
}

fn budget(tokens: u32) -> ReasoningParams {
    ReasoningParams { budget: Some(tokens), ..ReasoningParams::default() }
}

#[tokio::test]
async fn a_reasoning_is_told_apart_and_counted() {
    let inside = engine(DraftMode::Never, ReasoningPhase::Inside, "Is 1 < 2?</think>\n\nYes.").await;
    let (reasoning, text, finish) = both(&inside, ask("go")).await;
    assert_eq!((reasoning.as_str(), text.as_str(), finish.reason), ("Is 1 < 2?", "Yes.", FinishReason::Stop));
    assert_eq!(finish.usage.reasoning, "Is 1 < 2?</think>".len() as u32);
    assert_eq!(finish.usage.output, "Is 1 < 2?</think>\n\nYes.".len() as u32);
    let before = engine(DraftMode::Never, ReasoningPhase::Before, "<think>Hm.</think>No.").await;
    let (reasoning, text, _) = both(&before, ask("go")).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("Hm.", "No."));
    let none = engine(DraftMode::Never, ReasoningPhase::Before, "<b>No</b>, 1 < 2 <think>").await;
    let (reasoning, text, finish) = both(&none, ask("go")).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("", "<b>No</b>, 1 < 2 <think>"));
    assert_eq!(finish.usage.reasoning, 0);
}

#[tokio::test]
async fn its_end_is_forced_at_the_budget() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, "abcdefghij, and so on.").await;
    let (reasoning, text, finish) = both(&engine, Request { reasoning: budget(4), ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("abcd", "efghij, and so on."));
    let close = "</think>".len() as u32;
    assert_eq!((finish.usage.reasoning, finish.usage.forced), (4 + close, close));
    let (reasoning, text, finish) = both(&engine, Request { reasoning: budget(0), ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("", "abcdefghij, and so on."));
    assert_eq!(finish.usage.reasoning, close);
    let off = ReasoningParams { is_enabled: false, ..ReasoningParams::default() };
    let (reasoning, _, _) = both(&engine, Request { reasoning: off, ..ask("go") }).await;
    assert_eq!(reasoning, "");
}

#[tokio::test]
async fn the_budget_does_not_cut_a_mark_that_has_begun() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, "ab</think>c").await;
    let (reasoning, text, finish) = both(&engine, Request { reasoning: budget(5), ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str(), finish.usage.forced), ("ab", "c", 0));
}

#[tokio::test]
async fn max_tokens_count_the_reasoning() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, "abcdefghij</think>c").await;
    let (reasoning, text, finish) = both(&engine, Request { max_tokens: 5, ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("abcde", ""));
    assert_eq!((finish.reason, finish.usage.output, finish.usage.reasoning), (FinishReason::Length, 5, 5));
}

#[tokio::test]
async fn a_stop_text_in_it_ends_nothing() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, "a. b. c</think>d. e").await;
    let (reasoning, text, finish) = both(&engine, Request { stop: vec![".".to_owned()], ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str(), finish.reason), ("a. b. c", "d", FinishReason::StopText));
}

#[tokio::test]
async fn a_model_that_ends_within_it_still_answers() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, "Hm.").await;
    let (reasoning, text, finish) = both(&engine, ask("go")).await;
    assert_eq!((reasoning.as_str(), text.as_str(), finish.reason), ("Hm.", "", FinishReason::Stop));
    assert_eq!(finish.usage.forced, "</think>".len() as u32);
}

#[tokio::test]
async fn a_schema_begins_behind_it() {
    let reply = r#"Is it |one|?</think>|{"a":|1|}|"#;
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, reply).await;
    let request = Request { schema: Some(Arc::new(json!({}))), ..ask("go") };
    let (reasoning, text, finish) = both(&engine, request).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("Is it |one|?", r#"{"a":1}"#));
    assert_eq!((finish.reason, finish.usage.forced), (FinishReason::Stop, r#"{"a":}"#.len() as u32));
}

#[tokio::test]
async fn a_schema_begins_at_the_budget() {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, r#"abc|{"a":|1|}|"#).await;
    let schema = Some(Arc::new(json!({})));
    let (reasoning, text, _) = both(&engine, Request { schema, reasoning: budget(3), ..ask("go") }).await;
    assert_eq!((reasoning.as_str(), text.as_str()), ("abc", r#"{"a":1}"#));
}

#[tokio::test]
async fn drafts_change_nothing_of_it() {
    let reply = "the cat sat on the mat and the cat sat on the hat</think>the cat sat on the mat";
    let plain = engine(DraftMode::Never, ReasoningPhase::Inside, reply).await;
    let drafted = engine(DraftMode::Always(8), ReasoningPhase::Inside, reply).await;
    for tokens in [0, 3, 20, 31, 48, 100] {
        let request = || Request { reasoning: budget(tokens), ..ask("the cat sat on the mat and the cat sat") };
        let (one, two) = (both(&plain, request()).await, both(&drafted, request()).await);
        assert_eq!((&one.0, &one.1), (&two.0, &two.1), "{tokens}");
        assert_eq!(one.2.usage.reasoning, two.2.usage.reasoning, "{tokens}");
    }
    assert!(drafted.stats().accepted_tokens > 30, "{:?}", drafted.stats());
}

/// The reasoning, the calls and the text of an answer to a request with a tool `get`.
async fn answer_with_tools(reply: &'static str) -> (String, Vec<CallDelta>, String, FinishReason) {
    let engine = engine(DraftMode::Never, ReasoningPhase::Inside, reply).await;
    let tool = Tool { name: "get".to_owned(), description: String::new(), parameters: json!({"type": "object"}) };
    let tools = Some(Arc::new(ToolSet { tools: vec![tool], ..ToolSet::default() }));
    let mut stream = engine.generate(Request { tools, max_tokens: 200, ..ask("go") }).await.unwrap();
    let (mut reasoning, mut calls, mut text) = (String::new(), Vec::new(), String::new());
    loop {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Reasoning { text: more, .. } => reasoning.push_str(&more),
            Chunk::Calls(deltas) => calls.extend(deltas),
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Finished(finish) => return (reasoning, calls, text, finish.reason),
            Chunk::Failed(error) => panic!("{error}"),
            Chunk::Prefill { .. } | Chunk::Scores(_) => {}
        }
    }
}

#[tokio::test]
async fn a_tool_is_called_behind_it_and_not_in_it() {
    const CALL: &str = "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let (reasoning, calls, text, reason) =
        answer_with_tools("So: <tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call></think>\n\nNo.").await;
    assert!(reasoning.starts_with("So: <tool_call>") && calls.is_empty(), "{reasoning} {calls:?}");
    assert_eq!((text.as_str(), reason), ("No.", FinishReason::Stop));
    let reply: &'static str = format!("Hm.</think>\n\nI look.\n{CALL}").leak();
    let (reasoning, calls, text, reason) = answer_with_tools(reply).await;
    assert_eq!((reasoning.as_str(), text.trim(), reason), ("Hm.", "I look.", FinishReason::Calls));
    let arguments: String = calls
        .iter()
        .filter_map(|delta| match delta {
            CallDelta::Arguments { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(arguments, "{\"a\": 1}", "{calls:?}");
}
