//! For a terminal.

use super::Drawing;
use crate::client::render::page::{BOLD, DIM, Page};

/// The nodes in order, who works there, and the ways from them.
pub(crate) fn text(drawing: &Drawing, page: &mut Page) {
    let heading = format!("graph {}", drawing.name);
    page.paint(BOLD, heading.trim_end());
    if !drawing.description.is_empty() {
        page.put(": ").put(&drawing.description);
    }
    page.end();
    for (what, value) in [("start", &drawing.start), ("result", &drawing.result), ("limits", &drawing.limits)] {
        if !value.is_empty() {
            page.paint(DIM, format_args!("  {what:<7}")).put(value).end();
        }
    }
    let width = drawing.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
    for node in &drawing.nodes {
        page.end().paint(BOLD, format_args!("{:width$}", node.name)).put("  ").put(&node.work);
        if !node.join.is_empty() {
            page.put(", ").put(&node.join);
        }
        page.end();
        for edge in &node.next {
            page.put(format_args!("{:width$}  → {}", "", edge.to));
            let label = edge.label();
            if !label.is_empty() {
                page.put("  ").paint(DIM, label);
            }
            page.end();
        }
    }
}
