//! One stream of tokens, and a prompt of some 2000 tokens that arrives meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::contestant::{Answer, Contestant, Role};
use super::speeds::Speeds;
use super::table::Table;
use super::words;

const LONG: usize = 1950;
/// Pieces of the stream before the long prompt is sent.
const BEFORE: usize = 20;
/// Questions to try until one is answered at length.
const ATTEMPTS: u64 = 20;

pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<()> {
    let seed = salt * 10_000 + 5;
    let talker = Role::new("talker", "You tell long stories.", 900);
    let reader = Role::new("reader", "You read.", 8);
    contestant.prepare(&[talker.clone(), reader.clone()]).await?;
    // Both have spoken before, so that loading is not measured.
    contestant.asker().ask(&reader, "Ready?", |_| {}).await?;
    let talking = talk(contestant, &talker, seed).await?;
    let sent = Instant::now();
    let long = contestant.asker().ask(&reader, &words::text(seed + 1, LONG), |_| {}).await?;
    let talk = talking.await.context("the stream panicked")??;
    let first = long.first();
    let name = contestant.name();
    table.note("stall: longest gap between tokens", "s", name, gap(&talk, sent, sent + first).as_secs_f64());
    table.note("stall: first token of the long prompt", "s", name, first.as_secs_f64());
    Ok(())
}

/// The long prompt alone.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    table.limit("stall: first token of the long prompt", speeds.prompts(LONG as u32));
}

/// A stream that has begun to flow. A small model may have little to say about one thing, so it is asked about others.
async fn talk(contestant: &Contestant, talker: &Role, seed: u64) -> Result<JoinHandle<Result<Answer>>> {
    for attempt in 0..ATTEMPTS {
        let (heard, mut pieces) = mpsc::unbounded_channel();
        let (asker, talker) = (contestant.asker(), talker.clone());
        let question = format!("Tell me a long story of {}.", words::text(seed + 100 + attempt, 5));
        let talking = tokio::spawn(async move {
            let tell = move |count| {
                // Nobody need be listening any more.
                let _ = heard.send(count);
            };
            asker.ask(&talker, &question, tell).await
        });
        while let Some(count) = pieces.recv().await {
            if count >= BEFORE {
                return Ok(talking);
            }
        }
        talking.await.context("the stream panicked")??;
    }
    bail!("the model ended every stream before {BEFORE} tokens")
}

/// The longest gap that touches this span.
fn gap(answer: &Answer, from: Instant, to: Instant) -> Duration {
    let touching = answer.pieces.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
    touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
