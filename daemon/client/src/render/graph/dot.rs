//! Graphviz DOT.

use super::{DrawnNode, GraphDrawing, NodeShape};

/// The drawing as a directed graph.
pub(crate) fn dot(drawing: &GraphDrawing) -> String {
    let mut out = format!("digraph {} {{\n", quote(&drawing.name));
    out += "    node [shape=box, style=rounded];\n";
    for (at, node) in drawing.nodes.iter().enumerate() {
        out += &format!("    n{at} [{}];\n", attributes(node));
    }
    out += "    done [label=\"done\", shape=doublecircle];\n";
    for (from, to, label) in drawing.edges() {
        let label = if label.is_empty() { label } else { format!(" [label={}, style=dashed]", quote(&label)) };
        out += &format!("    {from} -> {to}{label};\n");
    }
    out + "}\n"
}

fn attributes(node: &DrawnNode) -> String {
    let shape = match node.kind {
        NodeShape::Role | NodeShape::Other => "",
        NodeShape::Router => ", shape=diamond, style=\"\"",
        NodeShape::Graph => ", shape=box3d, style=\"\"",
        NodeShape::Person => ", shape=parallelogram, style=\"\"",
    };
    let lines = [&node.name, &node.work, &node.join];
    let label: Vec<&str> = lines.into_iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
    format!("label={}{shape}", quote(&label.join("\n")))
}

/// A quoted string; backslashes are escaped because they start an escape sequence in labels.
fn quote(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            c if c.is_control() => String::new(),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}
