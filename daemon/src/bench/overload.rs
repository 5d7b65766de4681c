//! Twice what a server can do, a quarter of it for people who wait: how long they wait for a first token.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::contestant::{Answer, Contestant, Extra, Role};
use super::crowd;
use super::speeds::Speeds;
use super::table::Table;
use super::words;

const PROMPT: usize = 120;
const QUESTION: usize = 16;
const OUTPUT: u32 = 32;
/// Cells of a sequence halfway through its answer.
pub(super) const CELLS: u32 = (PROMPT + QUESTION) as u32 + words::FRAME + OUTPUT / 2;
const WAIT: &str = "overload: 95th percentile of the wait for a first token";
const SENT: &str = "overload: tasks sent";
/// Tasks that tell what the server can do, so many at once.
const TRIAL: u64 = 24;
const AT_ONCE: usize = 8;
/// Tasks that are sent at twice that pace.
const TASKS: u64 = 72;
/// Every so many-th one is for somebody who waits.
const WAITS: u64 = 4;

pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<()> {
    let seed = salt * 10_000 + 9;
    let quick = Role::new("quick", words::text(seed, PROMPT), OUTPUT);
    let slow = Role::new("slow", words::text(seed + 1, PROMPT), OUTPUT).with(Extra::Batch);
    contestant.prepare(&[quick.clone(), slow.clone()]).await?;
    let role = |n: u64| if n.is_multiple_of(WAITS) { quick.clone() } else { slow.clone() };
    let task = |n: u64| (role(n), words::text(seed + 100 + n, QUESTION));
    crowd::ask(contestant, (0..2).map(task).collect(), 1).await?;
    let began = Instant::now();
    crowd::ask(contestant, (0..TRIAL).map(|n| task(1000 + n)).collect(), AT_ONCE).await?;
    let pause = began.elapsed().div_f64(2.0 * TRIAL as f64);
    let answers = flood(contestant, (0..TASKS).map(|n| task(2000 + n)).collect(), pause).await;
    let name = contestant.name();
    let quick = answers.iter().step_by(WAITS as usize).flatten();
    table.note(WAIT, "s", name, high(quick).as_secs_f64());
    table.note("overload: tasks lost or failed", "", name, answers.iter().filter(|a| a.is_none()).count() as f64);
    table.note(SENT, "/s", name, 1.0 / pause.as_secs_f64());
    Ok(())
}

/// Nobody's first token comes before their own question is read, and nobody can do more than read all questions and write all
/// answers as wide as they are asked for.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    let question = speeds.prompts(QUESTION as u32 + words::FRAME);
    table.limit(WAIT, question);
    table.limit(SENT, 2.0 / (question + speeds.answers(OUTPUT, AT_ONCE)));
}

/// Sends one task after the other, whatever becomes of those before; `None` for one that failed.
async fn flood(contestant: &Contestant, tasks: Vec<(Role, String)>, pause: Duration) -> Vec<Option<Answer>> {
    let mut clock = tokio::time::interval(pause);
    let mut sent = Vec::new();
    for (role, question) in tasks {
        clock.tick().await;
        let asker = contestant.asker();
        sent.push(tokio::spawn(async move { asker.ask(&role, &question, |_| {}).await }));
    }
    let mut answers = Vec::new();
    for task in sent {
        let answer = task.await.context("the one who asked panicked").and_then(|answer| answer);
        answers.push(answer.inspect_err(|error| eprintln!("a task failed: {error:#}")).ok());
    }
    answers
}

fn high<'a>(answers: impl Iterator<Item = &'a Answer>) -> Duration {
    let mut waits: Vec<Duration> = answers.map(Answer::first).collect();
    waits.sort_unstable();
    waits.get((waits.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
