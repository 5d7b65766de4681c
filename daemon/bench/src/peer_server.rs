//! Another server, over the OpenAI chat completions API with streaming.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::answer::TimedAnswer;
use crate::role::{BenchRole, RoleOption};

/// Adapters of the workload `adapters`; the server has loaded them in the order of their names.
const ADAPTERS: usize = 4;

#[derive(Clone)]
pub(crate) struct PeerServer {
    url: String,
    /// The token of a server whose models are the roles of the workload.
    token: Option<String>,
}

impl PeerServer {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: format!("{}/v1/chat/completions", url.trim_end_matches('/')), token: None }
    }

    /// A daemon of ours: it has the roles, and asks for a token.
    pub(crate) fn with_roles(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    pub(crate) async fn ask(
        &self,
        role: &BenchRole,
        question: &str,
        mut on_chunk: impl FnMut(usize) + Send + 'static,
    ) -> Result<TimedAnswer> {
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
        if self.token.is_some() {
            body = json!({
                "model": role.name,
                "messages": [{"role": "user", "content": question}],
                "stream": true,
                "stream_options": {"include_usage": true},
            });
        }
        match &role.option {
            RoleOption::None | RoleOption::Batch => {}
            // All other adapters of the server are off.
            RoleOption::Adapter(index, _) => {
                let scale = |n: usize| json!({"id": n, "scale": if n == *index { 1.0 } else { 0.0 }});
                body["lora"] = (0..ADAPTERS).map(scale).collect::<Vec<_>>().into();
            }
            RoleOption::EnumJson(labels) => {
                let schema = json!({"name": "label", "strict": true, "schema": {"enum": labels}});
                body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
            }
            RoleOption::EnumToken(labels) => {
                body["max_tokens"] = json!(1);
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(labels.len().clamp(1, 20));
            }
        }
        let (url, token) = (self.url.clone(), self.token.clone());
        // ureq blocks, so each request has its own thread.
        let response = tokio::task::spawn_blocking(move || read_stream(&url, token.as_deref(), &body, &mut on_chunk));
        response.await.context("a request panicked")?
    }
}

impl PeerServer {
    /// Runs the chain as a client of a chat server does: one request after the other.
    pub(crate) async fn ask_chain(&self, roles: &[BenchRole], question: &str) -> Result<TimedAnswer> {
        let (mut all, mut input, mut last_chunk) = (TimedAnswer::start(), question.to_owned(), None);
        for role in roles {
            let answer = self.ask(role, &input, |_| {}).await?;
            all.hop_latencies.extend(last_chunk.zip(answer.chunk_times.first()).map(|(last, first)| *first - last));
            last_chunk = answer.chunk_times.last().copied();
            all.prompt_tokens += answer.prompt_tokens;
            all.prefill_tokens += answer.prefill_tokens;
            all.output_tokens += answer.output_tokens;
            all.chunk_times.extend(answer.chunk_times);
            input = answer.text;
        }
        all.finished_at = Instant::now();
        Ok(all)
    }
}

fn read_stream(url: &str, token: Option<&str>, body: &Value, on_chunk: &mut impl FnMut(usize)) -> Result<TimedAnswer> {
    let request = ureq::post(url);
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    let mut answer = TimedAnswer::start();
    let response = request.send_json(body).with_context(|| format!("failed to send a request to {url}"))?;
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.with_context(|| format!("failed to read the response of {url}"))?;
        let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok()) else {
            continue;
        };
        if let Some(text) = event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
            answer.chunk_times.push(Instant::now());
            answer.text.push_str(text);
            on_chunk(answer.chunk_times.len());
        }
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            answer.prompt_tokens = number(&usage["prompt_tokens"]);
            answer.prefill_tokens = answer.prompt_tokens
                - number(&usage["prompt_tokens_details"]["cached_tokens"]).min(answer.prompt_tokens);
            answer.output_tokens = number(&usage["completion_tokens"]);
        }
    }
    answer.finished_at = Instant::now();
    Ok(answer)
}
