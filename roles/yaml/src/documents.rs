//! YAML files that are no catalog, as plain values.

use serde_json::Value;

use crate::parse::parse;
use crate::problem::{Diagnostics, Problems};
use crate::yaml_source::YamlSource;

/// The documents of a file as JSON, for a reader that decodes them itself. The limits are those of a catalog.
///
/// # Errors
/// It is not YAML, or not within the limits: with file, line and column.
pub fn documents(source: &YamlSource) -> Result<Vec<Value>, Problems> {
    let mut report = Diagnostics::new(source);
    let documents = parse(&mut report).documents;
    Problems::warnings([report]).map(|_| documents.iter().map(crate::node::YamlNode::json).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<Value>, Problems> {
        documents(&YamlSource { path: "table.yaml".to_owned(), dir: None, text: text.to_owned() })
    }

    #[test]
    fn documents_are_plain_values() {
        assert_eq!(
            read("- {a: 1, b: [x, true]}\n---\nc\n").unwrap(),
            [json!([{"a": 1, "b": ["x", true]}]), json!("c")]
        );
        let problems = read("- {a: 1\nb\n").unwrap_err().to_string();
        assert!(problems.starts_with("table.yaml:"), "{problems}");
    }
}
