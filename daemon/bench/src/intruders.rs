//! Calls with wrong tokens, 1,000 a second: what they cost the calls of others.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use artel_client::DaemonClient;
use artel_proto::v1;
use tonic::{Code, Request};

use crate::open_loop::{self, CallLatencies};
use crate::scripted_daemon::ScriptedDaemon;
use crate::table::BenchTable;

/// Calls of a second with wrong tokens, each with another one.
const INTRUDER_CALLS: u32 = 1000;
/// Connections that they come over.
const INTRUDER_CLIENTS: usize = 8;
/// Calls of a second that read a task.
const READ_CALLS: u32 = 100;
/// Tasks of a second that are run to their end.
const RUN_CALLS: u32 = 20;
/// Long enough for a hundredth of the reads to be ten.
const PHASE_DURATION: Duration = Duration::from_secs(10);
/// The line of the log that must not be there for each call.
const REFUSAL_LINE: &str = "calls were refused";

/// Measures a quiet phase and one with intruders, in this order or the other.
pub(crate) async fn run(daemon: &ScriptedDaemon, is_quiet_first: bool, table: &mut BenchTable) -> Result<()> {
    for is_quiet in [is_quiet_first, !is_quiet_first] {
        if is_quiet {
            record("quiet", &probe(daemon).await?, daemon, table)?;
        } else {
            let intruders = intrude(daemon).await?;
            let (refused, probed) = tokio::try_join!(intruders, probe(daemon))?;
            record("artel", &probed, daemon, table)?;
            table.record("intruders: p99 until a wrong token is refused", "ms", "artel", refused.percentile_ms(99));
        }
    }
    table.record("intruders: lines of the log about them so far", "", "artel", daemon.logged(REFUSAL_LINE)? as f64);
    Ok(())
}

/// The latencies of reads and of tasks.
async fn probe(daemon: &ScriptedDaemon) -> Result<[CallLatencies; 2]> {
    let caller = daemon.owner();
    let task = caller.submit_question().await?;
    let reads = open_loop::run(READ_CALLS, PHASE_DURATION, |_| {
        let (caller, task) = (caller.clone(), task.clone());
        async move { caller.get(task).await }
    });
    let runs = open_loop::run(RUN_CALLS, PHASE_DURATION, |_| {
        let caller = caller.clone();
        async move { caller.run_task().await }
    });
    let (reads, runs) = tokio::try_join!(reads, runs)?;
    let cancel = v1::CancelRequest { task_id: task, ..v1::CancelRequest::default() };
    caller.0.tasks().cancel(cancel).await.context("failed to cancel a task")?;
    Ok([reads, runs])
}

fn record(
    target: &'static str,
    probed: &[CallLatencies; 2],
    daemon: &ScriptedDaemon,
    table: &mut BenchTable,
) -> Result<()> {
    for (call, latencies) in ["reading a task", "a task of one step, from its submission to its end"].iter().zip(probed)
    {
        for percent in [50, 99] {
            let metric = format!("intruders: p{percent} of {call}");
            table.record(&metric, "ms", target, latencies.percentile_ms(percent));
        }
    }
    table.record("intruders: memory of the daemon", "MiB", target, daemon.resident_mib()?);
    Ok(())
}

/// The load, ready to begin.
async fn intrude(daemon: &ScriptedDaemon) -> Result<impl Future<Output = Result<CallLatencies>>> {
    let mut clients = Vec::new();
    for _ in 0..INTRUDER_CLIENTS {
        clients.push(daemon.connect(None).await?);
    }
    Ok(open_loop::run(INTRUDER_CALLS, PHASE_DURATION, move |number| {
        try_token(clients[number as usize % INTRUDER_CLIENTS].clone(), number)
    }))
}

/// A call with a token that is none.
async fn try_token(client: DaemonClient, number: u64) -> Result<()> {
    let mut request = Request::new(v1::ListTasksRequest::default());
    let header = format!("Bearer artel_{number:064x}").parse().context("a token is a header")?;
    request.metadata_mut().insert("authorization", header);
    match client.tasks().list(request).await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(()),
        Err(status) => bail!("a wrong token is refused in another way: {status}"),
        Ok(_) => bail!("a wrong token is admitted"),
    }
}
