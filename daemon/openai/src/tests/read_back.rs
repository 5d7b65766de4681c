//! The answers, read by the types of a client in Rust.

use artel_proto::v1;
use artel_proto::v1::tool_call_delta::Part;
use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse, FinishReason};
use async_openai::types::completions::CreateCompletionResponse;
use serde_json::{Value, json};

use super::scripted::{
    Play, ReadResponse, Scripted, call_part, completed, completed_text, output, step_finished, token,
};

async fn answer(path: &str, plays: impl IntoIterator<Item = Play>, body: &Value) -> ReadResponse {
    let (services, _signals) = Scripted::new();
    ReadResponse::of(services.plays(plays).post(path, &[], body).await).await
}

fn chat(stream: bool) -> Value {
    json!({"model": "helper", "messages": [{"role": "user", "content": "hello"}], "stream": stream,
        "stream_options": {"include_usage": true}})
}

fn calling() -> v1::Output {
    let call = v1::ToolCall { id: "id0000000".to_owned(), name: "get".to_owned(), arguments: "{}".to_owned() };
    v1::Output { calls: vec![call], finish: Some(v1::FinishReason::Calls.into()), ..v1::Output::default() }
}

#[tokio::test]
async fn a_whole_answer_is_read() {
    let page = answer("/v1/chat/completions", [step_finished(), completed(calling())], &chat(false)).await.json();
    let read: CreateChatCompletionResponse = serde_json::from_value(page).unwrap();
    let choice = &read.choices[0];
    assert_eq!((choice.finish_reason, choice.message.content.as_deref()), (Some(FinishReason::ToolCalls), None));
    assert_eq!(choice.message.tool_calls.as_ref().unwrap().len(), 1);
    assert_eq!(read.usage.unwrap().prompt_tokens_details.unwrap().cached_tokens, Some(16));
}

#[tokio::test]
async fn a_stream_is_read() {
    let begin = Part::Begin(v1::ToolCallBegin { id: "id0000000".to_owned(), name: "get".to_owned() });
    let plays = [
        call_part(0, begin),
        call_part(0, Part::Arguments("{}".to_owned())),
        call_part(0, Part::End(v1::ToolCallEnd {})),
        step_finished(),
        completed(calling()),
    ];
    let chunks = answer("/v1/chat/completions", plays, &chat(true)).await.chunks();
    let read: Vec<CreateChatCompletionStreamResponse> =
        chunks.into_iter().map(|chunk| serde_json::from_value(chunk).unwrap()).collect();
    let names: Vec<String> = read
        .iter()
        .filter_map(|chunk| chunk.choices.first()?.delta.tool_calls.as_ref()?.first()?.function.as_ref()?.name.clone())
        .collect();
    assert_eq!(names, ["get"]);
    assert_eq!(read.last().unwrap().usage.as_ref().unwrap().total_tokens, 27);
}

#[tokio::test]
async fn a_completion_is_read_whole_and_as_a_stream() {
    let body = json!({"model": "helper", "prompt": "hello"});
    let page = answer("/v1/completions", [completed_text("hi")], &body).await.json();
    let read: CreateCompletionResponse = serde_json::from_value(page).unwrap();
    assert_eq!(read.choices[0].text, "hi");
    let body = json!({"model": "helper", "prompt": "hello", "stream": true});
    let plays = [token("s1", "answer", 0, "h"), completed(output("hi"))];
    for chunk in answer("/v1/completions", plays, &body).await.chunks() {
        serde_json::from_value::<CreateCompletionResponse>(chunk).unwrap();
    }
}
