//! The download of one file, which may be a piece of a model: attempts, retries, verification.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artel_roles::hf_uri::HfUri;

use crate::commit::RepoCommit;
use crate::disk::{self, DiskSpace, SpaceClaims};
use crate::endpoint::{AttemptFault, FileResponse, HfEndpoint};
use crate::error::{Error, HashSource};
use crate::interruption::Interruption;
use crate::partial_file::PartialFile;
use crate::statement::FileStatement;
use crate::stop::StopToken;

/// Consecutive attempts without progress before a download fails.
const MAX_ATTEMPTS: u32 = 6;
/// The longest delay between attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How often the lock is tried while another process downloads the same file.
pub(crate) const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(200);
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
    pub(crate) disk: Arc<DiskSpace>,
    pub(crate) stop: StopToken,
}

/// Takes the bytes of a file that are here, and those of the whole file, if known.
pub(crate) type DownloadReport<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

impl Download {
    /// Downloads the file. A piece of a model was asked for before: what comes must be of the version that was `asked`.
    pub(crate) fn run(&self, asked: Option<&FileStatement>, report: DownloadReport<'_>) -> Result<(), Error> {
        let Some(mut part) = PartialFile::lock(&self.path, || self.wait(LOCK_POLL_INTERVAL))? else { return Ok(()) };
        let mut attempts = 0;
        loop {
            let before = part.len();
            let (cause, delay) = match self.attempt(&mut part, asked, report) {
                Ok(stated) => return self.finish(part, stated),
                Err(AttemptFault::Final(error)) => return Err(error),
                Err(AttemptFault::Interrupted(cause, delay)) => (cause, delay),
            };
            attempts = if part.len() > before { 1 } else { attempts + 1 };
            self.retry_after(attempts, cause, delay)?;
        }
    }

    /// What the hub states of the file, of this commit if one is named, before any byte of it is asked for.
    pub(crate) fn statement(&self, commit: Option<&RepoCommit>) -> Result<FileStatement, Error> {
        let mut attempts = 0;
        let stated = loop {
            self.wait(Duration::ZERO)?;
            match self.endpoint.statement(&self.address, commit) {
                Ok(stated) => break stated,
                Err(AttemptFault::Final(error)) => return Err(error),
                Err(AttemptFault::Interrupted(cause, delay)) => {
                    attempts += 1;
                    self.retry_after(attempts, cause, delay)?;
                }
            }
        };
        self.refuse_other_file(stated.sha256())?;
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

    /// An error if what comes cannot be of the version that was asked for. A hash in the YAML says which version is meant, whatever
    /// else the hub states.
    fn refuse_other_version(&self, asked: Option<&FileStatement>, comes: &FileStatement) -> Result<(), Error> {
        match asked {
            Some(asked) if self.sha256.is_none() && comes.contradicts(asked) => {
                Err(Error::VersionChanged(self.address()))
            }
            _ => Ok(()),
        }
    }

    fn wait_for_retry(&self, cause: &Interruption, delay: Duration) -> Result<(), Error> {
        tracing::warn!(file = %self.address, reason = %cause, delay_seconds = delay.as_secs_f64(), "the download was interrupted; retrying after a delay");
        self.wait(delay)
    }

    /// Waits; an error if downloads must stop.
    pub(crate) fn wait(&self, delay: Duration) -> Result<(), Error> {
        match self.stop.wait(delay) {
            true => Err(Error::Stopped(self.address())),
            false => Ok(()),
        }
    }

    /// Requests the missing bytes and writes them. Returns the hash stated by the hub.
    fn attempt(
        &self,
        part: &mut PartialFile,
        asked: Option<&FileStatement>,
        report: DownloadReport<'_>,
    ) -> Result<Option<String>, AttemptFault> {
        let commit = asked.and_then(|asked| asked.commit.as_ref());
        let FileResponse { body, resumes, stated } = self.endpoint.request(&self.address, commit, part)?;
        let sha256 = stated.sha256().map(str::to_owned);
        self.refuse_other_file(sha256.as_deref())?;
        self.refuse_other_version(asked, &stated)?;
        if !resumes {
            part.clear().map_err(|e| self.write_error(e))?;
        }
        let total_bytes = stated.size_bytes;
        let Some(body) = body else {
            return if total_bytes == Some(part.len()) { Ok(sha256) } else { Err(Interruption::OtherRange.into()) };
        };
        let _claim = total_bytes.map(|total_bytes| self.claim(part, total_bytes)).transpose()?;
        part.set_validators(stated.validators).map_err(|e| self.write_error(e))?;
        self.copy(body.into_reader(), part, total_bytes, report)?;
        Ok(sha256)
    }

    /// Claims space for the rest of the file.
    fn claim(&self, part: &PartialFile, total_bytes: u64) -> Result<SpaceClaims<'_>, Error> {
        let rest_bytes = total_bytes.saturating_sub(part.len());
        let claim = self.disk.claim(vec![(self.path.clone(), rest_bytes)]);
        claim.map_err(|shortage| Error::no_space(&self.address, &self.path, shortage))
    }

    /// An error if these bytes would take what must stay free. The size of a file may be unknown, and others write to the same disk.
    fn refuse_full_disk(&self, part: &PartialFile, next_bytes: u64) -> Result<(), Error> {
        let free_bytes = self.disk.free(&self.path);
        if next_bytes <= free_bytes.saturating_sub(disk::RESERVED_BYTES) {
            return Ok(());
        }
        Err(Error::DiskFull { address: self.address(), path: self.path.clone(), done_bytes: part.len(), free_bytes })
    }

    fn copy(
        &self,
        mut body: impl io::Read,
        part: &mut PartialFile,
        total_bytes: Option<u64>,
        report: DownloadReport<'_>,
    ) -> Result<(), AttemptFault> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            self.wait(Duration::ZERO)?;
            report(part.len(), total_bytes);
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    self.refuse_full_disk(part, n as u64)?;
                    self.disk.writes(&self.path, n as u64);
                    part.write(&buffer[..n]).map_err(|e| self.write_error(e))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Interruption::Broken { done_bytes: part.len(), cause: e.to_string() }.into()),
            }
            if let Some(limit_bytes) = total_bytes.filter(|total_bytes| part.len() > *total_bytes) {
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
