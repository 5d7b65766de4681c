//! PDF: the text of each page. A page that cannot be read leaves the others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::{Document as PdfFile, Error as PdfError, PlainTextOutput, output_doc_page};

use crate::document::{DocumentPart, LoadedDocument, PartKind};
use crate::error::{DocumentError, one_line, panic_text};
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::offsets::FileOffsets;

const FORMAT_NAME: &str = "PDF";
/// A file of many broken pages is not worth a line for each.
const MAX_WARNINGS_ITEMS: usize = 8;

pub(super) fn load(bytes: &[u8], limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    let mut file = PdfFile::load_mem(bytes).map_err(pdf_error)?;
    if file.is_encrypted() {
        // Many files are locked against printing alone, with no password.
        file.decrypt("").map_err(|_| DocumentError::Encrypted)?;
    }
    let pages: Vec<u32> = file.get_pages().into_keys().collect();
    if pages.is_empty() {
        return Err(DocumentError::malformed(FORMAT_NAME, "it has no pages"));
    }
    if pages.len() as u64 > u64::from(limits.pages) {
        return Err(DocumentError::too_many("pages", limits.pages.into()));
    }
    let (mut text, mut parts, mut warnings) = (String::new(), Vec::new(), Vec::new());
    let mut broken = 0;
    for &page in &pages {
        let start = text.len();
        match page_text(&file, page) {
            Ok(extracted) => tidy(&extracted, &mut text),
            Err(cause) => {
                broken += 1;
                if warnings.len() < MAX_WARNINGS_ITEMS {
                    warnings.push(one_line(&format!("page {page} was left out: {cause}")));
                }
            }
        }
        if text.len() as u64 > limits.text_bytes {
            return Err(DocumentError::TextTooLong { limit: limits.text_bytes });
        }
        parts.push(DocumentPart { range: start..text.len(), kind: PartKind::Text, page: Some(page) });
    }
    if broken == pages.len() {
        return Err(DocumentError::malformed(FORMAT_NAME, &warnings[0]));
    }
    if broken > warnings.len() {
        warnings.push(format!("{} further pages were left out", broken - warnings.len()));
    }
    Ok(LoadedDocument { format: Format::Pdf, text, offsets: FileOffsets::Extracted, parts, warnings })
}

/// The library panics at many faults of a file.
fn page_text(file: &PdfFile, page: u32) -> Result<String, PageFault> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut text = String::new();
        output_doc_page(file, &mut PlainTextOutput::new(&mut text), page)
            .map_err(|error| PageFault(error.to_string()))?;
        Ok(text)
    }))
    .unwrap_or_else(|panic| Err(PageFault(panic_text(panic.as_ref()).to_owned())))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct PageFault(String);

/// Appends the lines of a page, without the empty space of its layout.
fn tidy(extracted: &str, text: &mut String) {
    // Where most lines have a blank one behind them, the lines of the page are set wide, and blank ones separate nothing.
    let is_blank = |line: &&str| line.trim().is_empty();
    let words = extracted.lines().filter(|line| !is_blank(line)).count();
    let gaps = extracted
        .lines()
        .zip(extracted.lines().skip(1))
        .filter(|(line, next)| !is_blank(line) && is_blank(next))
        .count();
    let is_wide = words > 3 && gaps * 3 > words * 2;
    let mut blank = true;
    for line in extracted.lines().filter(|line| !(is_wide && is_blank(line))) {
        let words = line.split_whitespace();
        let start = text.len();
        for word in words {
            if text.len() > start {
                text.push(' ');
            }
            text.push_str(word);
        }
        let is_blank = text.len() == start;
        if !(is_blank && blank) {
            text.push('\n');
        }
        blank = is_blank;
    }
}

fn pdf_error(error: PdfError) -> DocumentError {
    match error {
        PdfError::Decryption(_) | PdfError::InvalidPassword => DocumentError::Encrypted,
        error => DocumentError::malformed(FORMAT_NAME, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_space_of_a_layout_is_left_out() {
        let tidied = |extracted: &str| {
            let mut text = String::new();
            tidy(extracted, &mut text);
            text
        };
        assert_eq!(
            tidied("\n\n Title \n\n\nfirst  line\nsecond line\n\nthird\n"),
            "Title\n\nfirst line\nsecond line\n\nthird\n"
        );
        assert_eq!(tidied("\none\n\ntwo\n\nthree\n\nfour\n\nfive"), "one\ntwo\nthree\nfour\nfive\n");
    }
}
