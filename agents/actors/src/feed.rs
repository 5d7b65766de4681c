//! What happens to a task, as it happens.
//!
//! Events are durable and complete; tokens and progress are live only. A watcher that is too slow loses live items, never an
//! event: it reads what it missed from the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use artel_journal::Journal;
use artel_task::{Event, ModelName, RoleName, Seq, StepId, TaskId};
use tokio::sync::broadcast;

/// Items that a watcher of tokens may lag behind: some seconds of them, and some 25 kB for each task that is watched so.
const LAG: usize = 256;
/// Items that any other watcher may lag behind, before it reads from the journal.
const LAG_OF_FACTS: usize = 64;
/// Events read from the journal at once.
const PAGE: u32 = 256;
/// Events of a live task that are at hand in memory: more than a graph of the usual size makes. A task that has made more is
/// read from the journal.
const REMEMBERED: usize = 64;
/// Reads whatever the journal holds.
const TO_THE_END: Seq = Seq(u64::MAX);

/// Something that a watcher hears.
#[derive(Debug, Clone)]
pub enum Live {
    /// A fact, journalled before it is heard.
    Event(Arc<Event>),
    /// More text of a running step.
    Token {
        /// Which attempt.
        step: StepId,
        /// Who speaks.
        role: RoleName,
        /// What is said.
        text: Arc<str>,
        /// Bytes of this attempt's text before this piece.
        offset: u64,
    },
    /// How far a running step is.
    Progress {
        /// Which attempt.
        step: StepId,
        /// Who works.
        role: RoleName,
        /// What it is at.
        stage: Stage,
    },
}

/// What a running step is at.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// It waits in its role's queue.
    Queued {
        /// Its place; 1 is the next.
        position: u32,
    },
    /// It waits for its model.
    Loading {
        /// The model.
        model: ModelName,
        /// The share of it that is here, or loaded.
        share: f32,
    },
    /// Its prompt is read.
    Prefill {
        /// Prompt tokens that are done.
        done: u32,
        /// Prompt tokens in all.
        total: u32,
    },
    /// Its answer is written.
    Decode {
        /// Tokens so far.
        tokens: u32,
        /// Since the first one.
        took: Duration,
    },
}

/// Where it is told what happens to one task. Clones are the same feed.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Telling>);

/// What nobody watches costs nothing, and who does not hear tokens is not woken by each of them.
struct Telling {
    /// From the first watcher of tokens on: everything.
    all: OnceLock<broadcast::Sender<Live>>,
    /// From the first other watcher on: everything but tokens.
    facts: OnceLock<broadcast::Sender<Live>>,
    told: Mutex<Told>,
}

/// The events of a task that were announced.
enum Told {
    /// All of them, from the first one on: whoever begins to watch need not ask the journal.
    All(Vec<Arc<Event>>),
    /// Too many, or it is not known what came before.
    InTheJournal,
}

impl Feed {
    /// A feed of a task that begins with this event, or of one that has begun already.
    fn new(first: Option<Arc<Event>>) -> Self {
        let told = first.map_or(Told::InTheJournal, |first| Told::All(vec![first]));
        Self(Arc::new(Telling { all: OnceLock::new(), facts: OnceLock::new(), told: Mutex::new(told) }))
    }

    /// Whether anybody hears tokens.
    pub(crate) fn has_listeners(&self) -> bool {
        self.0.all.get().is_some_and(|all| all.receiver_count() > 0)
    }

    /// Tells those who watch something that is not journalled. Nobody need be watching.
    pub(crate) fn send(&self, live: Live) {
        let facts = self.0.facts.get().filter(|_| !matches!(live, Live::Token { .. }));
        if let Some(facts) = facts {
            drop(facts.send(live.clone()));
        }
        if let Some(all) = self.0.all.get() {
            drop(all.send(live));
        }
    }

    /// Tells those who watch, and those who will, a fact that is on disk.
    pub(crate) fn announce(&self, event: Arc<Event>) {
        let mut told = self.told();
        if let Told::All(events) = &mut *told {
            let next = events.len() < REMEMBERED && events.last().is_some_and(|last| last.seq.next() == event.seq);
            if next { events.push(event.clone()) } else { *told = Told::InTheJournal }
        }
        // While nobody can begin to listen: an event is either remembered by then or heard.
        self.send(Live::Event(event));
    }

    fn listen(&self, tokens: bool) -> Listen {
        let told = self.told();
        let known = if let Told::All(events) = &*told { Some(events.clone()) } else { None };
        let (live, lag) = if tokens { (&self.0.all, LAG) } else { (&self.0.facts, LAG_OF_FACTS) };
        Listen { live: live.get_or_init(|| broadcast::channel(lag).0).subscribe(), known }
    }

    fn known(&self) -> Option<Vec<Arc<Event>>> {
        if let Told::All(events) = &*self.told() { Some(events.clone()) } else { None }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().expect("nothing panics while it holds what was told")
    }
}

/// What whoever begins to watch a live task has.
pub(crate) struct Listen {
    /// What is told from now on.
    pub(crate) live: broadcast::Receiver<Live>,
    /// All events that were told before, if they are at hand.
    pub(crate) known: Option<Vec<Arc<Event>>>,
}

/// The feeds of all live tasks.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<HashMap<TaskId, Feed>>>);

impl Feeds {
    /// Opens the feed of a task, which begins with this event if it is new; or finds it.
    pub(crate) fn open(&self, task: TaskId, first: Option<&Arc<Event>>) -> Feed {
        self.feeds().entry(task).or_insert_with(|| Feed::new(first.cloned())).clone()
    }

    /// Closes the feed of a task that is over.
    pub(crate) fn close(&self, task: TaskId) {
        self.feeds().remove(&task);
    }

    /// Closes all feeds: whoever watches a task that rests hears that there is no more.
    pub(crate) fn close_all(&self) {
        self.feeds().clear();
    }

    /// Hears a task from now on, its tokens too if they are wanted.
    pub(crate) fn listen(&self, task: TaskId, tokens: bool) -> Option<Listen> {
        self.feeds().get(&task).map(|feed| feed.listen(tokens))
    }

    /// All events of a live task that were announced, if they are at hand.
    pub(crate) fn known(&self, task: TaskId) -> Option<Vec<Arc<Event>>> {
        self.feeds().get(&task).and_then(Feed::known)
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<TaskId, Feed>> {
        self.0.lock().expect("nothing panics while it holds the feeds")
    }
}

/// A watcher of one task.
pub struct Watch {
    journal: Journal,
    task: TaskId,
    last: Seq,
    live: Option<broadcast::Receiver<Live>>,
    backlog: std::vec::IntoIter<Arc<Event>>,
    /// Up to which number the journal must be read before live items are given: what is live by then is not read, so that
    /// the tokens between the events are heard.
    behind: Option<Seq>,
    over: bool,
}

impl Watch {
    /// Watches a live task from the event after `after`, all of whose events before those of `live` are at hand.
    pub(crate) fn known(
        journal: Journal,
        task: TaskId,
        after: Seq,
        live: broadcast::Receiver<Live>,
        mut events: Vec<Arc<Event>>,
    ) -> Self {
        // Whoever has heard the last event and comes back hears that there is no more, and not that the task rests.
        let over = events.last().is_some_and(|last| last.seq == after && last.kind.is_last());
        events.retain(|event| event.seq > after);
        let (live, backlog) = (Some(live), events.into_iter());
        Self { journal, task, last: after, live, backlog, behind: None, over }
    }

    /// Watches from the event after `after`. `live` was begun when the journal's last event was `last` or an earlier one.
    pub(crate) fn new(
        journal: Journal,
        task: TaskId,
        after: Seq,
        live: Option<broadcast::Receiver<Live>>,
        last: Seq,
    ) -> Self {
        let behind = Some(if live.is_some() { last } else { TO_THE_END });
        Self { journal, task, last: after, live, backlog: Vec::new().into_iter(), behind, over: false }
    }

    /// The same for a task whose last event was heard.
    pub(crate) fn at_the_end(self) -> Self {
        Self { over: true, ..self }
    }

    /// Whether the task's last event was heard, so that nothing can come any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next item; `None` after the last event, or when the daemon stops.
    pub async fn next(&mut self) -> Result<Option<Live>, artel_journal::Error> {
        loop {
            if self.over {
                return Ok(None);
            }
            if let Some(event) = self.backlog.next() {
                return Ok(Some(self.give(event)));
            }
            if let Some(limit) = self.behind {
                self.catch_up(limit).await?;
                continue;
            }
            let Some(live) = &mut self.live else { return Ok(None) };
            match live.recv().await {
                Ok(Live::Event(event)) if event.seq <= self.last => {}
                Ok(Live::Event(event)) if event.seq == self.last.next() => return Ok(Some(self.give(event))),
                Ok(Live::Event(event)) => self.behind = Some(event.seq),
                Ok(item) => return Ok(Some(item)),
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = Some(TO_THE_END),
                Err(broadcast::error::RecvError::Closed) => {
                    self.live = None;
                    self.behind = Some(TO_THE_END);
                }
            }
        }
    }

    async fn catch_up(&mut self, limit: Seq) -> Result<(), artel_journal::Error> {
        let mut page =
            if self.last < limit { self.journal.events(self.task, self.last, PAGE).await? } else { Vec::new() };
        let whole = page.len() < PAGE as usize || page.last().is_some_and(|event| event.seq >= limit);
        page.retain(|event| event.seq <= limit);
        if whole {
            self.behind = None;
        }
        self.backlog = page.into_iter().map(Arc::new).collect::<Vec<_>>().into_iter();
        Ok(())
    }

    fn give(&mut self, event: Arc<Event>) -> Live {
        self.last = event.seq;
        self.over = event.kind.is_last();
        Live::Event(event)
    }
}

#[cfg(test)]
mod tests {
    use artel_task::EventKind;
    use artel_task::event::Timestamp;

    use super::*;

    fn event(seq: u64) -> Arc<Event> {
        let task = TaskId::from_bytes([1; 16]);
        Arc::new(Event { task, seq: Seq(seq), at: Timestamp(0), kind: EventKind::Resumed })
    }

    fn numbers(known: Option<Vec<Arc<Event>>>) -> Option<Vec<u64>> {
        Some(known?.iter().map(|event| event.seq.0).collect())
    }

    #[test]
    fn an_event_is_known_before_one_listens_or_heard_after() {
        let feed = Feed::new(Some(event(1)));
        feed.announce(event(2));
        let Listen { mut live, known } = feed.listen(false);
        feed.announce(event(3));
        assert_eq!(numbers(known), Some(vec![1, 2]));
        assert!(matches!(live.try_recv(), Ok(Live::Event(event)) if event.seq == Seq(3)));
        assert_eq!(numbers(feed.known()), Some(vec![1, 2, 3]));
    }

    #[test]
    fn tokens_are_heard_by_those_who_want_them() {
        let feed = Feed::new(Some(event(1)));
        assert!(!feed.has_listeners());
        let (mut all, mut facts) = (feed.listen(true).live, feed.listen(false).live);
        assert!(feed.has_listeners());
        let step = StepId::parse("a#1.1").unwrap();
        let role = RoleName::parse("r").unwrap();
        feed.send(Live::Token { step, role, text: "x".into(), offset: 0 });
        feed.announce(event(2));
        assert!(matches!(all.try_recv(), Ok(Live::Token { .. })));
        for live in [&mut all, &mut facts] {
            assert!(matches!(live.try_recv(), Ok(Live::Event(event)) if event.seq == Seq(2)));
        }
        drop(all);
        assert!(!feed.has_listeners());
    }

    /// A conductor that is started again may find on disk what was never announced.
    #[test]
    fn what_may_have_gaps_is_left_to_the_journal() {
        let feed = Feed::new(Some(event(1)));
        feed.announce(event(3));
        assert_eq!(numbers(feed.known()), None);
        let resumed = Feed::new(None);
        resumed.announce(event(8));
        assert_eq!(numbers(resumed.known()), None);
    }

    #[test]
    fn a_long_task_is_left_to_the_journal() {
        let feed = Feed::new(Some(event(1)));
        (2..=REMEMBERED as u64).for_each(|seq| feed.announce(event(seq)));
        assert_eq!(numbers(feed.known()).map(|known| known.len()), Some(REMEMBERED));
        feed.announce(event(REMEMBERED as u64 + 1));
        assert_eq!(numbers(feed.known()), None);
    }
}
