//! The task that decides what is read, and stores what became of it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::dirty::{DirtyPaths, DirtyScope};
use crate::entry::{ContentHash, EntryKey, EntryMeta, StoredEntry};
use crate::error::Error;
use crate::generation::OpenedBase;
use crate::indexer::options::IndexerOptions;
use crate::job::{self, JobContext, JobInput, JobOutcome};
use crate::plan::{self, ReconcilePlan, RenamedFile, StoredEntries};
use crate::progress::{IndexPhase, IndexProgress, WorkRate};
use crate::source::{self, WalkResult};
use crate::watcher::{SourceWatcher, WatchError};

/// The longest delay before something that failed is tried again.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The files that a progress names with the reasons why they were not read; more are counted.
const MAX_LISTED_FAILURES: usize = 1000;

/// How often a system that refused to watch is asked again.
const WATCH_RETRY_DELAY: Duration = Duration::from_secs(60);

/// What woke the task.
enum WorkEvent {
    Stop,
    Dirty,
    Settle,
    Finished(Box<Result<(Id, JobOutcome), JoinError>>),
    Retry,
    Rescan,
}

/// The task's state. It alone writes the entries of its base.
pub(super) struct IndexWorker {
    context: Arc<JobContext>,
    name: String,
    base: OpenedBase,
    options: IndexerOptions,
    dirty: Arc<DirtyPaths>,
    watcher: Option<SourceWatcher>,
    watch_retry: Instant,
    entries: StoredEntries,
    queue: VecDeque<EntryKey>,
    /// What waits in the queue or for its retry.
    waiting: HashMap<EntryKey, JobInput>,
    jobs: JoinSet<JobOutcome>,
    running: HashMap<EntryKey, (AbortHandle, JobInput)>,
    keys: HashMap<Id, EntryKey>,
    /// What is being read and was reported since: it is looked at once more when that is done.
    reported: HashSet<EntryKey>,
    /// Directories that are looked at once more, and when.
    settling: VecDeque<(Instant, HashSet<PathBuf>)>,
    /// What is tried again, and when.
    retry: Option<(Instant, Vec<EntryKey>)>,
    retry_delay: Duration,
    last_scan: Instant,
    is_scanned: bool,
    /// Whether the comparison failed and is tried again.
    is_scan_due: bool,
    rate: WorkRate,
    progress: IndexProgress,
    published: watch::Sender<IndexProgress>,
}

impl IndexWorker {
    pub(super) fn new(
        context: Arc<JobContext>,
        name: &str,
        base: OpenedBase,
        options: IndexerOptions,
        dirty: Arc<DirtyPaths>,
        published: watch::Sender<IndexProgress>,
    ) -> Self {
        let now = Instant::now();
        Self {
            context,
            name: name.to_owned(),
            base,
            retry_delay: options.retry_delay,
            options,
            dirty,
            watcher: None,
            watch_retry: now,
            entries: StoredEntries::new(),
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            keys: HashMap::new(),
            reported: HashSet::new(),
            settling: VecDeque::new(),
            retry: None,
            last_scan: now,
            is_scanned: false,
            is_scan_due: false,
            rate: WorkRate::default(),
            progress: IndexProgress { is_shadow: base.answering.is_some(), ..IndexProgress::default() },
            published,
        }
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        // Watched first: what changes during the first comparison is then reported.
        self.watch().await;
        self.dirty.report_all();
        loop {
            let event = self.next_event(&mut stopped).await;
            match event {
                WorkEvent::Stop => break,
                WorkEvent::Dirty => self.take_reports().await,
                WorkEvent::Settle => {
                    let paths = self.settling.pop_front().map(|(_, paths)| paths).unwrap_or_default();
                    self.reconcile(paths.into_iter().collect(), false).await;
                }
                WorkEvent::Finished(outcome) => self.finish(*outcome).await,
                WorkEvent::Retry => {
                    let keys = self.retry.take().map(|(_, keys)| keys).unwrap_or_default();
                    self.queue.extend(keys);
                    if std::mem::take(&mut self.is_scan_due) {
                        self.dirty.report_all();
                    }
                }
                WorkEvent::Rescan => {
                    self.last_scan = Instant::now();
                    self.dirty.report_all();
                    if let Err(error) = self.context.index.sweep().await {
                        self.note_problem(error.to_string());
                    }
                }
            }
            self.start_jobs();
            self.complete().await;
            self.publish();
        }
        self.jobs.shutdown().await;
    }

    async fn next_event(&mut self, stopped: &mut watch::Receiver<bool>) -> WorkEvent {
        let at = |time: Option<Instant>| async move {
            match time {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let interval = match &self.progress.polling {
            _ if !self.options.watches => None,
            Some(_) => Some(self.options.poll_interval),
            None => Some(self.options.rescan_interval),
        };
        let IndexerOptions { quiet_period, max_quiet_period, .. } = self.options;
        // What was told first is done first, but for the end.
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => WorkEvent::Stop,
            Some(outcome) = self.jobs.join_next_with_id() => WorkEvent::Finished(Box::new(outcome)),
            () = self.dirty.settled(quiet_period, max_quiet_period) => WorkEvent::Dirty,
            () = at(self.settling.front().map(|(time, _)| *time)) => WorkEvent::Settle,
            () = at(self.retry.as_ref().map(|(time, _)| *time)) => WorkEvent::Retry,
            () = at(interval.map(|interval| self.last_scan + interval)) => WorkEvent::Rescan,
        }
    }

    async fn watch(&mut self) {
        if !self.options.watches {
            return;
        }
        self.watch_retry = Instant::now() + WATCH_RETRY_DELAY;
        let (context, dirty) = (self.context.clone(), self.dirty.clone());
        let watched = tokio::task::spawn_blocking(move || SourceWatcher::new(&context.sources, &dirty)).await;
        match watched {
            Ok(Ok(watcher)) => {
                self.watcher = Some(watcher);
                self.progress.polling = None;
            }
            Ok(Err(error)) => {
                if matches!(error, WatchError::Missing { .. }) {
                    // Asking is quick, and it may be there at any time.
                    self.watch_retry = Instant::now();
                }
                if self.progress.polling.is_none() {
                    tracing::warn!(base = self.name, %error, "changes are not reported; they are looked for every {:?}", self.options.poll_interval);
                }
                self.progress.polling = Some(error.to_string());
            }
            Err(_) => {}
        }
    }

    async fn take_reports(&mut self) {
        match self.dirty.take() {
            DirtyScope::Paths(paths) => self.reconcile(paths.into_iter().collect(), true).await,
            DirtyScope::All => {
                if self.watcher.is_none() && self.watch_retry <= Instant::now() {
                    self.watch().await;
                }
                self.scan().await;
            }
        }
    }

    /// Compares everything.
    async fn scan(&mut self) {
        if !self.is_scanned {
            match self.context.index.entries(self.base.target).await {
                Ok(entries) => entries.into_iter().for_each(|entry| self.keep_entry(entry)),
                Err(error) => return self.hold_up_scan(&error),
            }
        }
        let roots: Vec<PathBuf> = self.context.sources.iter().map(|source| source.root().to_owned()).collect();
        if let Err(error) = self.drop_foreign_entries(&roots).await {
            return self.hold_up_scan(&error);
        }
        self.reconcile(roots, false).await;
        match self.compare_texts().await {
            Ok(()) => self.is_scanned = true,
            Err(error) => self.hold_up_scan(&error),
        }
    }

    /// The comparison did not come to its end, and begins anew later.
    fn hold_up_scan(&mut self, error: &Error) {
        self.note_problem(error.to_string());
        let due = Instant::now() + self.next_retry_delay();
        self.retry.get_or_insert((due, Vec::new()));
        self.is_scan_due = true;
    }

    /// Removes what no source has any more, and what an older generation alone has.
    async fn drop_foreign_entries(&mut self, roots: &[PathBuf]) -> Result<(), Error> {
        let is_foreign =
            |key: &EntryKey| key.path().is_some_and(|path| !roots.iter().any(|root| path.starts_with(root)));
        let mut foreign: Vec<EntryKey> = self.entries.keys().filter(|key| is_foreign(key)).cloned().collect();
        if let Some(answering) = self.base.answering.filter(|_| !self.is_scanned) {
            let older = self.context.index.entries(answering).await?;
            let is_gone = |entry: &StoredEntry| {
                let missing = |path: &Path| path.symlink_metadata().is_err_and(|e| source::is_missing(&e));
                is_foreign(&entry.key) || entry.key.path().is_some_and(missing)
            };
            foreign.extend(older.into_iter().filter(is_gone).map(|entry| entry.key));
        }
        self.remove(foreign).await
    }

    async fn remove(&mut self, keys: Vec<EntryKey>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in &keys {
            // What is being read of it must not be stored after its removal.
            self.cancel(key);
            self.waiting.remove(key);
        }
        self.context.index.remove(self.base, keys.clone()).await?;
        for key in keys {
            self.forget_entry(&key);
        }
        Ok(())
    }

    fn keep_entry(&mut self, entry: StoredEntry) {
        let failures = &mut self.progress.failures;
        match &entry.reason {
            Some(reason) if failures.get(&entry.key) == Some(reason) => {}
            Some(reason) if failures.len() < MAX_LISTED_FAILURES => {
                Arc::make_mut(failures).insert(entry.key.clone(), reason.clone());
            }
            _ if failures.contains_key(&entry.key) => {
                Arc::make_mut(failures).remove(&entry.key);
            }
            _ => {}
        }
        self.entries.insert(entry.key.clone(), entry);
    }

    fn forget_entry(&mut self, key: &EntryKey) -> Option<StoredEntry> {
        if self.progress.failures.contains_key(key) {
            Arc::make_mut(&mut self.progress.failures).remove(key);
        }
        self.entries.remove(key)
    }

    /// Compares the entries at and below these paths with the file system. Directories among new reports are looked at once more
    /// later.
    async fn reconcile(&mut self, scopes: Vec<PathBuf>, are_reports: bool) {
        if scopes.is_empty() {
            return;
        }
        let scopes = Arc::new(scopes);
        let (context, walked) = (self.context.clone(), scopes.clone());
        let walk = tokio::task::spawn_blocking(move || {
            let found = source::walk(&context.sources, &walked, &|path| context.chunker.takes(path));
            let directories: HashSet<PathBuf> = walked.iter().filter(|path| path.is_dir()).cloned().collect();
            (found, directories)
        });
        let Ok((found, directories)) = walk.await else { return };
        if are_reports && !directories.is_empty() {
            self.settling.push_back((Instant::now() + self.options.settle_delay, directories));
        }
        let is_in_scope = |key: &&EntryKey| key.path().is_some_and(|path| scopes.iter().any(|s| path.starts_with(s)));
        self.reported.extend(self.running.keys().filter(is_in_scope).cloned());
        if self.watcher.as_ref().is_some_and(|watcher| !watcher.is_current()) {
            self.watcher = None;
            self.watch().await;
            self.dirty.report_all();
        }
        self.note_unreadable(&scopes, &found);
        self.progress.seen += found.files.len() as u64;
        let plan = plan::plan(&self.entries, &self.context.sources, &scopes, found);
        if let Err(error) = self.apply(plan).await {
            // The same differences are found again.
            self.note_problem(error.to_string());
            let due = Instant::now() + self.next_retry_delay();
            self.settling.push_back((due, scopes.iter().cloned().collect()));
        }
    }

    fn note_unreadable(&mut self, scopes: &[PathBuf], found: &WalkResult) {
        let before = &self.progress.unreadable;
        if before.is_empty() && found.unreadable.is_empty() {
            return;
        }
        let mut listed: BTreeMap<String, String> = (**before).clone();
        listed.retain(|path, _| !scopes.iter().any(|scope| Path::new(path).starts_with(scope)));
        listed.extend(found.unreadable.iter().map(|(path, reason)| (path.display().to_string(), reason.clone())));
        self.progress.unreadable = Arc::new(listed);
    }

    async fn apply(&mut self, plan: ReconcilePlan) -> Result<(), Error> {
        self.progress.unchanged += plan.unchanged;
        for RenamedFile { from, to, meta, file } in plan.rename {
            if self.running.contains_key(&from) {
                // The index may have another content of it by now than the one that was moved.
                self.remove(vec![from]).await?;
                self.enqueue(to, JobInput::File(file));
            } else {
                self.rename(from, to, meta).await?;
            }
        }
        self.remove(plan.remove).await?;
        for (key, meta) in plan.touch {
            self.touch(key, meta).await?;
        }
        for (key, file) in plan.check {
            self.enqueue(key, JobInput::File(file));
        }
        Ok(())
    }

    async fn rename(&mut self, from: EntryKey, to: EntryKey, meta: EntryMeta) -> Result<(), Error> {
        for key in [&from, &to] {
            self.cancel(key);
            self.waiting.remove(key);
        }
        self.context.index.rename(self.base, &from, &to, meta.clone()).await?;
        if let Some(entry) = self.forget_entry(&from) {
            self.keep_entry(StoredEntry { key: to, meta, ..entry });
        }
        Ok(())
    }

    async fn touch(&mut self, key: EntryKey, meta: EntryMeta) -> Result<(), Error> {
        self.context.index.touch(self.base, &key, meta.clone()).await?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.meta = meta;
        }
        Ok(())
    }

    /// Compares the texts that were handed in with their entries.
    async fn compare_texts(&mut self) -> Result<(), Error> {
        let texts = self.context.index.texts(&self.name).await?;
        let mut gone: HashSet<EntryKey> = self.entries.keys().filter(|key| key.text_id().is_some()).cloned().collect();
        for text in texts {
            let key = EntryKey::text(&text.id);
            gone.remove(&key);
            let meta = job::text_meta(&text, job::text_hash(&text));
            match self.entries.get(&key) {
                Some(entry) if entry.meta == meta => self.progress.unchanged += 1,
                Some(entry) if entry.meta.hash == meta.hash => self.touch(key, meta).await?,
                _ => self.enqueue(key, JobInput::Text(text)),
            }
        }
        self.remove(gone.into_iter().collect()).await
    }

    fn enqueue(&mut self, key: EntryKey, input: JobInput) {
        if self.running.get(&key).is_some_and(|(_, running)| *running == input) {
            return;
        }
        // What is being read is older than what was found now.
        self.cancel(&key);
        self.rate.begin();
        if self.waiting.insert(key.clone(), input).is_none() {
            self.queue.push_back(key);
        }
    }

    fn cancel(&mut self, key: &EntryKey) {
        if let Some((job, _)) = self.running.remove(key) {
            self.keys.remove(&job.id());
            job.abort();
        }
        self.reported.remove(key);
    }

    fn start_jobs(&mut self) {
        while self.running.len() < self.options.jobs.max(1)
            && let Some(key) = self.queue.pop_front()
        {
            let Some(input) = self.waiting.remove(&key) else { continue };
            let known = self.entries.get(&key).cloned();
            let job = job::run(self.context.clone(), self.base, key.clone(), input.clone(), known);
            let job = self.jobs.spawn(job);
            self.keys.insert(job.id(), key.clone());
            self.running.insert(key, (job, input));
        }
    }

    async fn finish(&mut self, outcome: Result<(Id, JobOutcome), JoinError>) {
        let id = match &outcome {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        // What was aborted is no longer listed.
        let Some(key) = self.keys.remove(&id) else { return };
        let Some((_, input)) = self.running.remove(&key) else { return };
        if self.reported.remove(&key) {
            self.dirty.report(key.path().map(PathBuf::from));
        }
        match outcome {
            Ok((_, JobOutcome::Stored { entry, embedded })) => {
                self.progress.done += 1;
                self.progress.bytes += entry.meta.stat.bytes;
                self.progress.chunks += u64::from(entry.chunks);
                self.progress.embedded += embedded;
                self.rate.add(u64::from(entry.chunks));
                self.succeed(entry);
            }
            Ok((_, JobOutcome::Same(entry))) => {
                self.progress.unchanged += 1;
                self.rate.add(0);
                self.succeed(entry);
            }
            Ok((_, JobOutcome::Missing)) => {
                if let Err(error) = self.remove(vec![key.clone()]).await {
                    self.postpone(key, input, error.to_string());
                }
            }
            Ok((_, JobOutcome::Changed)) => self.dirty.report(key.path().map(PathBuf::from)),
            Ok((_, JobOutcome::Postponed(reason))) => self.postpone(key, input, reason),
            Ok((_, JobOutcome::Outdated)) => {
                self.note_problem("its settings changed, and another indexer has taken its place".into());
            }
            Err(error) if error.is_panic() => self.fail(key, input, "reading it made the program panic").await,
            Err(_) => {}
        }
    }

    fn succeed(&mut self, entry: StoredEntry) {
        self.retry_delay = self.options.retry_delay;
        self.progress.problem = None;
        self.keep_entry(entry);
    }

    /// Stores that reading an entry panicked, so that it is not tried again until it is another.
    async fn fail(&mut self, key: EntryKey, input: JobInput, reason: &str) {
        let (stat, source) = match &input {
            JobInput::File(file) => (file.stat, &self.context.sources[file.source]),
            JobInput::Text(text) => {
                let meta = job::text_meta(text, job::text_hash(text));
                return self.store_failure(key, input, meta, reason).await;
            }
        };
        let hash = ContentHash::of(format!("{stat:?}").as_bytes());
        let (source, owner, labels) = (source.name.clone(), source.owner.clone(), source.labels.clone());
        let meta = EntryMeta { source, owner, labels, hash, stat, is_fresh: false };
        self.store_failure(key, input, meta, reason).await;
    }

    async fn store_failure(&mut self, key: EntryKey, input: JobInput, meta: EntryMeta, reason: &str) {
        match self.context.index.fail(self.base, &key, meta.clone(), reason.to_owned()).await {
            Ok(()) => self.keep_entry(StoredEntry { key, meta, reason: Some(reason.into()), chunks: 0 }),
            Err(error) => self.postpone(key, input, error.to_string()),
        }
    }

    fn postpone(&mut self, key: EntryKey, input: JobInput, reason: String) {
        self.note_problem(reason);
        let due = Instant::now() + self.next_retry_delay();
        if self.waiting.insert(key.clone(), input).is_none() {
            self.retry.get_or_insert((due, Vec::new())).1.push(key);
        }
    }

    fn next_retry_delay(&mut self) -> Duration {
        // Several failures at once are one.
        if self.retry.is_none() {
            let next = (self.retry_delay * 2).min(MAX_RETRY_DELAY);
            return std::mem::replace(&mut self.retry_delay, next);
        }
        self.retry_delay
    }

    fn note_problem(&mut self, problem: String) {
        if self.progress.problem.as_ref() != Some(&problem) {
            tracing::warn!(base = self.name, %problem, "indexing is held up");
        }
        self.progress.problem = Some(problem);
    }

    fn is_idle(&self) -> bool {
        self.is_scanned
            && self.waiting.is_empty()
            && self.running.is_empty()
            && self.settling.is_empty()
            && self.retry.is_none()
            && self.dirty.is_empty()
    }

    /// Lets a complete generation answer.
    async fn complete(&mut self) {
        if !self.is_idle() {
            return;
        }
        self.rate.end();
        if self.base.answering.is_none() {
            return;
        }
        match self.context.index.swap(self.base).await {
            Ok(()) => {
                tracing::info!(base = self.name, "the new generation of the knowledge base answers");
                self.base.answering = None;
                self.progress.is_shadow = false;
            }
            Err(error) => {
                self.note_problem(error.to_string());
                self.retry = Some((Instant::now() + self.next_retry_delay(), Vec::new()));
            }
        }
    }

    fn publish(&mut self) {
        let waiting = (self.waiting.len() + self.running.len()) as u64;
        let estimate = self.rate.estimate(waiting);
        self.progress.phase = if self.is_idle() {
            IndexPhase::Idle
        } else if self.is_scanned {
            IndexPhase::Indexing
        } else {
            IndexPhase::Scanning
        };
        self.progress.entries = self.entries.len() as u64;
        self.progress.waiting = waiting;
        self.progress.chunks_per_second = estimate.map_or(self.progress.chunks_per_second, |(rate, _)| rate);
        self.progress.time_left = estimate.map(|(_, left)| left);
        self.published.send_replace(self.progress.clone());
    }
}
