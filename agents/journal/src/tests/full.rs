//! Full disks.

use super::*;

/// A journal on a disk of this number of pages of 4 KiB.
async fn on_a_disk_of(dir: &Path, pages: u32) -> Journal {
    Journal::open_with(dir, &without_retention(), |connect| connect.pragma("max_page_count", pages.to_string()))
        .await
        .unwrap()
}

fn large(number: u64) -> Event {
    first(id(number), spec(&number.to_string().repeat(4000)))
}

/// Accepts tasks until the disk is full; returns their number and the error.
async fn fill(journal: &Journal) -> (u64, Error) {
    for number in 0..1000 {
        if let Err(error) = journal.accept(large(number)).await {
            return (number, error);
        }
    }
    panic!("the disk does not become full");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_further_tasks_are_refused() {
    let dir = temp_dir();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, error) = fill(&journal).await;
    assert!(taken > 3, "{taken}");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(matches!(&*journal.failed().await, Error::Full { .. }));
    for number in 0..3 {
        let error = journal.accept(large(2000 + number)).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }
    assert_eq!(tasks(&journal).await, (0..taken).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn writing_continues_when_space_is_free_again() {
    let dir = temp_dir();
    let journal = on_a_disk_of(dir.path(), 64).await;
    finish(&journal, id(7000), 1).await;
    let (taken, _) = fill(&journal).await;
    for number in 0..2 {
        let ended = journal.append(vec![completed(id(number), 2)]).await;
        assert!(ended.is_ok(), "small events still fit: {ended:?}");
    }
    let error = journal.accept(large(2000)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(journal.prune(Retention { tasks: 0, age: Duration::ZERO, ..KEEP_ALL }).await.unwrap(), 3);
    journal.writable().await;
    assert_eq!(journal.accept(large(2000)).await.unwrap(), Acceptance::New);
    journal.append(vec![started(id(2), 2), completed(id(2), 3)]).await.unwrap();
    let kept = (2..taken).chain([2000]).map(id).collect::<Vec<_>>();
    assert_eq!(tasks(&journal).await, kept);
    for number in (3..taken).chain([2000]) {
        assert_eq!(replay(&journal, id(number)).await, [large(number)]);
    }
}

#[tokio::test]
async fn acknowledged_events_survive_a_full_disk() {
    let dir = temp_dir();
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
async fn a_failed_transaction_fails_all_of_its_requests() {
    let dir = temp_dir();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, _) = fill(&journal).await;
    journal.close().await;
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (small, big, last) = tokio::join!(
        journal.append(vec![started(id(0), 2)]),
        journal.accept(first(id(2000), spec(&"big ".repeat(100_000)))),
        journal.append(vec![started(id(1), 2)]),
    );
    for answer in [small, big.map(|_| ()), last] {
        assert!(matches!(answer, Err(Error::Full { .. })), "{answer:?}");
    }
    assert_eq!(journal.last_seq(id(0)).await.unwrap(), Some(Seq(1)));
    assert_eq!(tasks(&journal).await.len() as u64, taken);
}
