//! What happens to a task, as it happens.
//!
//! Events are durable and complete; tokens and progress are live only. A watcher that is too slow loses live items, never an
//! event: it reads what it missed from the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artel_journal::Journal;
use artel_task::{Event, ModelName, RoleName, Seq, StepId, TaskId};
use tokio::sync::broadcast;

/// Items that a watcher may lag behind: some seconds of tokens, and some 25 kB for each open task.
const LAG: usize = 256;
/// Events read from the journal at once.
const PAGE: u32 = 256;
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

/// The feeds of all live tasks.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<HashMap<TaskId, broadcast::Sender<Live>>>>);

impl Feeds {
    /// Opens the feed of a task, or finds it.
    pub(crate) fn open(&self, task: TaskId) -> broadcast::Sender<Live> {
        let mut feeds = self.0.lock().expect("nothing panics while it holds the feeds");
        feeds.entry(task).or_insert_with(|| broadcast::channel(LAG).0).clone()
    }

    /// Closes the feed of a task that is over.
    pub(crate) fn close(&self, task: TaskId) {
        self.0.lock().expect("nothing panics while it holds the feeds").remove(&task);
    }

    /// Closes all feeds: whoever watches a task that rests hears that there is no more.
    pub(crate) fn close_all(&self) {
        self.0.lock().expect("nothing panics while it holds the feeds").clear();
    }

    /// Hears a task from now on; what the journal holds by then comes first.
    pub(crate) fn listen(&self, task: TaskId) -> Option<broadcast::Receiver<Live>> {
        let feeds = self.0.lock().expect("nothing panics while it holds the feeds");
        feeds.get(&task).map(broadcast::Sender::subscribe)
    }
}

/// A watcher of one task.
pub struct Watch {
    journal: Journal,
    task: TaskId,
    last: Seq,
    live: Option<broadcast::Receiver<Live>>,
    backlog: std::vec::IntoIter<Event>,
    /// Up to which number the journal must be read before live items are given: what is live by then is not read, so that
    /// the tokens between the events are heard.
    behind: Option<Seq>,
    over: bool,
}

impl Watch {
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
                return Ok(Some(self.give(Arc::new(event))));
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
        self.backlog = page.into_iter();
        Ok(())
    }

    fn give(&mut self, event: Arc<Event>) -> Live {
        self.last = event.seq;
        self.over = event.kind.is_last();
        Live::Event(event)
    }
}
