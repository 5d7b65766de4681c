//! The download of one file: attempts, retries, verification.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_placement::format_bytes;
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use super::DownloadProgress;
use super::endpoint::{DownloadFault, FileResponse, HfEndpoint};
use super::partial_file::PartialFile;
use super::stop::StopToken;
use crate::disk;

/// Consecutive attempts without progress before a download fails.
const MAX_ATTEMPTS: u32 = 6;
/// The longest delay between attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How often the lock is tried while another process downloads the same file.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often progress is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of one read.
const CHUNK_BYTES: usize = 1 << 18;

/// The download of one file.
pub(super) struct Download {
    pub(super) endpoint: Arc<HfEndpoint>,
    pub(super) address: HfUri,
    /// The final path.
    pub(super) path: PathBuf,
    /// The hash stated by the YAML.
    pub(super) sha256: Option<String>,
    pub(super) stop: StopToken,
    /// Reports progress to waiting requests.
    pub(super) progress: watch::Sender<DownloadProgress>,
}

impl Download {
    /// Downloads the file and reports the result.
    pub(super) fn run(self) {
        let start = Instant::now();
        let result = self.download();
        match &result {
            Ok(()) => tracing::info!(file = %self.address, took = ?start.elapsed(), "downloaded"),
            Err(reason) => tracing::error!(file = %self.address, reason, "download failed"),
        }
        self.progress.send_modify(|progress| progress.result = Some(result));
    }

    fn download(&self) -> Result<(), String> {
        let Some(mut part) = PartialFile::lock(&self.path, || self.wait(LOCK_POLL_INTERVAL))? else { return Ok(()) };
        let mut attempts = 0;
        loop {
            let before = part.len();
            let (reason, delay) = match self.attempt(&mut part) {
                Ok(stated) => return self.finish(part, stated),
                Err(DownloadFault::Permanent(reason)) => return Err(reason),
                Err(DownloadFault::Transient(reason, delay)) => (reason, delay),
            };
            attempts = if part.len() > before { 1 } else { attempts + 1 };
            if attempts >= MAX_ATTEMPTS {
                return Err(format!(
                    "{}: {reason}; given up after {MAX_ATTEMPTS} attempts without progress",
                    self.address
                ));
            }
            let doubled = self.endpoint.retry_delay * 2u32.saturating_pow(attempts - 1);
            self.wait_for_retry(&reason, delay.unwrap_or(doubled.min(MAX_RETRY_DELAY)))?;
        }
    }

    fn wait_for_retry(&self, reason: &str, delay: Duration) -> Result<(), String> {
        tracing::warn!(file = %self.address, reason, ?delay, "the download was interrupted; retrying after a delay");
        self.wait(delay)
    }

    /// Waits; an error if downloads must stop.
    fn wait(&self, delay: Duration) -> Result<(), String> {
        match self.stop.wait(delay) {
            true => Err(format!("{}: the download was stopped; the next request resumes it", self.address)),
            false => Ok(()),
        }
    }

    /// Requests the missing bytes and writes them. Returns the hash stated by the hub.
    fn attempt(&self, part: &mut PartialFile) -> Result<Option<String>, DownloadFault> {
        let response = self.endpoint.request(&self.address, part)?;
        let stated = response.validators.linked.clone().filter(|tag| is_sha256(tag));
        if let (Some(wanted), Some(stated)) = (&self.sha256, &stated)
            && !wanted.eq_ignore_ascii_case(stated)
        {
            return Err(DownloadFault::Permanent(format!(
                "{}: the hub has another file than expected: its sha256 is {stated}, the YAML states {wanted}",
                self.address
            )));
        }
        if !response.resumes {
            part.clear().map_err(|e| self.write_fault(&e))?;
        }
        let FileResponse { body, total_bytes, validators, .. } = response;
        let Some(body) = body else {
            let mismatch = || DownloadFault::Transient("the server sent another range than requested".to_owned(), None);
            return if total_bytes == Some(part.len()) { Ok(stated) } else { Err(mismatch()) };
        };
        let limit_bytes = self.limit_bytes(part, total_bytes)?;
        part.set_validators(validators).map_err(|e| self.write_fault(&e))?;
        self.copy(body.into_reader(), part, total_bytes, limit_bytes)?;
        Ok(stated)
    }

    /// The most bytes that the file may have: as stated by the hub, or as the disk has free space.
    fn limit_bytes(&self, part: &PartialFile, total_bytes: Option<u64>) -> Result<u64, DownloadFault> {
        let free = disk::free_bytes(&self.path).unwrap_or(u64::MAX);
        let limit_bytes = part.len().saturating_add(free.saturating_sub(disk::RESERVED_BYTES));
        let total_bytes = total_bytes.unwrap_or(limit_bytes);
        if total_bytes <= limit_bytes {
            return Ok(total_bytes);
        }
        let (missing, free, path) =
            (format_bytes(total_bytes.saturating_sub(part.len())), format_bytes(free), self.path.display());
        Err(DownloadFault::Permanent(format!(
            "{}: {missing} are missing, and the disk of {path} has {free} free",
            self.address
        )))
    }

    fn copy(
        &self,
        mut body: impl io::Read,
        part: &mut PartialFile,
        total_bytes: Option<u64>,
        limit_bytes: u64,
    ) -> Result<(), DownloadFault> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (start, mut last_log) = ((Instant::now(), part.len()), Instant::now());
        loop {
            self.wait(Duration::ZERO).map_err(DownloadFault::Permanent)?;
            self.progress
                .send_modify(|progress| (progress.done_bytes, progress.total_bytes) = (part.len(), total_bytes));
            let broken =
                |position: String| DownloadFault::Transient(format!("the connection broke after {position}"), None);
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => part.write(&buffer[..n]).map_err(|e| self.write_fault(&e))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(format!("{}: {e}", format_bytes(part.len())))),
            }
            if part.len() > limit_bytes {
                part.clear().map_err(|e| self.write_fault(&e))?;
                let limit = format_bytes(limit_bytes);
                return Err(DownloadFault::Permanent(format!("{}: the server sent more than {limit}", self.address)));
            }
            if last_log.elapsed() >= LOG_INTERVAL {
                last_log = Instant::now();
                self.log(part.len(), total_bytes, start);
            }
        }
        match total_bytes {
            Some(total) if part.len() < total => {
                let (done, total) = (format_bytes(part.len()), format_bytes(total));
                Err(DownloadFault::Transient(format!("the response ended after {done} of {total}"), None))
            }
            _ => Ok(()),
        }
    }

    fn log(&self, done_bytes: u64, total_bytes: Option<u64>, (start, start_bytes): (Instant, u64)) {
        let speed = (done_bytes - start_bytes) as f64 / start.elapsed().as_secs_f64().max(0.001);
        let of_total = total_bytes.map(|total| format!(" of {}", format_bytes(total))).unwrap_or_default();
        tracing::info!(file = %self.address, "downloading: {}{of_total}, {}/s", format_bytes(done_bytes), format_bytes(speed as u64));
    }

    fn write_fault(&self, error: &io::Error) -> DownloadFault {
        let path = self.path.display();
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free disk space, and the next request resumes the download"
            }
            _ => "",
        };
        DownloadFault::Permanent(format!("{}: failed to write {path}: {error}{advice}", self.address))
    }

    /// Verifies the file and renames it to its final path. A hash in the YAML has precedence over that of the hub.
    fn finish(&self, part: PartialFile, stated: Option<String>) -> Result<(), String> {
        let (wanted, source) = match &self.sha256 {
            Some(sha256) => (Some(sha256.clone()), "the YAML"),
            None => (stated, "the hub"),
        };
        let actual = part.sha256();
        if let Some(wanted) = wanted.filter(|wanted| !wanted.eq_ignore_ascii_case(&actual)) {
            part.discard();
            return Err(format!(
                "{}: the downloaded file is wrong and was deleted: its sha256 is {actual}, {source} states {wanted}",
                self.address
            ));
        }
        // Some networks answer every request with a login page.
        if !part.starts_with(b"GGUF") {
            part.discard();
            return Err(format!(
                "{}: the downloaded file is no GGUF file (perhaps a web page) and was deleted",
                self.address
            ));
        }
        part.finish()
            .map_err(|e| format!("{}: failed to rename the file to {}: {e}", self.address, self.path.display()))
    }
}

fn is_sha256(tag: &str) -> bool {
    tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())
}
