//! Starting tasks, and the guarantees of request ids.

use super::*;
use artel_task::event::ResponseFormat;

#[tokio::test]
async fn an_accepted_task_is_replayed() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let event = first(id(1), spec("Why?"));
    assert_eq!(journal.accept(event.clone()).await.unwrap(), Acceptance::New);
    assert_eq!(replay(&journal, id(1)).await, [event]);
    assert_eq!(journal.last_seq(id(1)).await.unwrap(), Some(Seq(1)));
    assert_eq!(journal.last_seq(id(2)).await.unwrap(), None);
    assert_eq!(replay(&journal, id(2)).await, []);
}

#[tokio::test]
async fn a_task_starts_once_with_accepted_and_number_one() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let refused = journal.accept(started(id(1), 1)).await;
    assert!(matches!(refused, Err(Error::Unstorable { seq: Seq(1), .. })), "{refused:?}");
    let refused = journal.accept(event(id(1), 2, EventKind::Accepted(spec("?")))).await;
    assert!(matches!(refused, Err(Error::UnexpectedSeq { expected: Seq(1), found: Seq(2), .. })), "{refused:?}");
    assert_eq!(tasks(&journal).await, []);

    journal.accept(first(id(1), spec("?"))).await.unwrap();
    let refused = journal.accept(first(id(1), spec("?"))).await;
    assert!(matches!(refused, Err(Error::UnexpectedSeq { expected: Seq(2), found: Seq(1), .. })), "{refused:?}");
    assert_eq!(replay(&journal, id(1)).await.len(), 1);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_task() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    assert_eq!(journal.accept(first(id(1), spec_with_id("k", "Why?"))).await.unwrap(), Acceptance::New);
    let again = TaskSpec { catalog: CatalogVersion::new("c2"), ..spec_with_id("k", "Why?") };
    assert_eq!(journal.accept(first(id(2), again.clone())).await.unwrap(), Acceptance::Existing(id(1)));
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.close().await;
    let journal = open(dir.path()).await;
    assert_eq!(journal.accept(first(id(3), again)).await.unwrap(), Acceptance::Existing(id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn a_request_id_identifies_one_request() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    let original = TaskSpec { labels: labels("red"), ..spec_with_id("k", "Why?") };
    journal.accept(first(id(1), original.clone())).await.unwrap();
    let others = [
        TaskSpec { input: "Why not?".to_owned(), ..original.clone() },
        TaskSpec { graph: GraphName::parse("council").unwrap(), ..original.clone() },
        TaskSpec { role: RoleName::parse("gguf").ok(), ..original.clone() },
        TaskSpec { priority: TaskPriority::Batch, ..original.clone() },
        TaskSpec { reasoning: Some(artel_task::event::ReasoningParams::UNLIMITED), ..original.clone() },
        TaskSpec { conversation: Some(std::sync::Arc::default()), ..original.clone() },
        TaskSpec { labels: labels("blue"), ..original.clone() },
        TaskSpec { labels: BTreeMap::new(), ..original.clone() },
        TaskSpec { sampling: Some(Box::default()), ..original.clone() },
        TaskSpec { response: Some(Box::new(ResponseFormat::Text)), ..original.clone() },
    ];
    for (other, number) in others.into_iter().zip(2..) {
        let refused = journal.accept(first(id(number), other.clone())).await;
        assert!(matches!(refused, Err(Error::RequestReused { task, .. }) if task == id(1)), "{other:?}: {refused:?}");
        assert!(refused.is_err());
    }
    assert_eq!(journal.accept(first(id(9), original)).await.unwrap(), Acceptance::Existing(id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn request_ids_are_unique_within_a_transaction() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let (one, same, other) = tokio::join!(
        journal.accept(first(id(1), spec_with_id("k", "Why?"))),
        journal.accept(first(id(2), spec_with_id("k", "Why?"))),
        journal.accept(first(id(3), spec_with_id("k", "What?"))),
    );
    assert_eq!((one.unwrap(), same.unwrap()), (Acceptance::New, Acceptance::Existing(id(1))));
    assert!(matches!(other, Err(Error::RequestReused { task, .. }) if task == id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_concurrent_equal_requests_one_is_new() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let journal = journal.clone();
        calls.spawn(
            async move { (id(number), journal.accept(first(id(number), spec_with_id("k", "?"))).await.unwrap()) },
        );
    }
    let answers = calls.join_all().await;
    let new: Vec<TaskId> = answers.iter().filter(|(_, a)| *a == Acceptance::New).map(|(task, _)| *task).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(answers.iter().filter(|(_, a)| *a == Acceptance::Existing(new[0])).count(), 39);
    assert_eq!(tasks(&journal).await, new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_concurrent_tasks_are_all_stored() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500 {
        let (journal, task) = (journal.clone(), id(number));
        calls.spawn(async move {
            journal.accept(first(task, spec_with_id(&format!("key-{number}"), "?"))).await.unwrap();
            journal.append(vec![started(task, 2)]).await.unwrap();
            if number % 2 == 0 {
                journal.append(vec![completed(task, 3)]).await.unwrap();
            }
        });
    }
    calls.join_all().await;
    journal.close().await;
    let journal = open(dir.path()).await;
    assert_eq!(tasks(&journal).await, (0..500).map(id).collect::<Vec<_>>());
    assert_eq!(journal.unfinished().await.unwrap(), (0..500).filter(|n| n % 2 == 1).map(id).collect::<Vec<_>>());
    for number in 0..500 {
        let mut expected = vec![
            first(id(number), spec_with_id(&format!("key-{number}"), "?")),
            started(id(number), 2),
            completed(id(number), 3),
        ];
        expected.truncate(if number % 2 == 0 { 3 } else { 2 });
        assert_eq!(replay(&journal, id(number)).await, expected);
    }
}

#[tokio::test]
async fn a_task_starts_with_all_of_its_events_or_none() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let start = async |task, more| journal.accept_with(first(task, spec("?")), more).await;
    assert_eq!(start(id(1), vec![started(id(1), 2)]).await.unwrap(), Acceptance::New);
    assert_eq!(replay(&journal, id(1)).await.len(), 2);
    assert!(matches!(start(id(2), vec![started(id(2), 3)]).await, Err(Error::UnexpectedSeq { .. })));
    assert!(matches!(start(id(2), vec![started(id(1), 2)]).await, Err(Error::Unstorable { .. })));
    assert!(matches!(start(id(2), vec![completed(id(2), 2)]).await, Err(Error::Unstorable { .. })));
    assert_eq!(tasks(&journal).await, [id(1)]);
}
