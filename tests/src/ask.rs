//! Tasks: handing them in and following them.

use artel_proto::v1;
use artel_proto::v1::event::Kind;
use artel_proto::v1::submit_request::Target;
use tonic::{Status, Streaming};

use crate::Daemon;

/// A task to hand in.
#[derive(Debug, Clone, Default)]
pub struct Ask(v1::SubmitRequest);

/// A question.
pub fn ask(input: &str) -> Ask {
    Ask(v1::SubmitRequest { input: input.to_owned(), ..v1::SubmitRequest::default() })
}

impl Ask {
    /// Of a graph.
    #[must_use]
    pub fn of_graph(mut self, name: &str) -> Self {
        self.0.target = Some(Target::Graph(name.to_owned()));
        self
    }

    /// Of a single role.
    #[must_use]
    pub fn of_role(mut self, name: &str) -> Self {
        self.0.target = Some(Target::Role(name.to_owned()));
        self
    }

    /// With a request id.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.0.request_id);
        self
    }

    /// With a label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A task and its stream.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Everything heard so far.
    pub events: Vec<v1::Event>,
    stream: Streaming<v1::Event>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// With this text.
    Completed(String),
    /// With this code and message.
    Failed(v1::FailureCode, String),
    /// For this reason.
    Cancelled(String),
}

impl End {
    /// The text of a task that completed.
    pub fn text(self) -> String {
        match self {
            Self::Completed(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

impl Daemon {
    /// Hands a task in and does not follow it.
    pub async fn submit(&self, ask: Ask) -> Result<v1::Task, Status> {
        self.tasks().submit(ask.0).await.map(tonic::Response::into_inner)
    }

    /// Hands a task in and follows it; it is on disk when this returns.
    pub async fn run(&self, ask: Ask) -> Run {
        let request = v1::RunRequest { submit: Some(ask.0), cancel_on_disconnect: false };
        let stream = self.tasks().run(request).await.unwrap().into_inner();
        Run::of(stream).await
    }

    /// Hands a task in and follows it, unless it is refused.
    pub async fn try_run(&self, ask: Ask) -> Result<Run, Status> {
        let request = v1::RunRequest { submit: Some(ask.0), cancel_on_disconnect: false };
        Ok(Run::of(self.tasks().run(request).await?.into_inner()).await)
    }

    /// Follows a task from the event after this one.
    pub async fn watch(&self, id: &str, after: u64) -> Run {
        let request = v1::WatchRequest { task_id: id.to_owned(), after_seq: after, tokens: true };
        let stream = self.tasks().watch(request).await.unwrap().into_inner();
        Run { id: id.to_owned(), events: Vec::new(), stream }
    }

    /// Follows a task's events from the one after this one, without its tokens.
    pub async fn try_watch(&self, id: &str, after: u64) -> Result<Run, Status> {
        let request = v1::WatchRequest { task_id: id.to_owned(), after_seq: after, tokens: false };
        let stream = self.tasks().watch(request).await?.into_inner();
        Ok(Run { id: id.to_owned(), events: Vec::new(), stream })
    }

    /// A task as it stands.
    pub async fn task(&self, id: &str) -> v1::Task {
        let request = v1::GetTaskRequest { task_id: id.to_owned(), ..Default::default() };
        self.tasks().get(request).await.unwrap().into_inner()
    }

    /// Cancels a task.
    pub async fn cancel(&self, id: &str) -> v1::Task {
        let request =
            v1::CancelRequest { task_id: id.to_owned(), reason: "the test".to_owned(), step_id: String::new() };
        self.tasks().cancel(request).await.unwrap().into_inner()
    }
}

impl Run {
    async fn of(mut stream: Streaming<v1::Event>) -> Self {
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
            let kind = self.next().await.unwrap().expect("the task goes on");
            if wanted(&kind) {
                return kind;
            }
        }
    }

    /// Waits for the first token of any step.
    pub async fn until_it_speaks(&mut self) {
        self.until(|kind| matches!(kind, Kind::Token(_))).await;
    }

    /// Follows the task to its end.
    pub async fn end(&mut self) -> End {
        while self.next().await.unwrap().is_some() {}
        self.ended()
    }

    /// The number of the last journalled event that was heard.
    pub fn last_seq(&self) -> u64 {
        self.events.iter().map(|event| event.seq).max().unwrap_or(0)
    }

    /// The numbers of the journalled events that were heard.
    pub fn numbers(&self) -> Vec<u64> {
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

    fn ended(&self) -> End {
        let output = |output: &Option<v1::Output>| output.as_ref().map(|o| o.text.clone()).unwrap_or_default();
        match self.events.last().and_then(|event| event.kind.as_ref()) {
            Some(Kind::Completed(completed)) => End::Completed(output(&completed.output)),
            Some(Kind::Failed(failed)) => {
                let failure = failed.failure.clone().unwrap_or_default();
                End::Failed(failure.code(), failure.message)
            }
            Some(Kind::Cancelled(cancelled)) => End::Cancelled(cancelled.reason.clone()),
            other => panic!("{other:?} is no end"),
        }
    }
}
