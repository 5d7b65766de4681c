//! One file, from the first request to its place.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artel_placement::format_bytes;
use artel_roles::hf_uri::HfUri;
use tokio::sync::watch;

use super::Going;
use super::part::Part;
use super::source::{Answer, Fault, Source};
use super::stop::Stop;
use crate::disk;

/// Attempts in a row that bring nothing.
const TRIES: u32 = 6;
/// The longest pause between them.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often it is tried whether another process, which fetches the same file, has ended.
const LOOK: Duration = Duration::from_millis(200);
/// How often the log hears of it.
const TELL: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// A file to fetch.
pub(super) struct Fetch {
    pub(super) source: Arc<Source>,
    pub(super) address: HfUri,
    /// Where it belongs.
    pub(super) path: PathBuf,
    /// What the YAML says of it.
    pub(super) sha256: Option<String>,
    pub(super) stop: Stop,
    /// Who waits hears how far it is.
    pub(super) told: watch::Sender<Going>,
}

impl Fetch {
    /// Fetches it, and says how that ended.
    pub(super) fn run(self) {
        let began = Instant::now();
        let end = self.fetch();
        match &end {
            Ok(()) => tracing::info!(file = %self.address, took = ?began.elapsed(), "fetched"),
            Err(reason) => tracing::error!(file = %self.address, reason, "not fetched"),
        }
        self.told.send_modify(|going| going.end = Some(end));
    }

    fn fetch(&self) -> Result<(), String> {
        let Some(mut part) = Part::take(&self.path, || self.wait(LOOK))? else { return Ok(()) };
        let mut tries = 0;
        loop {
            let before = part.len();
            let (reason, pause) = match self.attempt(&mut part) {
                Ok(stated) => return self.finish(part, stated),
                Err(Fault::Lasting(reason)) => return Err(reason),
                Err(Fault::Passing(reason, pause)) => (reason, pause),
            };
            tries = if part.len() > before { 1 } else { tries + 1 };
            if tries >= TRIES {
                return Err(format!(
                    "{}: {reason}; given up after {TRIES} attempts that brought nothing",
                    self.address
                ));
            }
            let doubled = self.source.pause * 2u32.saturating_pow(tries - 1);
            self.rest(&reason, pause.unwrap_or(doubled.min(LONGEST_PAUSE)))?;
        }
    }

    fn rest(&self, reason: &str, pause: Duration) -> Result<(), String> {
        tracing::warn!(file = %self.address, reason, ?pause, "the fetch was interrupted, and goes on after a pause");
        self.wait(pause)
    }

    /// Goes on after so long, or ends with the program.
    fn wait(&self, pause: Duration) -> Result<(), String> {
        match self.stop.wait(pause) {
            true => Err(format!(
                "{}: the fetch was stopped; it goes on where it was when it is next asked for",
                self.address
            )),
            false => Ok(()),
        }
    }

    /// Asks for what is missing and writes what comes. Gives the hash that the hub states.
    fn attempt(&self, part: &mut Part) -> Result<Option<String>, Fault> {
        let answer = self.source.ask(&self.address, part)?;
        let stated = answer.marks.linked.clone().filter(|tag| is_sha256(tag));
        if let (Some(wanted), Some(stated)) = (&self.sha256, &stated)
            && !wanted.eq_ignore_ascii_case(stated)
        {
            return Err(Fault::Lasting(format!(
                "{}: the hub has another file than is wanted: its sha256 is {stated}, the YAML states {wanted}",
                self.address
            )));
        }
        if !answer.goes_on {
            part.clear().map_err(|e| self.unwritten(&e))?;
        }
        let Answer { body, size, marks, .. } = answer;
        let Some(body) = body else {
            let odd = || Fault::Passing("the server gave another part than was asked for".to_owned(), None);
            return if size == Some(part.len()) { Ok(stated) } else { Err(odd()) };
        };
        let most = self.room(part, size)?;
        part.mark(marks).map_err(|e| self.unwritten(&e))?;
        self.copy(body.into_reader(), part, size, most)?;
        Ok(stated)
    }

    /// Bytes that the file may have: what the hub said, or what the disk has room for.
    fn room(&self, part: &Part, size: Option<u64>) -> Result<u64, Fault> {
        let free = disk::free(&self.path).unwrap_or(u64::MAX);
        let most = part.len().saturating_add(free.saturating_sub(disk::SPARE));
        let size = size.unwrap_or(most);
        if size <= most {
            return Ok(size);
        }
        let (missing, free, place) = (format_bytes(size.saturating_sub(part.len())), format_bytes(free), self.path.display());
        Err(Fault::Lasting(format!("{}: {missing} are to come, and the disk of {place} has {free} left", self.address)))
    }

    fn copy(&self, mut body: impl io::Read, part: &mut Part, size: Option<u64>, most: u64) -> Result<(), Fault> {
        let mut buffer = vec![0; CHUNK];
        let (began, mut last) = ((Instant::now(), part.len()), Instant::now());
        loop {
            self.wait(Duration::ZERO).map_err(Fault::Lasting)?;
            self.told.send_modify(|going| (going.done, going.size) = (part.len(), size));
            let broken = |what: String| Fault::Passing(format!("the connection broke after {what}"), None);
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => part.write(&buffer[..n]).map_err(|e| self.unwritten(&e))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(format!("{}: {e}", format_bytes(part.len())))),
            }
            if part.len() > most {
                part.clear().map_err(|e| self.unwritten(&e))?;
                let most = format_bytes(most);
                return Err(Fault::Lasting(format!(
                    "{}: more bytes came than the {most} that there may be",
                    self.address
                )));
            }
            if last.elapsed() >= TELL {
                last = Instant::now();
                self.log(part.len(), size, began);
            }
        }
        match size {
            Some(size) if part.len() < size => {
                let (done, size) = (format_bytes(part.len()), format_bytes(size));
                Err(Fault::Passing(format!("the answer ended after {done} of {size}"), None))
            }
            _ => Ok(()),
        }
    }

    fn log(&self, done: u64, size: Option<u64>, (began, from): (Instant, u64)) {
        let speed = (done - from) as f64 / began.elapsed().as_secs_f64().max(0.001);
        let of = size.map(|size| format!(" of {}", format_bytes(size))).unwrap_or_default();
        tracing::info!(file = %self.address, "fetching: {}{of}, {}/s", format_bytes(done), format_bytes(speed as u64));
    }

    fn unwritten(&self, error: &io::Error) -> Fault {
        let place = self.path.display();
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; it goes on where it was once there is room",
            _ => "",
        };
        Fault::Lasting(format!("{}: failed to write {place}: {error}{advice}", self.address))
    }

    /// Moves it to its place, if it is what it should be. What the YAML states counts more than what the hub does.
    fn finish(&self, part: Part, stated: Option<String>) -> Result<(), String> {
        let (wanted, who) = match &self.sha256 {
            Some(sha256) => (Some(sha256.clone()), "the YAML"),
            None => (stated, "the hub"),
        };
        let actual = part.sha256();
        if let Some(wanted) = wanted.filter(|wanted| !wanted.eq_ignore_ascii_case(&actual)) {
            part.discard();
            return Err(format!(
                "{}: what came is not the file: its sha256 is {actual}, {who} states {wanted}; it was not kept",
                self.address
            ));
        }
        // Some networks answer everything with a page of their own.
        if !part.begins_with(b"GGUF") {
            part.discard();
            return Err(format!("{}: what came is no GGUF file, but a page perhaps; it was not kept", self.address));
        }
        part.finish().map_err(|e| format!("{}: failed to move it to {}: {e}", self.address, self.path.display()))
    }
}

fn is_sha256(tag: &str) -> bool {
    tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())
}
