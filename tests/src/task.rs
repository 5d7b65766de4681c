//! Submitting tasks and following their events.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::submit_request::Target;
use tonic::{Status, Streaming};

use crate::Daemon;

/// A task to submit.
#[derive(Debug, Clone, Default)]
pub struct TaskRequest(v1::SubmitRequest);

/// A task with this input.
pub fn task_request(input: &str) -> TaskRequest {
    TaskRequest(v1::SubmitRequest { input: input.to_owned(), ..v1::SubmitRequest::default() })
}

impl TaskRequest {
    /// For a graph.
    #[must_use]
    pub fn with_graph(mut self, name: &str) -> Self {
        self.0.target = Some(Target::Graph(name.to_owned()));
        self
    }

    /// With these options of its sampling.
    #[must_use]
    pub fn with_sampling(mut self, sampling: v1::SamplingOptions) -> Self {
        self.0.sampling = Some(sampling);
        self
    }

    /// With an answer of this form.
    #[must_use]
    pub fn with_response(mut self, format: v1::response_format::Format) -> Self {
        self.0.response = Some(v1::ResponseFormat { format: Some(format) });
        self
    }

    /// For a single role.
    #[must_use]
    pub fn with_role(mut self, name: &str) -> Self {
        self.0.target = Some(Target::Role(name.to_owned()));
        self
    }

    /// With a request id.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.0.request_id);
        self
    }

    /// With tools of the caller, by name and JSON schema, and whether one must be called.
    #[must_use]
    pub fn with_tools(mut self, tools: &[(&str, &str)], mode: v1::ToolChoiceMode) -> Self {
        let tool = |(name, parameters): &(&str, &str)| v1::Tool {
            name: (*name).to_owned(),
            description: "A tool of the test.".to_owned(),
            parameters: (*parameters).to_owned(),
        };
        self.0.tools = tools.iter().map(tool).collect();
        self.0.tool_choice = Some(v1::ToolChoice { mode: mode.into(), ..v1::ToolChoice::default() });
        self
    }

    /// With a conversation in place of a text.
    #[must_use]
    pub fn with_messages(mut self, messages: Vec<v1::ChatMessage>) -> Self {
        self.0.messages = messages;
        self
    }

    /// With a label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A task and the stream of its events.
#[derive(Debug)]
pub struct TaskStream {
    /// Its id.
    pub id: String,
    /// The events received so far.
    pub events: Vec<v1::Event>,
    stream: Streaming<v1::Event>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskOutcome {
    /// With this text.
    Completed(String),
    /// With this code and message.
    Failed(v1::FailureCode, String),
    /// For this reason.
    Cancelled(String),
}

impl TaskOutcome {
    /// The text of a task that completed; panics for another outcome.
    pub fn text(self) -> String {
        match self {
            Self::Completed(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

impl Daemon {
    /// Submits a task without following it.
    pub async fn submit(&self, request: TaskRequest) -> Result<v1::Task, Status> {
        self.tasks().submit(request.0).await.map(tonic::Response::into_inner)
    }

    /// Submits a task and follows it; it is on disk when this returns.
    pub async fn run(&self, request: TaskRequest) -> TaskStream {
        let request = v1::RunRequest { submit: Some(request.0), cancel_on_disconnect: false };
        let stream = self.tasks().run(request).await.unwrap().into_inner();
        TaskStream::new(stream).await
    }

    /// Submits a task and follows it, unless it is rejected.
    pub async fn try_run(&self, request: TaskRequest) -> Result<TaskStream, Status> {
        let request = v1::RunRequest { submit: Some(request.0), cancel_on_disconnect: false };
        Ok(TaskStream::new(self.tasks().run(request).await?.into_inner()).await)
    }

    /// Follows a task from the event after this sequence number.
    pub async fn watch(&self, id: &str, after_seq: u64) -> TaskStream {
        let request = v1::WatchRequest { task_id: id.to_owned(), after_seq, tokens: true };
        let stream = self.tasks().watch(request).await.unwrap().into_inner();
        TaskStream { id: id.to_owned(), events: Vec::new(), stream }
    }

    /// Follows a task from the event after this sequence number, without tokens.
    pub async fn try_watch(&self, id: &str, after_seq: u64) -> Result<TaskStream, Status> {
        let request = v1::WatchRequest { task_id: id.to_owned(), after_seq, tokens: false };
        let stream = self.tasks().watch(request).await?.into_inner();
        Ok(TaskStream { id: id.to_owned(), events: Vec::new(), stream })
    }

    /// The present state of a task.
    pub async fn task(&self, id: &str) -> v1::Task {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), ..Default::default() };
        self.tasks().get(request).await.unwrap().into_inner()
    }

    /// Takes up a task again that is set aside.
    pub async fn resume(&self, id: &str) -> Result<v1::Task, Status> {
        let request = v1::ResumeRequest { task_id: id.to_owned() };
        self.tasks().resume(request).await.map(tonic::Response::into_inner)
    }

    /// Cancels a task.
    pub async fn cancel(&self, id: &str) -> v1::Task {
        let request =
            v1::CancelRequest { task_id: id.to_owned(), reason: "the test".to_owned(), step_id: String::new() };
        self.tasks().cancel(request).await.unwrap().into_inner()
    }
}

impl TaskStream {
    async fn new(mut stream: Streaming<v1::Event>) -> Self {
        let first = stream.message().await.unwrap().unwrap();
        assert!(matches!(first.kind, Some(Kind::Accepted(_))), "{first:?}");
        Self { id: first.task_id.clone(), events: vec![first], stream }
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Kind>, Status> {
        let Some(event) = self.stream.message().await? else { return Ok(None) };
        assert_eq!(event.task_id, self.id);
        self.events.push(event.clone());
        Ok(Some(event.kind.expect("every event has a kind")))
    }

    /// Waits for an event.
    pub async fn until(&mut self, wanted: impl Fn(&Kind) -> bool) -> Kind {
        loop {
            let kind = self.next().await.unwrap().expect("the task has not ended");
            if wanted(&kind) {
                return kind;
            }
        }
    }

    /// Waits for a token of any step.
    pub async fn until_token(&mut self) {
        self.until(|kind| matches!(kind, Kind::Token(_))).await;
    }

    /// Follows the task to its end.
    pub async fn end(&mut self) -> TaskOutcome {
        while self.next().await.unwrap().is_some() {}
        self.outcome()
    }

    /// The sequence number of the last journalled event that was received.
    pub fn last_seq(&self) -> u64 {
        self.events.iter().map(|event| event.seq).max().unwrap_or(0)
    }

    /// The sequence numbers of the journalled events that were received.
    pub fn seqs(&self) -> Vec<u64> {
        self.events.iter().map(|event| event.seq).filter(|seq| *seq > 0).collect()
    }

    /// All text of a step's tokens.
    pub fn tokens(&self, step: &str) -> String {
        let of_step = self.events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Token(token)) if token.step_id == step => Some(token.text.as_str()),
            _ => None,
        });
        of_step.collect()
    }

    fn outcome(&self) -> TaskOutcome {
        let output = |output: &Option<v1::Output>| output.as_ref().map(|o| o.text.clone()).unwrap_or_default();
        match self.events.last().and_then(|event| event.kind.as_ref()) {
            Some(Kind::Completed(completed)) => TaskOutcome::Completed(output(&completed.output)),
            Some(Kind::Failed(failed)) => {
                let failure = failed.failure.clone().unwrap_or_default();
                TaskOutcome::Failed(failure.code(), failure.message)
            }
            Some(Kind::Cancelled(cancelled)) => TaskOutcome::Cancelled(cancelled.reason.clone()),
            other => panic!("{other:?} does not end a task"),
        }
    }
}
