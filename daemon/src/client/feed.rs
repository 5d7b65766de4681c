//! A task's events, across a daemon that goes away and comes back.

use std::time::Duration;

use artel_proto::v1::event::Kind;
use artel_proto::v1::{Event, WatchRequest};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::connect::{Address, Daemon};
use super::error::{Error, is_break};

/// How long a daemon may be away: a restart with its models takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before it is tried again.
const PAUSE: Duration = Duration::from_millis(300);

/// What a feed brings.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The next event.
    Event(Box<Event>),
    /// The stream broke, and this is why; the feed tries to get it back.
    Lost(String),
    /// The feed has the stream back.
    Back,
}

/// The events of one task, each journalled one once.
#[derive(Debug)]
pub(crate) struct Feed {
    address: Address,
    stream: Option<Streaming<Event>>,
    task: String,
    seq: u64,
    tokens: bool,
    ended: bool,
    rejoined: bool,
    lost: Option<Instant>,
}

impl Feed {
    /// Goes on from a stream that was opened; `task` may be empty until the first event tells it.
    pub(crate) fn new(address: Address, stream: Streaming<Event>, task: String, after: u64, tokens: bool) -> Self {
        let (ended, rejoined, lost) = (false, false, None);
        Self { address, stream: Some(stream), task, seq: after, tokens, ended, rejoined, lost }
    }

    /// Where the daemon is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The task, once it is known.
    pub(crate) fn task(&self) -> Option<&str> {
        (!self.task.is_empty()).then_some(self.task.as_str())
    }

    /// Whether the stream is not the first one any more.
    pub(crate) fn rejoined(&self) -> bool {
        self.rejoined
    }

    /// What comes next; `None` after the last event. Nothing is lost if the wait is given up.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(stream) = &mut self.stream else { return self.rejoin().await.map(Some) };
        let why = match stream.message().await {
            Ok(Some(event)) => return Ok(Some(Heard::Event(Box::new(self.note(event))))),
            Ok(None) => "the stream ended before the task".to_owned(),
            Err(status) if is_break(&status) => status.message().to_owned(),
            Err(status) => return Err(status.into()),
        };
        if self.task.is_empty() {
            return Err(Error::Lost(why));
        }
        self.stream = None;
        self.lost.get_or_insert_with(Instant::now);
        Ok(Some(Heard::Lost(why)))
    }

    fn note(&mut self, event: Event) -> Event {
        self.lost = None;
        self.seq = self.seq.max(event.seq);
        if self.task.is_empty() {
            self.task.clone_from(&event.task_id);
        }
        self.ended = matches!(event.kind, Some(Kind::Completed(_) | Kind::Failed(_) | Kind::Cancelled(_)));
        event
    }

    async fn rejoin(&mut self) -> Result<Heard, Error> {
        let deadline = *self.lost.get_or_insert_with(Instant::now) + PATIENCE;
        loop {
            sleep(PAUSE).await;
            let why = match self.watch().await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    self.rejoined = true;
                    return Ok(Heard::Back);
                }
                Err(Error::Refused(status)) if !is_break(&status) => return Err(Error::Refused(status)),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(Error::Lost(why));
            }
        }
    }

    async fn watch(&self) -> Result<Streaming<Event>, Error> {
        let daemon = Daemon::connect(&self.address).await?;
        let request = WatchRequest { task_id: self.task.clone(), after_seq: self.seq, tokens: self.tokens };
        Ok(daemon.tasks().watch(request).await?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use artel_proto::v1::tasks_server::{Tasks, TasksServer};
    use artel_proto::v1::*;
    use futures::stream::{self, BoxStream, StreamExt};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;
    use crate::client::render::sample;

    type Script = Vec<Result<Event, Status>>;

    /// A daemon that streams what it was told to, one script for each call, and notes from where it was to begin.
    #[derive(Clone, Default)]
    struct Scripted {
        scripts: Arc<Mutex<VecDeque<Script>>>,
        asked: Arc<Mutex<Vec<WatchRequest>>>,
    }

    type Answer<T> = Result<Response<T>, Status>;

    fn not_here<T>() -> Answer<T> {
        Err(Status::unimplemented("not in this test"))
    }

    #[tonic::async_trait]
    impl Tasks for Scripted {
        type RunStream = BoxStream<'static, Result<Event, Status>>;
        type WatchStream = BoxStream<'static, Result<Event, Status>>;

        async fn run(&self, _: Request<RunRequest>) -> Answer<Self::RunStream> {
            not_here()
        }

        async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
            self.asked.lock().unwrap().push(request.into_inner());
            let script = self.scripts.lock().unwrap().pop_front().ok_or(Status::not_found("no script is left"))?;
            Ok(Response::new(stream::iter(script).boxed()))
        }

        async fn submit(&self, _: Request<SubmitRequest>) -> Answer<Task> {
            not_here()
        }

        async fn get(&self, _: Request<GetTaskRequest>) -> Answer<Task> {
            not_here()
        }

        async fn list(&self, _: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
            not_here()
        }

        async fn cancel(&self, _: Request<CancelRequest>) -> Answer<Task> {
            not_here()
        }

        async fn answer(&self, _: Request<AnswerRequest>) -> Answer<Task> {
            not_here()
        }

        async fn fork(&self, _: Request<ForkRequest>) -> Answer<Task> {
            not_here()
        }

        async fn feedback(&self, _: Request<FeedbackRequest>) -> Answer<FeedbackResponse> {
            not_here()
        }
    }

    /// What a feed brings, and what the daemon was asked for.
    async fn fed(scripts: impl IntoIterator<Item = Script>) -> (Vec<String>, Vec<WatchRequest>) {
        let daemon = Scripted { scripts: Arc::new(Mutex::new(scripts.into_iter().collect())), ..Default::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = Server::builder().add_service(TasksServer::new(daemon.clone()));
        let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

        let mut tasks = Daemon::connect(&address).await.unwrap().tasks();
        let request = WatchRequest { tokens: true, ..Default::default() };
        let stream = tasks.watch(request).await.unwrap().into_inner();
        let mut feed = Feed::new(address, stream, String::new(), 0, true);
        let mut brought = Vec::new();
        loop {
            match feed.next().await {
                Ok(Some(Heard::Event(event))) => brought.push(event.seq.to_string()),
                Ok(Some(Heard::Lost(why))) => brought.push(format!("lost: {why}")),
                Ok(Some(Heard::Back)) => brought.push("back".to_owned()),
                Ok(None) => break,
                Err(error) => {
                    brought.push(format!("error: {error}"));
                    break;
                }
            }
        }
        server.abort();
        (brought, daemon.asked.lock().unwrap().clone())
    }

    /// The journalled events of a run, from one number to another.
    fn events(seqs: std::ops::RangeInclusive<u64>) -> Script {
        sample::mentor().into_iter().filter(|event| seqs.contains(&event.seq)).map(Ok).collect()
    }

    #[tokio::test]
    async fn a_broken_stream_goes_on_after_the_last_number_seen() {
        let broken = [events(1..=2), vec![Err(Status::unavailable("shutting down"))]].concat();
        let cut_short = events(3..=9);
        let (brought, asked) = fed([broken, cut_short, events(10..=11)]).await;
        let early = "lost: the stream ended before the task";
        let expected =
            ["1", "2", "lost: shutting down", "back", "3", "4", "5", "6", "7", "8", "9", early, "back", "10", "11"];
        assert_eq!(brought, expected);
        let asked: Vec<_> = asked.iter().map(|asked| (asked.task_id.as_str(), asked.after_seq, asked.tokens)).collect();
        assert_eq!(asked, [("", 0, true), (sample::TASK, 2, true), (sample::TASK, 9, true)]);
    }

    #[tokio::test]
    async fn nothing_is_read_after_the_last_event() {
        let (brought, _) = fed([[events(11..=11), events(1..=1)].concat()]).await;
        assert_eq!(brought, ["11"]);
    }

    #[tokio::test]
    async fn what_the_daemon_says_itself_is_no_break() {
        let details = ErrorDetails::with_error_info("INTERNAL", "artel.v1", std::collections::HashMap::new());
        let fault = Status::with_error_details(tonic::Code::Internal, "a fault", details);
        let (brought, asked) = fed([[events(1..=1), vec![Err(fault)]].concat()]).await;
        assert_eq!((brought, asked.len()), (vec!["1".to_owned(), "error: a fault".to_owned()], 1));
    }

    #[tokio::test]
    async fn a_task_that_is_not_known_yet_cannot_be_found_again() {
        let (brought, asked) = fed([Vec::new()]).await;
        assert_eq!(brought, ["error: the daemon is gone: the stream ended before the task"]);
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_task_that_is_gone_is_not_waited_for() {
        let (brought, _) = fed([events(1..=1)]).await;
        assert_eq!(brought, ["1", "lost: the stream ended before the task", "error: no script is left"]);
    }
}
