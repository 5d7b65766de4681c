//! The daemon is killed with SIGKILL, at every commit in turn and at any moment: no task that it acknowledged is lost, and
//! every task ends as it does without a kill.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artel_proto::v1::TaskState;
use artel_proto::v1::event::Kind;
use artel_tests::scripted::{FinalState, SCRIPTED_CATALOG, model_script, scripted_requests};
use artel_tests::{Daemon, DaemonBuilder, TaskRequest, daemon};
use nix::sys::signal::Signal;
use tokio::sync::Semaphore;
use tonic::Status;

/// A killed daemon exits within this time; one that does not has returned an error without being killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

fn scripted_daemon() -> DaemonBuilder {
    daemon().with_yaml(SCRIPTED_CATALOG).with_failpoints(&model_script())
}

/// The final state of each scripted request without a kill.
async fn undisturbed() -> Vec<FinalState> {
    let daemon = scripted_daemon().start().await;
    let mut states = Vec::new();
    for request in scripted_requests() {
        let mut run = daemon.run(request).await;
        run.end().await;
        states.push(FinalState::of(&daemon.task(&run.id).await));
    }
    states
}

/// A client that submits one task and follows it over any number of kills.
struct RetryingClient {
    request: TaskRequest,
    /// The id of the task, once it was acknowledged.
    id: Option<String>,
    /// The sequence numbers of the events that were received, in the order of arrival.
    seqs: Vec<u64>,
    has_ended: bool,
}

impl RetryingClient {
    fn new(request: TaskRequest, request_id: &str) -> Self {
        Self { request: request.with_request_id(request_id), id: None, seqs: Vec::new(), has_ended: false }
    }

    /// A client for each scripted request.
    fn for_each_request() -> Vec<Self> {
        let requests = scripted_requests().into_iter().enumerate();
        requests.map(|(n, request)| Self::new(request, &format!("{n}"))).collect()
    }

    /// Submits the task, again after a kill, and follows it after the last event that was received; an error is a kill. A task
    /// that several kills in a row left without progress is set aside, and taken up again.
    async fn follow(&mut self, daemon: &Daemon, mut on_event: impl FnMut()) -> Result<(), Status> {
        let task = daemon.submit(self.request.clone()).await?;
        let id = task.id.clone();
        assert_eq!(self.id.get_or_insert_with(|| id.clone()), &id, "the same request is the same task");
        let mut run = daemon.try_watch(&id, self.seqs.last().copied().unwrap_or(0)).await?;
        if task.state() == TaskState::SetAside {
            daemon.resume(&id).await?;
        }
        while let Some(kind) = run.next().await? {
            let seq = run.events.last().unwrap().seq;
            if seq > 0 {
                self.seqs.push(seq);
                on_event();
            }
            if matches!(kind, Kind::SetAside(_)) {
                daemon.resume(&id).await?;
            }
        }
        self.has_ended = true;
        Ok(())
    }

    /// Compares the final state of its task, and the events that it received.
    async fn check(&self, daemon: &Daemon, expected: &FinalState) {
        let task = daemon.task(self.id.as_ref().unwrap()).await;
        assert_eq!(&FinalState::of(&task), expected);
        assert_eq!(self.seqs, (1..=task.last_seq).collect::<Vec<_>>(), "nothing is missing and nothing comes twice");
    }
}

/// Waits until a killed daemon has exited; gives a builder with the same directory.
async fn after_kill(mut daemon: Daemon, error: &Status) -> DaemonBuilder {
    let Ok(exit) = tokio::time::timeout(EXIT_TIMEOUT, daemon.wait()).await else {
        panic!("it still runs, and returned an error: {error:?}")
    };
    assert_eq!(exit.signal(), Some(Signal::SIGKILL as i32), "{error:?}");
    daemon.after_exit().await
}

/// Runs all scripted requests, one after the other, on a daemon that is killed at a failpoint; returns whether it was.
async fn is_killed_at(failpoint: &str, expected: &[FinalState]) -> bool {
    let mut was_killed = false;
    let mut daemon = match scripted_daemon().killed_at(failpoint).try_start().await {
        Ok(daemon) => daemon,
        Err(builder) => {
            was_killed = true;
            builder.start().await
        }
    };
    let mut clients = RetryingClient::for_each_request();
    for client in &mut clients {
        while let Err(status) = client.follow(&daemon, || {}).await {
            assert!(!was_killed, "it is killed once: {status:?}");
            was_killed = true;
            daemon = after_kill(daemon, &status).await.start().await;
        }
    }
    for (client, expected) in clients.iter().zip(expected) {
        client.check(&daemon, expected).await;
    }
    was_killed
}

async fn kill_at_every_commit(moment: &str) {
    let expected = undisturbed().await;
    let mut commit = 1;
    while is_killed_at(&format!("{moment}:{commit}"), &expected).await {
        commit += 1;
    }
    // Each of the 16 steps that finish, and each of the 5 tasks that are accepted, is a commit.
    assert!(commit > 20, "{commit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_each_commit_in_turn_every_task_ends_as_it_should() {
    kill_at_every_commit("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_each_commit_in_turn_every_task_ends_as_it_should() {
    kill_at_every_commit("after").await;
}

/// A client that received the last event just before the daemon was killed asks again and receives no more events.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_has_received_every_event_receives_none_twice() {
    let daemon = scripted_daemon().start().await;
    let mut client = RetryingClient::new(scripted_requests().swap_remove(0), "one");
    client.follow(&daemon, || {}).await.unwrap();
    let received = client.seqs.clone();
    client.follow(&daemon, || {}).await.unwrap();
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    client.follow(&daemon, || {}).await.unwrap();
    assert_eq!(client.seqs, received);
}

/// A daemon that is killed every few commits gets all tasks done.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_still_makes_progress() {
    let expected = undisturbed().await;
    let mut builder = scripted_daemon();
    let mut clients = RetryingClient::for_each_request();
    let mut kills = 0;
    let daemon = loop {
        // The catalog, what is due for deletion, a new task or one resumed, and one step more.
        let daemon = match builder.killed_at("after:5").try_start().await {
            Ok(daemon) => daemon,
            // A task that is resumed may come as far before the daemon listens.
            Err(again) => {
                kills += 1;
                builder = again;
                continue;
            }
        };
        let mut error = None;
        for client in clients.iter_mut().filter(|client| !client.has_ended) {
            if let Err(status) = client.follow(&daemon, || {}).await {
                error = Some(status);
                break;
            }
        }
        let Some(status) = error else { break daemon };
        kills += 1;
        builder = after_kill(daemon, &status).await;
    };
    assert!(kills >= 5, "{kills}");
    for (client, expected) in clients.iter().zip(&expected) {
        client.check(&daemon, expected).await;
    }
}

/// Marsaglia's xorshift: the same integers for the same seed.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const TOTAL_TASKS: usize = 200;
const MAX_CONCURRENT_TASKS: usize = 8;
/// Received events between one kill and the next, at most.
const MAX_EVENTS: u64 = 80;

/// Follows all tasks that have not ended, until all have or the daemon is killed: after so many received events.
async fn follow_until_kill(
    daemon: Arc<Daemon>,
    clients: Vec<RetryingClient>,
    max_events: u64,
) -> (Vec<RetryingClient>, Option<Status>) {
    let (received, permits) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(MAX_CONCURRENT_TASKS)));
    let follow = |mut client: RetryingClient| {
        let (daemon, received, permits) = (daemon.clone(), received.clone(), permits.clone());
        async move {
            let _permit = permits.acquire().await.unwrap();
            if client.has_ended {
                return (client, None);
            }
            let count = || {
                if received.fetch_add(1, Ordering::Relaxed) + 1 == max_events {
                    daemon.signal(Signal::SIGKILL);
                }
            };
            let error = client.follow(&daemon, count).await.err();
            (client, error)
        }
    };
    let followers: Vec<_> = clients.into_iter().map(|client| tokio::spawn(follow(client))).collect();
    let (mut clients, mut error) = (Vec::new(), None);
    for follower in followers {
        let (client, status) = follower.await.unwrap();
        clients.push(client);
        error = error.or(status);
    }
    (clients, error)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_two_hundred_tasks_end_as_they_should() {
    let expected = undisturbed().await;
    let requests = scripted_requests();
    let mut clients: Vec<RetryingClient> = (0..TOTAL_TASKS)
        .map(|n| RetryingClient::new(requests[n % requests.len()].clone(), &format!("request-{n}")))
        .collect();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut builder = scripted_daemon();
    let mut kills = 0;
    let daemon = loop {
        let daemon = Arc::new(builder.start().await);
        let (followed, error) = follow_until_kill(daemon.clone(), clients, random.below(MAX_EVENTS) + 1).await;
        clients = followed;
        let daemon = Arc::into_inner(daemon).expect("no client follows any more");
        let Some(status) = error else { break daemon };
        kills += 1;
        builder = after_kill(daemon, &status).await;
    };
    assert!(kills >= 8, "{kills}");
    // It may have been killed just now; ended tasks stay as they are either way.
    daemon.signal(Signal::SIGKILL);
    let daemon = daemon.restart().await;
    for (n, client) in clients.iter().enumerate() {
        client.check(&daemon, &expected[n % expected.len()]).await;
    }
}
