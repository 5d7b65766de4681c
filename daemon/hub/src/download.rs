//! The download of one file, which may be a piece of a model: attempts, retries, verification.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artel_roles::hf_uri::HfUri;

use crate::disk;
use crate::endpoint::{AttemptFault, FileResponse, HfEndpoint, is_sha256};
use crate::error::{Error, HashSource};
use crate::interruption::Interruption;
use crate::partial_file::PartialFile;
use crate::statement::HubStatement;
use crate::stop::StopToken;

/// Consecutive attempts without progress before a download fails.
const MAX_ATTEMPTS: u32 = 6;
/// The longest delay between attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How often the lock is tried while another process downloads the same file.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(200);
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
}

/// Takes the bytes of a file that are here, and those of the whole file, if known.
pub(crate) type DownloadReport<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

impl Download {
    /// Downloads the file.
    pub(crate) fn run(&self, report: DownloadReport<'_>) -> Result<(), Error> {
        let Some(mut part) = PartialFile::lock(&self.path, || self.wait(LOCK_POLL_INTERVAL))? else { return Ok(()) };
        let mut attempts = 0;
        loop {
            let before = part.len();
            let (cause, delay) = match self.attempt(&mut part, report) {
                Ok(stated) => return self.finish(part, stated),
                Err(AttemptFault::Final(error)) => return Err(error),
                Err(AttemptFault::Interrupted(cause, delay)) => (cause, delay),
            };
            attempts = if part.len() > before { 1 } else { attempts + 1 };
            self.retry_after(attempts, cause, delay)?;
        }
    }

    /// What the hub states of the file, before any byte of it is asked for.
    pub(crate) fn statement(&self) -> Result<HubStatement, Error> {
        let mut attempts = 0;
        let stated = loop {
            self.wait(Duration::ZERO)?;
            match self.endpoint.statement(&self.address) {
                Ok(stated) => break stated,
                Err(AttemptFault::Final(error)) => return Err(error),
                Err(AttemptFault::Interrupted(cause, delay)) => {
                    attempts += 1;
                    self.retry_after(attempts, cause, delay)?;
                }
            }
        };
        self.refuse_other_file(stated.sha256.as_deref())?;
        Ok(stated)
    }

    /// Waits before the next attempt; an error after the last one.
    fn retry_after(&self, attempts: u32, cause: Interruption, delay: Option<Duration>) -> Result<(), Error> {
        if attempts >= MAX_ATTEMPTS {
            return Err(Error::GivenUp { address: self.address(), attempts, cause });
        }
        let doubled = self.endpoint.retry_delay * 2u32.saturating_pow(attempts - 1);
        self.wait_for_retry(&cause, delay.unwrap_or(doubled.min(MAX_RETRY_DELAY)))
    }

    /// An error if the hub states another hash than the YAML.
    fn refuse_other_file(&self, stated: Option<&str>) -> Result<(), Error> {
        match (&self.sha256, stated) {
            (Some(wanted), Some(stated)) if !wanted.eq_ignore_ascii_case(stated) => {
                let (stated, wanted) = (stated.to_owned(), wanted.clone());
                Err(Error::OtherFile { address: self.address(), stated, wanted })
            }
            _ => Ok(()),
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
    fn attempt(&self, part: &mut PartialFile, report: DownloadReport<'_>) -> Result<Option<String>, AttemptFault> {
        let response = self.endpoint.request(&self.address, part)?;
        let stated = response.validators.linked.clone().filter(|tag| is_sha256(tag));
        self.refuse_other_file(stated.as_deref())?;
        if !response.resumes {
            part.clear().map_err(|e| self.write_error(e))?;
        }
        let FileResponse { body, total_bytes, validators, .. } = response;
        let Some(body) = body else {
            return if total_bytes == Some(part.len()) { Ok(stated) } else { Err(Interruption::OtherRange.into()) };
        };
        let limit_bytes = self.limit_bytes(part, total_bytes)?;
        part.set_validators(validators).map_err(|e| self.write_error(e))?;
        self.copy(body.into_reader(), part, (total_bytes, limit_bytes), report)?;
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
        (total_bytes, limit_bytes): (Option<u64>, u64),
        report: DownloadReport<'_>,
    ) -> Result<(), AttemptFault> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            self.wait(Duration::ZERO)?;
            report(part.len(), total_bytes);
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
        }
        match total_bytes {
            Some(total_bytes) if part.len() < total_bytes => {
                Err(Interruption::EndedEarly { done_bytes: part.len(), total_bytes }.into())
            }
            _ => Ok(()),
        }
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
