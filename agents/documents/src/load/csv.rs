//! CSV and TSV: where the rows are. The text stays the file's own.

use csv::{ByteRecord, ReaderBuilder};

use crate::document::RowsPart;
use crate::error::DocumentError;
use crate::limits::LoadLimits;

/// What a file called CSV separates its cells with; spreadsheets of half of Europe write `;`.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// As many rows show the delimiter as any number.
const SNIFFED_RECORDS: usize = 20;
/// The rows that are looked at for the delimiter are within so many bytes.
const SNIFFED_BYTES: usize = 64 << 10;

/// The rows of a table; without a `delimiter` the first rows tell it.
pub(super) fn rows(text: &str, delimiter: Option<u8>, limits: &LoadLimits) -> Result<RowsPart, DocumentError> {
    let delimiter = delimiter.unwrap_or_else(|| sniffed(text));
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes());
    let (mut record, mut starts) = (ByteRecord::new(), Vec::new());
    let mut header_named = false;
    loop {
        let more = reader.read_byte_record(&mut record).map_err(|error| DocumentError::malformed("CSV", error))?;
        if !more {
            break;
        }
        if record.len() as u64 > u64::from(limits.columns) {
            return Err(DocumentError::too_many("columns", limits.columns.into()));
        }
        if starts.is_empty() {
            header_named = names_columns(record.iter().map(|cell| std::str::from_utf8(cell).unwrap_or_default()));
        }
        if starts.len() as u64 >= limits.rows {
            return Err(DocumentError::too_many("rows", limits.rows));
        }
        let start = record.position().map_or(0, csv::Position::byte);
        starts.push(usize::try_from(start).unwrap_or(usize::MAX).min(text.len()));
    }
    let has_header = header_named && starts.len() > 1;
    let header = has_header.then(|| starts[0]..starts[1]);
    Ok(RowsPart { name: None, header, row_starts: starts.split_off(usize::from(has_header)) })
}

/// Whether a first row names the columns: no cell is a number, and more than one says something.
pub(super) fn names_columns<'c>(cells: impl Iterator<Item = &'c str>) -> bool {
    let (mut named, mut all) = (0, 0);
    for cell in cells {
        let cell = cell.trim();
        if cell.replace(',', ".").parse::<f64>().is_ok() {
            return false;
        }
        all += 1;
        named += usize::from(!cell.is_empty());
    }
    named > 0 && named * 2 >= all
}

/// The delimiter that gives the first rows the same number of cells, the more the better.
fn sniffed(text: &str) -> u8 {
    let mut end = text.len().min(SNIFFED_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cells = |delimiter: u8| -> (usize, usize) {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(&text.as_bytes()[..end]);
        let counts: Vec<usize> =
            reader.byte_records().take(SNIFFED_RECORDS).filter_map(Result::ok).map(|row| row.len()).collect();
        let first = counts.first().copied().unwrap_or(1);
        let same = counts.iter().filter(|count| **count == first).count();
        (if first > 1 { same } else { 0 }, first)
    };
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| cells(*delimiter)).unwrap_or(b',')
}
