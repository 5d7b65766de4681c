//! Repair: what can be read of a damaged journal is kept, what cannot is named, and the result is whole.

use std::fs;

use artel_task::event::FailureCode;

use super::*;
use crate::{Repair, check, repair};

const TASKS: u64 = 300;
const PAGE: usize = 4096;

/// The events of a task: every third one still runs.
fn events(number: u64) -> Vec<Event> {
    let task = id(number);
    let mut events = vec![first(task, keyed(&format!("key-{number}"), &"long ".repeat(60))), started(task, 2)];
    if !number.is_multiple_of(3) {
        events.push(completed(task, 3));
    }
    events
}

async fn filled() -> TempDir {
    let dir = temp();
    let journal = open(dir.path()).await;
    journal.keep_catalog(&CatalogVersion::new("c1"), "{}".to_owned()).await.unwrap();
    for number in 0..TASKS {
        let mut events = events(number);
        let rest = events.split_off(1);
        journal.accept(events.remove(0)).await.unwrap();
        journal.append(rest).await.unwrap();
    }
    journal.close().await;
    dir
}

/// Repairs, and checks what must hold whatever was damaged: the result is whole, nothing in it is invented, every task is kept,
/// failed, named as lost or counted, and the damaged file is still there.
async fn repaired(dir: &Path) -> Repair {
    let damaged = fs::read(dir.join("journal.sqlite")).unwrap();
    let done = repair(dir).await.unwrap().unwrap();
    let aside = done.aside.clone().expect("there was damage");
    assert!(fs::read(aside.join("journal.sqlite")).unwrap() == damaged);
    let report = check(dir).await.unwrap().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let journal = open(dir).await;
    let found = tasks(&journal).await;
    assert_eq!(found.len() as u64, done.kept + done.failed.len() as u64);
    for task in &found {
        let number = (0..TASKS).find(|number| id(*number) == *task).expect("no task is invented");
        let (read, whole) = (replay(&journal, *task).await, events(number));
        if done.failed.contains(task) {
            let (end, before) = read.split_last().unwrap();
            assert!(whole.starts_with(before) && before.len() < whole.len(), "{read:?}");
            assert!(matches!(&end.kind, EventKind::Failed { failure } if failure.code == FailureCode::Internal), "{end:?}");
        } else {
            assert_eq!(read, whole);
        }
    }
    for number in 0..TASKS {
        let named = found.contains(&id(number)) || done.lost.contains(&id(number));
        assert!(named || done.nameless > 0 || done.newest, "task {number} is passed over in silence");
    }
    // Whoever hands the same in again gets the same task, and a daemon can go on with what runs.
    if let Some(number) = (0..TASKS).find(|number| found.contains(&id(*number)) && number.is_multiple_of(3)) {
        let again = first(TaskId::new(1, [1; 10]), keyed(&format!("key-{number}"), &"long ".repeat(60)));
        assert_eq!(journal.accept(again).await.unwrap(), Acceptance::Known(id(number)));
        if !done.failed.contains(&id(number)) {
            journal.append(vec![completed(id(number), 3)]).await.unwrap();
        }
    }
    journal.close().await;
    done
}

/// The pages that hold a table or an index, by SQLite's own account.
async fn pages(dir: &Path, name: &'static str) -> Vec<usize> {
    let mut conn = raw(dir).await;
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
    let at = (page - 1) * PAGE;
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
    bytes[(page - 1) * PAGE..page * PAGE].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_journal_is_left_alone() {
    let dir = filled().await;
    let before = fs::read(dir.path().join("journal.sqlite")).unwrap();
    let done = repair(dir.path()).await.unwrap().unwrap();
    assert_eq!(done, Repair { kept: TASKS, ..Repair::default() });
    assert!(fs::read(dir.path().join("journal.sqlite")).unwrap() == before);
    assert_eq!(repair(temp().path()).await.unwrap(), None);
}

#[tokio::test]
async fn beside_a_daemon_nothing_is_repaired() {
    let dir = filled().await;
    let journal = open(dir.path()).await;
    assert!(matches!(repair(dir.path()).await, Err(Error::Locked { .. })));
    journal.close().await;
}

#[tokio::test]
async fn a_page_of_events_costs_its_tasks_alone() {
    let dir = filled().await;
    let leaves = pages(dir.path(), "events").await;
    overwrite(dir.path(), leaves[leaves.len() / 2]);
    let done = repaired(dir.path()).await;
    assert!(!done.lost.is_empty() && done.lost.len() < 40 && done.nameless == 0 && !done.newest, "{done:?}");
    assert!(done.kept > TASKS - 40, "{done:?}");
}

#[tokio::test]
async fn a_page_of_tasks_is_written_anew_from_their_events() {
    let dir = filled().await;
    let leaves = pages(dir.path(), "tasks").await;
    overwrite(dir.path(), leaves[leaves.len() / 2]);
    let done = repaired(dir.path()).await;
    assert_eq!((done.kept, done.nameless, done.newest), (TASKS, 0, false), "{done:?}");
}

#[tokio::test]
async fn where_row_and_index_are_damaged_it_is_said_how_many_may_be_lost() {
    let dir = filled().await;
    let rows = pages(dir.path(), "tasks").await;
    let index = pages(dir.path(), "tasks_id").await;
    rows[1..rows.len() - 1].iter().chain(&index).for_each(|leaf| overwrite(dir.path(), *leaf));
    let done = repaired(dir.path()).await;
    assert!(done.nameless > 0 && !done.newest && done.kept > 0, "{done:?}");
}

#[tokio::test]
async fn every_page_in_turn() {
    let whole = filled().await;
    let size = fs::metadata(whole.path().join("journal.sqlite")).unwrap().len() as usize / PAGE;
    let mut refused = 0;
    for page in (1..=size).step_by(size.div_ceil(24)) {
        let dir = temp();
        fs::copy(whole.path().join("journal.sqlite"), dir.path().join("journal.sqlite")).unwrap();
        overwrite(dir.path(), page);
        match repair(dir.path()).await {
            // The first page is the file's own table of contents.
            Err(Error::Corrupt { .. }) => {
                refused += 1;
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the journal and its lock are as they were");
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
async fn a_file_that_was_cut_keeps_its_beginning() {
    let dir = filled().await;
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("journal.sqlite")).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2 / PAGE as u64 * PAGE as u64).unwrap();
    let done = repaired(dir.path()).await;
    assert!(done.kept > 0 && done.kept < TASKS && done.newest, "{done:?}");
}

#[tokio::test]
async fn a_task_of_which_the_beginning_is_left_has_failed() {
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
async fn a_row_that_says_another_state_is_put_right() {
    let dir = filled().await;
    tamper(dir.path(), "UPDATE tasks SET stage = 0, ended = NULL WHERE number = 2").await;
    let done = repaired(dir.path()).await;
    assert_eq!((done.kept, done.failed.len()), (TASKS, 0), "{done:?}");
}

#[tokio::test]
async fn what_is_still_in_the_log_counts() {
    let (dir, copy) = (filled().await, temp());
    let journal = open(dir.path()).await;
    journal.append(vec![completed(id(3), 3)]).await.unwrap();
    for file in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    journal.close().await;
    let leaves = pages(dir.path(), "events").await;
    overwrite(copy.path(), leaves[leaves.len() - 2]);
    let done = repair(copy.path()).await.unwrap().unwrap();
    assert!(done.aside.is_some() && !done.failed.contains(&id(3)) && !done.lost.contains(&id(3)), "{done:?}");
    let journal = open(copy.path()).await;
    assert_eq!(replay(&journal, id(3)).await.last(), Some(&completed(id(3), 3)));
}
