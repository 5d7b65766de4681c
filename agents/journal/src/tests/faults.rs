//! Faults at a chosen commit, injected with hooks: what callers get, what is on disk, and what the journal still does.
#![allow(clippy::type_complexity, reason = "a trap is a closure with its two channels")]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::Notify;

use super::*;
use crate::{CommitHook, Damage, InjectedFault};

/// A side of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HookSide {
    Before,
    After,
}

/// Does something at one side of the first commit after it was armed.
struct Trap<F> {
    side: HookSide,
    armed: AtomicBool,
    action: F,
}

impl<F: Fn() -> Result<(), InjectedFault>> Trap<F> {
    fn new(side: HookSide, action: F) -> Arc<Self> {
        Arc::new(Self { side, armed: AtomicBool::new(false), action })
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    fn pass(&self, side: HookSide) -> Result<(), InjectedFault> {
        if side == self.side && self.armed.swap(false, Ordering::AcqRel) { (self.action)() } else { Ok(()) }
    }
}

impl<F> fmt::Debug for Trap<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trap").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl<F: Fn() -> Result<(), InjectedFault> + Send + Sync> CommitHook for Trap<F> {
    fn before(&self, _commit: u64) -> Result<(), InjectedFault> {
        self.pass(HookSide::Before)
    }

    fn after(&self, _commit: u64) -> Result<(), InjectedFault> {
        self.pass(HookSide::After)
    }
}

/// Opens a journal with this hook, and accepts a task.
async fn open_with_hook(dir: &Path, hook: Arc<dyn CommitHook>) -> Journal {
    let mut options = without_retention();
    options.hook = Some(hook);
    let journal = Journal::open(dir, options).await.unwrap();
    journal.accept(first(id(1), spec("?"))).await.unwrap();
    // The first retention has ended once this is answered: the next commit is the caller's.
    journal.append(Vec::new()).await.unwrap();
    journal
}

/// Events of the task after the journal is opened again.
async fn after_restart(dir: &Path, journal: Journal) -> Vec<Event> {
    journal.close().await;
    replay(&open(dir).await, id(1)).await
}

#[tokio::test]
async fn commits_are_counted_from_1_and_each_has_two_sides() {
    #[derive(Debug, Default)]
    struct CommitLog(Mutex<Vec<(u64, &'static str)>>);

    impl CommitHook for CommitLog {
        fn before(&self, commit: u64) -> Result<(), InjectedFault> {
            self.0.lock().unwrap().push((commit, "before"));
            Ok(())
        }

        fn after(&self, commit: u64) -> Result<(), InjectedFault> {
            self.0.lock().unwrap().push((commit, "after"));
            Ok(())
        }
    }

    let dir = temp_dir();
    let log = Arc::new(CommitLog::default());
    let journal = open_with_hook(dir.path(), log.clone()).await;
    journal.append(vec![started(id(1), 2)]).await.unwrap();
    journal.close().await;
    let log = log.0.lock().unwrap();
    let expected = (1..).flat_map(|commit| [(commit, "before"), (commit, "after")]);
    assert!(log.len() >= 6, "{log:?}");
    assert_eq!(*log, expected.take(log.len()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_commit_for_which_the_disk_is_full_is_refused_and_writing_continues() {
    let dir = temp_dir();
    let trap = Trap::new(HookSide::Before, || Err(InjectedFault::DISK_FULL));
    let journal = open_with_hook(dir.path(), trap.clone()).await;
    trap.arm();
    let (one, two) =
        tokio::join!(journal.append(vec![started(id(1), 2)]), journal.accept(first(id(2), spec("too much"))));
    for answer in [one, two.map(|_| ())] {
        assert!(matches!(answer, Err(Error::Full { .. })), "{answer:?}");
    }
    assert!(matches!(&*journal.failed().await, Error::Full { .. }));
    // The disk has space: the next request finds that out.
    journal.append(vec![started(id(1), 2)]).await.unwrap();
    journal.writable().await;
    assert_eq!(journal.accept(first(id(2), spec("now"))).await.unwrap(), Acceptance::New);
    assert_eq!(after_restart(dir.path(), journal).await, [first(id(1), spec("?")), started(id(1), 2)]);
}

#[tokio::test]
async fn a_failed_commit_stops_writes_until_the_journal_is_opened_again() {
    let cases: [(InjectedFault, fn(&Error) -> bool); 4] = [
        (InjectedFault::WRITE_FAILED, |error| matches!(error, Error::Database { .. })),
        (InjectedFault::SYNC_FAILED, |error| matches!(error, Error::Database { .. })),
        (InjectedFault::DAMAGED, |error| matches!(error, Error::Corrupt { detail: Damage::Database(_), .. })),
        (InjectedFault::READ_ONLY, |error| matches!(error, Error::ReadOnly { .. })),
    ];
    for (fault, is_expected) in cases {
        let dir = temp_dir();
        let trap = Trap::new(HookSide::Before, move || Err(fault));
        let journal = open_with_hook(dir.path(), trap.clone()).await;
        trap.arm();
        let error = journal.append(vec![started(id(1), 2)]).await.unwrap_err();
        assert!(is_expected(&error), "{error:?}");
        let later = journal.append(vec![started(id(1), 2)]).await.unwrap_err();
        assert!(matches!(&later, Error::Failed { cause, .. } if is_expected(cause)), "{later:?}");
        assert!(is_expected(&*journal.failed().await));
        assert_eq!(replay(&journal, id(1)).await, [first(id(1), spec("?"))]);
        assert_eq!(after_restart(dir.path(), journal).await, [first(id(1), spec("?"))]);
    }
}

/// A sync that fails after the rows have reached the disk.
#[tokio::test]
async fn a_commit_that_only_seems_to_fail_is_found_when_the_journal_is_opened_again() {
    let dir = temp_dir();
    let trap = Trap::new(HookSide::After, || Err(InjectedFault::SYNC_FAILED));
    let journal = open_with_hook(dir.path(), trap.clone()).await;
    trap.arm();
    let error = journal.append(vec![started(id(1), 2)]).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let later = journal.append(vec![started(id(1), 3)]).await;
    assert!(matches!(later, Err(Error::Failed { .. })), "{later:?}");
    assert_eq!(after_restart(dir.path(), journal).await, [first(id(1), spec("?")), started(id(1), 2)]);
}

#[tokio::test]
async fn a_panic_of_the_writer_is_an_error_for_all_callers() {
    for (side, kept) in [(HookSide::Before, 1), (HookSide::After, 2)] {
        let dir = temp_dir();
        let trap = Trap::new(side, || panic!("as the test asked"));
        let journal = open_with_hook(dir.path(), trap.clone()).await;
        trap.arm();
        // Both are in one transaction.
        let (one, two) = tokio::join!(journal.append(vec![started(id(1), 2)]), journal.prune(KEEP_ALL));
        let later = journal.append(vec![started(id(1), 3)]).await;
        for answer in [one, two.map(|_| ()), later] {
            let Err(Error::Failed { cause, .. }) = &answer else { panic!("{answer:?}") };
            let Error::Panicked { message, .. } = &**cause else { panic!("{cause:?}") };
            assert_eq!(message, "as the test asked");
        }
        assert!(matches!(&*journal.failed().await, Error::Panicked { .. }));
        assert_eq!(replay(&journal, id(1)).await.len(), kept, "reads continue");
        let locked = Journal::open(dir.path(), without_retention()).await;
        assert!(matches!(locked, Err(Error::Locked { .. })), "the directory stays locked: {locked:?}");
        let events = after_restart(dir.path(), journal).await;
        assert_eq!(events, [first(id(1), spec("?")), started(id(1), 2)][..kept]);
    }
}

/// A hook that blocks at a commit until it is released, the notice that it does, and what releases it.
fn hanging() -> (Arc<Trap<impl Fn() -> Result<(), InjectedFault>>>, Arc<Notify>, mpsc::Sender<()>) {
    let entered = Arc::new(Notify::new());
    let (release, released) = mpsc::channel::<()>();
    let (notice, released) = (entered.clone(), Mutex::new(released));
    let trap = Trap::new(HookSide::Before, move || {
        notice.notify_one();
        // An error means that the test has ended.
        released.lock().unwrap().recv().ok();
        Ok(())
    });
    (trap, entered, release)
}

#[tokio::test]
async fn a_caller_can_leave_a_commit_that_hangs_and_reads_continue() {
    let dir = temp_dir();
    let (trap, entered, release) = hanging();
    let journal = open_with_hook(dir.path(), trap.clone()).await;
    trap.arm();
    tokio::select! {
        answer = journal.append(vec![started(id(1), 2)]) => panic!("the disk hangs: {answer:?}"),
        () = entered.notified() => {}
    }
    assert_eq!(replay(&journal, id(1)).await, [first(id(1), spec("?"))]);
    tokio::select! {
        biased;
        answer = journal.append(vec![started(id(1), 3)]) => panic!("it waits behind a disk that hangs: {answer:?}"),
        () = tokio::task::yield_now() => {}
    }
    release.send(()).unwrap();
    journal.append(vec![started(id(1), 4)]).await.unwrap();
    let expected = [first(id(1), spec("?")), started(id(1), 2), started(id(1), 3), started(id(1), 4)];
    assert_eq!(after_restart(dir.path(), journal).await, expected);
}

#[tokio::test]
async fn closing_gives_up_on_a_commit_that_hangs() {
    let dir = temp_dir();
    let (trap, entered, release) = hanging();
    let journal = open_with_hook(dir.path(), trap.clone()).await;
    trap.arm();
    let other = journal.clone();
    let append = tokio::spawn(async move { other.append(vec![started(id(1), 2)]).await });
    entered.notified().await;
    // From here on, only the clock can end the wait.
    tokio::time::pause();
    journal.close().await;
    assert!(!append.is_finished());
    release.send(()).unwrap();
    append.await.unwrap().unwrap();
}
