//! The stream of a task: its events, tokens and progress, as they happen.
//!
//! A task runner publishes on a [`TaskChannel`], and any number of clients read a [`TaskSubscription`]. Events are durable and
//! complete; tokens and progress are live only. A subscriber that is too slow loses tokens and progress, never an event: it
//! reads the events that it missed from the journal. One that comes late is given what the running attempts have written so far.
//!
//! It does not know how tasks run, nor gRPC.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod item;
mod live_outputs;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use artel_journal::Journal;
use artel_task::event::PartialOutput;
use artel_task::{Event, EventKind, Seq, StepId, TaskId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use live_outputs::LiveOutputs;

pub use item::{StepProgress, StreamItem, ToolCallPart};

/// Items that a subscriber of tokens may lag behind: some seconds of tokens, and some 25 kB for each task with such a
/// subscriber.
const TOKEN_BUFFER_ITEMS: usize = 256;
/// Items that a subscriber without tokens may lag behind before it reads from the journal.
const EVENT_BUFFER_ITEMS: usize = 64;
/// Events read from the journal at once.
const PAGE_EVENTS: u32 = 256;
/// Events of a running task that stay in memory: more than a graph of the usual size makes. The events of a longer task are
/// read from the journal.
const MAX_BACKLOG_EVENTS: usize = 64;
/// Reads all events that the journal holds.
const JOURNAL_END: Seq = Seq(u64::MAX);

/// The channel on which one task's stream is published. Clones are the same channel.
#[derive(Clone)]
pub struct TaskChannel(Arc<Broadcasts>);

/// Without subscribers nothing is broadcast, and a subscriber without tokens is not woken by each of them.
struct Broadcasts {
    /// Everything; exists from the first subscriber of tokens on.
    all: OnceLock<broadcast::Sender<StreamItem>>,
    /// Everything but tokens; exists from the first other subscriber on.
    without_tokens: OnceLock<broadcast::Sender<StreamItem>>,
    backlog: Mutex<Backlog>,
}

/// What a new subscriber is given first.
struct Backlog {
    events: PublishedEvents,
    /// The last progress of each running step: it may not change for long.
    progress: BTreeMap<StepId, StreamItem>,
    /// What the running attempts have written.
    outputs: LiveOutputs,
    /// Whether the task is set aside.
    is_set_aside: bool,
}

/// The events of a task that were published.
enum PublishedEvents {
    /// All of them, from the first one on: a new subscriber need not read the journal.
    Complete(Vec<Arc<Event>>),
    /// Too many, or the earlier ones are not known.
    InJournal,
}

impl Backlog {
    /// Keeps what is of the attempts for which this holds.
    fn retain(&mut self, runs: impl Fn(&StepId) -> bool) {
        self.progress.retain(|step, _| runs(step));
        self.outputs.retain(runs);
    }
}

impl PublishedEvents {
    fn in_memory(&self) -> Option<Vec<Arc<Event>>> {
        if let Self::Complete(events) = self { Some(events.clone()) } else { None }
    }
}

impl TaskChannel {
    /// The channel of a task that starts with this event, or of one that has started already.
    fn new(first: Option<Arc<Event>>) -> Self {
        let events = first.map_or(PublishedEvents::InJournal, |first| PublishedEvents::Complete(vec![first]));
        let (progress, outputs) = Default::default();
        let backlog = Mutex::new(Backlog { events, progress, outputs, is_set_aside: false });
        Self(Arc::new(Broadcasts { all: OnceLock::new(), without_tokens: OnceLock::new(), backlog }))
    }

    /// Sends an item that is not journalled to the subscribers, if there are any, and adds it to what later ones are given.
    pub fn send(&self, item: StreamItem) {
        let mut backlog = self.backlog();
        match &item {
            StreamItem::Progress { step, .. } => drop(backlog.progress.insert(step.clone(), item.clone())),
            _ => backlog.outputs.add(&item),
        }
        // The lock is held, so that no subscriber is given it twice.
        self.broadcast(item);
    }

    fn broadcast(&self, item: StreamItem) {
        let without_tokens = self.0.without_tokens.get().filter(|_| !item.is_of_tokens());
        if let Some(without_tokens) = without_tokens {
            drop(without_tokens.send(item.clone()));
        }
        if let Some(all) = self.0.all.get() {
            drop(all.send(item));
        }
    }

    /// Sends an event that is on disk to the subscribers, and adds it to the backlog for later ones.
    pub fn publish(&self, event: Arc<Event>) {
        let mut backlog = self.backlog();
        match &event.kind {
            EventKind::StepFinished { step, .. } | EventKind::StepFailed { step, .. } => {
                // What runs inside of it, items or a sub-graph, ends with it.
                let ended = &step.visit;
                backlog.retain(|step| step.visit != *ended && !step.visit.is_inside(ended));
            }
            // The attempts before it are interrupted.
            EventKind::Resumed | EventKind::SetAside { .. } => backlog.retain(|_| false),
            _ => {}
        }
        backlog.is_set_aside = matches!(event.kind, EventKind::SetAside { .. });
        if let PublishedEvents::Complete(events) = &mut backlog.events {
            let fits =
                events.len() < MAX_BACKLOG_EVENTS && events.last().is_some_and(|last| last.seq.next() == event.seq);
            if fits { events.push(event.clone()) } else { backlog.events = PublishedEvents::InJournal }
        }
        // The lock is held, so no subscriber can join in between: each gets the event from the backlog or from the channel.
        self.broadcast(StreamItem::Event(event));
    }

    /// What the running attempts have written for which this holds, as far as it fits into so many bytes together.
    pub fn partial_outputs(&self, holds: impl Fn(&StepId) -> bool, max_bytes: usize) -> Vec<PartialOutput> {
        self.backlog().outputs.partial(holds, max_bytes)
    }

    fn subscribe(&self, tokens: bool) -> LiveSubscription {
        let backlog = self.backlog();
        let outputs = if tokens { backlog.outputs.items() } else { Vec::new() };
        let progress = outputs.into_iter().chain(backlog.progress.values().cloned()).collect();
        let (sender, buffer) =
            if tokens { (&self.0.all, TOKEN_BUFFER_ITEMS) } else { (&self.0.without_tokens, EVENT_BUFFER_ITEMS) };
        let live = sender.get_or_init(|| broadcast::channel(buffer).0).subscribe();
        LiveSubscription { live, backlog: backlog.events.in_memory(), progress }
    }

    fn events(&self) -> Option<Vec<Arc<Event>>> {
        self.backlog().events.in_memory()
    }

    fn is_set_aside(&self) -> bool {
        self.backlog().is_set_aside
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.0.backlog.lock().expect("nothing panics while it holds the backlog")
    }
}

/// A new subscription to a running task.
pub struct LiveSubscription {
    /// Items that are published from now on.
    pub live: broadcast::Receiver<StreamItem>,
    /// All events that were published before, if they are in memory.
    pub backlog: Option<Vec<Arc<Event>>>,
    /// What each running attempt has written, for a subscriber of tokens, and its last progress.
    pub progress: Vec<StreamItem>,
}

/// The channels of all running tasks.
#[derive(Clone, Default)]
pub struct TaskChannels(Arc<Mutex<ChannelTable>>);

#[derive(Default)]
struct ChannelTable {
    open: HashMap<TaskId, TaskChannel>,
    /// Closed ones that a step still holds.
    closed: HashMap<TaskId, Weak<Broadcasts>>,
}

impl TaskChannels {
    /// Opens the channel of a task, which starts with this event if it is new; or finds it.
    pub fn open(&self, task: TaskId, first: Option<&Arc<Event>>) -> TaskChannel {
        self.table().open.entry(task).or_insert_with(|| TaskChannel::new(first.cloned())).clone()
    }

    /// Closes the channel of a task that has ended or is suspended. That of a task that is set aside stays open: its
    /// subscribers receive what follows when it is taken up again or ends.
    pub fn close(&self, task: TaskId) {
        let table = &mut *self.table();
        if table.open.get(&task).is_some_and(TaskChannel::is_set_aside) {
            return;
        }
        table.closed.retain(|_, channel| channel.strong_count() > 0);
        if let Some(channel) = table.open.remove(&task) {
            table.closed.insert(task, Arc::downgrade(&channel.0));
        }
    }

    /// Closes all channels: the streams of suspended tasks end.
    pub fn close_all(&self) {
        self.table().open.clear();
    }

    /// Subscribes to a running task, with its tokens or without.
    pub fn subscribe(&self, task: TaskId, tokens: bool) -> Option<LiveSubscription> {
        self.table().open.get(&task).map(|channel| channel.subscribe(tokens))
    }

    /// All events of a running task that were published, if they are in memory.
    pub fn events(&self, task: TaskId) -> Option<Vec<Arc<Event>>> {
        self.table().open.get(&task).and_then(TaskChannel::events)
    }

    /// Resolves when the channel of a task that has ended is closed, and all steps have let go of it: then none of its work is left.
    pub fn released(&self, task: TaskId) -> impl Future<Output = ()> + Send + use<> {
        let table = self.table();
        let closed = table.closed.get(&task).and_then(Weak::upgrade).map(TaskChannel);
        let channels = table.open.get(&task).cloned().into_iter().chain(closed);
        let live: Vec<_> = channels.map(|channel| channel.subscribe(false).live).collect();
        async move {
            for mut live in live {
                while !matches!(live.recv().await, Err(RecvError::Closed)) {}
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, ChannelTable> {
        self.0.lock().expect("nothing panics while it holds the channels")
    }
}

/// A subscription to one task.
pub struct TaskSubscription {
    journal: Journal,
    task: TaskId,
    last: Seq,
    live: Option<broadcast::Receiver<StreamItem>>,
    backlog: std::vec::IntoIter<Arc<Event>>,
    /// The number up to which the journal must be read before live items are given: events that are live by then are not read,
    /// so that the tokens between the events arrive.
    catch_up_to: Option<Seq>,
    /// Given after the events that were published before the subscription.
    progress: std::vec::IntoIter<StreamItem>,
    is_over: bool,
}

impl TaskSubscription {
    /// Subscribes to a running task from the event after `after`; `events` are all events before those of `live`.
    pub fn from_memory(
        journal: Journal,
        task: TaskId,
        after: Seq,
        live: broadcast::Receiver<StreamItem>,
        mut events: Vec<Arc<Event>>,
    ) -> Self {
        // A client that has the last event and subscribes again learns that the task has ended, not that it is suspended.
        let is_over = events.last().is_some_and(|last| last.seq == after && last.kind.is_last());
        events.retain(|event| event.seq > after);
        let (live, backlog) = (Some(live), events.into_iter());
        let progress = Vec::new().into_iter();
        Self { journal, task, last: after, live, backlog, catch_up_to: None, progress, is_over }
    }

    /// Subscribes from the event after `after`. `live` was opened when the journal's last event was `last` or an earlier one.
    pub fn from_journal(
        journal: Journal,
        task: TaskId,
        after: Seq,
        live: Option<broadcast::Receiver<StreamItem>>,
        last: Seq,
    ) -> Self {
        let catch_up_to = Some(if live.is_some() { last } else { JOURNAL_END });
        let (backlog, progress) = (Vec::new().into_iter(), Vec::new().into_iter());
        Self { journal, task, last: after, live, backlog, catch_up_to, progress, is_over: false }
    }

    /// The same, with the progress of the steps that run now. What is of steps whose end is among the events is left out.
    pub fn with_progress(self, progress: Vec<StreamItem>) -> Self {
        Self { progress: progress.into_iter(), ..self }
    }

    /// The same for a task whose last event the client has.
    pub fn at_the_end(self) -> Self {
        Self { is_over: true, ..self }
    }

    /// Whether the task's last event was given, so that no item can follow.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next item; `None` after the last event, or when the daemon stops.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, artel_journal::Error> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            if let Some(event) = self.backlog.next() {
                return Ok(Some(self.advance(event)));
            }
            if let Some(limit) = self.catch_up_to {
                self.catch_up(limit).await?;
                continue;
            }
            if let Some(progress) = self.progress.next() {
                return Ok(Some(progress));
            }
            let Some(live) = &mut self.live else { return Ok(None) };
            match live.recv().await {
                Ok(StreamItem::Event(event)) if event.seq <= self.last => {}
                Ok(StreamItem::Event(event)) if event.seq == self.last.next() => return Ok(Some(self.advance(event))),
                Ok(StreamItem::Event(event)) => self.catch_up_to = Some(event.seq),
                Ok(item) => return Ok(Some(item)),
                Err(RecvError::Lagged(_)) => self.catch_up_to = Some(JOURNAL_END),
                Err(RecvError::Closed) => {
                    self.live = None;
                    self.catch_up_to = Some(JOURNAL_END);
                }
            }
        }
    }

    async fn catch_up(&mut self, limit: Seq) -> Result<(), artel_journal::Error> {
        let mut page =
            if self.last < limit { self.journal.events(self.task, self.last, PAGE_EVENTS).await? } else { Vec::new() };
        let is_final = page.len() < PAGE_EVENTS as usize || page.last().is_some_and(|event| event.seq >= limit);
        page.retain(|event| event.seq <= limit);
        if is_final {
            self.catch_up_to = None;
        }
        self.backlog = page.into_iter().map(Arc::new).collect::<Vec<_>>().into_iter();
        Ok(())
    }

    fn advance(&mut self, event: Arc<Event>) -> StreamItem {
        self.last = event.seq;
        if let EventKind::StepFinished { step, .. } | EventKind::StepFailed { step, .. } = &event.kind {
            self.drop_progress(step);
        }
        self.is_over = event.kind.is_last();
        StreamItem::Event(event)
    }

    /// The attempt has ended, and what runs inside of it: what was written until the subscription is in its output.
    fn drop_progress(&mut self, ended: &StepId) {
        let runs = |step: &StepId| match step.visit == ended.visit {
            true => step.attempt > ended.attempt,
            false => !step.visit.is_inside(&ended.visit),
        };
        let progress = std::mem::take(&mut self.progress);
        self.progress = progress.filter(|item| item.step().is_none_or(runs)).collect::<Vec<_>>().into_iter();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use artel_task::RoleName;
    use artel_task::event::{Failure, FailureCode, Timestamp};

    use super::*;

    fn event(seq: u64) -> Arc<Event> {
        let task = TaskId::from_bytes([1; 16]);
        Arc::new(Event { task, seq: Seq(seq), at: Timestamp(0), kind: EventKind::Resumed })
    }

    fn numbers(events: Option<Vec<Arc<Event>>>) -> Option<Vec<u64>> {
        Some(events?.iter().map(|event| event.seq.0).collect())
    }

    #[test]
    fn an_event_is_in_the_backlog_before_one_subscribes_or_received_after() {
        let channel = TaskChannel::new(Some(event(1)));
        channel.publish(event(2));
        let LiveSubscription { mut live, backlog, .. } = channel.subscribe(false);
        channel.publish(event(3));
        assert_eq!(numbers(backlog), Some(vec![1, 2]));
        assert!(matches!(live.try_recv(), Ok(StreamItem::Event(event)) if event.seq == Seq(3)));
        assert_eq!(numbers(channel.events()), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_task_is_released_when_the_last_step_has_let_go_of_its_closed_channel() {
        let (channels, task) = (TaskChannels::default(), TaskId::from_bytes([1; 16]));
        let released = || Box::pin(channels.released(task));
        let is_over = |released: &mut Pin<Box<dyn Future<Output = ()> + Send>>| {
            released.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        let mut early: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = vec![released()];
        assert!(is_over(&mut early[0]), "there is none");
        let step = channels.open(task, Some(&event(1)));
        early.push(released());
        channels.close(task);
        early.push(released());
        assert!(channels.subscribe(task, false).is_none());
        // A task that is taken up again has another channel.
        let again = channels.open(task, None);
        let mut late: Pin<Box<dyn Future<Output = ()> + Send>> = released();
        assert!(!is_over(&mut early[1]) && !is_over(&mut early[2]) && !is_over(&mut late));
        drop(step);
        assert!(is_over(&mut early[1]) && is_over(&mut early[2]) && !is_over(&mut late));
        channels.close(task);
        drop(again);
        assert!(is_over(&mut late));
        late = released();
        assert!(is_over(&mut late));
    }

    #[test]
    fn tokens_are_received_by_subscribers_that_want_them() {
        let channel = TaskChannel::new(Some(event(1)));
        let (mut all, mut without_tokens) = (channel.subscribe(true).live, channel.subscribe(false).live);
        let step = StepId::parse("a#1.1").unwrap();
        let role = RoleName::parse("r").unwrap();
        let (of_step, of_role) = (step.clone(), role.clone());
        channel.send(StreamItem::Token { step, role, text: "x".into(), offset: 0, logprobs: None });
        channel.send(StreamItem::Reasoning { step: of_step, role: of_role, text: "hm".into(), offset: 0 });
        let late = |tokens| channel.subscribe(tokens).progress.len();
        assert_eq!((late(true), late(false)), (2, 0), "what was written so far");
        channel.publish(event(2));
        assert!(matches!(all.try_recv(), Ok(StreamItem::Token { .. })));
        assert!(matches!(all.try_recv(), Ok(StreamItem::Reasoning { .. })));
        for live in [&mut all, &mut without_tokens] {
            assert!(matches!(live.try_recv(), Ok(StreamItem::Event(event)) if event.seq == Seq(2)));
        }
    }

    #[test]
    fn a_late_subscriber_gets_the_last_progress_of_running_steps() {
        let channel = TaskChannel::new(Some(event(1)));
        let step = |name: &str| StepId::parse(name).unwrap();
        let queued = |name: &str, position| StreamItem::Progress {
            step: step(name),
            role: RoleName::parse("r").unwrap(),
            progress: StepProgress::Queued { position },
        };
        for item in [queued("a#1.1", 2), queued("b#1.1", 5), queued("b/c#1.1", 3), queued("a#1.1", 1)] {
            channel.send(item);
        }
        let kind = EventKind::StepFailed {
            step: step("b#1.1"),
            failure: Failure { code: FailureCode::Idle, message: "M.".to_owned(), step: None },
            retry_after: None,
            taken: Vec::new(),
            partial: None,
        };
        channel.publish(Arc::new(Event { kind, ..Event::clone(&event(2)) }));
        let progress = channel.subscribe(false).progress;
        assert!(matches!(
            progress.as_slice(),
            [StreamItem::Progress { progress: StepProgress::Queued { position: 1 }, .. }]
        ));
    }

    #[tokio::test]
    async fn the_channel_of_a_task_that_is_set_aside_stays_open_until_it_ends() {
        let (channels, task) = (TaskChannels::default(), event(1).task);
        let of_kind = |seq, kind| Arc::new(Event { kind, ..Event::clone(&event(seq)) });
        let channel = channels.open(task, Some(&event(1)));
        let mut live = channels.subscribe(task, false).unwrap().live;
        channel.publish(of_kind(2, EventKind::SetAside { reason: "it stalls".to_owned() }));
        drop(channel);
        channels.close(task);
        channels
            .open(task, None)
            .publish(of_kind(3, EventKind::Cancelled { reason: "enough".to_owned(), partial: Vec::new() }));
        channels.close(task);
        for seq in [2, 3] {
            assert!(matches!(live.recv().await, Ok(StreamItem::Event(event)) if event.seq == Seq(seq)));
        }
        assert!(live.recv().await.is_err() && channels.subscribe(task, false).is_none());
    }

    /// A task runner that is restarted may find events on disk that were never published.
    #[test]
    fn events_with_possible_gaps_are_left_to_the_journal() {
        let channel = TaskChannel::new(Some(event(1)));
        channel.publish(event(3));
        assert_eq!(numbers(channel.events()), None);
        let resumed = TaskChannel::new(None);
        resumed.publish(event(8));
        assert_eq!(numbers(resumed.events()), None);
    }

    #[test]
    fn a_long_task_is_left_to_the_journal() {
        let channel = TaskChannel::new(Some(event(1)));
        (2..=MAX_BACKLOG_EVENTS as u64).for_each(|seq| channel.publish(event(seq)));
        assert_eq!(numbers(channel.events()).map(|events| events.len()), Some(MAX_BACKLOG_EVENTS));
        channel.publish(event(MAX_BACKLOG_EVENTS as u64 + 1));
        assert_eq!(numbers(channel.events()), None);
    }
}
