//! Repair: readable tasks are kept, unreadable ones are reported, and the result passes the check.

use std::fs;

use artel_task::event::FailureCode;

use super::*;
use crate::{RepairReport, check, repair};

const TASKS: u64 = 300;
const PAGE_BYTES: usize = 4096;

/// The events of a task; every third task is running.
fn events(number: u64) -> Vec<Event> {
    let task = id(number);
    let mut events = vec![first(task, spec_with_id(&format!("key-{number}"), &"long ".repeat(60))), started(task, 2)];
    if !number.is_multiple_of(3) {
        events.push(completed(task, 3));
    }
    events
}

async fn filled() -> TempDir {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.store_catalog(&CatalogVersion::new("c1"), "{}".to_owned()).await.unwrap();
    for number in 0..TASKS {
        let mut events = events(number);
        let rest = events.split_off(1);
        journal.accept(events.remove(0)).await.unwrap();
        journal.append(rest).await.unwrap();
    }
    journal.close().await;
    dir
}

/// Repairs a journal and checks the invariants of every repair: the result passes the check, no task is invented, every task
/// is kept, failed, listed as lost or counted, and the damaged file is in the backup.
async fn repaired(dir: &Path) -> RepairReport {
    let damaged = fs::read(dir.join("journal.sqlite")).unwrap();
    let done = repair(dir).await.unwrap().unwrap();
    let backup = done.backup.clone().expect("there was damage");
    assert!(fs::read(backup.join("journal.sqlite")).unwrap() == damaged);
    let report = check(dir).await.unwrap().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let journal = open(dir).await;
    let found = tasks(&journal).await;
    assert_eq!(found.len() as u64, done.kept + done.failed.len() as u64);
    for task in &found {
        let number = (0..TASKS).find(|number| id(*number) == *task).expect("no task is invented");
        let (read, expected) = (replay(&journal, *task).await, events(number));
        if done.failed.contains(task) {
            let (end, before) = read.split_last().unwrap();
            assert!(expected.starts_with(before) && before.len() < expected.len(), "{read:?}");
            assert!(
                matches!(&end.kind, EventKind::Failed { failure } if failure.code == FailureCode::Internal),
                "{end:?}"
            );
        } else {
            assert_eq!(read, expected);
        }
    }
    for number in 0..TASKS {
        let is_reported = found.contains(&id(number)) || done.lost.contains(&id(number));
        assert!(is_reported || done.unidentified > 0 || done.newest_may_be_lost, "task {number} is not reported");
    }
    // The same request again gets the same task, and a daemon can continue the running tasks.
    if let Some(number) = (0..TASKS).find(|number| found.contains(&id(*number)) && number.is_multiple_of(3)) {
        let again = first(TaskId::new(1, [1; 10]), spec_with_id(&format!("key-{number}"), &"long ".repeat(60)));
        assert_eq!(journal.accept(again).await.unwrap(), Acceptance::Existing(id(number)));
        if !done.failed.contains(&id(number)) {
            journal.append(vec![completed(id(number), 3)]).await.unwrap();
        }
    }
    journal.close().await;
    done
}

/// The leaf pages of a table or an index, according to SQLite.
async fn pages(dir: &Path, name: &'static str) -> Vec<usize> {
    let mut conn = raw_connection(dir).await;
    let root: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = ?")
        .bind(name)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let bytes = fs::read(dir.join("journal.sqlite")).unwrap();
    leaves(&bytes, root as usize)
}

/// The leaves below a page of a b-tree, https://sqlite.org/fileformat.html#b_tree_pages
fn leaves(bytes: &[u8], page: usize) -> Vec<usize> {
    let at = (page - 1) * PAGE_BYTES;
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    if bytes[at] > 5 {
        return vec![page];
    }
    let cells = usize::from(u16::from_be_bytes([bytes[at + 3], bytes[at + 4]]));
    let cell = |n: usize| at + usize::from(u16::from_be_bytes([bytes[at + 12 + 2 * n], bytes[at + 13 + 2 * n]]));
    let children = (0..cells).map(|n| number(cell(n))).chain([number(at + 8)]);
    children.flat_map(|child| leaves(bytes, child)).collect()
}

fn overwrite(dir: &Path, page: usize) {
    let path = dir.join("journal.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    bytes[(page - 1) * PAGE_BYTES..page * PAGE_BYTES].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn an_intact_journal_is_not_changed() {
    let dir = filled().await;
    let before = fs::read(dir.path().join("journal.sqlite")).unwrap();
    let done = repair(dir.path()).await.unwrap().unwrap();
    assert_eq!(done, RepairReport { kept: TASKS, ..RepairReport::default() });
    assert!(fs::read(dir.path().join("journal.sqlite")).unwrap() == before);
    assert_eq!(repair(temp_dir().path()).await.unwrap(), None);
}

#[tokio::test]
async fn a_journal_in_use_is_not_repaired() {
    let dir = filled().await;
    let journal = open(dir.path()).await;
    assert!(matches!(repair(dir.path()).await, Err(Error::Locked { .. })));
    journal.close().await;
}

#[tokio::test]
async fn a_damaged_page_of_events_affects_only_its_tasks() {
    let dir = filled().await;
    let leaves = pages(dir.path(), "events").await;
    overwrite(dir.path(), leaves[leaves.len() / 2]);
    let done = repaired(dir.path()).await;
    assert!(
        !done.lost.is_empty() && done.lost.len() < 40 && done.unidentified == 0 && !done.newest_may_be_lost,
        "{done:?}"
    );
    assert!(done.kept > TASKS - 40, "{done:?}");
}

#[tokio::test]
async fn a_damaged_page_of_tasks_is_rebuilt_from_their_events() {
    let dir = filled().await;
    let leaves = pages(dir.path(), "tasks").await;
    overwrite(dir.path(), leaves[leaves.len() / 2]);
    let done = repaired(dir.path()).await;
    assert_eq!((done.kept, done.unidentified, done.newest_may_be_lost), (TASKS, 0, false), "{done:?}");
}

#[tokio::test]
async fn tasks_without_row_and_index_are_counted_as_unidentified() {
    let dir = filled().await;
    let rows = pages(dir.path(), "tasks").await;
    let index = pages(dir.path(), "tasks_id").await;
    rows[1..rows.len() - 1].iter().chain(&index).for_each(|leaf| overwrite(dir.path(), *leaf));
    let done = repaired(dir.path()).await;
    assert!(done.unidentified > 0 && !done.newest_may_be_lost && done.kept > 0, "{done:?}");
}

#[tokio::test]
async fn each_single_damaged_page_is_survived() {
    let intact = filled().await;
    let size = fs::metadata(intact.path().join("journal.sqlite")).unwrap().len() as usize / PAGE_BYTES;
    let mut refused = 0;
    for page in (1..=size).step_by(size.div_ceil(24)) {
        let dir = temp_dir();
        fs::copy(intact.path().join("journal.sqlite"), dir.path().join("journal.sqlite")).unwrap();
        overwrite(dir.path(), page);
        match repair(dir.path()).await {
            // The first page has the schema.
            Err(Error::Corrupt { .. }) => {
                refused += 1;
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the journal and its lock are unchanged");
            }
            Ok(Some(done)) => {
                assert!(done.kept + done.failed.len() as u64 >= TASKS - 60, "page {page}: {done:?}");
                assert!(check(dir.path()).await.unwrap().unwrap().problems.is_empty(), "page {page}");
            }
            other => panic!("page {page}: {other:?}"),
        }
    }
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_truncated_file_keeps_its_first_tasks() {
    let dir = filled().await;
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("journal.sqlite")).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2 / PAGE_BYTES as u64 * PAGE_BYTES as u64).unwrap();
    let done = repaired(dir.path()).await;
    assert!(done.kept > 0 && done.kept < TASKS && done.newest_may_be_lost, "{done:?}");
}

#[tokio::test]
async fn a_task_with_only_its_first_events_has_failed() {
    for sql in
        ["UPDATE events SET body = x'00' WHERE last = 3 AND task = 2", "DELETE FROM events WHERE last = 3 AND task = 2"]
    {
        let dir = filled().await;
        tamper(dir.path(), sql).await;
        let done = repaired(dir.path()).await;
        assert_eq!((done.kept, done.failed, done.lost), (TASKS - 1, vec![id(1)], Vec::new()), "{sql}");
    }
}

#[tokio::test]
async fn a_row_with_another_state_than_its_events_is_corrected() {
    let dir = filled().await;
    tamper(dir.path(), "UPDATE tasks SET stage = 0, ended = NULL WHERE number = 2").await;
    let done = repaired(dir.path()).await;
    assert_eq!((done.kept, done.failed.len()), (TASKS, 0), "{done:?}");
}

#[tokio::test]
async fn events_in_the_log_are_recovered() {
    let (dir, copy) = (filled().await, temp_dir());
    let journal = open(dir.path()).await;
    journal.append(vec![completed(id(3), 3)]).await.unwrap();
    for file in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    journal.close().await;
    let leaves = pages(dir.path(), "events").await;
    overwrite(copy.path(), leaves[leaves.len() - 2]);
    let done = repair(copy.path()).await.unwrap().unwrap();
    assert!(done.backup.is_some() && !done.failed.contains(&id(3)) && !done.lost.contains(&id(3)), "{done:?}");
    let journal = open(copy.path()).await;
    assert_eq!(replay(&journal, id(3)).await.last(), Some(&completed(id(3), 3)));
}
