//! Erasing tasks: a canary is found in the data directory before and not after, in each form in which it is stored; figures stay,
//! other tasks are untouched, and an erase that is interrupted by a kill at any commit is completed at the next start.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_proto::v1;
use artel_tests::scripted::{FinalState, SCRIPTED_CATALOG, model_script};
use artel_tests::{Daemon, DaemonBuilder, TaskOutcome, daemon, task_request};
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};
use tonic::Code;

/// A killed daemon exits within this time; one that does not has answered without being killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
/// The text of a caller, which a router sends to the writer.
const CANARY: &str = "Where does the kanarienvogel river flow?";
/// A text of a caller that the journal stores as two digits in a byte, and those bytes.
const HEX_CANARY: &str = "c0ffee00c0ffee11c0ffee22";
const HEX_CANARY_BYTES: [u8; 12] = [0xc0, 0xff, 0xee, 0, 0xc0, 0xff, 0xee, 0x11, 0xc0, 0xff, 0xee, 0x22];
/// The text of a task that is not erased.
const OTHER_TEXT: &str = "Which zaunkoenig sail for a storm?";

/// A role whose instructions hold the text of its task, and a graph in which a person is asked about it.
const CATALOG: &str = "---
role: scribe
description: Writes for one caller.
model: talk
prompt: 'You write down everything that concerns {{ task.input }}, and nothing else.'
message: Begin.
---
graph: form
description: A person decides.
start: sign
result: sign
nodes:
  sign: {ask: {message: 'Sign {{ input }}?'}, next: done}
---
graph: choice
description: The router decides, and a scribe writes.
start: pick
result: write
nodes:
  pick: {router: {roles: [writer, sailor]}, next: write}
  write: {role: scribe, next: done}
";

fn erasing_daemon() -> DaemonBuilder {
    let builder = daemon().with_yaml(&format!("{SCRIPTED_CATALOG}{CATALOG}")).with_failpoints(&model_script());
    let prefixes = builder.dir().join("data/prefixes");
    builder.with_env("ARTEL_SCRIPT_PREFIXES", &prefixes.to_string_lossy())
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files below the data directory that contain these bytes.
fn with_bytes(daemon: &Daemon, bytes: &[u8]) -> Vec<PathBuf> {
    let is_found = |path: &PathBuf| {
        // A file of SQLite or of a cache may vanish meanwhile.
        let content = fs::read(path).unwrap_or_default();
        content.windows(bytes.len()).any(|part| part == bytes)
    };
    files(&daemon.dir().join("data")).into_iter().filter(is_found).collect()
}

/// A text as the scripted model's tokens in a prefix file: its bytes, four for each.
fn token_ids(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|byte| i32::from(byte).to_le_bytes()).collect()
}

/// The files that have a canary, by its form: as text, packed by the journal, as tokens, and the packed one as text.
fn canaries(daemon: &Daemon) -> [Vec<PathBuf>; 4] {
    let texts = [CANARY, HEX_CANARY].map(|text| text.as_bytes().to_vec());
    let [text, hex] = texts;
    [text, HEX_CANARY_BYTES.to_vec(), token_ids(CANARY), hex].map(|bytes| with_bytes(daemon, &bytes))
}

/// In no file.
const NOWHERE: [Vec<PathBuf>; 4] = [const { Vec::new() }; 4];

/// Where the cache of embeddings has a text: under the start of its hash.
fn with_embedding(daemon: &Daemon, text: &str) -> Vec<PathBuf> {
    with_bytes(daemon, &Sha256::digest(text)[..16])
}

fn erase_request(ids: &[&str]) -> v1::EraseRequest {
    v1::EraseRequest { task_ids: ids.iter().map(|id| (*id).to_owned()).collect(), owner: String::new() }
}

/// Runs a task with the canary in its input, its label, its output and its prompts; gives feedback on its decision.
async fn run_with_canary(daemon: &Daemon) -> String {
    let request = task_request(CANARY).with_graph("choice").with_label("about", HEX_CANARY);
    let mut run = daemon.run(request.with_request_id("kanarienvogel-1")).await;
    run.end().await.text();
    let hex = daemon.run(task_request(HEX_CANARY).with_role("writer")).await.end().await;
    assert_eq!(hex, TaskOutcome::Completed(format!("<{HEX_CANARY}>")));
    let (task_id, role, comment) = (run.id.clone(), "writer".to_owned(), CANARY.to_owned());
    let feedback = v1::FeedbackRequest { task_id, role, comment, step_id: String::new() };
    daemon.tasks().feedback(feedback).await.unwrap();
    run.id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_is_in_no_file_and_the_figures_stay() {
    let daemon = erasing_daemon().start().await;
    let id = run_with_canary(&daemon).await;
    let hex = daemon.run(task_request(HEX_CANARY).with_role("sailor")).await.id;
    let mut other = daemon.run(task_request(OTHER_TEXT).with_graph("line")).await;
    other.end().await.text();
    let (before, others) = (daemon.task(&id).await, FinalState::of(&daemon.task(&other.id).await));
    // Prefix files are written in the background.
    while canaries(&daemon)[2].is_empty() {
        tokio::task::yield_now().await;
    }
    let found = canaries(&daemon);
    let named = |paths: &[PathBuf], name: &str| paths.iter().any(|path| path.to_string_lossy().contains(name));
    assert!(named(&found[0], "journal.sqlite") && named(&found[0], "feedback.jsonl"), "{found:?}");
    assert!(named(&found[1], "journal.sqlite") && named(&found[2], "prefixes/"), "{found:?}");
    assert!(named(&found[3], "journal.sqlite"), "{found:?}");
    let embedded = ["Where does the river flow?", CANARY].map(|text| with_embedding(&daemon, text).len());
    // A file that is written anew lies beside the one before until it takes its place.
    let of_catalog_alone = embedded[0] >= 1 && embedded[1] == 0;
    assert!(
        of_catalog_alone,
        "the embeddings that are kept are those of the catalog's texts, and of no question: {embedded:?}"
    );

    let list = daemon.tasks().list(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    let ids: Vec<&str> = list.iter().map(|task| task.id.as_str()).filter(|task| *task != other.id).collect();
    let erased = daemon.tasks().erase(erase_request(&ids)).await.unwrap().into_inner();
    assert_eq!((erased.tasks, erased.feedback_entries), (ids.len() as u64, 1));
    assert!(erased.prefix_files >= 1, "{erased:?}");
    assert_eq!(canaries(&daemon), NOWHERE);
    assert!(!with_bytes(&daemon, OTHER_TEXT.as_bytes()).is_empty(), "the search still finds what is stored");

    let after = daemon.task(&id).await;
    assert_eq!((after.state(), after.usage, after.last_seq), (before.state(), before.usage, before.last_seq));
    assert_eq!((after.create_time, after.end_time, &after.graph), (before.create_time, before.end_time, &before.graph));
    let figures = |task: &v1::Task| -> Vec<_> {
        let figure = |step: &v1::Step| (step.id.clone(), step.state, step.usage, step.start_time, step.end_time);
        task.steps.iter().map(figure).collect()
    };
    assert_eq!(figures(&after), figures(&before));
    assert!(after.erase_time.is_some() && after.input.is_empty() && after.labels.is_empty(), "{after:?}");
    assert_eq!(FinalState::of(&daemon.task(&other.id).await), others);
    assert_eq!(daemon.watch(&id, 0).await.end().await, TaskOutcome::Completed(String::new()), "it has a clear end");
    assert!(daemon.task(&hex).await.erase_time.is_some());

    let daemon = stopped(daemon).await.start().await;
    assert_eq!(canaries(&daemon), NOWHERE);
    let (code, out, err) =
        artel_tests::Cli::new(["journal", "check", "--data"]).arg(daemon.dir().join("data")).run().await;
    assert_eq!(code, 0, "{out}{err}");
}

/// The daemon, stopped in order.
async fn stopped(mut daemon: Daemon) -> DaemonBuilder {
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    daemon.after_exit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_is_cancelled_and_its_watchers_receive_an_end() {
    let daemon = erasing_daemon().start().await;
    let mut run = daemon.run(task_request(CANARY).with_graph("form")).await;
    run.until(|kind| matches!(kind, v1::event::Kind::Waiting(_))).await;
    let erased = daemon.tasks().erase(erase_request(&[&run.id])).await.unwrap().into_inner();
    assert_eq!((erased.tasks, erased.cancelled_tasks), (1, 1));
    assert_eq!(run.end().await, TaskOutcome::Cancelled("[erased]".to_owned()));
    assert!(canaries(&daemon)[0].is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_to_be_confirmed_and_erases_by_id_and_by_owner() {
    let daemon = erasing_daemon().start().await;
    let mut run = daemon.run(task_request(CANARY).with_role("writer")).await;
    run.end().await.text();
    let (code, _, err) = daemon.cli(["task", "erase"]).arg(&run.id).run().await;
    assert_eq!((code, err.contains("--yes")), (2, true), "{err}");
    assert!(!canaries(&daemon)[0].is_empty());
    let (code, out, err) = daemon.cli(["task", "erase", "--yes"]).arg(&run.id).run().await;
    assert_eq!((code, out.as_str()), (0, "erased the text of 1 task\n"), "{err}");
    let (code, _, err) = daemon.cli(["task", "erase", "--yes", "0198c0de-0000-7000-8000-000000000000"]).run().await;
    assert_eq!(code, 2, "{err}");
    let mut second = daemon.run(task_request(CANARY).with_role("writer")).await;
    second.end().await.text();
    let (code, out, err) = daemon.cli(["task", "erase", "--yes", "--json", "--owner", "owner"]).run().await;
    let erased: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &erased["tasks"]), (0, &serde_json::json!(1)), "what is erased is not erased again: {err}");
    assert!(canaries(&daemon)[0].is_empty());
    let (_, out, _) = daemon.cli(["task", "get"]).arg(&second.id).run().await;
    assert!(out.contains("owner    owner") && out.contains("  erased "), "{out}");
}

/// Erases a task that has ended and one that waits, on a daemon that is killed at a failpoint: both are erased when it runs again, or
/// none if it was killed before it had stored that they are to be. Returns whether it was killed.
async fn erase_is_killed_at(failpoint: &str) -> bool {
    let mut builder = erasing_daemon();
    // The tasks are there before the daemon that is killed is started, so that its commits are those of the start and of the erase.
    let daemon = builder.start().await;
    let mut run = daemon.run(task_request(CANARY).with_graph("choice")).await;
    run.end().await.text();
    let mut other = daemon.run(task_request(OTHER_TEXT).with_role("sailor")).await;
    other.end().await.text();
    let mut form = daemon.run(task_request(CANARY).with_graph("form")).await;
    form.until(|kind| matches!(kind, v1::event::Kind::Waiting(_))).await;
    let others = FinalState::of(&daemon.task(&other.id).await);
    builder = stopped(daemon).await;

    let mut was_killed = false;
    let daemon = match builder.killed_at(failpoint).try_start().await {
        Ok(mut daemon) => match daemon.tasks().erase(erase_request(&[&run.id, &form.id])).await {
            Ok(_) => daemon,
            Err(status) => {
                let Ok(exit) = tokio::time::timeout(EXIT_TIMEOUT, daemon.wait()).await else {
                    panic!("it still runs, and returned an error: {status:?}")
                };
                assert_eq!(exit.signal(), Some(Signal::SIGKILL as i32), "{status:?}");
                was_killed = true;
                daemon.after_exit().await.start().await
            }
        },
        Err(builder) => {
            was_killed = true;
            builder.start().await
        }
    };
    let was_completed = daemon.whole_log().await.contains("completed what an earlier run did not erase");
    let [erased, open] = [daemon.task(&run.id).await, daemon.task(&form.id).await];
    let is_erased = erased.erase_time.is_some();
    assert!(is_erased || !was_completed, "{erased:?}");
    assert_eq!(is_erased, open.erase_time.is_some(), "both or none");
    if is_erased {
        assert_eq!(canaries(&daemon), NOWHERE);
        assert_eq!(open.state(), v1::TaskState::Cancelled);
    } else {
        // It was killed before it had stored that they are to be erased.
        assert!(was_killed && !canaries(&daemon)[0].is_empty());
    }
    assert_eq!(FinalState::of(&daemon.task(&other.id).await), others);
    was_killed
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_commit_of_an_erase_it_is_complete_after_the_next_start_or_has_not_begun() {
    for moment in ["before", "after"] {
        let mut commit = 1;
        while erase_is_killed_at(&format!("{moment}:{commit}")).await {
            commit += 1;
        }
        // That it is to be erased, the end of the task that waits, the text, the files, and that it is complete.
        assert!(commit > 5, "{commit}");
    }
}

/// Erases a task on a daemon whose disk is full at a commit; the daemon if that commit was that of the new files.
async fn erase_with_a_full_disk_at(commit: u32) -> Option<(Daemon, String)> {
    let daemon = erasing_daemon().start().await;
    let mut run = daemon.run(task_request(CANARY).with_role("writer")).await;
    run.end().await.text();
    let fault = format!("before:{commit}=full");
    let daemon = stopped(daemon).await.with_fault_at(&fault).try_start().await.ok()?;
    let status = daemon.tasks().erase(erase_request(&[&run.id])).await.err()?;
    assert_eq!(status.code(), Code::Unavailable);
    status.message().contains("may be left in its files").then_some((daemon, run.id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_the_new_files_stops_nothing_and_the_erase_is_completed_later() {
    let mut commit = 1;
    let (daemon, id) = loop {
        if let Some(found) = erase_with_a_full_disk_at(commit).await {
            break found;
        }
        commit += 1;
        assert!(commit < 20, "an erase writes the files anew");
    };
    let mut other = daemon.run(task_request(OTHER_TEXT).with_role("writer")).await;
    other.end().await.text();
    daemon.tasks().erase(erase_request(&[&id])).await.unwrap();
    assert!(canaries(&daemon)[0].is_empty());
}
