//! The owners of tasks: request ids and lists of each, and the owner of a task.

use super::*;
use crate::read::SELECT_PAGE_OF_OWNER;

fn caller(name: &str) -> CallerName {
    CallerName::parse(name).unwrap()
}

fn spec_of(owner: &str, request_id: &str, input: &str) -> TaskSpec {
    TaskSpec { owner: caller(owner), ..spec_with_id(request_id, input) }
}

fn of(owner: &str) -> TaskFilter {
    TaskFilter { owner: Some(caller(owner)), ..TaskFilter::default() }
}

#[tokio::test]
async fn a_request_id_is_unique_among_the_tasks_of_its_owner_alone() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    // In one batch, and across batches.
    let (alice, bob) = tokio::join!(
        journal.accept(first(id(1), spec_of("alice", "k", "Why?"))),
        journal.accept(first(id(2), spec_of("bob", "k", "What else?"))),
    );
    assert_eq!((alice.unwrap(), bob.unwrap()), (Acceptance::New, Acceptance::New));
    let again = journal.accept(first(id(3), spec_of("alice", "k", "Why?"))).await.unwrap();
    assert_eq!(again, Acceptance::Existing(id(1)));
    let reused = journal.accept(first(id(3), spec_of("alice", "k", "What else?"))).await;
    assert!(matches!(reused, Err(Error::RequestReused { task, .. }) if task == id(1)), "{reused:?}");
    assert_eq!(journal.accept(first(id(3), spec_of("owner", "k", "Why?"))).await.unwrap(), Acceptance::New);
    let key = RequestId::parse("k").unwrap();
    for (owner, task) in [("alice", Some(id(1))), ("bob", Some(id(2))), ("owner", Some(id(3))), ("carol", None)] {
        let found = journal.find_request(&caller(owner), &key).await.unwrap();
        assert_eq!(found.map(|(task, spec)| (task, spec.owner)), task.map(|task| (task, caller(owner))));
    }
}

#[tokio::test]
async fn a_list_of_one_owner_has_pages_of_its_own() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for number in 0..10 {
        let owner = if number % 3 == 0 { "alice" } else { "bob" };
        journal.accept(first(id(number), TaskSpec { owner: caller(owner), ..spec("?") })).await.unwrap();
    }
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = entries(&journal, of("alice"), TaskPage { before, size: 3 }).await;
        let Some(last) = page.last() else { break };
        before = Some(last.task);
        seen.push(page.iter().map(|entry| entry.task).collect::<Vec<_>>());
        assert!(page.iter().all(|entry| entry.owner == caller("alice")));
    }
    assert_eq!(seen, [vec![id(9), id(6), id(3)], vec![id(0)]]);
    assert!(entries(&journal, of("carol"), ALL_TASKS).await.is_empty());
    assert_eq!(entries(&journal, TaskFilter::default(), ALL_TASKS).await.len(), 10);
}

#[tokio::test]
async fn the_list_of_an_owner_reads_its_part_of_the_index_alone() {
    let dir = temp_dir();
    open(dir.path()).await.close().await;
    let mut conn = raw_connection(dir.path()).await;
    let explain = format!("EXPLAIN QUERY PLAN {SELECT_PAGE_OF_OWNER}");
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&mut conn).await.unwrap();
    let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
    assert!(steps.iter().any(|step| step.contains("tasks_owner (owner=? AND id<?)")), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "it needs no sorting: {steps:?}");
}

#[tokio::test]
async fn a_task_of_another_is_as_one_that_does_not_exist() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), TaskSpec { owner: caller("alice"), ..spec("?") })).await.unwrap();
    for (task, owner, owned) in [(1, "alice", true), (1, "bob", false), (2, "alice", false)] {
        assert_eq!(journal.is_owned(id(task), &caller(owner)).await.unwrap(), owned, "{task} {owner}");
    }
}

#[tokio::test]
async fn the_tasks_of_callers_are_those_that_are_open_or_ended_late_enough() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let now = unix_millis();
    for (number, owner, ended) in [
        (1, "alice", Some(now - 1)),
        (2, "alice", None),
        (3, "owner", None),
        (4, "bob", Some(now)),
        (5, "owner", Some(now + 9)),
    ] {
        let task = id(number);
        journal.accept(first(task, TaskSpec { owner: caller(owner), ..spec("?") })).await.unwrap();
        if let Some(at) = ended {
            journal.append(vec![ended_at(task, 2, at)]).await.unwrap();
        }
    }
    assert_eq!(journal.tasks_of_callers(Timestamp(now)).await.unwrap(), [id(2), id(4)]);
    assert_eq!(journal.tasks_of_callers(Timestamp(0)).await.unwrap(), [id(1), id(2), id(4)]);
}
