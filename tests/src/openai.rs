//! The OpenAI-compatible front as a client of it sees it: answers as JSON, and streams as their chunks.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use crate::Daemon;

/// Longer than any answer of a test takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A client with a token.
#[derive(Debug, Clone)]
pub struct OpenAiClient {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub struct OpenAiAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; null if it is no JSON.
    pub body: Value,
}

/// A stream of server-sent events.
pub struct OpenAiStream {
    /// The headers of the answer.
    pub headers: HeaderMap,
    bytes: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamLine {
    /// `data: ...` as JSON.
    Data(Value),
    /// `data: [DONE]`.
    Done,
    /// A comment.
    Comment(String),
}

impl Daemon {
    /// A client with the token of the daemon's owner.
    pub fn openai(&self) -> OpenAiClient {
        self.openai_of(&self.token)
    }

    /// A client with this token.
    pub fn openai_of(&self, token: &str) -> OpenAiClient {
        // A connection for each client, so that closing one is what a client that goes away does.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(ANSWER_TIMEOUT).build().unwrap();
        OpenAiClient { http, base: self.address.clone(), token: token.to_owned() }
    }
}

impl OpenAiClient {
    /// A POST of JSON to a path such as `/v1/chat/completions`, to which headers may be added.
    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body)
    }

    /// The answer to a POST of JSON.
    pub async fn call(&self, path: &str, body: &Value) -> OpenAiAnswer {
        answer(self.post(path, body)).await
    }

    /// The answer to a GET.
    pub async fn get(&self, path: &str) -> OpenAiAnswer {
        answer(self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token)).await
    }

    /// The text of a page.
    pub async fn page(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        request.send().await.unwrap().text().await.unwrap()
    }

    /// The answer to a chat.
    pub async fn chat(&self, body: &Value) -> OpenAiAnswer {
        answer(self.post("/v1/chat/completions", body)).await
    }

    /// The stream of a chat, with further headers.
    pub async fn chat_stream(&self, body: &Value, headers: &[(&str, &str)]) -> OpenAiStream {
        let mut request = self.post("/v1/chat/completions", body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        stream(request).await.expect("the chat is accepted")
    }
}

/// Sends a request and reads its answer as a whole.
pub async fn answer(request: RequestBuilder) -> OpenAiAnswer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    OpenAiAnswer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

/// Sends a request for a stream.
///
/// # Errors
/// It is answered with an error instead.
pub async fn stream(request: RequestBuilder) -> Result<OpenAiStream, OpenAiAnswer> {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        let bytes = response.bytes().await.unwrap();
        return Err(OpenAiAnswer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() });
    }
    let bytes = response.bytes_stream().map(|chunk| chunk.map(|chunk| chunk.to_vec())).boxed();
    Ok(OpenAiStream { headers, bytes, buffer: Vec::new() })
}

impl OpenAiStream {
    /// The id of the task behind it.
    pub fn task(&self) -> String {
        self.headers["x-artel-task"].to_str().unwrap().to_owned()
    }

    /// The next event; none after the end, or when the connection is lost.
    pub async fn next(&mut self) -> Option<StreamLine> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(parse(std::str::from_utf8(&event).unwrap()));
            }
            self.buffer.extend(self.bytes.next().await?.ok()?);
        }
    }

    /// Reads until an event has text, and returns it.
    pub async fn until_text(&mut self) -> Option<String> {
        loop {
            let StreamLine::Data(chunk) = self.next().await? else { continue };
            if let Some(text) = content(&chunk) {
                return Some(text);
            }
        }
    }

    /// All events to the end.
    pub async fn lines(mut self) -> Vec<StreamLine> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

/// The chunks among the events of a stream.
pub fn chunks(lines: &[StreamLine]) -> Vec<Value> {
    let chunk = |line: &StreamLine| if let StreamLine::Data(chunk) = line { Some(chunk.clone()) } else { None };
    lines.iter().filter_map(chunk).collect()
}

/// The text that a chunk adds to the first choice.
pub fn content(chunk: &Value) -> Option<String> {
    chunk["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn parse(event: &str) -> StreamLine {
    let event = event.trim_end();
    match event.strip_prefix("data: ") {
        Some("[DONE]") => StreamLine::Done,
        Some(data) => StreamLine::Data(serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))),
        None => StreamLine::Comment(event.trim_start_matches(':').trim().to_owned()),
    }
}
