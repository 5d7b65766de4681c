//! The targets of `$ref` within one schema.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Keywords whose values are data, in which nothing refers to anything.
pub(crate) const DATA_KEYWORDS: [&str; 4] = ["const", "default", "enum", "examples"];

/// Where the references of a schema lead.
pub(crate) struct References<'s> {
    root: &'s Value,
    /// The pointers of `$anchor` and `$dynamicAnchor`; none if it is there twice.
    anchors: HashMap<&'s str, Option<String>>,
    /// Whether a part has an `$id`, relative to which its references are.
    has_inner_ids: bool,
}

impl<'s> References<'s> {
    pub(crate) fn of(root: &'s Value) -> Self {
        let mut references = Self { root, anchors: HashMap::new(), has_inner_ids: false };
        references.collect(root, "");
        references
    }

    fn collect(&mut self, part: &'s Value, pointer: &str) {
        match part {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("$anchor" | "$dynamicAnchor", Value::String(name)) => {
                            let place = Some(pointer.to_owned());
                            self.anchors.entry(name).and_modify(|place| *place = None).or_insert(place);
                        }
                        ("$id", Value::String(_)) => self.has_inner_ids |= !pointer.is_empty(),
                        (key, _) if DATA_KEYWORDS.contains(&key) => {}
                        (key, value) => self.collect(value, &below(pointer, key)),
                    }
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, item)| self.collect(item, &format!("{pointer}/{at}")));
            }
            _ => {}
        }
    }

    /// The pointer of the schema that a reference leads to, past references that have nothing beside them. None if it is not
    /// known, or if they lead nowhere but to each other.
    pub(crate) fn target(&self, reference: &str) -> Option<String> {
        let mut at = self.pointer(reference)?;
        let mut passed = Vec::new();
        while let Some(next) = self.root.pointer(&at).and_then(lone_reference) {
            if passed.contains(&at) {
                return None;
            }
            let next = self.pointer(next)?;
            passed.push(std::mem::replace(&mut at, next));
        }
        Some(at)
    }

    fn pointer(&self, reference: &str) -> Option<String> {
        if self.has_inner_ids {
            return None;
        }
        let fragment = percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.anchors.get(fragment.as_ref()).cloned().flatten();
        }
        self.root.pointer(&fragment).filter(|target| target.is_object() || target.is_boolean())?;
        Some(fragment.into_owned())
    }
}

/// The reference of a schema that asserts nothing else.
fn lone_reference(schema: &Value) -> Option<&str> {
    let map = schema.as_object()?;
    let is_silent = |key: &str| ["$ref", "$defs", "definitions", "title", "description", "$comment"].contains(&key);
    if map.keys().all(|key| is_silent(key)) { map.get("$ref")?.as_str() } else { None }
}

/// The pointer of a key below a place.
pub(crate) fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_lead_to_pointers_anchors_and_past_each_other() {
        let schema = json!({
            "$defs": {
                "a/b": {"type": "string"},
                "per cent": {"$ref": "#/$defs/a~1b"},
                "named": {"$anchor": "here", "type": "null"},
                "self": {"$ref": "#/$defs/other"},
                "other": {"$ref": "#/$defs/self"},
            },
            "const": {"$anchor": "here"},
        });
        let references = References::of(&schema);
        for (reference, target) in [
            ("#", Some("")),
            ("#/$defs/a~1b", Some("/$defs/a~1b")),
            ("#/$defs/per%20cent", Some("/$defs/a~1b")),
            ("#here", Some("/$defs/named")),
            ("#/$defs/self", None),
            ("#/$defs/none", None),
            ("#nowhere", None),
        ] {
            assert_eq!(references.target(reference).as_deref(), target, "{reference}");
        }
        let moved = json!({"properties": {"a": {"$id": "other", "$ref": "#/$defs/x"}}, "$defs": {"x": true}});
        assert_eq!(References::of(&moved).target("#/$defs/x"), None);
    }
}
