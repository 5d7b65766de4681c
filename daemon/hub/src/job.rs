//! What a thread of the downloader does: it fetches a file, or all pieces of a model.
//!
//! Of a model in pieces, the hub is asked first what it has, so that a missing piece, another file than the YAML means, pieces of two
//! versions, or a lack of disk space ends the job before it begins. A few pieces are then fetched at once, each into its own file; the
//! first error stops the others, whose partial files stay.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use artel_model::format_bytes;
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use crate::disk::SpaceClaims;
use crate::download::{Download, DownloadReport, LOCK_POLL_INTERVAL};
use crate::error::Error;
use crate::parallel::in_parallel;
use crate::partial_file::existing_bytes;
use crate::piece_record::PieceRecord;
use crate::piece_set::{AskedPieces, LocalPieces, PieceSet};
use crate::progress::DownloadProgress;

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
        match &self.pieces[..] {
            [whole] => whole.run(None, &report),
            pieces => self.fetch_pieces(&PieceSet(pieces), &report),
        }
    }

    fn fetch_pieces(&self, set: &PieceSet<'_>, report: DownloadReport<'_>) -> Result<(), Error> {
        // Before the record is made, so that a refusal leaves nothing behind.
        let before = set.local();
        if before.missing.is_empty() {
            return Ok(());
        }
        let plan = self.plan(set, &before)?;
        let first = &self.pieces[0];
        let mut record = PieceRecord::lock(&first.path, || first.wait(LOCK_POLL_INTERVAL))?;
        // Another process may have fetched some meanwhile, or all.
        let local = set.local();
        if !local.missing.is_empty() {
            let (asked, _claims) = if local == before {
                plan
            } else {
                drop(plan);
                self.plan(set, &local)?
            };
            record.set(asked.commit.as_ref())?;
            self.fetch_missing(&asked, report)?;
            set.confirm(&asked)?;
        }
        record.discard();
        Ok(())
    }

    /// What is to be fetched, and the space for it.
    fn plan(&self, set: &PieceSet<'_>, local: &LocalPieces) -> Result<(AskedPieces, SpaceClaims<'_>), Error> {
        let asked = set.ask(local)?;
        // Those of which the hub states no size are checked when they are fetched.
        let rest = asked.missing.iter().filter_map(|(at, stated)| {
            let path = &self.pieces[*at].path;
            Some((path.clone(), stated.size_bytes?.saturating_sub(existing_bytes(path))))
        });
        let first = &self.pieces[0];
        let claims = first.disk.claim(rest.collect());
        let claims = claims.map_err(|shortage| Error::no_space(&first.address, &first.path, shortage))?;
        Ok((asked, claims))
    }

    fn fetch_missing(&self, asked: &AskedPieces, report: DownloadReport<'_>) -> Result<(), Error> {
        let missing = |at: usize| &self.pieces[asked.missing[at].0];
        let is_missing = |at: usize| asked.missing.iter().any(|(missing, _)| *missing == at);
        let here = (0..self.pieces.len()).filter(|at| !is_missing(*at));
        let here_bytes: u64 = here.map(|at| existing_bytes(&self.pieces[at].path)).sum();
        let sizes = asked.missing.iter().map(|(_, stated)| stated.size_bytes);
        let total_bytes = sizes.chain([Some(here_bytes)]).try_fold(0u64, |sum, size| sum.checked_add(size?));
        let count = asked.missing.len();
        let done = Mutex::new((0..count).map(|at| existing_bytes(&missing(at).path)).collect::<Vec<u64>>());
        let fetched = in_parallel(count, &self.pieces[0].stop, |at| {
            missing(at).run(Some(&asked.missing[at].1), &|done_bytes, _| {
                // Locked until it is reported, so that sums are reported in their order.
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done[at] = done_bytes;
                report(done.iter().sum::<u64>().saturating_add(here_bytes), total_bytes);
            })
        });
        fetched.map(drop)
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
