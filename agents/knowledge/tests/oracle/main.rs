//! An index beside a tree of files that changes at random, while the process that indexes is killed at random: once it settles, it
//! is what a fresh index of the tree would be.
//!
//! The process is this test program itself, which runs the real indexer with the real watcher. `ORACLE_OPERATIONS=10000` makes
//! more changes, `ORACLE_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

mod child;
mod dump;
mod reader;
mod tree;

use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use crate::child::{ChildIndexer, DATABASE_VARIABLE};
use crate::tree::TestTree;

/// The changes of a run in the suite.
const DEFAULT_OPERATIONS: u32 = 300;

/// The changes between two comparisons, at most.
const COMPARED_OPERATIONS: u32 = 400;

/// A change is followed by a kill once in so many, and by a wait for the child's work once in so many.
const KILL_STEPS: u32 = 25;
const PACE_STEPS: u32 = 3;

/// How long the child may take to settle on a busy machine.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest wait for work of the child between two changes.
const PACE_TIMEOUT: Duration = Duration::from_millis(40);

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn an_index_follows_its_tree_through_kills() {
    let operations = number("ORACLE_OPERATIONS").map_or(DEFAULT_OPERATIONS, |n| u32::try_from(n).unwrap());
    let seed = number("ORACLE_SEED").unwrap_or_else(rand::random);
    println!("ORACLE_SEED={seed} ORACLE_OPERATIONS={operations}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let (docs, database) = (dir.path().join("docs"), dir.path().join("knowledge.sqlite"));
    fs::create_dir(&docs).unwrap();
    let docs = fs::canonicalize(docs).unwrap();
    let mut tree = TestTree::new(&docs, &dir.path().join("aside"));
    let mut child = ChildIndexer::start(&docs, &database);
    let begin = Instant::now();
    let (mut kills, mut comparisons) = (0, 0);
    for operation in 1..=operations {
        tree.change(&mut random);
        if random.random_range(0..PACE_STEPS) == 0 {
            child.wait_for_work(PACE_TIMEOUT);
        }
        if random.random_range(0..KILL_STEPS) == 0 {
            child.kill();
            kills += 1;
            for _ in 0..random.random_range(0..4) {
                tree.change(&mut random);
            }
            child = ChildIndexer::start(&docs, &database);
        }
        if operation % COMPARED_OPERATIONS == 0 || operation == operations {
            tree.finish();
            let sentinel = tree.write_sentinel(operation);
            child.settle(&sentinel, SETTLE_TIMEOUT);
            child.kill();
            compare(&docs, &database, &tree);
            comparisons += 1;
            child = ChildIndexer::start(&docs, &database);
        }
    }
    child.kill();
    println!(
        "{operations} changes, {kills} kills, {comparisons} comparisons, {} files at the end: {:?}",
        tree.files().len(),
        begin.elapsed()
    );
}

/// The index that was followed, a fresh one, and the tree itself tell the same.
fn compare(docs: &Path, database: &Path, tree: &TestTree) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fresh_dir = TempDir::new().unwrap();
    let fresh = fresh_dir.path().join("fresh.sqlite");
    runtime.block_on(reader::index_once(docs, &fresh));
    let (followed, expected) = runtime.block_on(async { (dump::dump(database).await, dump::dump(&fresh).await) });
    assert_eq!(followed, expected, "the index that was followed is not what a fresh one is");
    let of_tree: Vec<_> = tree.files().into_iter().collect();
    let paths: Vec<_> = followed.keys().cloned().collect();
    assert_eq!(paths, of_tree.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
    for (path, text) in &of_tree {
        let chunks = followed[path].iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>();
        assert_eq!(chunks, reader::paragraphs(text).map(|(_, part)| part).collect::<Vec<_>>(), "{path}");
    }
    runtime.block_on(dump::searches_agree(database, &followed, &tree.removed_words()));
}

/// Not a test: the process that indexes, if this program was started as one.
#[test]
fn child_process() {
    if env::var_os(DATABASE_VARIABLE).is_some() {
        child::run();
    }
}
