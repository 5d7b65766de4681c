//! The worker as a process, and the side that outlives it.

use std::fs;
use std::time::Duration;

use artel_documents::{
    ChunkSize, DocumentError, Extractor, ExtractorProgram, FileSource, Format, LoadLimits, ReadStamp, TokenRates,
};

use crate::WORKER_VARIABLE;

/// Little, so that a file that needs more shows at once.
pub(crate) const LIMITS: LoadLimits = LoadLimits {
    file_bytes: 8 << 20,
    text_bytes: 8 << 20,
    unpacked_bytes: 8 << 20,
    archive_entries: 1000,
    pages: 100,
    rows: 10_000,
    columns: 1000,
    nesting: 512,
    chunks: 100_000,
    time: Duration::from_secs(60),
    memory_bytes: 512 << 20,
};

pub(crate) fn extractor(limits: LoadLimits) -> Extractor {
    let program = ExtractorProgram {
        path: std::env::current_exe().unwrap(),
        args: ["--ignored", "--exact", "worker_process", "--nocapture"].map(Into::into).into(),
        env: vec![(WORKER_VARIABLE.into(), "1".into())],
    };
    Extractor::new(program, limits, ChunkSize { tokens: 200, overlap: 20 }, TokenRates::default())
}

#[test]
fn a_file_is_read_with_what_identifies_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.md");
    fs::write(&path, "# Title\n\nText.\n").unwrap();
    let mut extractor = extractor(LIMITS);
    let read = extractor.extract(FileSource::Path(&path), None).unwrap();
    assert_eq!((read.chunks[0].text.as_str(), read.format), ("# Title\n\nText.", Format::Markdown));
    assert_eq!(read.chunks[0].context, ["Title"]);
    assert_eq!(read.stamp, Some(ReadStamp::of(&fs::metadata(&path).unwrap())));
    let process = extractor.process_id();
    let handed_in =
        extractor.extract(FileSource::Content { name: "b.md", bytes: b"# Title\n\nText.\n" }, None).unwrap();
    assert_eq!((handed_in.stamp, handed_in.sha256, &handed_in.chunks), (None, read.sha256, &read.chunks));
    assert_eq!(extractor.process_id(), process, "one process reads both");
}

#[test]
fn a_large_answer_comes_whole() {
    let text: String = (0..60_000).map(|number| format!("Line number {number} of a long text.\n")).collect();
    let read = extractor(LIMITS).extract(FileSource::Content { name: "a.txt", bytes: text.as_bytes() }, None).unwrap();
    assert_eq!(read.chunks.last().unwrap().bytes.end, text.len() as u64 - 1);
    assert!(read.chunks.len() > 1000);
}

#[test]
fn a_process_that_takes_too_long_is_ended_and_the_next_file_is_read() {
    let text = "some words of a text. ".repeat(300_000);
    let limits = LoadLimits { time: Duration::from_millis(60), ..LIMITS };
    let mut extractor = extractor(limits);
    let error = extractor.extract(FileSource::Content { name: "a.txt", bytes: text.as_bytes() }, None).unwrap_err();
    assert_eq!(error, DocumentError::TimedOut { seconds: 0 });
    assert_eq!(extractor.process_id(), None);
    let words = FileSource::Content { name: "b.txt", bytes: b"words" };
    // A process that starts slowly beside other tests is late as well.
    while extractor.extract(words, None) == Err(error.clone()) {}
    assert!(extractor.process_id().is_some());
}

#[test]
fn a_process_that_was_killed_is_replaced() {
    let mut extractor = extractor(LIMITS);
    let words = FileSource::Content { name: "b.txt", bytes: b"words" };
    extractor.extract(words, None).unwrap();
    let process = extractor.process_id().unwrap();
    let id = nix::unistd::Pid::from_raw(i32::try_from(process).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).unwrap();
    extractor.extract(words, None).unwrap();
    assert_ne!(extractor.process_id(), Some(process));
}

#[test]
fn a_program_that_is_missing_is_no_fault_of_the_file() {
    let program = ExtractorProgram { path: "/nonexistent".into(), args: Vec::new(), env: Vec::new() };
    let mut extractor = Extractor::new(program, LIMITS, ChunkSize { tokens: 200, overlap: 0 }, TokenRates::default());
    let error = extractor.extract(FileSource::Content { name: "b.txt", bytes: b"words" }, None).unwrap_err();
    assert!(
        error.may_pass() && error.to_string().starts_with("was not read: /nonexistent cannot be started"),
        "{error}"
    );
}
