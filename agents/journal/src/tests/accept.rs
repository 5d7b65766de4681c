//! How tasks begin, and what a request id promises.

use super::*;

#[tokio::test]
async fn a_task_that_was_accepted_is_replayed() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let event = first(id(1), request("Why?"));
    assert_eq!(journal.accept(event.clone()).await.unwrap(), Acceptance::New);
    assert_eq!(replay(&journal, id(1)).await, [event]);
    assert_eq!(journal.last(id(1)).await.unwrap(), Some(Seq(1)));
    assert_eq!(journal.last(id(2)).await.unwrap(), None);
    assert_eq!(replay(&journal, id(2)).await, []);
}

#[tokio::test]
async fn a_task_begins_once_with_accepted_and_number_one() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let refused = journal.accept(started(id(1), 1)).await;
    assert!(matches!(refused, Err(Error::Unstorable { seq: Seq(1), .. })), "{refused:?}");
    let refused = journal.accept(event(id(1), 2, EventKind::Accepted(request("?")))).await;
    assert!(matches!(refused, Err(Error::Gap { expected: Seq(1), found: Seq(2), .. })), "{refused:?}");
    assert_eq!(tasks(&journal).await, []);

    journal.accept(first(id(1), request("?"))).await.unwrap();
    let refused = journal.accept(first(id(1), request("?"))).await;
    assert!(matches!(refused, Err(Error::Gap { expected: Seq(2), found: Seq(1), .. })), "{refused:?}");
    assert_eq!(replay(&journal, id(1)).await.len(), 1);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_task() {
    let dir = temp();
    let journal = open(dir.path()).await;
    assert_eq!(journal.accept(first(id(1), keyed("k", "Why?"))).await.unwrap(), Acceptance::New);
    let again = Accepted { catalog: CatalogVersion::new("c2"), ..keyed("k", "Why?") };
    assert_eq!(journal.accept(first(id(2), again.clone())).await.unwrap(), Acceptance::Known(id(1)));
    journal.append(vec![completed(id(1), 2)]).await.unwrap();
    journal.close().await;
    let journal = open(dir.path()).await;
    assert_eq!(journal.accept(first(id(3), again)).await.unwrap(), Acceptance::Known(id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn a_request_id_stands_for_one_request() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    let original = Accepted { labels: labels("red"), ..keyed("k", "Why?") };
    journal.accept(first(id(1), original.clone())).await.unwrap();
    let others = [
        Accepted { input: "Why not?".to_owned(), ..original.clone() },
        Accepted { graph: GraphName::parse("council").unwrap(), ..original.clone() },
        Accepted { role: RoleName::parse("gguf").ok(), ..original.clone() },
        Accepted { class: Class::Batch, ..original.clone() },
        Accepted { labels: labels("blue"), ..original.clone() },
        Accepted { labels: BTreeMap::new(), ..original.clone() },
    ];
    for (other, number) in others.into_iter().zip(2..) {
        let refused = journal.accept(first(id(number), other.clone())).await;
        assert!(matches!(refused, Err(Error::RequestReused { task, .. }) if task == id(1)), "{other:?}: {refused:?}");
        assert!(refused.is_err());
    }
    assert_eq!(journal.accept(first(id(9), original)).await.unwrap(), Acceptance::Known(id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test]
async fn request_ids_hold_inside_one_transaction() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let (one, same, other) = tokio::join!(
        journal.accept(first(id(1), keyed("k", "Why?"))),
        journal.accept(first(id(2), keyed("k", "Why?"))),
        journal.accept(first(id(3), keyed("k", "What?"))),
    );
    assert_eq!((one.unwrap(), same.unwrap()), (Acceptance::New, Acceptance::Known(id(1))));
    assert!(matches!(other, Err(Error::RequestReused { task, .. }) if task == id(1)));
    assert_eq!(tasks(&journal).await, [id(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_equal_requests_at_once_one_is_new() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let journal = journal.clone();
        calls.spawn(async move { (id(number), journal.accept(first(id(number), keyed("k", "?"))).await.unwrap()) });
    }
    let answers = calls.join_all().await;
    let new: Vec<TaskId> = answers.iter().filter(|(_, a)| *a == Acceptance::New).map(|(task, _)| *task).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(answers.iter().filter(|(_, a)| *a == Acceptance::Known(new[0])).count(), 39);
    assert_eq!(tasks(&journal).await, new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_tasks_at_once_are_all_there() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500 {
        let (journal, task) = (journal.clone(), id(number));
        calls.spawn(async move {
            journal.accept(first(task, keyed(&format!("key-{number}"), "?"))).await.unwrap();
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
            first(id(number), keyed(&format!("key-{number}"), "?")),
            started(id(number), 2),
            completed(id(number), 3),
        ];
        expected.truncate(if number % 2 == 0 { 3 } else { 2 });
        assert_eq!(replay(&journal, id(number)).await, expected);
    }
}

#[tokio::test]
async fn a_task_begins_with_all_of_its_events_or_none() {
    let dir = temp();
    let journal = open(dir.path()).await;
    let begin = async |task, more| journal.accept_with(first(task, request("?")), more).await;
    assert_eq!(begin(id(1), vec![started(id(1), 2)]).await.unwrap(), Acceptance::New);
    assert_eq!(replay(&journal, id(1)).await.len(), 2);
    assert!(matches!(begin(id(2), vec![started(id(2), 3)]).await, Err(Error::Gap { .. })));
    assert!(matches!(begin(id(2), vec![started(id(1), 2)]).await, Err(Error::Unstorable { .. })));
    assert!(matches!(begin(id(2), vec![completed(id(2), 2)]).await, Err(Error::Unstorable { .. })));
    assert_eq!(tasks(&journal).await, [id(1)]);
}
