//! Definitions and what is wrong with them.

use artel_proto::v1;
use serde_json::Value;

use super::{Json, Object, Word};

impl Json for v1::Definition {
    fn json(&self) -> Value {
        let Self { kind: _, name, description, layer: _, location, yaml, content, uses, problems, catalog_version } =
            self;
        Object::new()
            .put("kind", self.kind().word())
            .put("name", name.as_str())
            .text("description", description)
            .put("layer", self.layer().word())
            .some("location", location.as_ref())
            .text("yaml", yaml)
            .some("content", content.as_ref())
            .list("uses", uses)
            .list("problems", problems)
            .text("catalog_version", catalog_version)
            .into()
    }
}

impl Json for v1::DefinitionRef {
    fn json(&self) -> Value {
        let Self { kind: _, name } = self;
        Object::new().put("kind", self.kind().word()).put("name", name.as_str()).into()
    }
}

impl Json for v1::ValidateResponse {
    fn json(&self) -> Value {
        let Self { valid, problems, catalog_version } = self;
        Object::new().put("valid", *valid).list("problems", problems).text("catalog_version", catalog_version).into()
    }
}

impl Json for v1::ApplyResponse {
    fn json(&self) -> Value {
        let Self { applied, problems, catalog_version, added, changed, removed } = self;
        Object::new()
            .put("applied", *applied)
            .list("problems", problems)
            .text("catalog_version", catalog_version)
            .list("added", added)
            .list("changed", changed)
            .list("removed", removed)
            .into()
    }
}

impl Json for v1::Problem {
    fn json(&self) -> Value {
        let Self { severity: _, location, message, snippet, hint, related } = self;
        Object::new()
            .put("severity", self.severity().word())
            .some("location", location.as_ref())
            .put("message", message.as_str())
            .text("snippet", snippet)
            .text("hint", hint)
            .list("related", related)
            .into()
    }
}

impl Json for v1::Location {
    fn json(&self) -> Value {
        let Self { file, line, column } = self;
        Object::new().put("file", file.as_str()).put("line", *line).put("column", *column).into()
    }
}
