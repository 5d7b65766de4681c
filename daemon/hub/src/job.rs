//! What a thread of the downloader does: it fetches a file, or all pieces of a model.
//!
//! Of a model in pieces, the hub is asked first what it has, so that a missing piece, another file than the YAML means, or a lack
//! of disk space ends the job before it begins. A few pieces are then fetched at once, each into its own file; the first error stops
//! the others, whose partial files stay.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use artel_model::{PieceNumbers, format_bytes};
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use crate::disk;
use crate::download::Download;
use crate::error::{Error, MissingPart};
use crate::partial_file::existing_bytes;
use crate::progress::DownloadProgress;
use crate::statement::HubStatement;

/// The pieces that are fetched at once, and the requests that ask for them: enough to use a connection that is faster than a server
/// sends one file, and few enough that the hub serves others.
const MAX_PARALLEL_FILES: usize = 3;
/// How often progress is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The download of a file or of a model in pieces.
pub(crate) struct DownloadJob {
    /// Of all pieces in their order, with one token of stopping; one of a whole file.
    pub(crate) pieces: Vec<Download>,
    /// Reports progress to waiting requests.
    pub(crate) progress: watch::Sender<DownloadProgress>,
}

impl DownloadJob {
    /// Downloads what is missing and reports the result.
    pub(crate) fn run(self) {
        let (start, file) = (Instant::now(), self.address().clone());
        let result = self.fetch();
        match &result {
            Ok(()) => tracing::info!(%file, seconds = start.elapsed().as_secs_f64(), "downloaded"),
            Err(error) => tracing::error!(%file, reason = %error, "download failed"),
        }
        self.progress.send_modify(|progress| progress.result = Some(result));
    }

    fn fetch(&self) -> Result<(), Error> {
        let log = Mutex::new(ProgressLog::default());
        let report = |done_bytes: u64, total_bytes: Option<u64>| {
            self.progress
                .send_modify(|progress| (progress.done_bytes, progress.total_bytes) = (done_bytes, total_bytes));
            log.lock().unwrap_or_else(PoisonError::into_inner).add(self.address(), done_bytes, total_bytes);
        };
        if let [whole] = &self.pieces[..] {
            return whole.run(&report);
        }
        let (here, missing): (Vec<&Download>, Vec<&Download>) =
            self.pieces.iter().partition(|piece| piece.path.exists());
        let stated = self.statements(&missing)?;
        self.refuse_lack_of_space(&missing, &stated)?;
        let here_bytes: u64 = here.iter().map(|piece| existing_bytes(&piece.path)).sum();
        let total_bytes = HubStatement::of_pieces(stated).size_bytes.map(|missing| missing.saturating_add(here_bytes));
        let done = Mutex::new(missing.iter().map(|piece| existing_bytes(&piece.path)).collect::<Vec<u64>>());
        let fetched = self.in_parallel(missing.len(), |at| {
            missing[at].run(&|done_bytes, _| {
                // Locked until it is reported, so that sums are reported in their order.
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done[at] = done_bytes;
                report(done.iter().sum::<u64>().saturating_add(here_bytes), total_bytes);
            })
        });
        fetched.map(drop)
    }

    /// What the hub states of each of these pieces.
    ///
    /// # Errors
    /// It has not all of them, or the request fails.
    fn statements(&self, missing: &[&Download]) -> Result<Vec<HubStatement>, Error> {
        let stated = self.in_parallel(missing.len(), |at| match missing[at].statement() {
            Ok(stated) => Ok(Some(stated)),
            Err(Error::NotFound { part: MissingPart::File, .. }) => Ok(None),
            Err(error) => Err(error),
        })?;
        let number = |piece: &Download| {
            let at = self.pieces.iter().position(|other| other.address == piece.address);
            at.map_or(0, |at| at as u32 + 1)
        };
        let without = missing.iter().zip(&stated).filter(|(_, stated)| stated.is_none());
        let numbers: Vec<u32> = without.map(|(piece, _)| number(piece)).collect();
        match numbers.is_empty() {
            true => Ok(stated.into_iter().flatten().collect()),
            false => Err(Error::PiecesNotFound {
                address: Box::new(self.address().clone()),
                missing: PieceNumbers { numbers, count: self.pieces.len() as u32 },
            }),
        }
    }

    /// An error if the disk has no space for all of them; those of which the hub states no size are checked when they are fetched.
    fn refuse_lack_of_space(&self, missing: &[&Download], stated: &[HubStatement]) -> Result<(), Error> {
        let path = &self.pieces[0].path;
        let Some(free_bytes) = disk::free_bytes(path) else { return Ok(()) };
        let rest = missing
            .iter()
            .zip(stated)
            .map(|(piece, stated)| stated.size_bytes.unwrap_or(0).saturating_sub(existing_bytes(&piece.path)));
        let missing_bytes = rest.fold(0, u64::saturating_add);
        if missing_bytes <= free_bytes.saturating_sub(disk::RESERVED_BYTES) {
            return Ok(());
        }
        let address = Box::new(self.address().clone());
        Err(Error::NoSpace { address, path: path.clone(), missing_bytes, free_bytes })
    }

    /// Calls `task` with each number below `count`, a few at once. The first error stops the others, and is returned.
    fn in_parallel<T: Send>(
        &self,
        count: usize,
        task: impl Fn(usize) -> Result<T, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let (next, error) = (AtomicUsize::new(0), Mutex::new(None));
        let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<T>>>());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count || error.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    return;
                }
                match task(at) {
                    Ok(result) => results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result),
                    Err(cause) => {
                        error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
                        self.pieces[0].stop.stop_group();
                    }
                }
            }
        };
        thread::scope(|scope| {
            // A thread that cannot be started leaves its work to the others.
            let start = |_| thread::Builder::new().name("fetch-piece".to_owned()).spawn_scoped(scope, work).ok();
            let _threads: Vec<_> = (1..MAX_PARALLEL_FILES.min(count)).map(start).collect();
            work();
        });
        match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()),
        }
    }

    /// The address by which it was asked for: that of the first piece.
    fn address(&self) -> &HfUri {
        &self.pieces[0].address
    }
}

/// Logs progress now and then.
#[derive(Default)]
struct ProgressLog {
    /// When it began, and with how many bytes.
    start: Option<(Instant, u64)>,
    last: Option<Instant>,
}

impl ProgressLog {
    fn add(&mut self, file: &HfUri, done_bytes: u64, total_bytes: Option<u64>) {
        let (start, start_bytes) = *self.start.get_or_insert((Instant::now(), done_bytes));
        if self.last.get_or_insert(start).elapsed() < LOG_INTERVAL {
            return;
        }
        self.last = Some(Instant::now());
        let speed = done_bytes.saturating_sub(start_bytes) as f64 / start.elapsed().as_secs_f64().max(0.001);
        let rest = total_bytes.map(|total| {
            let seconds = total.saturating_sub(done_bytes) as f64 / speed.max(1.0);
            (format!(" of {}", format_bytes(total)), format!(", {seconds:.0} s left"))
        });
        let (of_total, left) = rest.unwrap_or_default();
        let (done, speed) = (format_bytes(done_bytes), format_bytes(speed as u64));
        tracing::info!(%file, "downloading: {done}{of_total}, {speed}/s{left}");
    }
}
