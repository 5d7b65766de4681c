//! Files of each format, whole and broken, through the public functions and through a real worker process.
#![allow(clippy::unwrap_used)]

mod broken_files;
mod chunks;
mod extractor;
mod fixtures;
mod formats;

use artel_documents::worker;

/// Set for the process of a worker, which is this program.
const WORKER_VARIABLE: &str = "ARTEL_DOCUMENTS_WORKER";

#[test]
#[ignore = "the process of a worker, which the other tests start"]
fn worker_process() {
    if std::env::var_os(WORKER_VARIABLE).is_some() {
        worker::serve_on_stdin().unwrap();
    }
}
