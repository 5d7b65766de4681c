//! DOCX, as Markdown: headings by their styles, list items, tables; what is deleted or hidden in fields goes.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::archive::Archive;
use super::docx_styles::{attribute, heading_levels, level_of_name, outline_level};
use super::markdown;
use crate::document::LoadedDocument;
use crate::error::DocumentError;
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::offsets::FileOffsets;

const FORMAT_NAME: &str = "DOCX";
/// A list within a list, as far as its indent is worth keeping.
const MAX_LIST_DEPTH: usize = 8;

pub(super) fn load(bytes: &[u8], limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    let mut archive = Archive::open(bytes, FORMAT_NAME, limits)?;
    let styles = archive.text("word/styles.xml")?.map(|styles| heading_levels(&styles)).unwrap_or_default();
    let body = archive.text("word/document.xml")?;
    let body = body.ok_or_else(|| DocumentError::malformed(FORMAT_NAME, "it has no entry word/document.xml"))?;
    let mut text = markdown_of(&body, &styles, limits)?;
    for notes in ["word/footnotes.xml", "word/endnotes.xml"] {
        if let Some(notes) = archive.text(notes)? {
            let notes = markdown_of(&notes, &styles, limits)?;
            if !notes.trim().is_empty() {
                text.push_str(&notes);
                limits.check_text(&text)?;
            }
        }
    }
    let kind = markdown::outlined(&text);
    Ok(LoadedDocument::single(Format::Docx, text, FileOffsets::Extracted, kind))
}

fn markdown_of(xml: &str, styles: &HashMap<String, u8>, limits: &LoadLimits) -> Result<String, DocumentError> {
    let mut body = DocxBody {
        styles,
        limits,
        text: String::new(),
        paragraphs: Vec::new(),
        tables: Vec::new(),
        skipped: 0,
        in_text: false,
    };
    let mut reader = Reader::from_str(xml);
    loop {
        let event = reader.read_event();
        match event.map_err(|error| DocumentError::malformed(FORMAT_NAME, error))? {
            Event::Start(element) => body.start(&element, false)?,
            Event::Empty(element) => body.start(&element, true)?,
            Event::End(element) => body.end(element.local_name().as_ref())?,
            Event::Text(words) => body.words(&words.xml10_content()),
            Event::CData(words) => body.words(&words.xml10_content()),
            Event::GeneralRef(reference) => {
                let named = quick_xml::escape::resolve_predefined_entity(&reference.xml10_content()).map(str::to_owned);
                let words = match reference.resolve_char_ref() {
                    Ok(Some(c)) => Some(c.to_string()),
                    _ => named,
                };
                body.words(&words.unwrap_or_default());
            }
            Event::DocType(_) => {
                return Err(DocumentError::malformed(
                    FORMAT_NAME,
                    "it declares entities, which no word processor does",
                ));
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    Ok(body.text)
}

/// The text, as it grows. A paragraph may hold a text box with paragraphs of its own, and a cell a table.
struct DocxBody<'s> {
    styles: &'s HashMap<String, u8>,
    limits: &'s LoadLimits,
    text: String,
    paragraphs: Vec<DocxParagraph>,
    tables: Vec<DocxTable>,
    /// Open elements from the outermost one whose content is left out.
    skipped: u64,
    in_text: bool,
}

#[derive(Default)]
struct DocxParagraph {
    words: String,
    heading: Option<u8>,
    /// The depth in a list.
    item: Option<usize>,
}

#[derive(Default)]
struct DocxTable {
    rows: Vec<Vec<String>>,
}

impl DocxBody<'_> {
    fn start(&mut self, element: &BytesStart<'_>, empty: bool) -> Result<(), DocumentError> {
        let name = element.local_name();
        let name = name.as_ref();
        if self.skipped > 0 {
            self.skipped += u64::from(!empty);
            return Ok(());
        }
        match name {
            // `Fallback` repeats for old programs what `Choice` says.
            "del" | "moveFrom" | "instrText" | "delText" | "Fallback" if !empty => self.skipped = 1,
            "p" if !empty => {
                self.within_nesting(self.paragraphs.len())?;
                self.paragraphs.push(DocxParagraph::default());
            }
            "tbl" if !empty => {
                self.within_nesting(self.tables.len())?;
                self.tables.push(DocxTable::default());
            }
            "tr" => self.tables.iter_mut().last().into_iter().for_each(|table| table.rows.push(Vec::new())),
            "tc" => self.cells().into_iter().for_each(|row| row.push(String::new())),
            "t" => self.in_text = !empty,
            "tab" | "br" | "cr" if self.paragraphs.last().is_some_and(|paragraph| !paragraph.words.is_empty()) => {
                self.raw(" ");
            }
            "noBreakHyphen" => self.raw("-"),
            "pStyle" | "outlineLvl" | "ilvl" | "numPr" => {
                self.property(name, &attribute(element, "val").unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<(), DocumentError> {
        if self.skipped > 0 {
            self.skipped -= 1;
            return Ok(());
        }
        match name {
            "t" => self.in_text = false,
            "p" => {
                if let Some(paragraph) = self.paragraphs.pop() {
                    self.paragraph(&paragraph);
                }
            }
            "tbl" => {
                if let Some(table) = self.tables.pop() {
                    self.table(table);
                }
            }
            _ => return Ok(()),
        }
        self.limits.check_text(&self.text)
    }

    fn words(&mut self, words: &str) {
        if self.in_text && self.skipped == 0 {
            self.raw(words);
        }
    }

    fn raw(&mut self, words: &str) {
        if let Some(paragraph) = self.paragraphs.last_mut() {
            paragraph.words.push_str(words);
        }
    }

    fn property(&mut self, name: &str, value: &str) {
        let styles = self.styles;
        let Some(paragraph) = self.paragraphs.last_mut() else { return };
        match name {
            "pStyle" => {
                paragraph.heading = styles.get(value).copied().or_else(|| level_of_name(value)).or(paragraph.heading);
            }
            "outlineLvl" => paragraph.heading = outline_level(value).or(paragraph.heading),
            "numPr" => paragraph.item = paragraph.item.or(Some(0)),
            _ => paragraph.item = Some(value.parse().unwrap_or(0).min(MAX_LIST_DEPTH)),
        }
    }

    fn cells(&mut self) -> Option<&mut Vec<String>> {
        self.tables.last_mut()?.rows.last_mut()
    }

    fn paragraph(&mut self, paragraph: &DocxParagraph) {
        let words = paragraph.words.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            return;
        }
        if let Some(cell) = self.cells().and_then(|row| row.last_mut()) {
            if !cell.is_empty() {
                cell.push(' ');
            }
            cell.push_str(&words.replace('|', "\\|"));
            return;
        }
        let mark = match (paragraph.heading, paragraph.item) {
            (Some(level), _) => format!("{} ", "#".repeat(level.into())),
            (None, Some(depth)) => format!("{}- ", "  ".repeat(depth)),
            (None, None) => String::new(),
        };
        // The items of a list follow each other without a blank line.
        let continues_list = mark.ends_with("- ") && self.last_line_is_item();
        if !self.text.is_empty() && !continues_list {
            self.text.push('\n');
        }
        self.text.push_str(&mark);
        self.text.push_str(&words);
        self.text.push('\n');
    }

    fn last_line_is_item(&self) -> bool {
        self.text.trim_end().rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("- "))
    }

    fn table(&mut self, table: DocxTable) {
        // A table within a cell is text of that cell.
        if let Some(cell) = self.cells().and_then(|row| row.last_mut()) {
            for row in table.rows {
                cell.push(' ');
                cell.push_str(&row.join(" "));
            }
            return;
        }
        // The first row tells the columns; filling up the others could make a small file a large text.
        let columns = table.rows.first().map_or(0, Vec::len);
        if columns == 0 {
            return;
        }
        self.text.push('\n');
        for (index, row) in table.rows.into_iter().enumerate() {
            self.text.push_str(&format!("| {} |\n", row.join(" | ")));
            if index == 0 {
                self.text.push_str(&format!("|{}\n", " --- |".repeat(columns)));
            }
        }
    }

    fn within_nesting(&self, depth: usize) -> Result<(), DocumentError> {
        if depth as u64 >= u64::from(self.limits.nesting) {
            return Err(DocumentError::NestedTooDeep { limit: self.limits.nesting.into() });
        }
        Ok(())
    }
}
