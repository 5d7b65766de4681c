//! A chain of three roles, each of which reads what the one before it said: the time from its last word to the next's first.

use std::time::Duration;

use anyhow::Result;

use super::contestant::{Contestant, Role};
use super::speeds::Speeds;
use super::table::Table;
use super::words;

const ROLES: u64 = 3;
const PROMPT: usize = 300;
const OUTPUT: u32 = 48;
const CHAINS: u64 = 8;

pub(super) async fn run(contestant: &mut Contestant, salt: u64, table: &mut Table) -> Result<()> {
    let seed = salt * 10_000 + 11;
    let role = |n: u64| Role::new(format!("hop-{n}"), words::text(seed + n, PROMPT), OUTPUT);
    let roles: Vec<Role> = (0..ROLES).map(role).collect();
    contestant.prepare(&roles).await?;
    let mut gaps: Vec<Duration> = Vec::new();
    for n in 0..=CHAINS {
        let answer = contestant.asker().chain(&roles, &words::text(seed + 100 + n, 16)).await?;
        // The first chain finds nothing cached.
        gaps.extend(answer.hops.into_iter().filter(|_| n > 0));
    }
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    table.note(
        "hops: from the last word to the next role's first",
        "ms",
        contestant.name(),
        median.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// What was said must be read when it has its end, and one token generated; who reads along has less left to do.
pub(super) fn limits(speeds: &Speeds, table: &mut Table) {
    let seconds = speeds.prompts(OUTPUT + words::FRAME);
    table.limit("hops: from the last word to the next role's first", seconds * 1e3);
}
