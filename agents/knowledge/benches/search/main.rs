//! What a search over 100,000 chunks takes, how many of the nearest vectors it finds, and the memory it needs:
//! `cargo bench -p artel-knowledge`.
//!
//! Texts have words as frequent as those of a natural language (Zipf's law), vectors are in clusters as those of an embedding model
//! are. Another process searches than the one that indexes, so that its memory is that of searches.
#![allow(clippy::unwrap_used)]

mod corpus;

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use artel_knowledge::{
    ContentHash, EntryKey, EntryLabels, EntryMeta, FileStat, Index, IndexSettings, Language, ModelPrint, OpenedBase,
    PreparedChunk, QueryEmbedding, SearchMode, SearchQuery, SearchTimes,
};
use artel_task::CallerName;
use tempfile::TempDir;

use crate::corpus::{Corpus, DIMENSIONS};

const CHUNKS_VARIABLE: &str = "BENCH_CHUNKS";
const DATABASE_VARIABLE: &str = "BENCH_DATABASE";
const DEFAULT_CHUNKS: usize = 100_000;
const ENTRY_CHUNKS: usize = 20;
const TIMED_QUESTIONS: usize = 400;
const COMPARED_QUESTIONS: usize = 100;
const TOP_CHUNKS: usize = 10;

fn settings() -> IndexSettings {
    IndexSettings {
        model: Some((ModelPrint::new("bench"), DIMENSIONS)),
        chunking: "made".into(),
        languages: Language::ALL.to_vec(),
    }
}

fn main() {
    let chunks = env::var(CHUNKS_VARIABLE).ok().map_or(DEFAULT_CHUNKS, |chunks| chunks.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let corpus = Corpus::new(chunks);
    if let Some(database) = env::var_os(DATABASE_VARIABLE) {
        return runtime.block_on(measure(Path::new(&database), &corpus));
    }
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("knowledge.sqlite");
    runtime.block_on(build(&database, &corpus));
    let measured = Command::new(env::current_exe().unwrap()).env(DATABASE_VARIABLE, &database).status().unwrap();
    assert!(measured.success());
}

async fn build(database: &Path, corpus: &Corpus) {
    let index = Index::open(database).await.unwrap();
    let base = index.open_base("bench", &settings()).await.unwrap();
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    for first in (0..corpus.chunks()).step_by(ENTRY_CHUNKS) {
        let entry_begin = Instant::now();
        put(&index, base, corpus, first).await;
        slowest = slowest.max(entry_begin.elapsed());
    }
    let elapsed = begin.elapsed();
    let rate = corpus.chunks() as f64 / elapsed.as_secs_f64();
    println!("stored {} chunks in {elapsed:.1?}: {rate:.0} per second; slowest entry {slowest:.1?}", corpus.chunks());
    index.close().await;
    println!("database: {} MB", database.metadata().unwrap().len() / 1_000_000);
}

async fn put(index: &Index, base: OpenedBase, corpus: &Corpus, first: usize) {
    let numbers = first..(first + ENTRY_CHUNKS).min(corpus.chunks());
    let prepared: Vec<_> =
        numbers.clone().map(|number| PreparedChunk::of(corpus.chunk(number), &Language::ALL)).collect();
    let vectors = prepared.iter().zip(numbers).map(|(chunk, number)| (chunk.hash(), corpus.vector(number))).collect();
    index.store_embeddings(&ModelPrint::new("bench"), vectors).await.unwrap();
    let key = EntryKey::file(Path::new(&format!("/made/{first}.md"))).unwrap();
    let meta = EntryMeta {
        source: "made".into(),
        owner: CallerName::owner(),
        labels: EntryLabels::new(),
        hash: ContentHash::of(key.as_str().as_bytes()),
        stat: FileStat::default(),
        is_fresh: false,
    };
    index.replace(base, &key, meta, prepared).await.unwrap();
}

async fn measure(database: &Path, corpus: &Corpus) {
    let begin = Instant::now();
    let index = Index::open(database).await.unwrap();
    println!("opened in {:.1?}", begin.elapsed());
    let base = index.open_base("bench", &settings()).await.unwrap();
    let stats = index.stats(base.target).await.unwrap();
    println!("in memory: {} MB of {} chunks", stats.memory_bytes / 1_000_000, stats.chunks);
    let mut totals = Vec::new();
    let mut times: Vec<SearchTimes> = Vec::new();
    for question in 0..TIMED_QUESTIONS {
        let begin = Instant::now();
        let found = index.search("bench", query(corpus, question, SearchMode::Hybrid)).await.unwrap();
        totals.push(begin.elapsed());
        times.push(found.times);
        assert_eq!(found.passages.len(), TOP_CHUNKS);
    }
    let part = |of: fn(&SearchTimes) -> Duration| times.iter().map(of).collect::<Vec<_>>();
    for (name, mut durations) in [
        ("keyword", part(|times| times.keyword)),
        ("vector", part(|times| times.vector)),
        ("fusion", part(|times| times.fusion)),
        ("filter", part(|times| times.filter)),
        ("read", part(|times| times.read)),
        ("all", totals),
    ] {
        durations.sort();
        let percentile = |percent: usize| durations[(durations.len() - 1) * percent / 100];
        println!("{name:8} p50 {:>8.2?}  p95 {:>8.2?}", percentile(50), percentile(95));
    }
    println!("resident: {} MB", resident_bytes() / 1_000_000);
    recall(&index, corpus).await;
}

fn query(corpus: &Corpus, question: usize, mode: SearchMode) -> SearchQuery {
    let embedding = QueryEmbedding { model: ModelPrint::new("bench"), values: corpus.question_vector(question) };
    let text = corpus.question(question);
    SearchQuery { embedding: Some(embedding), mode, top: TOP_CHUNKS, ..SearchQuery::new(text) }
}

/// How many of the ten nearest chunks by full comparison are found, by the index and by comparing 16 bits alone, as it does at last.
async fn recall(index: &Index, corpus: &Corpus) {
    let questions: Vec<Vec<f32>> = (0..COMPARED_QUESTIONS).map(|question| corpus.question_vector(question)).collect();
    let mut exact: Vec<Vec<(f32, usize)>> = vec![Vec::new(); questions.len()];
    let mut fine = exact.clone();
    for number in 0..corpus.chunks() {
        let vector = corpus.vector(number);
        let largest = vector.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let parts = |value: &f32| (value / largest * f32::from(i16::MAX)).round() / f32::from(i16::MAX);
        let rounded: Vec<f32> = vector.iter().map(|value| parts(value) * largest).collect();
        for (at, question) in questions.iter().enumerate() {
            keep_best(&mut exact[at], (dot(&vector, question), number));
            keep_best(&mut fine[at], (dot(&rounded, question), number));
        }
    }
    let (mut by_index, mut by_fine) = (0, 0);
    for (at, expected) in exact.iter().enumerate() {
        let found = index.search("bench", query(corpus, at, SearchMode::Vector)).await.unwrap();
        let found: Vec<usize> = found.passages.iter().map(|passage| corpus.number(&passage.chunk)).collect();
        by_index += expected.iter().filter(|(_, number)| found.contains(number)).count();
        by_fine += expected.iter().filter(|(_, number)| fine[at].iter().any(|(_, other)| other == number)).count();
    }
    let of_all = |found: usize| found as f64 / (questions.len() * TOP_CHUNKS) as f64;
    println!("recall@10: index (8 bits, then 16) {:.4}, 16 bits alone {:.4}", of_all(by_index), of_all(by_fine));
}

fn keep_best(best: &mut Vec<(f32, usize)>, candidate: (f32, usize)) {
    let at = best.partition_point(|(score, _)| *score >= candidate.0);
    if at < TOP_CHUNKS {
        best.insert(at, candidate);
        best.truncate(TOP_CHUNKS);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}
