//! Markdown: its headings and the headers of its tables, with their places.

use pulldown_cmark::{Event, Options as MarkdownOptions, Parser, Tag, TagEnd};

use crate::document::PartKind;
use crate::outline::{SectionBuilder, TableBody, title};

/// The sections and tables of a Markdown text, which is cut as it stands.
pub(super) fn outlined(text: &str) -> PartKind {
    let options = MarkdownOptions::ENABLE_TABLES
        | MarkdownOptions::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | MarkdownOptions::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS
        | MarkdownOptions::ENABLE_HEADING_ATTRIBUTES;
    let (mut sections, mut tables) = (SectionBuilder::default(), Vec::new());
    // The heading that is open: its place, level and words so far.
    let mut heading: Option<(usize, u8, String)> = None;
    // The table that is open: the end of its header, once that is known.
    let mut header: Option<TableBody> = None;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((range.start, level as u8, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                if let Some((start, level, words)) = heading.take() {
                    sections.heading(start, level, title(&words));
                }
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some((.., heading)) = &mut heading {
                    heading.push_str(&words);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some((.., heading)) = &mut heading {
                    heading.push(' ');
                }
            }
            Event::End(TagEnd::TableHead) => {
                header = Some(TableBody { range: range.end..range.end, header: text[range].trim().to_owned() });
            }
            Event::End(TagEnd::Table) => {
                if let Some(mut table) = header.take() {
                    table.range.end = range.end;
                    // A chunk that begins with the delimiter row lacks the header too.
                    tables.push(table);
                }
            }
            _ => {}
        }
    }
    PartKind::Markdown { sections: sections.finish(text.len()), tables }
}
