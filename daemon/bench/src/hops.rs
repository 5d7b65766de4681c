//! A chain of three roles, each of which reads the output of the one before it: the time from the last token of a role to the
//! first token of the next.

use std::time::Duration;

use anyhow::Result;

use crate::baseline::LlamaBaseline;
use crate::prompt_text;
use crate::role::BenchRole;
use crate::table::BenchTable;
use crate::target::BenchTarget;

const ROLES: u64 = 3;
const PROMPT_WORDS: usize = 300;
const OUTPUT_TOKENS: u32 = 48;
const CHAINS: u64 = 8;
const METRIC: &str = "hops: last token to the next role's first token";

pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 11;
    let role =
        |n: u64| BenchRole::new(format!("hop-{n}"), prompt_text::generate(seed + n, PROMPT_WORDS), OUTPUT_TOKENS);
    let roles: Vec<BenchRole> = (0..ROLES).map(role).collect();
    target.install_roles(&roles).await?;
    let mut latencies: Vec<Duration> = Vec::new();
    for n in 0..=CHAINS {
        let answer = target.client().ask_chain(&roles, &prompt_text::generate(seed + 100 + n, 16)).await?;
        // The first chain is not counted: nothing is cached yet.
        latencies.extend(answer.hop_latencies.into_iter().filter(|_| n > 0));
    }
    latencies.sort_unstable();
    let median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
    table.record(METRIC, "ms", target.name(), median.as_secs_f64() * 1e3);
    Ok(())
}

/// The whole output is prefilled after its end, and one token generated; speculative prefill can do better than this.
pub(crate) fn set_limits(baseline: &LlamaBaseline, table: &mut BenchTable) {
    let seconds = baseline.prefill_seconds(OUTPUT_TOKENS + prompt_text::CHAT_TEMPLATE_TOKENS);
    table.set_limit(METRIC, seconds * 1e3);
}
