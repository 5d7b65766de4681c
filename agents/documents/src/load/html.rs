//! HTML, as Markdown: headings, lists, tables and code stay what they are; scripts, styles and pictures go.

use encoding_rs::Encoding;
use htmd::element_handler::Handlers;
use htmd::options::{BulletListMarker, Options as MarkdownOptions};
use htmd::{Element, HtmlToMarkdown};

use super::{html_depth, markdown};
use crate::document::LoadedDocument;
use crate::encoding::decode_labelled;
use crate::error::DocumentError;
use crate::format::Format;
use crate::limits::LoadLimits;
use crate::offsets::FileOffsets;

/// What is no text of the page.
const SKIPPED_TAGS: [&str; 10] =
    ["script", "style", "template", "svg", "math", "iframe", "object", "canvas", "head", "button"];
/// Where HTML says its encoding, by its specification.
const LABEL_BYTES: usize = 1024;
/// The address of a link is text that a reader may ask for; a longer one is data.
const MAX_ADDRESS_BYTES: usize = 200;

pub(super) fn load(bytes: &[u8], limits: &LoadLimits) -> Result<LoadedDocument, DocumentError> {
    let html = decode_labelled(bytes, label(bytes))?.text;
    limits.check_text(&html)?;
    html_depth::check(&html, limits.nesting)?;
    let options = MarkdownOptions {
        bullet_list_marker: BulletListMarker::Dash,
        ul_bullet_spacing: 1,
        ol_number_spacing: 1,
        ..MarkdownOptions::default()
    };
    let converter = HtmlToMarkdown::builder()
        .options(options)
        .skip_tags(SKIPPED_TAGS.to_vec())
        .add_handler(vec!["img"], |_: &dyn Handlers, image: Element| Some(attribute(&image, "alt").into()))
        .add_handler(vec!["a"], |handlers: &dyn Handlers, link: Element| {
            let address = attribute(&link, "href");
            if address.len() > MAX_ADDRESS_BYTES || address.starts_with('#') || address.starts_with("javascript:") {
                return Some(handlers.walk_children(link.node));
            }
            handlers.fallback(link)
        })
        // A page is read as without scripts.
        .scripting_enabled(false)
        .build();
    let text = converter.convert(&html).map_err(|error| DocumentError::malformed("HTML", error))?;
    let kind = markdown::outlined(&text);
    Ok(LoadedDocument::single(Format::Html, text, FileOffsets::Extracted, kind))
}

fn attribute(element: &Element<'_>, name: &str) -> String {
    let found = element.attrs.iter().find(|attribute| &*attribute.name.local == name);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

/// The encoding that a page says it has: `charset=…` in its first bytes.
fn label(bytes: &[u8]) -> Option<&'static Encoding> {
    let head: Vec<u8> = bytes.iter().take(LABEL_BYTES).map(u8::to_ascii_lowercase).collect();
    let mark = b"charset=";
    let at = head.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let value = head[at..].trim_ascii_start();
    let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    let end =
        value.iter().position(|byte| matches!(byte, b'"' | b'\'' | b'>' | b';' | b'/') || byte.is_ascii_whitespace());
    Encoding::for_label(&value[..end.unwrap_or(value.len())])
}
