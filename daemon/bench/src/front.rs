//! The OpenAI-compatible front beside gRPC, on the same daemon: what it adds to the time of a first token, and what eight streams
//! lose by it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::answer::TimedAnswer;
use crate::own_daemon::OwnDaemon;
use crate::peer_server::PeerServer;
use crate::prompt_text;
use crate::role::BenchRole;
use crate::table::BenchTable;
use crate::target::{BenchTarget, TargetClient};

const PROMPT_WORDS: usize = 150;
/// Requests over gRPC and over HTTP in turn, in one repeat.
const PAIR_CALLS: u64 = 40;
const FIRST_OUTPUT_TOKENS: u32 = 2;
const STREAMS: u64 = 8;
const STREAM_OUTPUT_TOKENS: u32 = 192;

/// Measures a daemon over both, or another server over HTTP alone.
pub(crate) async fn run(target: &mut BenchTarget, salt: u64, table: &mut BenchTable) -> Result<()> {
    let seed = salt * 10_000 + 17;
    let first = BenchRole::new("first", prompt_text::generate(seed, PROMPT_WORDS), FIRST_OUTPUT_TOKENS);
    let tellers: Vec<BenchRole> = (0..STREAMS).map(|n| teller(seed, n)).collect();
    target.warm_up(&[std::slice::from_ref(&first), &tellers].concat()).await?;
    let clients = match target {
        BenchTarget::Own(own) => {
            let http = TargetClient::Peer(own.over_http().await?);
            vec![("grpc", TargetClient::Own(own.client())), ("artel", http)]
        }
        BenchTarget::Peer(peer) => vec![("peer", TargetClient::Peer(peer.clone()))],
    };
    first_tokens(&clients, &first, seed, table).await?;
    // In turn, and in the other order in the next repeat.
    let mut order: Vec<&(&'static str, TargetClient)> = clients.iter().collect();
    if salt.is_multiple_of(2) {
        order.reverse();
    }
    for (name, client) in order {
        let rate = streams(client, &tellers, seed).await?;
        table.record("front: throughput of 8 streams", "tokens/s", name, rate);
    }
    Ok(())
}

fn teller(seed: u64, n: u64) -> BenchRole {
    BenchRole::new(format!("teller-{n}"), prompt_text::generate(seed + 1 + n, PROMPT_WORDS), STREAM_OUTPUT_TOKENS)
}

/// The time to the first token, over each in turn.
async fn first_tokens(
    clients: &[(&'static str, TargetClient)],
    role: &BenchRole,
    seed: u64,
    table: &mut BenchTable,
) -> Result<()> {
    let mut later = Vec::new();
    for pair in 0..PAIR_CALLS {
        let question = prompt_text::generate(seed + 1000 + pair, 8);
        let mut times = Vec::new();
        for turn in 0..clients.len() {
            let (name, client) = &clients[(turn + pair as usize) % clients.len()];
            let answer = client.ask(role, &format!("{question} {name}"), |_| {}).await?;
            let time = answer.time_to_first_token();
            table.record("front: time to the first token", "ms", name, time.as_secs_f64() * 1e3);
            times.push((*name, time));
        }
        let of = |wanted: &str| times.iter().find(|(name, _)| *name == wanted).map(|(_, time)| time.as_secs_f64());
        later.extend(of("artel").zip(of("grpc")).map(|(http, grpc)| (http - grpc) * 1e3));
    }
    later.iter().for_each(|later| table.record("front: first token later than over gRPC", "ms", "artel", *later));
    Ok(())
}

/// Tokens per second while all streams generate.
async fn streams(client: &TargetClient, roles: &[BenchRole], seed: u64) -> Result<f64> {
    let mut requests = Vec::new();
    for (n, role) in roles.iter().enumerate() {
        let (client, role) = (client.clone(), role.clone());
        let question = format!("Tell me a long story of {}.", prompt_text::generate(seed + 2000 + n as u64, 5));
        requests.push(tokio::spawn(async move { client.ask(&role, &question, |_| {}).await }));
    }
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.context("a request panicked")??);
    }
    Ok(common_rate(&answers))
}

/// The chunks of the time in which all generate, as tokens per second.
fn common_rate(answers: &[TimedAnswer]) -> f64 {
    let from = answers.iter().filter_map(|answer| answer.chunk_times.first()).max();
    let to = answers.iter().filter_map(|answer| answer.chunk_times.last()).min();
    let Some((from, to)) = from.zip(to).filter(|(from, to)| from < to) else { return 0.0 };
    let within = |at: &&Instant| (*from..*to).contains(*at);
    let (mut chunks, mut all, mut tokens) = (0, 0, 0);
    for answer in answers {
        chunks += answer.chunk_times.iter().filter(within).count();
        all += answer.chunk_times.len();
        tokens += answer.output_tokens;
    }
    let time: Duration = *to - *from;
    chunks as f64 * tokens as f64 / all.max(1) as f64 / time.as_secs_f64()
}

impl OwnDaemon {
    /// The same daemon as a server of OpenAI's API, whose models are its roles.
    async fn over_http(&self) -> Result<PeerServer> {
        let (address, token) = self.http_access().await?;
        Ok(PeerServer::new(&address).with_roles(token))
    }
}
