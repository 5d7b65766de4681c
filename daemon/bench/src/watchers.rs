//! 1,000 idle watchers of a task beside 200 submissions a second, and further watchers beyond the limit of their token.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use artel_client::DaemonClient;
use artel_proto::v1;
use artel_proto::v1::event::Kind;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::open_loop::{self, CallLatencies};
use crate::scripted_daemon::ScriptedDaemon;
use crate::table::BenchTable;

/// Streams that are open, and the limit of their token.
const WATCH_STREAMS: u32 = 1000;
/// Connections that they come over.
const WATCH_CLIENTS: usize = 10;
/// Submissions of a second, each followed to the end of its task.
const RUN_CALLS: u32 = 200;
/// Watches of a second beyond the limit.
const EXCESS_CALLS: u32 = 100;
const PHASE_DURATION: Duration = Duration::from_secs(10);
const TOKEN_NAME: &str = "crowd";

/// The crowd: a task that waits for a person, and the streams of those that watch it.
struct WatchingCrowd {
    task: String,
    clients: Vec<DaemonClient>,
    streams: Vec<Streaming<v1::Event>>,
}

/// Measures submissions alone, with watchers, and with watchers that are refused, in this order or the other.
pub(crate) async fn run(daemon: &ScriptedDaemon, is_quiet_first: bool, table: &mut BenchTable) -> Result<()> {
    for is_quiet in [is_quiet_first, !is_quiet_first] {
        if is_quiet {
            let runs = submissions(daemon).await?;
            // They are compared with both.
            record("watchers", "quiet", &runs, table);
            record("watchers at their limit", "quiet", &runs, table);
            table.record("watchers: memory of the daemon", "MiB", "quiet", daemon.resident_mib()?);
        } else {
            let crowd = WatchingCrowd::gather(daemon).await?;
            record("watchers", "artel", &submissions(daemon).await?, table);
            table.record("watchers: memory of the daemon", "MiB", "artel", daemon.resident_mib()?);
            let (refused, runs) = tokio::try_join!(crowd.exceed(), submissions(daemon))?;
            record("watchers at their limit", "artel", &runs, table);
            table.record("watchers at their limit: p99 until one is refused", "ms", "artel", refused.percentile_ms(99));
            let told = crowd.release().await?;
            let metric = "watchers: until all have seen the end of their task";
            table.record(metric, "ms", "artel", told.as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

async fn submissions(daemon: &ScriptedDaemon) -> Result<CallLatencies> {
    let caller = daemon.owner();
    open_loop::run(RUN_CALLS, PHASE_DURATION, |_| {
        let caller = caller.clone();
        async move { caller.run_task().await }
    })
    .await
}

fn record(case: &str, target: &'static str, runs: &CallLatencies, table: &mut BenchTable) {
    for percent in [50, 99] {
        let metric = format!("{case}: p{percent} from a submission to the end of its task");
        table.record(&metric, "ms", target, runs.percentile_ms(percent));
    }
}

fn watch_request(task: &str) -> v1::WatchRequest {
    v1::WatchRequest { task_id: task.to_owned(), ..v1::WatchRequest::default() }
}

impl WatchingCrowd {
    /// Opens all streams that the token may have.
    async fn gather(daemon: &ScriptedDaemon) -> Result<Self> {
        let limits = v1::AccessLimits { streams: WATCH_STREAMS, ..v1::AccessLimits::default() };
        let revoke = v1::RevokeTokenRequest { name: TOKEN_NAME.to_owned() };
        // That of an earlier repeat, if there was one.
        let _ = daemon.owner().0.access().revoke_token(revoke).await;
        let token = daemon.create_token(TOKEN_NAME, limits).await?;
        let task = daemon.owner().submit_question().await?;
        let (mut clients, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..WATCH_CLIENTS {
            clients.push(daemon.connect(Some(&token)).await?);
        }
        for number in 0..WATCH_STREAMS as usize {
            let mut tasks = clients[number % WATCH_CLIENTS].tasks();
            let mut stream = tasks.watch(watch_request(&task)).await.context("failed to watch a task")?.into_inner();
            // What was there before: from now on it is idle.
            while !matches!(next(&mut stream).await?.kind, Some(Kind::Waiting(_))) {}
            streams.push(stream);
        }
        Ok(Self { task, clients, streams })
    }

    /// Tries to open more streams than the token may have; each must be refused with a delay.
    async fn exceed(&self) -> Result<CallLatencies> {
        open_loop::run(EXCESS_CALLS, PHASE_DURATION, |number| {
            let (client, task) = (self.clients[number as usize % WATCH_CLIENTS].clone(), self.task.clone());
            async move {
                match client.tasks().watch(watch_request(&task)).await {
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        let delay = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                        ensure!(delay.is_some(), "a watch beyond the limit is refused without a delay");
                        Ok(())
                    }
                    Err(status) => bail!("a watch beyond the limit is refused in another way: {status}"),
                    Ok(_) => bail!("a watch beyond the limit is admitted"),
                }
            }
        })
        .await
    }

    /// Answers the question, and waits until every stream has told the end of the task.
    async fn release(mut self) -> Result<Duration> {
        let begin = Instant::now();
        let answer = Some(v1::answer_request::Answer::Text("This one.".to_owned()));
        let request = v1::AnswerRequest { task_id: self.task.clone(), step_id: String::new(), answer };
        self.clients[0].tasks().answer(request).await.context("failed to answer")?;
        for stream in &mut self.streams {
            while !matches!(next(stream).await?.kind, Some(Kind::Completed(_))) {}
        }
        Ok(begin.elapsed())
    }
}

async fn next(stream: &mut Streaming<v1::Event>) -> Result<v1::Event> {
    let event = stream.message().await.context("failed to read the events of a task")?;
    event.context("a stream ended before its task")
}
