//! Appending events: without gaps, all or none, up to the last event.

use super::*;

#[tokio::test]
async fn events_are_read_in_pages_from_any_number() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let mut all = vec![first(id(1), spec("?"))];
    journal.accept(all[0].clone()).await.unwrap();
    all.extend((2..=9).map(|seq| started(id(1), seq)));
    journal.append(all[1..5].to_vec()).await.unwrap();
    journal.append(all[5..].to_vec()).await.unwrap();
    journal.append(Vec::new()).await.unwrap();
    assert_eq!(replay(&journal, id(1)).await, all);
    assert_eq!(journal.events(id(1), Seq(3), 4).await.unwrap(), all[3..7]);
    assert_eq!(journal.events(id(1), Seq(9), 4).await.unwrap(), []);
    assert_eq!(journal.events(id(1), Seq(u64::MAX), 4).await.unwrap(), []);
    assert_eq!(journal.events(id(1), Seq(0), 0).await.unwrap(), []);
    assert_eq!(journal.last_seq(id(1)).await.unwrap(), Some(Seq(9)));
}

#[tokio::test]
async fn an_append_that_would_leave_a_gap_is_refused_as_a_whole() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    for (events, next, given) in [
        (vec![started(id(1), 3)], 2, 3),
        (vec![started(id(1), 1)], 2, 1),
        (vec![started(id(1), 0)], 2, 0),
        (vec![started(id(1), u64::MAX)], 2, u64::MAX),
        (vec![started(id(1), 2), started(id(1), 4)], 3, 4),
        (vec![started(id(1), 2), started(id(1), 2)], 3, 2),
    ] {
        let refused = journal.append(events).await;
        let Err(Error::UnexpectedSeq { task, expected, found }) = refused else { panic!("{refused:?}") };
        assert_eq!((task, expected, found), (id(1), Seq(next), Seq(given)));
    }
    assert_eq!(journal.last_seq(id(1)).await.unwrap(), Some(Seq(1)));
    journal.append(vec![started(id(1), 2)]).await.unwrap();
}

#[tokio::test]
async fn a_refusal_does_not_affect_other_requests_of_its_transaction() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let (one, gap, two, end) = tokio::join!(
        journal.accept(first(id(1), spec("?"))),
        journal.append(vec![started(id(1), 7)]),
        journal.append(vec![started(id(1), 2)]),
        journal.append(vec![completed(id(1), 3)]),
    );
    assert_eq!(one.unwrap(), Acceptance::New);
    assert!(matches!(gap, Err(Error::UnexpectedSeq { .. })));
    two.unwrap();
    end.unwrap();
    let expected = [first(id(1), spec("?")), started(id(1), 2), completed(id(1), 3)];
    assert_eq!(replay(&journal, id(1)).await, expected);
}

#[tokio::test]
async fn of_two_writers_of_the_same_event_one_wins() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    let (one, two) = tokio::join!(journal.append(vec![started(id(1), 2)]), journal.append(vec![completed(id(1), 2)]));
    assert!(one.is_ok());
    assert!(matches!(two, Err(Error::UnexpectedSeq { expected: Seq(3), found: Seq(2), .. })), "{two:?}");
    assert_eq!(replay(&journal, id(1)).await[1..], [started(id(1), 2)]);
}

#[tokio::test]
async fn an_ended_task_takes_no_events() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    for (number, last) in
        [EventKind::Cancelled { reason: "Enough.".to_owned(), partial: Vec::new() }, completed(id(0), 2).kind]
            .into_iter()
            .enumerate()
    {
        let task = id(number as u64);
        journal.accept(first(task, spec("?"))).await.unwrap();
        let refused = journal.append(vec![event(task, 2, last.clone()), started(task, 3)]).await;
        assert!(matches!(refused, Err(Error::Ended { task: t }) if t == task), "{refused:?}");
        assert_eq!(journal.last_seq(task).await.unwrap(), Some(Seq(1)));
        journal.append(vec![event(task, 2, last)]).await.unwrap();
        let refused = journal.append(vec![started(task, 3)]).await;
        assert!(matches!(refused, Err(Error::Ended { task: t }) if t == task), "{refused:?}");
    }
}

#[tokio::test]
async fn misplaced_events_are_refused() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    let refused = journal.append(vec![started(id(1), 2)]).await;
    assert!(matches!(refused, Err(Error::NoTask { task }) if task == id(1)), "{refused:?}");
    for task in [id(1), id(2)] {
        journal.accept(first(task, spec("?"))).await.unwrap();
    }
    let late = Event { at: Timestamp(u64::MAX), ..started(id(1), 2) };
    for events in
        [vec![started(id(1), 2), started(id(2), 3)], vec![event(id(1), 2, EventKind::Accepted(spec("?")))], vec![late]]
    {
        let refused = journal.append(events).await;
        assert!(matches!(refused, Err(Error::Unstorable { .. })), "{refused:?}");
        assert!(refused.is_err());
    }
    for task in [id(1), id(2)] {
        assert_eq!(journal.last_seq(task).await.unwrap(), Some(Seq(1)));
    }
}

#[tokio::test]
async fn events_of_a_dropped_caller_are_written() {
    let dir = temp_dir();
    let journal = open(dir.path()).await;
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    tokio::select! {
        biased;
        answer = journal.append(vec![started(id(1), 2)]) => panic!("the writer has not run yet: {answer:?}"),
        () = std::future::ready(()) => {}
    }
    journal.append(vec![started(id(1), 3)]).await.unwrap();
    assert_eq!(replay(&journal, id(1)).await[1..], [started(id(1), 2), started(id(1), 3)]);
}
