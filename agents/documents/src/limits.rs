//! What reading one file may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::DocumentError;

/// What reading one file may cost. Every limit has an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadLimits {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of its text, in UTF-8.
    pub text_bytes: u64,
    /// Bytes to which the entries of an archive (DOCX, XLSX) unpack, together.
    pub unpacked_bytes: u64,
    /// Entries of an archive.
    pub archive_entries: u32,
    /// Pages of a PDF.
    pub pages: u32,
    /// Rows of a CSV file, or of all sheets of a workbook.
    pub rows: u64,
    /// Columns of a row.
    pub columns: u32,
    /// How deeply elements of HTML, and tables of DOCX, are nested.
    pub nesting: u32,
    /// Chunks.
    pub chunks: u32,
    /// Processor time for one file in a worker, in whole seconds; a busy machine may take five times as long.
    /// [`load`](crate::load) knows no clock.
    pub time: Duration,
    /// Memory of a worker beyond what its program needs.
    pub memory_bytes: u64,
}

/// How much later than its processor time allows a worker is given up, which waits for a disk or for its turn.
pub(crate) const WALL_TIME_FACTOR: u32 = 5;

impl LoadLimits {
    /// Refuses a text that is too long.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), DocumentError> {
        if text.len() as u64 > self.text_bytes {
            return Err(DocumentError::TextTooLong { limit: self.text_bytes });
        }
        Ok(())
    }

    /// How long the other side waits for a worker.
    pub(crate) fn wall_time(&self) -> Duration {
        self.time * WALL_TIME_FACTOR
    }
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            // Ten times the largest manual that Debian ships as a PDF.
            file_bytes: 64 << 20,
            // Some 10,000 pages.
            text_bytes: 32 << 20,
            // XML unpacks to some ten times its size.
            unpacked_bytes: 256 << 20,
            // A DOCX with a picture on each of a thousand pages has a few thousand.
            archive_entries: 10_000,
            pages: 5_000,
            // As many as a sheet of Excel has.
            rows: 1 << 20,
            columns: 16_384,
            // What browsers build before they flatten the rest.
            nesting: 512,
            chunks: 200_000,
            // A PDF of 5,000 pages takes a third of it.
            time: Duration::from_secs(60),
            memory_bytes: 1 << 30,
        }
    }
}
