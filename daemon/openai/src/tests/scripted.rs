//! The services as a script: each task plays its events, and every request is recorded.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use artel_proto::v1;
use artel_proto::v1::event::Kind as K;
use artel_proto::v1::knowledge_server::Knowledge;
use artel_proto::v1::models_server::Models;
use artel_proto::v1::tasks_server::Tasks;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request as HttpRequest, Response as HttpResponse, StatusCode};
use futures::stream::{self, Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceExt as _;

use crate::{GraphFacts, ModelDirectory, RoleFacts, ServedKind, ServedModel, routes};

/// The task of every script.
pub(super) const TASK_ID: &str = "0199c0de-0000-7000-8000-000000000001";
/// When it was accepted, in seconds.
pub(super) const CREATED_SECS: u64 = 1_764_000_000;

/// What a test says of the caller, as the authentication layer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestCaller(pub(super) &'static str);

/// One item of a task's stream. Scripts are short: the size of an item is no matter.
#[allow(clippy::large_enum_variant)]
pub(super) enum Play {
    Event(K),
    /// The stream fails.
    Fail(Status),
    /// Whatever the test sends from now on, until it drops its end.
    Live(mpsc::UnboundedReceiver<K>),
}

/// What a task was submitted with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RecordedRun {
    pub(super) submit: v1::SubmitRequest,
    pub(super) cancel_on_disconnect: bool,
    pub(super) caller: Option<TestCaller>,
}

#[derive(Default)]
struct Script {
    plays: VecDeque<Result<Vec<Play>, Status>>,
    runs: Vec<RecordedRun>,
    /// What the next call of a method waits for.
    holds: HashMap<&'static str, oneshot::Receiver<()>>,
    kept: Vec<v1::Task>,
    embed: Option<Result<v1::EmbedResponse, Status>>,
    rerank: Option<Result<v1::RerankResponse, Status>>,
    search: Option<Result<v1::SearchKnowledgeResponse, Status>>,
    embeds: Vec<v1::EmbedRequest>,
    reranks: Vec<v1::RerankRequest>,
    searches: Vec<v1::SearchKnowledgeRequest>,
}

/// The services of a test. Clones are the same.
#[derive(Clone)]
pub(super) struct Scripted {
    script: Arc<Mutex<Script>>,
    cancelled: mpsc::UnboundedSender<v1::CancelRequest>,
    dropped: mpsc::UnboundedSender<()>,
}

/// What the services do that a test waits for.
pub(super) struct ScriptedSignals {
    pub(super) cancelled: mpsc::UnboundedReceiver<v1::CancelRequest>,
    /// One for each stream that was dropped.
    pub(super) dropped: mpsc::UnboundedReceiver<()>,
}

impl Scripted {
    pub(super) fn new() -> (Self, ScriptedSignals) {
        let (cancelled, cancelled_signals) = mpsc::unbounded_channel();
        let (dropped, dropped_signals) = mpsc::unbounded_channel();
        let services = Self { script: Arc::default(), cancelled, dropped };
        (services, ScriptedSignals { cancelled: cancelled_signals, dropped: dropped_signals })
    }

    /// The next task plays these events behind its acceptance.
    pub(super) fn plays(self, plays: impl IntoIterator<Item = Play>) -> Self {
        self.script().plays.push_back(Ok(plays.into_iter().collect()));
        self
    }

    /// The next task is refused.
    pub(super) fn refuses(self, status: Status) -> Self {
        self.script().plays.push_back(Err(status));
        self
    }

    /// An earlier task that the caller can read.
    pub(super) fn keeps(self, task: v1::Task) -> Self {
        self.script().kept.push(task);
        self
    }

    /// The next call of `run` or `cancel` waits until the other end is dropped.
    pub(super) fn holds(&self, method: &'static str) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.script().holds.insert(method, held);
        release
    }

    async fn held(&self, method: &str) {
        let hold = self.script().holds.remove(method);
        if let Some(hold) = hold {
            hold.await.unwrap_err();
        }
    }

    /// The next texts are embedded so.
    pub(super) fn embeds(self, answer: Result<v1::EmbedResponse, Status>) -> Self {
        self.script().embed = Some(answer);
        self
    }

    /// The next documents are ranked so.
    pub(super) fn reranks(self, answer: Result<v1::RerankResponse, Status>) -> Self {
        self.script().rerank = Some(answer);
        self
    }

    /// The next search finds this.
    pub(super) fn finds(self, answer: Result<v1::SearchKnowledgeResponse, Status>) -> Self {
        self.script().search = Some(answer);
        self
    }

    pub(super) fn runs(&self) -> Vec<RecordedRun> {
        self.script().runs.clone()
    }

    /// The request of the only task.
    pub(super) fn submit(&self) -> v1::SubmitRequest {
        let runs = self.runs();
        assert_eq!(runs.len(), 1);
        runs[0].submit.clone()
    }

    pub(super) fn embed_requests(&self) -> Vec<v1::EmbedRequest> {
        self.script().embeds.clone()
    }

    pub(super) fn rerank_requests(&self) -> Vec<v1::RerankRequest> {
        self.script().reranks.clone()
    }

    pub(super) fn search_requests(&self) -> Vec<v1::SearchKnowledgeRequest> {
        self.script().searches.clone()
    }

    pub(super) fn router(&self) -> Router {
        routes(self.clone(), Arc::new(TestDirectory))
    }

    /// Sends a request to the routes.
    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> HttpResponse<Body> {
        let mut request = HttpRequest::post(path).extension(TestCaller("ada"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

/// Roles, graphs and models, of which some have the same name. The role `strict` fixes everything, and `auto` is the graph
/// `helper`.
struct TestDirectory;

impl ModelDirectory for TestDirectory {
    fn list(&self) -> Vec<ServedModel> {
        ["auto", "team", "helper", "graph:helper", "strict", "model:helper", "model:team", "e5", "ranker"]
            .into_iter()
            .filter_map(|id| self.find(id))
            .collect()
    }

    fn find(&self, id: &str) -> Option<ServedModel> {
        let role = |max_tokens, is_sampling_fixed| ServedKind::Role(RoleFacts { max_tokens, is_sampling_fixed });
        let (kind, context_tokens) = match id {
            "auto" => (ServedKind::Auto, None),
            "team" | "graph:helper" => (ServedKind::Graph(GraphFacts { answer_nodes: vec!["write".to_owned()] }), None),
            "helper" => (role(512, false), Some(8192)),
            "strict" => (role(64, true), Some(4096)),
            "e5" | "model:helper" => (ServedKind::Embedding, Some(512)),
            "ranker" | "model:team" => (ServedKind::Reranker, Some(512)),
            _ => return None,
        };
        let description = format!("what {id} is for");
        let name = id.rsplit(':').next().unwrap_or(id).to_owned();
        Some(ServedModel { id: id.to_owned(), name, kind, description, context_tokens, created: CREATED_SECS })
    }
}

/// Tells a test that a stream is gone.
struct DropSignal(mpsc::UnboundedSender<()>);

impl Drop for DropSignal {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

fn event(kind: K) -> v1::Event {
    let time = Some(Timestamp { seconds: i64::try_from(CREATED_SECS).unwrap(), nanos: 0 });
    v1::Event { task_id: TASK_ID.to_owned(), seq: 1, time, kind: Some(kind) }
}

fn accepted(submit: &v1::SubmitRequest) -> K {
    use v1::submit_request::Target;
    let (graph, role) = match submit.target.clone() {
        Some(Target::Role(role)) => (String::new(), role),
        Some(Target::Graph(graph)) => (graph, String::new()),
        None => ("helper".to_owned(), String::new()),
    };
    let catalog_version = "abcdef0123456789".to_owned();
    K::Accepted(v1::Accepted { graph, role, catalog_version, ..v1::Accepted::default() })
}

fn unscripted<T>() -> Result<Response<T>, Status> {
    Err(Status::internal("no test calls this"))
}

#[tonic::async_trait]
impl Tasks for Scripted {
    type RunStream = Events;
    type WatchStream = Events;

    async fn run(&self, request: Request<v1::RunRequest>) -> Result<Response<Events>, Status> {
        let caller = request.extensions().get::<TestCaller>().cloned();
        let v1::RunRequest { submit, cancel_on_disconnect } = request.into_inner();
        let submit = submit.unwrap();
        let first = accepted(&submit);
        let plays = {
            let mut script = self.script();
            script.runs.push(RecordedRun { submit, cancel_on_disconnect, caller });
            script.plays.pop_front().expect("a task was scripted")?
        };
        self.held("run").await;
        let plays = std::iter::once(Play::Event(first)).chain(plays).collect::<Vec<_>>();
        let signal = DropSignal(self.dropped.clone());
        let events = stream::iter(plays).flat_map(|play| match play {
            Play::Event(kind) => stream::iter([Ok(event(kind))]).boxed(),
            Play::Fail(status) => stream::iter([Err(status)]).boxed(),
            Play::Live(kinds) => {
                stream::unfold(kinds, |mut kinds| async move { Some((Ok(event(kinds.recv().await?)), kinds)) }).boxed()
            }
        });
        Ok(Response::new(Box::pin(events.inspect(move |_| {
            let _ = &signal;
        }))))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::Task>, Status> {
        drop(self.cancelled.send(request.into_inner()));
        self.held("cancel").await;
        Ok(Response::new(v1::Task::default()))
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::Task>, Status> {
        unscripted()
    }
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        unscripted()
    }
    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        assert_eq!(request.extensions().get(), Some(&TestCaller("ada")));
        let v1::GetTaskRequest { task_id: id, read_mask, .. } = request.into_inner();
        let kept = self.script().kept.iter().find(|task| task.id == id).cloned();
        let kept = kept.ok_or_else(|| Status::not_found("there is no such task"))?;
        let keeps = |field: &str| read_mask.iter().any(|mask| mask.paths.iter().any(|path| path == field));
        let (result, erase_time) =
            (kept.result.filter(|_| keeps("result")), kept.erase_time.filter(|_| keeps("erase_time")));
        let state = if keeps("state") { kept.state } else { 0 };
        Ok(Response::new(v1::Task { id, state, result, erase_time, ..v1::Task::default() }))
    }
    async fn list(&self, _: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksResponse>, Status> {
        unscripted()
    }
    async fn resume(&self, _: Request<v1::ResumeRequest>) -> Result<Response<v1::Task>, Status> {
        unscripted()
    }
    async fn answer(&self, _: Request<v1::AnswerRequest>) -> Result<Response<v1::Task>, Status> {
        unscripted()
    }
    async fn fork(&self, _: Request<v1::ForkRequest>) -> Result<Response<v1::Task>, Status> {
        unscripted()
    }
    async fn rate(&self, _: Request<v1::RateRequest>) -> Result<Response<v1::RateResponse>, Status> {
        unscripted()
    }
    async fn feedback(&self, _: Request<v1::FeedbackRequest>) -> Result<Response<v1::FeedbackResponse>, Status> {
        unscripted()
    }
    async fn erase(&self, _: Request<v1::EraseRequest>) -> Result<Response<v1::EraseResponse>, Status> {
        unscripted()
    }
}

#[tonic::async_trait]
impl Models for Scripted {
    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let mut script = self.script();
        script.embeds.push(request.into_inner());
        script.embed.clone().expect("an answer was scripted").map(Response::new)
    }

    async fn rerank(&self, request: Request<v1::RerankRequest>) -> Result<Response<v1::RerankResponse>, Status> {
        let mut script = self.script();
        script.reranks.push(request.into_inner());
        script.rerank.clone().expect("an answer was scripted").map(Response::new)
    }
}

#[tonic::async_trait]
impl Knowledge for Scripted {
    async fn search(
        &self,
        request: Request<v1::SearchKnowledgeRequest>,
    ) -> Result<Response<v1::SearchKnowledgeResponse>, Status> {
        assert_eq!(request.extensions().get(), Some(&TestCaller("ada")));
        let mut script = self.script();
        script.searches.push(request.into_inner());
        script.search.clone().expect("an answer was scripted").map(Response::new)
    }

    async fn list(&self, _: Request<v1::ListKnowledgeRequest>) -> Result<Response<v1::ListKnowledgeResponse>, Status> {
        unscripted()
    }
    async fn list_sources(
        &self,
        _: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        unscripted()
    }
    async fn get_source(&self, _: Request<v1::GetSourceRequest>) -> Result<Response<v1::GetSourceResponse>, Status> {
        unscripted()
    }
    async fn add_text(&self, _: Request<v1::AddTextRequest>) -> Result<Response<v1::AddTextResponse>, Status> {
        unscripted()
    }
    async fn remove_text(&self, _: Request<v1::RemoveTextRequest>) -> Result<Response<v1::RemoveTextResponse>, Status> {
        unscripted()
    }
}

/// What a service refuses for a reason; `more` adds the details that go with it.
pub(super) fn refusal(code: Code, reason: &str, more: impl FnOnce(&mut ErrorDetails)) -> Status {
    let metadata = HashMap::from([("task_id".to_owned(), TASK_ID.to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason, "artel.v1", metadata);
    more(&mut details);
    Status::with_error_details(code, "as it is", details)
}

/// More text of the attempt `step` at `node`.
pub(super) fn token(step: &str, node: &str, offset: usize, text: &str) -> Play {
    let (step_id, node, text) = (step.to_owned(), node.to_owned(), text.to_owned());
    Play::Event(K::Token(v1::Token { step_id, node, text, offset: offset as u64, ..v1::Token::default() }))
}

/// More reasoning of the attempt `s1`.
pub(super) fn thought(offset: usize, text: &str) -> Play {
    let (step_id, node, text) = ("s1".to_owned(), "answer".to_owned(), text.to_owned());
    Play::Event(K::Reasoning(v1::Reasoning { step_id, node, text, offset: offset as u64, ..v1::Reasoning::default() }))
}

/// A part of a call of the attempt `s1`.
pub(super) fn call_part(index: u32, part: v1::tool_call_delta::Part) -> Play {
    let (step_id, node) = ("s1".to_owned(), "answer".to_owned());
    Play::Event(K::ToolCallDelta(v1::ToolCallDelta { step_id, node, role: String::new(), index, part: Some(part) }))
}

/// Token counts of a step.
pub(super) fn step_finished() -> Play {
    let usage = Some(v1::Usage {
        prompt_tokens: 20,
        prefill_tokens: 4,
        cached_tokens: 16,
        output_tokens: 7,
        reasoning_tokens: 2,
        ..v1::Usage::default()
    });
    Play::Event(K::StepFinished(v1::StepFinished { node: "answer".to_owned(), usage, ..v1::StepFinished::default() }))
}

/// The same as an answer has it.
pub(super) fn usage_json() -> Value {
    json!({
        "prompt_tokens": 20,
        "completion_tokens": 7,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 2},
    })
}

/// The end of a task with this result.
pub(super) fn completed(output: v1::Output) -> Play {
    Play::Event(K::Completed(v1::Completed { output: Some(output), fallback_cause: None }))
}

/// The end of a task that answers with this text.
pub(super) fn completed_text(text: &str) -> Play {
    completed(output(text))
}

/// A result.
pub(super) fn output(text: &str) -> v1::Output {
    v1::Output { text: text.to_owned(), finish: Some(v1::FinishReason::Stop.into()), ..v1::Output::default() }
}

/// The end of a task that fails.
pub(super) fn failed(code: v1::FailureCode, message: &str) -> Play {
    let failure = v1::Failure { code: code.into(), message: message.to_owned(), step_id: "s1".to_owned() };
    Play::Event(K::Failed(v1::Failed { failure: Some(failure) }))
}

/// The end of a channel of live events, and the play that reads it.
pub(super) fn live() -> (mpsc::UnboundedSender<K>, Play) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Play::Live(receiver))
}

/// A response, read to its end.
pub(super) struct ReadResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl ReadResponse {
    pub(super) async fn of(response: HttpResponse<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} is no JSON", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The data of all events but `[DONE]`, which must be the last.
    pub(super) fn chunks(&self) -> Vec<Value> {
        let mut data: Vec<&str> = self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.into_iter().map(|json| serde_json::from_str(json).unwrap()).collect()
    }

    /// The comments of a stream.
    pub(super) fn comments(&self) -> Vec<&str> {
        self.text.split("\n\n").filter_map(|event| event.strip_prefix(": ")).collect()
    }
}
