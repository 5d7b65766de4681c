//! The text of a file, and what is known of its parts.

use std::ops::Range;

use crate::format::Format;
use crate::offsets::FileOffsets;
use crate::outline::{OutlineEntry, TableBody};

/// The text of a file, and what is known of its parts.
#[derive(Debug)]
pub struct LoadedDocument {
    pub(crate) format: Format,
    pub(crate) text: String,
    pub(crate) offsets: FileOffsets,
    /// In the order of the text; none overlaps another.
    pub(crate) parts: Vec<DocumentPart>,
    pub(crate) warnings: Vec<String>,
}

/// A range of the text that is cut in one way.
#[derive(Debug)]
pub(crate) struct DocumentPart {
    pub(crate) range: Range<usize>,
    pub(crate) kind: PartKind,
    /// For PDF: the page, whose lines are counted from 1.
    pub(crate) page: Option<u32>,
}

/// How a part is cut.
#[derive(Debug)]
pub(crate) enum PartKind {
    /// By blank lines, lines, sentences and words.
    Text,
    /// By headings and blocks.
    Markdown { sections: Vec<OutlineEntry>, tables: Vec<TableBody> },
    /// By definitions.
    Source { definitions: Vec<OutlineEntry> },
    /// By rows.
    Rows(RowsPart),
}

/// A table: rows that follow each other.
#[derive(Debug, Default)]
pub(crate) struct RowsPart {
    /// The name of a sheet.
    pub(crate) name: Option<String>,
    /// The first row, if it names the columns.
    pub(crate) header: Option<Range<usize>>,
    /// Where the rows begin, the header's not among them; each reaches to the next one or to the end of the part.
    pub(crate) row_starts: Vec<usize>,
}

impl LoadedDocument {
    /// A document of one part.
    pub(crate) fn single(format: Format, text: String, offsets: FileOffsets, kind: PartKind) -> Self {
        let parts = vec![DocumentPart { range: 0..text.len(), kind, page: None }];
        Self { format, text, offsets, parts, warnings: Vec::new() }
    }

    /// The format that it was read as.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The text: that of the file in UTF-8, or what was extracted.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What could not be read, in one line each; the rest is there.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
