//! From the bytes of a file to its text.

mod archive;
mod csv;
mod docx;
mod docx_styles;
mod html;
mod html_depth;
mod markdown;
mod pdf;
mod source;
mod xlsx;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::document::{LoadedDocument, PartKind};
use crate::encoding::{Decoded, decode};
use crate::error::{DocumentError, panic_text};
use crate::format::Format;
use crate::limits::LoadLimits;

/// Reads a file whose bytes are in memory.
///
/// A parser that panics gives [`DocumentError::Malformed`]; one that overflows the stack or asks for too much memory ends the
/// process, which a file can be made to do. [`Extractor`](crate::Extractor) keeps that away from the caller.
///
/// # Errors
/// What is wrong with the file, or which of the limits it exceeds.
pub fn load(bytes: &[u8], format: Format, limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    if bytes.is_empty() {
        return Err(DocumentError::Empty);
    }
    if bytes.len() as u64 > limits.file_bytes {
        return Err(DocumentError::TooLarge { bytes: bytes.len() as u64, limit: limits.file_bytes });
    }
    let document = catch_unwind(AssertUnwindSafe(|| load_format(bytes, format, limits)))
        .unwrap_or_else(|panic| Err(DocumentError::malformed(format.name(), panic_text(panic.as_ref()))))?;
    limits.check_text(&document.text)?;
    if document.text.trim().is_empty() {
        return Err(DocumentError::NoText);
    }
    Ok(document)
}

fn load_format(bytes: &[u8], format: Format, limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    match format {
        Format::Pdf => return pdf::load(bytes, limits),
        Format::Docx => return docx::load(bytes, limits),
        Format::Xlsx => return xlsx::load(bytes, limits),
        Format::Html => return html::load(bytes, limits),
        Format::Text | Format::Markdown | Format::Csv | Format::Tsv | Format::Source(_) => {}
    }
    let Decoded { text, offsets } = decode(bytes)?;
    limits.check_text(&text)?;
    let kind = match format {
        Format::Markdown => markdown::outlined(&text),
        Format::Csv => PartKind::Rows(csv::rows(&text, None, limits)?),
        Format::Tsv => PartKind::Rows(csv::rows(&text, Some(b'\t'), limits)?),
        Format::Source(language) => PartKind::Source { definitions: source::definitions(&text, language) },
        _ => PartKind::Text,
    };
    Ok(LoadedDocument::single(format, text, offsets, kind))
}
