//! The heading levels of the paragraph styles of a DOCX file.

use std::collections::HashMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Levels of Markdown.
const MAX_HEADING_LEVEL: u8 = 6;

/// The heading level of each style that has one, by the id of the style. Word in other languages has other ids, and the same
/// names: `heading 1`.
pub(super) fn heading_levels(styles: &str) -> HashMap<String, u8> {
    let (mut levels, mut based_on) = (HashMap::new(), HashMap::new());
    let mut reader = Reader::from_str(styles);
    let mut style = String::new();
    loop {
        let element = match reader.read_event() {
            Ok(Event::Start(element) | Event::Empty(element)) => element,
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => continue,
        };
        let value = attribute(&element, "val").unwrap_or_default();
        match element.local_name().as_ref() {
            "style" => style = attribute(&element, "styleId").unwrap_or_default(),
            "name" => {
                if let Some(level) = level_of_name(&value) {
                    levels.insert(style.clone(), level);
                }
            }
            "outlineLvl" => {
                if let Some(level) = outline_level(&value) {
                    levels.entry(style.clone()).or_insert(level);
                }
            }
            "basedOn" => {
                based_on.insert(style.clone(), value);
            }
            _ => {}
        }
    }
    // A style of one's own that is made from a heading is a heading.
    for (style, base) in based_on {
        if let Some(level) = levels.get(&base).copied() {
            levels.entry(style).or_insert(level);
        }
    }
    levels
}

/// The level that `w:outlineLvl` gives, which counts from 0 and says 9 for plain text.
pub(super) fn outline_level(value: &str) -> Option<u8> {
    value.parse::<u8>().ok().filter(|level| *level < 9).map(|level| (level + 1).min(MAX_HEADING_LEVEL))
}

/// The level of a style by its name or id: `heading 2`, `Heading2`, `Title`.
pub(super) fn level_of_name(name: &str) -> Option<u8> {
    let name = name.to_lowercase();
    if name == "title" {
        return Some(1);
    }
    let level = name.strip_prefix("heading")?.trim().parse::<u8>().ok()?;
    (level > 0).then_some(level.min(MAX_HEADING_LEVEL))
}

/// An attribute by its name without the namespace.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    found.normalized_value(XmlVersion::Explicit1_0).ok().map(std::borrow::Cow::into_owned)
}
