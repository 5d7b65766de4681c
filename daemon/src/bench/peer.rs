//! Another server, over the OpenAI chat API with streaming.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::contestant::{Answer, Extra, Role};

/// Adapters that the workload `adapters` uses; the server has them loaded in the order of their names.
const ADAPTERS: usize = 4;

#[derive(Clone)]
pub(super) struct Peer {
    url: String,
}

impl Peer {
    pub(super) fn new(url: &str) -> Self {
        Self { url: format!("{}/v1/chat/completions", url.trim_end_matches('/')) }
    }

    pub(super) async fn ask(
        &self,
        role: &Role,
        question: &str,
        mut heard: impl FnMut(usize) + Send + 'static,
    ) -> Result<Answer> {
        let mut body = json!({
            "messages": [
                {"role": "system", "content": role.prompt},
                {"role": "user", "content": question},
            ],
            "temperature": 0,
            "max_tokens": role.max_tokens,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match &role.extra {
            Extra::None | Extra::Batch => {}
            // All others of the server's adapters are off.
            Extra::Adapter(at, _) => {
                let scale = |n: usize| json!({"id": n, "scale": if n == *at { 1.0 } else { 0.0 }});
                body["lora"] = (0..ADAPTERS).map(scale).collect::<Vec<_>>().into();
            }
            Extra::OneOf(labels) => {
                let schema = json!({"name": "label", "strict": true, "schema": {"enum": labels}});
                body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
            }
            Extra::Token(labels) => {
                body["max_tokens"] = json!(1);
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(labels.len().clamp(1, 20));
            }
        }
        let url = self.url.clone();
        // ureq blocks; each question has a thread of its own.
        let asked = tokio::task::spawn_blocking(move || listen(&url, &body, &mut heard));
        asked.await.context("the one who asked panicked")?
    }
}

impl Peer {
    /// As a program would do it that runs a chain over a chat server.
    pub(super) async fn chain(&self, roles: &[Role], question: &str) -> Result<Answer> {
        let (mut all, mut input, mut said) = (Answer::begun(), question.to_owned(), None);
        for role in roles {
            let answer = self.ask(role, &input, |_| {}).await?;
            all.hops.extend(said.zip(answer.pieces.first()).map(|(said, first)| *first - said));
            said = answer.pieces.last().copied();
            all.prompt += answer.prompt;
            all.computed += answer.computed;
            all.output += answer.output;
            all.pieces.extend(answer.pieces);
            input = answer.text;
        }
        all.ended = Instant::now();
        Ok(all)
    }
}

fn listen(url: &str, body: &Value, heard: &mut impl FnMut(usize)) -> Result<Answer> {
    let mut answer = Answer::begun();
    let response = ureq::post(url).send_json(body).with_context(|| format!("failed to ask {url}"))?;
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.context("failed to listen")?;
        let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok()) else {
            continue;
        };
        if let Some(text) = event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
            answer.pieces.push(Instant::now());
            answer.text.push_str(text);
            heard(answer.pieces.len());
        }
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            answer.prompt = number(&usage["prompt_tokens"]);
            answer.computed =
                answer.prompt - number(&usage["prompt_tokens_details"]["cached_tokens"]).min(answer.prompt);
            answer.output = number(&usage["completion_tokens"]);
        }
    }
    answer.ended = Instant::now();
    Ok(answer)
}
