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
async fn a_full_disk_is_named_and_ends_all_writing() {
    let dir = temp();
    let journal = on_a_disk_of(dir.path(), 64).await;
    let (taken, error) = fill(&journal).await;
    assert!(taken > 3, "{taken}");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");

    // Small writes that would fit are refused too.
    let later = [
        journal.accept(first(id(5000), request("?"))).await.map(|_| ()),
        journal.append(vec![completed(id(0), 2)]).await,
        journal.keep_catalog(&CatalogVersion::new("c"), String::new()).await,
        journal.retain(Retention { tasks: 0, age: Duration::ZERO }).await.map(|_| ()),
    ];
    for error in later {
        let Err(Error::Broken { cause, .. }) = &error else { panic!("{error:?}") };
        assert!(matches!(**cause, Error::Full { .. }), "{cause:?}");
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
