//! Greedy answers over real chat templates: those of the engine follow from the tokens of the reference, which is the text of
//! Python's Jinja with the settings of Transformers, tokenized as a whole with the control tokens of the vocabulary known.

use std::io::Write as _;
use std::process::{Command, Stdio};

use artel_engine::backend::{BatchToken, Sampled, Slot};
use artel_engine::{
    AdapterSet, Backend as _, Chunk, ContextOverflow, DraftMode, EngineHandle, LoadError, Priority, ReasoningParams,
    Request, RequestOrigin, SamplingParams,
};
use artel_model::{ModelPurpose, SplitMode};
use serde_json::json;

use super::*;
use crate::{KvCacheTypes, LlamaBackend, Options};

/// Templates of several families, none of which writes the date.
const TEMPLATES: [&str; 8] = [
    "Bielik-11B-v3.0-Instruct",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "google-gemma-2-2b-it",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
];
/// Tokens of an answer: enough that another prompt would give another one.
const ANSWER_TOKENS: u32 = 16;

fn options(template: Option<String>) -> Options {
    Options {
        path: demo_models::path("SmolLM2-135M-Instruct.Q4_1.gguf"),
        dequantized: None,
        sha256: None,
        context: Some(1024),
        sequences: 1,
        threads: 1,
        devices: Some(vec!["CPU".to_owned()]),
        split_mode: SplitMode::None,
        tensor_split: Vec::new(),
        gpu_layers: None,
        cpu_expert_layers: 0,
        purpose: ModelPurpose::Chat,
        template,
        template_kwargs: Map::new(),
        kv_cache: KvCacheTypes::default(),
    }
}

/// With instructions and without.
fn conversations() -> [Vec<Message>; 2] {
    let all = conversation("You are a geography expert.", "What is the capital of France?", "And that of Peru?");
    let without = all[1..].to_vec();
    [all, without]
}

/// The text of each conversation by the reference, by template; none where it raises an error.
fn reference_texts() -> Value {
    let directory = std::env::var_os("ARTEL_TEST_CHAT_TEMPLATES").expect("run `cargo xtask test`");
    let python = std::env::var_os("ARTEL_TEST_PYTHON").expect("run `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template/tests/all/transformers.py");
    let case = |(at, messages): (usize, Vec<Message>)| {
        let message = |message: &Message| json!({"role": role_name(message.role), "content": message.text});
        let messages: Vec<Value> = messages.iter().map(message).collect();
        json!({"name": at.to_string(), "messages": messages, "tools": null, "kwargs": {}, "add_generation_prompt": true})
    };
    let cases: Vec<Value> = conversations().into_iter().enumerate().map(case).collect();
    let directory = directory.to_str().unwrap();
    let input = json!({"directory": directory, "cases": cases, "bos": "<|im_start|>", "eos": "<|im_end|>"});
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the reference failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The likeliest tokens after a prompt, one after the other, as text.
fn answer_to_tokens(backend: &mut LlamaBackend, prompt: &[i32]) -> String {
    let slot = Slot(0);
    let batch_tokens = backend.limits().batch_tokens as usize;
    let mut sampler = backend.create_sampler(&SamplingParams::GREEDY, None, &[]).unwrap();
    backend.truncate_kv(slot, 0);
    let (mut position, mut bytes) = (0, Vec::new());
    let mut next: Vec<Token> = prompt.iter().copied().map(Token).collect();
    for _ in 0..ANSWER_TOKENS {
        let mut last = 0;
        for part in next.chunks(batch_tokens) {
            let entry = |(at, token): (u32, &Token)| BatchToken {
                slot,
                position: position + at,
                token: *token,
                needs_logits: at as usize + 1 == part.len(),
            };
            let batch: Vec<BatchToken> = (0..).zip(part).map(entry).collect();
            backend.decode(AdapterSet::NONE, &batch).unwrap();
            (position, last) = (position + part.len() as u32, part.len() - 1);
        }
        let Sampled::Token(token) = backend.sample(last, &mut sampler).unwrap() else { break };
        backend.tokenizer().append_bytes(token, &mut bytes);
        next = vec![token];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The greedy answer of the engine to a conversation.
async fn answer(engine: &EngineHandle, messages: Vec<Message>) -> String {
    let request = Request {
        origin: RequestOrigin::default(),
        flow: "test".into(),
        priority: Priority::Interactive,
        remaining_steps: 0,
        messages,
        template_kwargs: Arc::default(),
        adapters: Vec::new(),
        sampling: SamplingParams::GREEDY,
        max_tokens: ANSWER_TOKENS,
        stop: Vec::new(),
        schema: None,
        tools: None,
        reasoning: ReasoningParams::default(),
        logprobs: None,
        shares_prompt: false,
        overflow: ContextOverflow::Reject,
        has_fixed_prefix: true,
    };
    let (mut stream, mut answer) = (engine.generate(request).await.unwrap(), String::new());
    loop {
        match stream.recv().await.unwrap() {
            // Some of the templates begin a reasoning.
            Chunk::Text { text, .. } | Chunk::Reasoning { text, .. } => answer.push_str(&text),
            Chunk::Finished(_) => return answer,
            Chunk::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn greedy_answers_are_those_that_follow_from_the_tokens_of_the_reference() {
    let (texts, sources) = (reference_texts(), templates());
    let mut backend = LlamaBackend::load(options(None)).unwrap();
    let model = model();
    let bos = model.token_text(model.bos());
    let (mut compared, mut answered) = (0, 0);
    for name in TEMPLATES {
        let source = sources.iter().find(|(known, _)| known == name).map(|(_, source)| source.clone());
        assert!(source.is_some(), "the package has no template {name}");
        let load = move || LlamaBackend::load(options(source)).map_err(LoadError::from);
        let engine = artel_engine::Options { draft_mode: DraftMode::Never, ..artel_engine::Options::default() };
        let engine = EngineHandle::spawn("greedy", engine, load).await.unwrap();
        for (at, messages) in conversations().into_iter().enumerate() {
            let Some(text) = texts[name][at.to_string()]["text"].as_str() else { continue };
            let mut ids = model.tokenize(text, false, true).unwrap();
            if model.adds_bos() && !text.starts_with(&bos) {
                ids.insert(0, model.bos());
            }
            let expected = answer_to_tokens(&mut backend, &ids);
            let found = answer(&engine, messages).await;
            // Spaces behind a reasoning are no part of an answer.
            let expected = expected.trim_start().trim_end_matches('\u{fffd}');
            assert_eq!(found.trim_start(), expected, "{name}, conversation {at}: {text}");
            (compared, answered) = (compared + 1, answered + usize::from(!expected.is_empty()));
        }
    }
    println!("{compared} greedy answers over {} templates are equal, {answered} of them not empty", TEMPLATES.len());
    // The reference raises an error for the others.
    assert!(compared >= 2 * TEMPLATES.len() - 3 && answered >= TEMPLATES.len(), "{compared} {answered}");
}
