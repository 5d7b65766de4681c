//! XLSX: each sheet a table, its cells separated by ` | `.
//!
//! Cells are read one by one: the range of a sheet that has cells in opposite corners would be all that lies between.

use std::io::Cursor;

use calamine::{DataRef, ExcelDateTime, Reader, Xlsx, XlsxError};

use super::archive::Archive;
use super::csv::names_columns;
use crate::document::{DocumentPart, LoadedDocument, PartKind, RowsPart};
use crate::error::DocumentError;
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::offsets::FileOffsets;

const FORMAT_NAME: &str = "XLSX";

pub(super) fn load(bytes: &[u8], limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    // What the library reads without a limit of its own; pictures are left packed.
    Archive::open(bytes, FORMAT_NAME, limits)?.measure(|name| name.ends_with(".xml") || name.ends_with(".rels"))?;
    let mut workbook: Xlsx<_> = Xlsx::new(Cursor::new(bytes)).map_err(xlsx_error)?;
    let mut text = SheetText { text: String::new(), rows: 0, limits };
    let (mut parts, mut warnings) = (Vec::new(), Vec::new());
    for name in workbook.sheet_names() {
        let start = text.text.len();
        match text.sheet(&mut workbook, &name) {
            Ok(rows) if text.text.len() > start => {
                let rows = RowsPart { name: Some(name), ..rows };
                parts.push(DocumentPart { range: start..text.text.len(), kind: PartKind::Rows(rows), page: None });
            }
            Ok(_) => {}
            // A sheet of charts alone has no cells.
            Err(SheetError::Workbook(XlsxError::NotAWorksheet(_))) => {}
            Err(SheetError::Workbook(error)) => {
                text.text.truncate(start);
                warnings.push(crate::error::one_line(&format!("sheet {name} was left out: {error}")));
            }
            Err(SheetError::Limit(error)) => return Err(error),
        }
    }
    if parts.is_empty() && !warnings.is_empty() {
        return Err(DocumentError::malformed(FORMAT_NAME, &warnings[0]));
    }
    Ok(LoadedDocument { format: Format::Xlsx, text: text.text, offsets: FileOffsets::Extracted, parts, warnings })
}

enum SheetError {
    Limit(DocumentError),
    Workbook(XlsxError),
}

impl From<XlsxError> for SheetError {
    fn from(error: XlsxError) -> Self {
        Self::Workbook(error)
    }
}

/// The text of all sheets, as it grows.
struct SheetText<'l> {
    text: String,
    rows: u64,
    limits: &'l LoadLimits,
}

impl SheetText<'_> {
    /// Appends the rows of a sheet that have any text.
    fn sheet(&mut self, workbook: &mut Xlsx<Cursor<&[u8]>>, name: &str) -> Result<RowsPart, SheetError> {
        let mut cells = workbook.worksheet_cells_reader(name)?;
        let mut rows = RowsPart::default();
        let (mut row, mut at) = (Vec::new(), 0);
        let mut first = true;
        while let Some(cell) = cells.next_cell()? {
            let (line, column) = cell.get_position();
            if line != at {
                self.row(&mut row, &mut first, &mut rows)?;
                at = line;
            }
            let value = cell_text(cell.get_value());
            if value.is_empty() {
                continue;
            }
            if column >= self.limits.columns {
                return Err(SheetError::Limit(DocumentError::too_many("columns", self.limits.columns.into())));
            }
            // Columns stay below each other where cells are empty.
            row.resize(row.len().max(column as usize), String::new());
            row.push(value);
        }
        self.row(&mut row, &mut first, &mut rows)?;
        if rows.row_starts.is_empty()
            && let Some(header) = rows.header.take()
        {
            rows.row_starts.push(header.start);
        }
        Ok(rows)
    }

    fn row(&mut self, row: &mut Vec<String>, first: &mut bool, rows: &mut RowsPart) -> Result<(), SheetError> {
        if row.is_empty() {
            return Ok(());
        }
        self.rows += 1;
        if self.rows > self.limits.rows {
            return Err(SheetError::Limit(DocumentError::too_many("rows", self.limits.rows)));
        }
        let start = self.text.len();
        self.text.push_str(&row.join(" | "));
        self.text.push('\n');
        if self.text.len() as u64 > self.limits.text_bytes {
            return Err(SheetError::Limit(DocumentError::TextTooLong { limit: self.limits.text_bytes }));
        }
        if *first && names_columns(row.iter().map(String::as_str)) {
            rows.header = Some(start..self.text.len());
        } else {
            rows.row_starts.push(start);
        }
        *first = false;
        row.clear();
        Ok(())
    }
}

fn cell_text(value: &DataRef<'_>) -> String {
    let text = match value {
        DataRef::Int(value) => value.to_string(),
        DataRef::Float(value) => value.to_string(),
        DataRef::String(value) | DataRef::DateTimeIso(value) | DataRef::DurationIso(value) => value.clone(),
        DataRef::SharedString(value) => (*value).to_owned(),
        DataRef::Bool(value) => value.to_string(),
        DataRef::DateTime(value) => date_text(value),
        DataRef::Error(_) | DataRef::Empty => String::new(),
    };
    // A row is a line.
    if text.contains(['\n', '\r']) {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        text.trim().to_owned()
    }
}

fn date_text(value: &ExcelDateTime) -> String {
    if !value.is_datetime() || !(0.0..2_958_466.0).contains(&value.as_f64()) {
        return value.as_f64().to_string();
    }
    let (year, month, day, hour, minute, second, _) = value.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second) {
        (0, 0, 0) => date,
        _ => format!("{date} {hour:02}:{minute:02}:{second:02}"),
    }
}

fn xlsx_error(error: XlsxError) -> DocumentError {
    match error {
        XlsxError::Password => DocumentError::Encrypted,
        error => DocumentError::malformed(FORMAT_NAME, error),
    }
}
