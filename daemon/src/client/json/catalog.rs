//! Definitions and their problems.

use artel_proto::v1;
use serde_json::Value;

use super::{EnumName, JsonObject, ToJson};

impl ToJson for v1::Definition {
    fn to_json(&self) -> Value {
        let Self { kind: _, name, description, layer: _, location, yaml, content, uses, problems, catalog_version } =
            self;
        JsonObject::new()
            .put("kind", self.kind().enum_name())
            .put("name", name.as_str())
            .text("description", description)
            .put("layer", self.layer().enum_name())
            .some("location", location.as_ref())
            .text("yaml", yaml)
            .some("content", content.as_ref())
            .list("uses", uses)
            .list("problems", problems)
            .text("catalog_version", catalog_version)
            .into()
    }
}

impl ToJson for v1::DefinitionRef {
    fn to_json(&self) -> Value {
        let Self { kind: _, name } = self;
        JsonObject::new().put("kind", self.kind().enum_name()).put("name", name.as_str()).into()
    }
}

impl ToJson for v1::ValidateResponse {
    fn to_json(&self) -> Value {
        let Self { valid, problems, catalog_version } = self;
        JsonObject::new()
            .put("valid", *valid)
            .list("problems", problems)
            .text("catalog_version", catalog_version)
            .into()
    }
}

impl ToJson for v1::ApplyResponse {
    fn to_json(&self) -> Value {
        let Self { applied, problems, catalog_version, added, changed, removed } = self;
        JsonObject::new()
            .put("applied", *applied)
            .list("problems", problems)
            .text("catalog_version", catalog_version)
            .list("added", added)
            .list("changed", changed)
            .list("removed", removed)
            .into()
    }
}

impl ToJson for v1::Problem {
    fn to_json(&self) -> Value {
        let Self { severity: _, location, message, snippet, hint, related } = self;
        JsonObject::new()
            .put("severity", self.severity().enum_name())
            .some("location", location.as_ref())
            .put("message", message.as_str())
            .text("snippet", snippet)
            .text("hint", hint)
            .list("related", related)
            .into()
    }
}

impl ToJson for v1::Location {
    fn to_json(&self) -> Value {
        let Self { file, line, column } = self;
        JsonObject::new().put("file", file.as_str()).put("line", *line).put("column", *column).into()
    }
}
