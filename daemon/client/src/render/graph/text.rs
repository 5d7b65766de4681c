//! Text for a terminal.

use artel_terminal::{BOLD, DIM, StyledText};

use super::GraphDrawing;

/// The nodes in order, with their work and their edges.
pub(crate) fn text(drawing: &GraphDrawing, out: &mut StyledText) {
    let heading = format!("graph {}", drawing.name);
    out.push_styled(BOLD, heading.trim_end());
    if !drawing.description.is_empty() {
        out.push(": ").push(&drawing.description);
    }
    out.newline();
    for (name, value) in [("start", &drawing.start), ("result", &drawing.result), ("limits", &drawing.limits)] {
        if !value.is_empty() {
            out.push_styled(DIM, format_args!("  {name:<7}")).push(value).newline();
        }
    }
    let width = drawing.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
    for node in &drawing.nodes {
        out.newline().push_styled(BOLD, format_args!("{:width$}", node.name)).push("  ").push(&node.work);
        if !node.join.is_empty() {
            out.push(", ").push(&node.join);
        }
        out.newline();
        for edge in &node.next {
            out.push(format_args!("{:width$}  → {}", "", edge.to));
            let label = edge.label();
            if !label.is_empty() {
                out.push("  ").push_styled(DIM, label);
            }
            out.newline();
        }
    }
}
