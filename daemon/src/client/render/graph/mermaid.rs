//! For Mermaid.

use super::{DONE, Drawing, Kind, Node};

/// A flowchart. Nodes have ids of their own, because a name such as `end` means something to Mermaid.
pub(crate) fn mermaid(drawing: &Drawing) -> String {
    let mut out = String::from("flowchart TD\n");
    for (at, node) in drawing.nodes.iter().enumerate() {
        out += &format!("    n{at}{}\n", shape(node));
    }
    out += "    done((\"done\"))\n";
    for (at, node) in drawing.nodes.iter().enumerate() {
        for edge in &node.next {
            let to = match drawing.place(&edge.to) {
                Some(place) => format!("n{place}"),
                None => DONE.to_owned(),
            };
            let label = edge.label();
            // A dotted way is one with a condition or a bound.
            let arrow = if label.is_empty() { "-->".to_owned() } else { format!("-.->|\"{}\"|", escape(&label)) };
            out += &format!("    n{at} {arrow} {to}\n");
        }
    }
    out
}

fn shape(node: &Node) -> String {
    let (open, close) = match node.kind {
        Kind::Role | Kind::Other => ("[", "]"),
        Kind::Router => ("{", "}"),
        Kind::Graph => ("[[", "]]"),
        Kind::Person => ("[/", "/]"),
    };
    let lines = [&node.name, &node.work, &node.join];
    let label: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).map(|line| escape(line)).collect();
    format!("{open}\"{}\"{close}", label.join("<br/>"))
}

/// As Mermaid's entities; a quote would end the label, and the rest would be Markdown, HTML or entities.
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
