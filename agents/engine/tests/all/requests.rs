//! The request that the tests vary, and its answer.

use std::sync::Arc;

use artel_engine::{
    ChatRole, Chunk, ContextOverflow, EngineHandle, Error, FinishSummary, Message, OutputStream, Priority, Request,
    RequestOrigin, SamplingParams,
};

/// A user's message to a role, answered greedily.
pub(crate) fn ask(text: &str) -> Request {
    Request {
        origin: RequestOrigin::default(),
        flow: Arc::from("role"),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages: vec![Message::new(ChatRole::User, text)],
        adapters: Vec::new(),
        sampling: SamplingParams::GREEDY,
        logprobs: None,
        shares_prompt: false,
        max_tokens: 100,
        stop: Vec::new(),
        schema: None,
        tools: None,
        overflow: ContextOverflow::Reject,
        has_fixed_prefix: true,
        template_kwargs: Arc::default(),
        reasoning: artel_engine::ReasoningParams::default(),
    }
}

/// The text of a stream to its end.
pub(crate) async fn read(mut stream: OutputStream) -> Result<(String, FinishSummary), Error> {
    let mut text = String::new();
    loop {
        match stream.recv().await.expect("a stream has an end") {
            Chunk::Prefill { .. } | Chunk::Reasoning { .. } => {}
            Chunk::Text { text: more, .. } => text.push_str(&more),
            Chunk::Calls(_) => panic!("no tools were given"),
            Chunk::Scores(_) => panic!("no labels were given"),
            Chunk::Finished(finish) => {
                assert_eq!(stream.recv().await, None);
                return Ok((text, finish));
            }
            Chunk::Failed(error) => return Err(error),
        }
    }
}

pub(crate) async fn answer(engine: &EngineHandle, request: Request) -> Result<(String, FinishSummary), Error> {
    read(engine.generate(request).await?).await
}
