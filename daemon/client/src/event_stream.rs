//! The events of a task, across restarts of the daemon.

use std::time::Duration;

use artel_proto::v1::event::Kind;
use artel_proto::v1::{Event, GetTaskRequest, TaskState, WatchRequest};
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use tonic_types::StatusExt as _;

use crate::connect::{DaemonClient, with_deadline};
use crate::error::{Error, is_disconnect};
use crate::location::DaemonLocation;

/// Reconnecting is given up after this time: a restart of the daemon takes several seconds.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to reconnect; twice as long after each stream that brought nothing.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(300);
/// Streams in a row that brought nothing, before no other is asked for; the last comes after 19 s. A daemon that starts may end
/// one or two.
const MAX_FRUITLESS_STREAMS: u32 = 6;
/// A stream that was open for so long was of use, with events or without: a step takes minutes, and a proxy may end a connection
/// on which nothing is sent for that long.
const STREAM_LIFETIME: Duration = Duration::from_secs(10);

/// What is shown of the beginning and of the end of a long cause: a line of a terminal each.
const CAUSE_END_BYTES: usize = 80;

/// An update of an [`EventStream`].
#[derive(Debug)]
pub(crate) enum StreamUpdate {
    /// The next event.
    Event(Box<Event>),
    /// The connection was lost for this reason; the stream reconnects.
    Disconnected(String),
    /// The stream has reconnected.
    Reconnected,
}

/// The events of one task; each journalled event is delivered once.
#[derive(Debug)]
pub(crate) struct EventStream {
    location: DaemonLocation,
    stream: Option<Streaming<Event>>,
    task: String,
    last_seq: u64,
    tokens: bool,
    is_finished: bool,
    /// Whether the last event sets the task aside. The events of a task that was taken up again have it too.
    is_set_aside: bool,
    has_reconnected: bool,
    disconnected_at: Option<Instant>,
    opened_at: Instant,
    /// Whether the open stream brought a new event.
    is_fruitful: bool,
    /// Streams in a row that ended at once and without a new event.
    fruitless: u32,
    interval: Duration,
}

impl EventStream {
    /// Continues an open stream; `task` may be empty until the first event names it.
    pub(crate) fn new(
        location: DaemonLocation,
        stream: Streaming<Event>,
        task: String,
        after: u64,
        tokens: bool,
    ) -> Self {
        Self {
            location,
            stream: Some(stream),
            task,
            last_seq: after,
            tokens,
            is_finished: false,
            is_set_aside: false,
            has_reconnected: false,
            disconnected_at: None,
            opened_at: Instant::now(),
            is_fruitful: false,
            fruitless: 0,
            interval: RECONNECT_INTERVAL,
        }
    }

    /// Where the daemon is.
    pub(crate) fn location(&self) -> &DaemonLocation {
        &self.location
    }

    /// The id of the task, once it is known.
    pub(crate) fn task(&self) -> Option<&str> {
        (!self.task.is_empty()).then_some(self.task.as_str())
    }

    /// Whether the first connection was lost and replaced.
    pub(crate) fn has_reconnected(&self) -> bool {
        self.has_reconnected
    }

    /// The next update; `None` after the last event, or if the task is set aside. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<StreamUpdate>, Error> {
        // The daemon keeps the stream open: the task may be taken up again at any time.
        if self.is_finished || self.is_set_aside && self.stays_set_aside().await {
            return Ok(None);
        }
        let Some(stream) = &mut self.stream else { return self.reconnect().await.map(Some) };
        let reason = match stream.message().await {
            Ok(Some(event)) => return Ok(Some(StreamUpdate::Event(Box::new(self.record(event))))),
            Ok(None) => "the stream ended before the task".to_owned(),
            Err(status) if is_disconnect(&status) => status.message().to_owned(),
            // An error of the daemon has a reason. This one was found in what was received, and would be found again.
            Err(status) if status.get_details_error_info().is_none() => return Err(self.unreadable(status.message())),
            Err(status) => return Err(status.into()),
        };
        if self.task.is_empty() {
            return Err(Error::Disconnected(reason));
        }
        self.stream = None;
        self.disconnected_at = Some(Instant::now());
        let was_of_use = std::mem::take(&mut self.is_fruitful) || self.opened_at.elapsed() >= STREAM_LIFETIME;
        self.fruitless = if was_of_use { 0 } else { self.fruitless + 1 };
        if self.fruitless >= MAX_FRUITLESS_STREAMS {
            return Err(Error::EndlessReconnects { task: self.task.clone(), streams: self.fruitless, cause: reason });
        }
        Ok(Some(StreamUpdate::Disconnected(reason)))
    }

    /// Journalled events arrive in order: the one that cannot be read follows the last one.
    fn unreadable(&self, cause: &str) -> Error {
        Error::UnreadableEvent { task: self.task.clone(), seq: self.last_seq + 1, cause: ends(cause) }
    }

    fn record(&mut self, event: Event) -> Event {
        if event.seq > self.last_seq {
            (self.last_seq, self.is_fruitful) = (event.seq, true);
        }
        if self.task.is_empty() {
            self.task.clone_from(&event.task_id);
        }
        self.is_finished = matches!(event.kind, Some(Kind::Completed(_) | Kind::Failed(_) | Kind::Cancelled(_)));
        if event.seq > 0 {
            self.is_set_aside = matches!(event.kind, Some(Kind::SetAside(_)));
        }
        event
    }

    /// Whether no event has followed the one that set the task aside. An error is left to the stream.
    async fn stays_set_aside(&self) -> bool {
        let Ok(daemon) = DaemonClient::connect(&self.location).await else { return false };
        let paths = ["state", "last_seq"].map(str::to_owned).to_vec();
        let read_mask = Some(prost_types::FieldMask { paths });
        let request = GetTaskRequest { task_id: self.task.clone(), read_mask, max_bytes: 0 };
        let task = daemon.tasks().get(with_deadline(request)).await.map(tonic::Response::into_inner);
        task.is_ok_and(|task| task.state() == TaskState::SetAside && task.last_seq == self.last_seq)
    }

    async fn reconnect(&mut self) -> Result<StreamUpdate, Error> {
        let deadline = *self.disconnected_at.get_or_insert_with(Instant::now) + RECONNECT_TIMEOUT;
        loop {
            sleep(self.interval * 2u32.pow(self.fruitless)).await;
            let reason = match self.watch().await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    self.opened_at = Instant::now();
                    self.has_reconnected = true;
                    return Ok(StreamUpdate::Reconnected);
                }
                Err(Error::Rejected(status)) if !is_disconnect(&status) => return Err(Error::Rejected(status)),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(Error::Disconnected(reason));
            }
        }
    }

    async fn watch(&self) -> Result<Streaming<Event>, Error> {
        let daemon = DaemonClient::connect(&self.location).await?;
        let request = WatchRequest { task_id: self.task.clone(), after_seq: self.last_seq, tokens: self.tokens };
        Ok(daemon.tasks().watch(request).await?.into_inner())
    }
}

/// A text without its middle, if it is long: the cause of a message that nests too deep names each level between its first words
/// and its last ones.
fn ends(text: &str) -> String {
    if text.len() <= 2 * CAUSE_END_BYTES {
        return text.to_owned();
    }
    let (head, tail) =
        (text.floor_char_boundary(CAUSE_END_BYTES), text.ceil_char_boundary(text.len() - CAUSE_END_BYTES));
    format!("{} … {}", &text[..head], &text[tail..])
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
    use crate::render::sample;

    type EventResults = Vec<Result<Event, Status>>;

    /// A daemon that streams scripted results, one script for each call, and records the requests.
    #[derive(Clone, Default)]
    struct ScriptedTasks {
        scripts: Arc<Mutex<VecDeque<EventResults>>>,
        requests: Arc<Mutex<Vec<WatchRequest>>>,
    }

    type RpcResult<T> = Result<Response<T>, Status>;

    fn unimplemented<T>() -> RpcResult<T> {
        Err(Status::unimplemented("not in this test"))
    }

    #[tonic::async_trait]
    impl Tasks for ScriptedTasks {
        type RunStream = BoxStream<'static, Result<Event, Status>>;
        type WatchStream = BoxStream<'static, Result<Event, Status>>;

        async fn run(&self, _: Request<RunRequest>) -> RpcResult<Self::RunStream> {
            unimplemented()
        }

        async fn watch(&self, request: Request<WatchRequest>) -> RpcResult<Self::WatchStream> {
            self.requests.lock().unwrap().push(request.into_inner());
            let script = self.scripts.lock().unwrap().pop_front().ok_or(Status::not_found("no script left"))?;
            Ok(Response::new(stream::iter(script).boxed()))
        }

        async fn submit(&self, _: Request<SubmitRequest>) -> RpcResult<Task> {
            unimplemented()
        }

        /// Set aside since the third event.
        async fn get(&self, _: Request<GetTaskRequest>) -> RpcResult<Task> {
            Ok(Response::new(Task { state: TaskState::SetAside.into(), last_seq: 3, ..Task::default() }))
        }

        async fn list(&self, _: Request<ListTasksRequest>) -> RpcResult<ListTasksResponse> {
            unimplemented()
        }

        async fn cancel(&self, _: Request<CancelRequest>) -> RpcResult<Task> {
            unimplemented()
        }

        async fn rate(&self, _: Request<RateRequest>) -> RpcResult<RateResponse> {
            unimplemented()
        }

        async fn resume(&self, _: Request<ResumeRequest>) -> RpcResult<Task> {
            unimplemented()
        }

        async fn answer(&self, _: Request<AnswerRequest>) -> RpcResult<Task> {
            unimplemented()
        }

        async fn fork(&self, _: Request<ForkRequest>) -> RpcResult<Task> {
            unimplemented()
        }

        async fn feedback(&self, _: Request<FeedbackRequest>) -> RpcResult<FeedbackResponse> {
            unimplemented()
        }

        async fn erase(&self, _: Request<EraseRequest>) -> RpcResult<EraseResponse> {
            unimplemented()
        }
    }

    /// The updates of a stream, and the requests that the daemon received.
    async fn updates(scripts: impl IntoIterator<Item = EventResults>) -> (Vec<String>, Vec<WatchRequest>) {
        updates_of("", scripts).await
    }

    /// The same of a watch of this task, whose id is empty until the first event names it.
    async fn updates_of(
        task: &str,
        scripts: impl IntoIterator<Item = EventResults>,
    ) -> (Vec<String>, Vec<WatchRequest>) {
        let daemon =
            ScriptedTasks { scripts: Arc::new(Mutex::new(scripts.into_iter().collect())), ..Default::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("token"), "artel_test").unwrap();
        let location = DaemonLocation::of_own(address, data.path()).unwrap();
        let server = Server::builder().add_service(TasksServer::new(daemon.clone()));
        let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

        let mut tasks = DaemonClient::connect(&location).await.unwrap().tasks();
        let request = WatchRequest { tokens: true, ..Default::default() };
        let stream = tasks.watch(request).await.unwrap().into_inner();
        let mut stream = EventStream::new(location, stream, task.to_owned(), 0, true);
        stream.interval = Duration::from_millis(1);
        let mut updates = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(StreamUpdate::Event(event))) => updates.push(event.seq.to_string()),
                Ok(Some(StreamUpdate::Disconnected(reason))) => updates.push(format!("disconnected: {reason}")),
                Ok(Some(StreamUpdate::Reconnected)) => updates.push("reconnected".to_owned()),
                Ok(None) => break,
                Err(error) => {
                    updates.push(format!("error: {error}"));
                    break;
                }
            }
        }
        server.abort();
        (updates, daemon.requests.lock().unwrap().clone())
    }

    /// The journalled events of a run in a range of sequence numbers.
    fn events(seqs: std::ops::RangeInclusive<u64>) -> EventResults {
        sample::mentor().into_iter().filter(|event| seqs.contains(&event.seq)).map(Ok).collect()
    }

    #[tokio::test]
    async fn a_broken_stream_continues_after_the_last_event() {
        let broken = [events(1..=2), vec![Err(Status::unavailable("shutting down"))]].concat();
        let cut_short = events(3..=9);
        let (updates, requests) = updates([broken, cut_short, events(10..=11)]).await;
        let early = "disconnected: the stream ended before the task";
        let expected = [
            "1",
            "2",
            "disconnected: shutting down",
            "reconnected",
            "3",
            "4",
            "5",
            "6",
            "7",
            "8",
            "9",
            early,
            "reconnected",
            "10",
            "11",
        ];
        assert_eq!(updates, expected);
        let requests: Vec<_> =
            requests.iter().map(|request| (request.task_id.as_str(), request.after_seq, request.tokens)).collect();
        assert_eq!(requests, [("", 0, true), (sample::TASK, 2, true), (sample::TASK, 9, true)]);
    }

    #[tokio::test]
    async fn a_daemon_that_ends_each_stream_at_once_is_not_asked_for_ever() {
        let nothing = || std::iter::repeat_n(Vec::new(), 99);
        // What was received before is no progress, and a piece of text is none either: it comes again with each stream.
        let text = || vec![Ok(Event { seq: 0, ..events(1..=1).remove(0).unwrap() })];
        let repeated = std::iter::repeat_with(move || [events(1..=1), text()].concat()).take(99);
        for (scripts, calls) in [(nothing().collect::<Vec<_>>(), 6), (repeated.collect(), 7)] {
            let (updates, requests) = updates_of(sample::TASK, scripts).await;
            let last = updates.last().unwrap();
            assert!(last.contains("ended 6 streams in a row without a new event"), "{last}");
            assert_eq!(requests.len(), calls);
        }
        let progress = (1..=10).map(|seq| events(seq..=seq)).chain(nothing().take(5)).chain([events(11..=11)]);
        let (updates, requests) = updates_of(sample::TASK, progress).await;
        assert_eq!((updates.last().map(String::as_str), requests.len()), (Some("11"), 16));
    }

    #[tokio::test]
    async fn nothing_is_read_after_the_last_event() {
        let (updates, _) = updates([[events(11..=11), events(1..=1)].concat()]).await;
        assert_eq!(updates, ["11"]);
    }

    #[tokio::test]
    async fn the_stream_ends_where_the_task_is_set_aside_and_not_where_it_was() {
        let set_aside =
            |seq| Event { seq, kind: Some(Kind::SetAside(SetAside::default())), ..events(1..=1).remove(0).unwrap() };
        let script = [events(1..=1), vec![Ok(set_aside(2)), Ok(set_aside(3))], events(4..=4)].concat();
        assert_eq!(updates([script]).await.0, ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn an_error_reported_by_the_daemon_is_no_disconnect() {
        let details = ErrorDetails::with_error_info("INTERNAL", "artel.v1", std::collections::HashMap::new());
        let fault = Status::with_error_details(tonic::Code::Internal, "a fault", details);
        let (updates, requests) = updates([[events(1..=1), vec![Err(fault)]].concat()]).await;
        assert_eq!((updates, requests.len()), (vec!["1".to_owned(), "error: a fault".to_owned()], 1));
    }

    #[tokio::test]
    async fn an_event_that_cannot_be_decoded_ends_the_stream() {
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let lists = (0..60).fold(value(prost_types::value::Kind::NullValue(0)), |inner, _| {
            value(prost_types::value::Kind::ListValue(prost_types::ListValue { values: vec![inner] }))
        });
        let finished =
            StepFinished { output: Some(Output { json: Some(lists), ..Default::default() }), ..Default::default() };
        let task_id = sample::TASK.to_owned();
        let deep = Event { task_id, seq: 3, kind: Some(Kind::StepFinished(finished)), ..Default::default() };
        let (updates, requests) = updates([[events(1..=2), vec![Ok(deep)]].concat(), events(1..=2)]).await;
        assert_eq!((updates[..2].to_vec(), requests.len()), (vec!["1".to_owned(), "2".to_owned()], 1));
        assert!(updates[2].starts_with("error: failed to read event 3 of task "), "{}", updates[2]);
        assert!(updates[2].ends_with("recursion limit reached") && updates[2].len() < 300, "{}", updates[2]);
    }

    #[tokio::test]
    async fn without_a_task_id_the_stream_does_not_reconnect() {
        let (updates, requests) = updates([Vec::new()]).await;
        assert_eq!(updates, ["error: lost the connection to the daemon: the stream ended before the task"]);
        assert_eq!(requests.len(), 1);
    }

    #[tokio::test]
    async fn reconnecting_ends_if_the_task_is_gone() {
        let (updates, _) = updates([events(1..=1)]).await;
        assert_eq!(updates, ["1", "disconnected: the stream ended before the task", "error: no script left"]);
    }
}
