//! Mermaid.

use super::{DrawnNode, GraphDrawing, NodeShape};

/// The drawing as a flowchart. Nodes get generated ids, because names such as `end` are keywords of Mermaid.
pub(crate) fn mermaid(drawing: &GraphDrawing) -> String {
    let mut out = String::from("flowchart TD\n");
    for (at, node) in drawing.nodes.iter().enumerate() {
        out += &format!("    n{at}{}\n", shape(node));
    }
    out += "    done((\"done\"))\n";
    for (from, to, label) in drawing.edges() {
        // An edge with a condition or a bound is dotted.
        let arrow = if label.is_empty() { "-->".to_owned() } else { format!("-.->|\"{}\"|", escape(&label)) };
        out += &format!("    {from} {arrow} {to}\n");
    }
    out
}

fn shape(node: &DrawnNode) -> String {
    let (open, close) = match node.kind {
        NodeShape::Role | NodeShape::Other => ("[", "]"),
        NodeShape::Router => ("{", "}"),
        NodeShape::Graph => ("[[", "]]"),
        NodeShape::Person => ("[/", "/]"),
    };
    let lines = [&node.name, &node.work, &node.join];
    let label: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).map(|line| escape(line)).collect();
    format!("{open}\"{}\"{close}", label.join("<br/>"))
}

/// Escapes special characters as Mermaid entities: a quote would end the label, the others are Markdown, HTML or entities.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => "#quot;".to_owned(),
            '<' => "#lt;".to_owned(),
            '>' => "#gt;".to_owned(),
            '&' | '#' | '`' | '\\' | '*' | '_' | ';' => format!("#{};", u32::from(c)),
            c if c.is_control() => String::new(),
            c => c.to_string(),
        })
        .collect()
}
