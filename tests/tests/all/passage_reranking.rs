//! Passages in the order of what reads each with the question: a model with `use: rerank`, or a role.

use std::fs;

use artel_proto::v1;
use artel_tests::tiny_reranker::TinyReranker;
use artel_tests::{Daemon, DaemonBuilder, daemon};
use serde_json::json;

/// Two of the same files: as they are found, and reranked.
const KNOWLEDGE: &str = "---
knowledge: found
sources: [notes]
search: {mode: keyword, top: 8}
---
knowledge: reranked
sources: [notes]
search: {mode: keyword, top: 3, rerank: judge}
";
const RERANK_MODEL: &str = "---\nmodel: judge\nfile: judge.gguf\nuse: rerank\n";
const ROLE: &str = "---
model: chat
file: SmolLM2-135M-Instruct.Q4_1.gguf
context: 1024
---
role: judge
description: Tells whether a passage answers a question.
model: chat
prompt: You judge search results.
";
/// How far a score may be from the same one that was computed with others.
const BATCH_TOLERANCE: f64 = 2e-3;
/// The same for a chat, which tells of the twenty most probable tokens.
const CHAT_TOLERANCE: f64 = 0.05;

fn with_notes(yaml: &str, notes: &[&str]) -> DaemonBuilder {
    let builder = daemon().with_yaml(&format!("{KNOWLEDGE}{yaml}"));
    let dir = builder.dir().join("catalog/notes");
    fs::create_dir_all(&dir).unwrap();
    for (at, note) in notes.iter().enumerate() {
        fs::write(dir.join(format!("{at}.txt")), note).unwrap();
    }
    builder
}

async fn search(daemon: &Daemon, knowledge: &str, query: &str) -> Vec<v1::Passage> {
    daemon.until_indexed(knowledge).await;
    let (knowledge, query) = (knowledge.to_owned(), query.to_owned());
    let request = v1::SearchKnowledgeRequest { knowledge, query, ..Default::default() };
    daemon.knowledge().search(request).await.unwrap().into_inner().passages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_orders_what_was_found() {
    const QUERY: &str = "the river";
    let notes = ["the river", "a river a boat", "the dog the cat the river", "rain the moon", "how the wind the tree"];
    let daemon = with_notes(RERANK_MODEL, &notes).with_file("judge.gguf", &TinyReranker::new(7).gguf(4)).start().await;
    let found = search(&daemon, "found", QUERY).await;
    assert!(found.len() > 3 && found.iter().all(|passage| passage.rerank_score.is_none()), "{found:?}");
    let documents: Vec<String> = found.iter().map(|passage| passage.text.clone()).collect();
    let (model, query) = ("judge".to_owned(), QUERY.to_owned());
    let request = v1::RerankRequest { model, query, documents: documents.clone(), ..Default::default() };
    let ranked = daemon.models().rerank(request).await.unwrap().into_inner().results;
    let passages = search(&daemon, "reranked", QUERY).await;
    assert_eq!(passages.len(), 3, "as many as the knowledge says, of all that were found");
    for ((passage, expected), rank) in passages.iter().zip(&ranked).zip(1..) {
        assert_eq!((&passage.text, passage.rank), (&documents[expected.index as usize], rank));
        let difference = passage.rerank_score.unwrap() - f64::from(expected.score);
        assert!(difference.abs() <= BATCH_TOLERANCE, "{difference}");
    }
    let as_found: Vec<&String> = documents.iter().take(3).collect();
    assert_ne!(passages.iter().map(|passage| &passage.text).collect::<Vec<_>>(), as_found, "the order is another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_orders_what_was_found_by_how_sure_it_is_of_yes() {
    const QUERY: &str = "What is the capital of France?";
    let notes = [
        "What a capital idea: the capital letters of France are what a printer in France orders most.",
        "Bread is baked in France every day.",
        "The capital of France is Paris.",
    ];
    let daemon = with_notes(ROLE, &notes).start().await;
    let found = search(&daemon, "found", QUERY).await;
    let passages = search(&daemon, "reranked", QUERY).await;
    assert_eq!((found.len(), passages.len()), (3, 3), "{found:?}");
    let scores: Vec<f64> = passages.iter().map(|passage| passage.rerank_score.unwrap()).collect();
    assert!(scores.is_sorted_by(|one, other| one > other), "{scores:?}");
    for (passage, score) in passages.iter().zip(&scores) {
        let asked = sureness_of_yes(&daemon, QUERY, &passage.text).await;
        assert!((score - asked).abs() < CHAT_TOLERANCE, "{score} {asked}: {}", passage.text);
    }
}

/// The logarithm of how much more probable yes is than no as the role's first token, by a chat with it.
async fn sureness_of_yes(daemon: &Daemon, query: &str, passage: &str) -> f64 {
    let question = format!(
        "Question: {query}\n\nPassage:\n{}\n\nDoes the passage answer the question? Answer with yes or no and nothing else.",
        passage.trim()
    );
    let messages = json!([{"role": "user", "content": question}]);
    let body = json!({"model": "judge", "messages": messages, "max_tokens": 1, "logprobs": true, "top_logprobs": 20});
    let answer = daemon.openai().chat(&body).await;
    let top = &answer.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"];
    let sum = |word: &str| {
        let tokens =
            top.as_array().unwrap().iter().filter(|token| token["token"].as_str().unwrap().to_lowercase() == word);
        tokens.map(|token| token["logprob"].as_f64().unwrap().exp()).sum::<f64>()
    };
    assert!(sum("yes") > 0.0 && sum("no") > 0.0, "{answer:?}");
    (sum("yes") / sum("no")).ln()
}
