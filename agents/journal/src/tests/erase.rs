//! Erasing: the text is gone from every file of the directory, the figures stay, and so do other tasks.

use artel_task::event::{Failure, FailureCode, ResultSource, Timings, Usage};

use super::*;
use crate::Erasure;

/// A text that is stored as it is.
const CANARY: &str = "kanarienvogel-4711";
/// A text that the codec stores as two digits in a byte.
const HEX_CANARY: &str = "c0ffee00c0ffee11c0ffee22";
const HEX_CANARY_BYTES: [u8; 12] = [0xc0, 0xff, 0xee, 0, 0xc0, 0xff, 0xee, 0x11, 0xc0, 0xff, 0xee, 0x22];
/// A text of the other tasks.
const OTHER_TEXT: &str = "zaunkoenig-0815";

fn caller(name: &str) -> CallerName {
    CallerName::parse(name).unwrap()
}

/// Whether a file of the directory contains these bytes.
fn is_in_files(dir: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| std::fs::read(path).unwrap()).any(|file| file.windows(bytes.len()).any(|part| part == bytes))
}

/// Whether the text of each form is in the files.
fn has_canaries(dir: &Path) -> [bool; 2] {
    [is_in_files(dir, CANARY.as_bytes()), is_in_files(dir, &HEX_CANARY_BYTES)]
}

fn spec_of(owner: &str, text: &str) -> TaskSpec {
    let labels = BTreeMap::from([("about".to_owned(), text.to_owned())]);
    TaskSpec { owner: caller(owner), labels, ..spec_with_id(&format!("{text}-{owner}"), &text.repeat(20)) }
}

fn finished(task: TaskId, seq: u64, text: &str) -> Event {
    let kind = EventKind::StepFinished {
        step: StepId::parse("answer").unwrap(),
        output: Output::text(text.repeat(300)),
        usage: Usage { prompt: 11, output: 7, ..Usage::default() },
        timings: Timings::default(),
        taken: Vec::new(),
        source: ResultSource::Run,
        write: None,
    };
    event(task, seq, kind)
}

/// Runs a task with this text in every event.
async fn run(journal: &Journal, task: TaskId, spec: TaskSpec, text: &str) {
    journal.accept(first(task, spec)).await.unwrap();
    journal.append(vec![started(task, 2)]).await.unwrap();
    journal.append(vec![finished(task, 3, text)]).await.unwrap();
    journal.append(vec![started(task, 4), finished(task, 5, HEX_CANARY)]).await.unwrap();
    let failure = Failure { code: FailureCode::OutputInvalid, message: text.to_owned(), step: None };
    journal.append(vec![event(task, 6, EventKind::Failed { failure })]).await.unwrap();
}

/// Tasks of two callers, written by turns so that their rows share pages: the even ones are of `alice`.
async fn write_tasks(journal: &Journal) {
    for number in 0..40 {
        let (owner, text) = if number % 2 == 0 { ("alice", CANARY) } else { ("bob", OTHER_TEXT) };
        let mut spec = spec_of(owner, text);
        spec.request = RequestId::parse(&format!("{text}-{number}"));
        run(journal, id(number), spec, text).await;
    }
}

#[tokio::test]
async fn erased_text_is_in_no_file_and_the_figures_stay() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    write_tasks(&journal).await;
    assert_eq!(has_canaries(dir.path()), [true, true], "the search finds what is stored");
    let others = replay(&journal, id(1)).await;
    let erasure = Erasure::Owner { name: caller("alice"), until: Timestamp(u64::MAX) };
    let tasks = journal.tasks_to_erase(&erasure).await.unwrap();
    assert_eq!(tasks.len(), 20);
    assert_eq!(journal.erase(&tasks).await.unwrap(), 20);
    journal.purge().await.unwrap();
    assert!(!has_canaries(dir.path())[0]);
    assert!(is_in_files(dir.path(), OTHER_TEXT.as_bytes()), "the search still finds what is stored");
    assert_eq!(replay(&journal, id(1)).await, others);

    let events = replay(&journal, id(0)).await;
    assert_eq!(events.iter().map(|event| event.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let tokens =
        |event: &Event| if let EventKind::StepFinished { usage, .. } = &event.kind { usage.total() } else { 0 };
    assert_eq!(events.iter().map(tokens).sum::<u64>(), 36);
    let summary = journal.summary(id(0)).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.status, summary.last_seq, summary.owner), (TaskStatus::Failed, Seq(6), caller("alice")));
    assert_eq!((summary.input_head.as_str(), summary.labels.len(), summary.request), ("", 0, None));
    assert!(journal.tasks_to_erase(&erasure).await.unwrap().is_empty(), "what is erased is not erased again");

    let rest: Vec<TaskId> = (0..40).filter(|number| number % 2 == 1).map(id).collect();
    journal.erase(&rest).await.unwrap();
    journal.purge().await.unwrap();
    assert_eq!(has_canaries(dir.path()), [false, false]);
    journal.close().await;
    assert_eq!(has_canaries(dir.path()), [false, false]);
    let report = crate::check(dir.path()).await.unwrap().unwrap();
    assert_eq!((report.tasks, report.events, report.problems), (40, 240, Vec::new()));
}

#[tokio::test]
async fn what_retention_deleted_is_purged_too() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    write_tasks(&journal).await;
    journal.prune(Retention { tasks: 0, ..KEEP_ALL }).await.unwrap();
    assert!(has_canaries(dir.path())[0], "it is in the log and in free pages");
    journal.purge().await.unwrap();
    assert_eq!(has_canaries(dir.path()), [false, false]);
}

#[tokio::test]
async fn a_task_that_has_not_ended_is_refused_and_one_that_cannot_be_read_is_deleted() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec(CANARY))).await.unwrap();
    let refused = journal.erase(&[id(1)]).await;
    assert!(matches!(refused, Err(Error::Unfinished { task }) if task == id(1)), "{refused:?}");
    run(&journal, id(2), spec_of("alice", CANARY), CANARY).await;
    tamper(dir.path(), "UPDATE events SET body = CAST(body || 'x' AS BLOB) WHERE last = 3").await;
    assert_eq!(journal.erase(&[id(2), id(3)]).await.unwrap(), 1, "one of them does not exist");
    assert_eq!(journal.summary(id(2)).await.unwrap().map(|entry| entry.is_ok()), None);
    let lost = journal.append(vec![started(id(2), 7)]).await;
    assert!(matches!(lost, Err(Error::NoTask { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_request_id_is_free_again_once_its_task_is_erased() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    run(&journal, id(1), spec_with_id("k", "Why?"), CANARY).await;
    // In one batch.
    let (erased, again) =
        tokio::join!(async { journal.erase(&[id(1)]).await }, journal.accept(first(id(2), spec_with_id("k", "Why?"))));
    assert_eq!((erased.unwrap(), again.unwrap()), (1, Acceptance::New));
    let again = journal.accept(first(id(3), spec_with_id("k", "Why?"))).await.unwrap();
    assert_eq!(again, Acceptance::Existing(id(2)));
}

#[tokio::test]
async fn an_erase_that_is_asked_for_is_known_until_it_is_complete() {
    let dir = temp_dir();
    let asked =
        vec![Erasure::Task(id(1)), Erasure::Owner { name: caller("alice"), until: Timestamp(1_700_000_000_000) }];
    let journal = open(dir.path()).await;
    journal.begin_erasures(asked.clone()).await.unwrap();
    journal.close().await;
    let journal = open(dir.path()).await;
    assert_eq!(journal.erasures().await.unwrap(), asked);
    journal.end_erasures().await.unwrap();
    assert!(journal.erasures().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_repair_keeps_the_erases_that_are_asked_for() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    run(&journal, id(1), spec_of("alice", CANARY), CANARY).await;
    journal.accept(first(id(2), spec("?"))).await.unwrap();
    journal.begin_erasures(vec![Erasure::Task(id(1))]).await.unwrap();
    journal.close().await;
    tamper(dir.path(), "UPDATE events SET body = CAST(body || 'x' AS BLOB) WHERE task = 2").await;
    let report = crate::repair(dir.path()).await.unwrap().unwrap();
    assert!(report.backup.is_some_and(|backup| is_in_files(&backup, CANARY.as_bytes())), "the copy has the text");
    let journal = open(dir.path()).await;
    assert_eq!(journal.erasures().await.unwrap(), [Erasure::Task(id(1))]);
    assert_eq!(journal.remove_backups(Timestamp(id(1).unix_millis())).unwrap(), 1);
}

#[tokio::test]
async fn retention_erases_the_sources_of_a_catalog_that_was_in_use_when_its_tasks_were_erased() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for (version, sources) in [("own", CANARY), ("newest", "x")] {
        journal.store_catalog(&CatalogVersion::new(version), sources.to_owned()).await.unwrap();
    }
    run(&journal, id(1), TaskSpec { catalog: CatalogVersion::new("own"), ..spec("?") }, "text").await;
    journal.erase(&[id(1)]).await.unwrap();
    journal.purge().await.unwrap();
    assert_eq!(journal.catalog(&CatalogVersion::new("own")).await.unwrap().as_deref(), Some(CANARY), "it is recent");
    journal.close().await;
    tamper(dir.path(), "UPDATE catalogs SET kept = 0 WHERE version = 'own'").await;
    // Retention runs at the start.
    let journal = open(dir.path()).await;
    assert!(journal.clone().close().await);
    assert!(!is_in_files(dir.path(), CANARY.as_bytes()));
    let journal = open(dir.path()).await;
    assert_eq!(journal.catalog(&CatalogVersion::new("own")).await.unwrap(), None);
}

#[tokio::test]
async fn the_sources_of_a_catalog_go_with_the_last_task_that_is_not_erased() {
    let dir = temp_dir();
    let hours = |count: u64| unix_millis() - count * 3_600_000;
    let journal = open(dir.path()).await;
    for (version, sources) in [("own", CANARY), ("shared", OTHER_TEXT), ("newest", "x")] {
        journal.store_catalog(&CatalogVersion::new(version), sources.to_owned()).await.unwrap();
    }
    for (number, version) in [(1, "own"), (2, "shared"), (3, "shared")] {
        let spec = TaskSpec { catalog: CatalogVersion::new(version), ..spec("?") };
        run(&journal, id(number), spec, "text").await;
    }
    let mut conn = raw_connection(dir.path()).await;
    let past = i64::try_from(hours(2)).unwrap();
    sqlx::query("UPDATE catalogs SET kept = ? WHERE version <> 'newest'").bind(past).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    journal.erase(&[id(1), id(2)]).await.unwrap();
    journal.purge().await.unwrap();
    let catalog = async |version: &str| journal.catalog(&CatalogVersion::new(version)).await.unwrap();
    assert_eq!((catalog("own").await, catalog("shared").await.as_deref()), (None, Some(OTHER_TEXT)));
    assert!(!is_in_files(dir.path(), CANARY.as_bytes()));
    let summary = journal.summary(id(1)).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.catalog, CatalogVersion::new("own"), "the version is a figure");
}
