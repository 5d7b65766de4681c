//! A disk that is full.

use super::*;

/// A journal on a disk of so many pages of 4 KiB.
async fn on_a_disk_of(dir: &Path, pages: u32) -> Journal {
    Journal::open_tuned(dir, &endless(), |connect| connect.pragma("max_page_count", pages.to_string())).await.unwrap()
}

fn large(number: u64) -> Event {
    first(id(number), request(&number.to_string().repeat(4000)))
}

/// Accepts tasks until the disk is full; gives how many it took and what was said then.
async fn fill(journal: &Journal) -> (u64, Error) {
    for number in 0..1000 {
        if let Err(error) = journal.accept(large(number)).await {
            return (number, error);
        }
    }
    panic!("the disk is never full");
}

#[tokio::test]
async fn a_full_disk_is_named_and_what_does_not_fit_is_refused_again() {
    let dir = temp();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, error) = fill(&journal).await;
    assert!(taken > 3, "{taken}");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(matches!(&*journal.broken().await, Error::Full { .. }));
    for number in 0..3 {
        let error = journal.accept(large(2000 + number)).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }
    assert_eq!(tasks(&journal).await, (0..taken).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn when_there_is_room_again_writing_goes_on() {
    let dir = temp();
    let journal = on_a_disk_of(dir.path(), 64).await;
    finish(&journal, id(7000), 1).await;
    let (taken, _) = fill(&journal).await;
    for number in 0..2 {
        let ended = journal.append(vec![completed(id(number), 2)]).await;
        assert!(ended.is_ok(), "a little still fits: {ended:?}");
    }
    let error = journal.accept(large(2000)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(journal.retain(Retention { tasks: 0, age: Duration::ZERO, ..KEEP }).await.unwrap(), 3);
    journal.whole().await;
    assert_eq!(journal.accept(large(2000)).await.unwrap(), Acceptance::New);
    journal.append(vec![started(id(2), 2), completed(id(2), 3)]).await.unwrap();
    let kept = (2..taken).chain([2000]).map(id).collect::<Vec<_>>();
    assert_eq!(tasks(&journal).await, kept);
    for number in (3..taken).chain([2000]) {
        assert_eq!(replay(&journal, id(number)).await, [large(number)]);
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_outlives_a_full_disk() {
    let dir = temp();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, _) = fill(&journal).await;
    for number in 0..taken {
        assert_eq!(replay(&journal, id(number)).await, [large(number)]);
    }
    assert_eq!(tasks(&journal).await, (0..taken).map(id).collect::<Vec<_>>());
    journal.close().await;

    let journal = open(dir.path()).await;
    for number in 0..taken {
        assert_eq!(replay(&journal, id(number)).await, [large(number)]);
    }
    assert!(tasks(&journal).await.len() as u64 >= taken);
    journal.append(vec![completed(id(0), 2)]).await.unwrap();
}

#[tokio::test]
async fn a_lost_transaction_is_lost_to_all_who_shared_it() {
    let dir = temp();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, _) = fill(&journal).await;
    journal.close().await;
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (small, big, last) = tokio::join!(
        journal.append(vec![started(id(0), 2)]),
        journal.accept(first(id(2000), request(&"big ".repeat(100_000)))),
        journal.append(vec![started(id(1), 2)]),
    );
    for answer in [small, big.map(|_| ()), last] {
        assert!(matches!(answer, Err(Error::Full { .. })), "{answer:?}");
    }
    assert_eq!(journal.last(id(0)).await.unwrap(), Some(Seq(1)));
    assert_eq!(tasks(&journal).await.len() as u64, taken);
}
