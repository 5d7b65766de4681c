//! The download of one file: attempts, retries, verification.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_model::format_bytes;
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use crate::disk;
use crate::endpoint::{AttemptFault, FileResponse, HfEndpoint, is_sha256};
use crate::error::{Error, HashSource};
use crate::interruption::Interruption;
use crate::partial_file::PartialFile;
use crate::progress::DownloadProgress;
use crate::stop::StopToken;

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
pub(crate) struct Download {
    pub(crate) endpoint: Arc<HfEndpoint>,
    pub(crate) address: HfUri,
    /// The final path.
    pub(crate) path: PathBuf,
    /// The hash stated by the YAML.
    pub(crate) sha256: Option<String>,
    pub(crate) stop: StopToken,
    /// Reports progress to waiting requests.
    pub(crate) progress: watch::Sender<DownloadProgress>,
}

impl Download {
    /// Downloads the file and reports the result.
    pub(crate) fn run(self) {
        let start = Instant::now();
        let result = self.download();
        match &result {
            Ok(()) => tracing::info!(file = %self.address, seconds = start.elapsed().as_secs_f64(), "downloaded"),
            Err(error) => tracing::error!(file = %self.address, reason = %error, "download failed"),
        }
        self.progress.send_modify(|progress| progress.result = Some(result));
    }

    fn download(&self) -> Result<(), Error> {
        let Some(mut part) = PartialFile::lock(&self.path, || self.wait(LOCK_POLL_INTERVAL))? else { return Ok(()) };
        let mut attempts = 0;
        loop {
            let before = part.len();
            let (cause, delay) = match self.attempt(&mut part) {
                Ok(stated) => return self.finish(part, stated),
                Err(AttemptFault::Final(error)) => return Err(error),
                Err(AttemptFault::Interrupted(cause, delay)) => (cause, delay),
            };
            attempts = if part.len() > before { 1 } else { attempts + 1 };
            if attempts >= MAX_ATTEMPTS {
                return Err(Error::GivenUp { address: self.address(), attempts, cause });
            }
            let doubled = self.endpoint.retry_delay * 2u32.saturating_pow(attempts - 1);
            self.wait_for_retry(&cause, delay.unwrap_or(doubled.min(MAX_RETRY_DELAY)))?;
        }
    }

    fn wait_for_retry(&self, cause: &Interruption, delay: Duration) -> Result<(), Error> {
        tracing::warn!(file = %self.address, reason = %cause, delay_seconds = delay.as_secs_f64(), "the download was interrupted; retrying after a delay");
        self.wait(delay)
    }

    /// Waits; an error if downloads must stop.
    fn wait(&self, delay: Duration) -> Result<(), Error> {
        match self.stop.wait(delay) {
            true => Err(Error::Stopped(self.address())),
            false => Ok(()),
        }
    }

    /// Requests the missing bytes and writes them. Returns the hash stated by the hub.
    fn attempt(&self, part: &mut PartialFile) -> Result<Option<String>, AttemptFault> {
        let response = self.endpoint.request(&self.address, part)?;
        let stated = response.validators.linked.clone().filter(|tag| is_sha256(tag));
        if let (Some(wanted), Some(stated)) = (&self.sha256, &stated)
            && !wanted.eq_ignore_ascii_case(stated)
        {
            let (stated, wanted) = (stated.clone(), wanted.clone());
            return Err(Error::OtherFile { address: self.address(), stated, wanted }.into());
        }
        if !response.resumes {
            part.clear().map_err(|e| self.write_error(e))?;
        }
        let FileResponse { body, total_bytes, validators, .. } = response;
        let Some(body) = body else {
            return if total_bytes == Some(part.len()) { Ok(stated) } else { Err(Interruption::OtherRange.into()) };
        };
        let limit_bytes = self.limit_bytes(part, total_bytes)?;
        part.set_validators(validators).map_err(|e| self.write_error(e))?;
        self.copy(body.into_reader(), part, total_bytes, limit_bytes)?;
        Ok(stated)
    }

    /// The most bytes that the file may have: as stated by the hub, or as the disk has free space.
    fn limit_bytes(&self, part: &PartialFile, total_bytes: Option<u64>) -> Result<u64, Error> {
        let free_bytes = disk::free_bytes(&self.path).unwrap_or(u64::MAX);
        let limit_bytes = part.len().saturating_add(free_bytes.saturating_sub(disk::RESERVED_BYTES));
        let total_bytes = total_bytes.unwrap_or(limit_bytes);
        if total_bytes <= limit_bytes {
            return Ok(total_bytes);
        }
        let missing_bytes = total_bytes.saturating_sub(part.len());
        Err(Error::NoSpace { address: self.address(), path: self.path.clone(), missing_bytes, free_bytes })
    }

    fn copy(
        &self,
        mut body: impl io::Read,
        part: &mut PartialFile,
        total_bytes: Option<u64>,
        limit_bytes: u64,
    ) -> Result<(), AttemptFault> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (start, mut last_log) = ((Instant::now(), part.len()), Instant::now());
        loop {
            self.wait(Duration::ZERO)?;
            self.progress
                .send_modify(|progress| (progress.done_bytes, progress.total_bytes) = (part.len(), total_bytes));
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => part.write(&buffer[..n]).map_err(|e| self.write_error(e))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Interruption::Broken { done_bytes: part.len(), cause: e.to_string() }.into()),
            }
            if part.len() > limit_bytes {
                part.clear().map_err(|e| self.write_error(e))?;
                return Err(Error::TooLarge { address: self.address(), limit_bytes }.into());
            }
            if last_log.elapsed() >= LOG_INTERVAL {
                last_log = Instant::now();
                self.log(part.len(), total_bytes, start);
            }
        }
        match total_bytes {
            Some(total_bytes) if part.len() < total_bytes => {
                Err(Interruption::EndedEarly { done_bytes: part.len(), total_bytes }.into())
            }
            _ => Ok(()),
        }
    }

    fn log(&self, done_bytes: u64, total_bytes: Option<u64>, (start, start_bytes): (Instant, u64)) {
        let speed = (done_bytes - start_bytes) as f64 / start.elapsed().as_secs_f64().max(0.001);
        let of_total = total_bytes.map(|total| format!(" of {}", format_bytes(total))).unwrap_or_default();
        tracing::info!(file = %self.address, "downloading: {}{of_total}, {}/s", format_bytes(done_bytes), format_bytes(speed as u64));
    }

    /// The address as an error carries it.
    fn address(&self) -> Box<HfUri> {
        Box::new(self.address.clone())
    }

    fn write_error(&self, cause: io::Error) -> Error {
        Error::file("write", &self.path, cause)
    }

    /// Verifies the file and renames it to its final path. A hash in the YAML has precedence over that of the hub.
    fn finish(&self, part: PartialFile, stated: Option<String>) -> Result<(), Error> {
        let (wanted, source_of_hash) = match &self.sha256 {
            Some(sha256) => (Some(sha256.clone()), HashSource::Yaml),
            None => (stated, HashSource::Hub),
        };
        let actual = part.sha256();
        if let Some(wanted) = wanted.filter(|wanted| !wanted.eq_ignore_ascii_case(&actual)) {
            part.discard();
            return Err(Error::WrongHash { address: self.address(), actual, wanted, source_of_hash });
        }
        // Some networks answer every request with a login page.
        if !part.starts_with(b"GGUF") {
            part.discard();
            return Err(Error::NotGguf(self.address()));
        }
        part.finish().map_err(|e| Error::file("rename a complete download to", &self.path, e))
    }
}
