//! What the tasks of each caller take: how many of them are open, and the model tokens of the day.
//!
//! The limits come with each request, so that they hold from the next one on. What counts against them is kept by the name of the
//! caller: another token of the same name goes on where the first one stood.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artel_task::event::{ResultSource, Timestamp};
use artel_task::{CallerName, Event, EventKind};
use tokio::sync::OwnedSemaphorePermit;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The beginning of the day of a time, in UTC.
pub fn midnight_before(now: Timestamp) -> Timestamp {
    Timestamp(now.0 - now.0 % DAY_MS)
}

/// How much the tasks of a caller may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallerQuota {
    /// Tasks that are open at the same time; `None`: any number.
    pub open_tasks: Option<NonZeroU32>,
    /// Model tokens of a day, which begins at 00:00 UTC; `None`: any number. A task is refused when they are used up, and one that
    /// is open goes on.
    pub tokens_per_day: Option<NonZeroU64>,
}

/// A caller asks for more than its quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExcess {
    /// As many of its tasks are open as may be.
    #[error("the caller `{caller}` may have {limit} tasks open at the same time")]
    OpenTasks {
        /// The caller.
        caller: CallerName,
        /// The limit.
        limit: NonZeroU32,
    },
    /// The tokens of the day are used up.
    #[error(
        "the caller `{caller}` may use {limit} model tokens a day and has used {used}; the next day begins at 00:00 UTC"
    )]
    Tokens {
        /// The caller.
        caller: CallerName,
        /// The limit.
        limit: NonZeroU64,
        /// What its tasks have used today.
        used: u64,
        /// The time until the next day.
        delay: Duration,
    },
}

/// The accounts of all callers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CallerLedger(Arc<Mutex<LedgerPage>>);

/// The accounts of one day.
#[derive(Debug, Default)]
struct LedgerPage {
    /// Days since 1970.
    day: u64,
    accounts: HashMap<CallerName, CallerAccount>,
}

#[derive(Debug, Default)]
struct CallerAccount {
    open_tasks: u64,
    tokens: u64,
}

impl CallerAccount {
    fn check_tokens(&self, caller: &CallerName, quota: CallerQuota, now: Timestamp) -> Result<(), QuotaExcess> {
        match quota.tokens_per_day {
            Some(limit) if self.tokens >= limit.get() => {
                let delay = Duration::from_millis(DAY_MS - now.0 % DAY_MS);
                Err(QuotaExcess::Tokens { caller: caller.clone(), limit, used: self.tokens, delay })
            }
            _ => Ok(()),
        }
    }
}

/// A task that counts as open until the last clone of this is dropped, or it is closed.
#[derive(Debug, Clone)]
pub struct OpenTask(Arc<CountedTask>);

#[derive(Debug)]
struct CountedTask {
    ledger: CallerLedger,
    caller: CallerName,
    is_closed: AtomicBool,
}

/// What a task holds of the limits of open tasks: those of its caller, and of the daemon.
#[derive(Debug)]
pub struct TaskPlace {
    open: OpenTask,
    /// `None` for one that was resumed although the limit was lowered.
    _permit: Option<OwnedSemaphorePermit>,
}

impl TaskPlace {
    /// Of an open task, with its place among those of the daemon.
    pub fn new(open: OpenTask, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { open, _permit: permit }
    }

    /// The task, as it counts for its caller.
    pub fn open_task(&self) -> &OpenTask {
        &self.open
    }
}

impl OpenTask {
    /// The task has ended, or is set aside: before a client is told, so that it may open the next one.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it counts no more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }
}

impl CountedTask {
    fn close(&self) {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(account) = self.ledger.lock().accounts.get_mut(&self.caller) {
            account.open_tasks = account.open_tasks.saturating_sub(1);
        }
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        self.close();
    }
}

impl CallerLedger {
    /// Counts a new task of a caller.
    ///
    /// # Errors
    /// The quota does not allow it.
    pub fn open(&self, caller: &CallerName, quota: CallerQuota, now: Timestamp) -> Result<OpenTask, QuotaExcess> {
        let mut page = self.page(now);
        let account = page.accounts.entry(caller.clone()).or_default();
        match quota.open_tasks {
            Some(limit) if account.open_tasks >= u64::from(limit.get()) => {
                return Err(QuotaExcess::OpenTasks { caller: caller.clone(), limit });
            }
            _ => {}
        }
        account.check_tokens(caller, quota, now)?;
        account.open_tasks += 1;
        drop(page);
        let counted = CountedTask { ledger: self.clone(), caller: caller.clone(), is_closed: AtomicBool::new(false) };
        Ok(OpenTask(Arc::new(counted)))
    }

    /// Checks that tokens of the caller's day are left.
    ///
    /// # Errors
    /// They are used up.
    pub fn check_tokens(&self, caller: &CallerName, quota: CallerQuota, now: Timestamp) -> Result<(), QuotaExcess> {
        self.page(now).accounts.get(caller).map_or(Ok(()), |account| account.check_tokens(caller, quota, now))
    }

    /// Counts what the tasks and calls of a caller have used.
    pub fn used(&self, caller: &CallerName, tokens: u64, now: Timestamp) {
        if tokens > 0 {
            let mut page = self.page(now);
            let account = page.accounts.entry(caller.clone()).or_default();
            account.tokens = account.tokens.saturating_add(tokens);
        }
    }

    /// The accounts of today: those of another day begin anew.
    fn page(&self, now: Timestamp) -> MutexGuard<'_, LedgerPage> {
        let mut page = self.lock();
        let today = now.0 / DAY_MS;
        if page.day != today {
            page.day = today;
            page.accounts.retain(|_, account| account.open_tasks > 0);
            page.accounts.values_mut().for_each(|account| account.tokens = 0);
        }
        page
    }

    fn lock(&self) -> MutexGuard<'_, LedgerPage> {
        // Nothing in here panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The model tokens of a step that this event ends: those of its prompt, whether the prefix cache held them or not, and those that
/// were generated. A step that fails has none on record.
pub fn tokens_of(event: &Event) -> u64 {
    match &event.kind {
        EventKind::StepFinished { usage, source: ResultSource::Run, .. } => {
            u64::from(usage.prompt) + u64::from(usage.output)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> CallerName {
        CallerName::parse(name).unwrap()
    }

    fn quota(open_tasks: u32, tokens_per_day: u64) -> CallerQuota {
        CallerQuota { open_tasks: NonZeroU32::new(open_tasks), tokens_per_day: NonZeroU64::new(tokens_per_day) }
    }

    /// Noon of some day.
    const NOON: Timestamp = Timestamp(20_000 * DAY_MS + DAY_MS / 2);

    #[test]
    fn a_task_is_open_until_it_is_dropped_and_each_caller_has_its_own() {
        let ledger = CallerLedger::default();
        let open = |name: &str| ledger.open(&caller(name), quota(2, 0), NOON);
        let (first, _second) = (open("ci").unwrap(), open("ci").unwrap());
        let limit = NonZeroU32::new(2).unwrap();
        assert_eq!(open("ci").unwrap_err(), QuotaExcess::OpenTasks { caller: caller("ci"), limit });
        let _other = open("other").unwrap();
        drop(first);
        let third = open("ci").unwrap();
        assert!(open("ci").is_err(), "a refusal costs nothing, and gives nothing");
        let raised = ledger.open(&caller("ci"), quota(3, 0), NOON).unwrap();
        let copy = third.clone();
        third.close();
        drop((third, raised));
        assert!(copy.is_closed());
        let _fourth = open("ci").unwrap();
        drop(copy);
        assert!(open("ci").is_err(), "it is closed once");
    }

    #[test]
    fn the_tokens_of_a_day_are_those_of_its_caller_and_end_at_midnight() {
        let ledger = CallerLedger::default();
        let at = |now| ledger.open(&caller("ci"), quota(0, 100), now).map(drop);
        for (used, expected) in [(0, None), (99, None), (1, Some(100)), (7, Some(107))] {
            ledger.used(&caller("ci"), used, NOON);
            let spent = at(NOON).err().map(|excess| match excess {
                QuotaExcess::Tokens { used, delay, .. } => {
                    assert_eq!(delay, Duration::from_secs(12 * 3600));
                    used
                }
                other => panic!("{other}"),
            });
            assert_eq!(spent, expected, "{used}");
        }
        ledger.open(&caller("other"), quota(0, 100), NOON).unwrap();
        let last = Timestamp(20_001 * DAY_MS - 1);
        assert!(matches!(at(last), Err(QuotaExcess::Tokens { delay, .. }) if delay == Duration::from_millis(1)));
        at(Timestamp(last.0 + 1)).unwrap();
    }

    #[test]
    fn a_task_that_is_open_over_midnight_counts_on_and_what_is_used_after_it_is_of_the_new_day() {
        let ledger = CallerLedger::default();
        let open = ledger.open(&caller("ci"), quota(1, 10), NOON).unwrap();
        ledger.used(&caller("ci"), 10, NOON);
        let next = Timestamp(NOON.0 + DAY_MS);
        assert!(matches!(ledger.open(&caller("ci"), quota(1, 10), next), Err(QuotaExcess::OpenTasks { .. })));
        ledger.used(&caller("ci"), 10, next);
        drop(open);
        assert!(matches!(ledger.open(&caller("ci"), quota(1, 10), next), Err(QuotaExcess::Tokens { used: 10, .. })));
    }

    #[test]
    fn a_call_without_a_task_is_refused_once_the_tokens_are_used_up_and_opens_nothing() {
        let ledger = CallerLedger::default();
        let check = || ledger.check_tokens(&caller("ci"), quota(1, 10), NOON);
        for _ in 0..3 {
            check().unwrap();
        }
        ledger.used(&caller("ci"), 10, NOON);
        assert!(matches!(check(), Err(QuotaExcess::Tokens { used: 10, .. })));
        ledger.check_tokens(&caller("other"), quota(1, 10), NOON).unwrap();
        ledger.check_tokens(&caller("ci"), quota(1, 10), Timestamp(NOON.0 + DAY_MS)).unwrap();
    }

    #[test]
    fn without_a_quota_nothing_is_refused() {
        let ledger = CallerLedger::default();
        ledger.used(&CallerName::owner(), u64::MAX, NOON);
        ledger.used(&CallerName::owner(), u64::MAX, NOON);
        let open = |_| ledger.open(&CallerName::owner(), CallerQuota::default(), NOON).unwrap();
        let open: Vec<_> = (0..10_000).map(open).collect();
        assert_eq!(open.len(), 10_000);
    }
}
