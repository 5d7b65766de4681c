//! Schemas as outputs of a role.

use artel_roles::{Catalog, Problems, Schema, YamlSource, shipped};
use serde_json::{Value, json};

const ROLE: &str = "role: r\ndescription: x\nmodel: smollm2\nprompt: x\n";

/// The shipped catalog with a document over it.
pub(crate) fn catalog(text: String) -> Result<Catalog, Problems> {
    let source = YamlSource { path: "r.yaml".to_owned(), dir: Some("/c".into()), text };
    Catalog::parse(vec![shipped::sources(), vec![source]])
}

/// The output of a role, or what is said about it.
pub(crate) fn output(schema: &Value) -> Result<Schema, String> {
    match catalog(format!("{ROLE}output: {schema}\n")) {
        Ok(catalog) => Ok(catalog.role("r").unwrap().output.clone().unwrap()),
        Err(problems) => Err(problems.to_string()),
    }
}

pub(crate) fn refusal(schema: &Value) -> Option<String> {
    output(schema).err()
}

/// An object whose property `v` is described by a schema.
pub(crate) fn wrapped(schema: &Value) -> Value {
    json!({"type": "object", "required": ["v"], "properties": {"v": schema}, "additionalProperties": false})
}
