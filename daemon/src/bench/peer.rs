//! Another server, over the OpenAI chat API with streaming.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::contestant::{Answer, Role};

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
        let body = json!({
            "messages": [
                {"role": "system", "content": role.prompt},
                {"role": "user", "content": question},
            ],
            "temperature": 0,
            "max_tokens": role.max_tokens,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let url = self.url.clone();
        // ureq blocks; each question has a thread of its own.
        let asked = tokio::task::spawn_blocking(move || listen(&url, &body, &mut heard));
        asked.await.context("the one who asked panicked")?
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
        if event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
            answer.pieces.push(Instant::now());
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
