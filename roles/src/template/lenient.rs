//! Values below `nodes`: a missing value renders as nothing instead of an error, however long the chain of keys.

use std::fmt;
use std::sync::Arc;

use artel_task::condition::NodeOutputs;
use minijinja::value::{Enumerator, Object, ObjectRepr, Serde};
use minijinja::{Environment, Value};
use serde_json::Value as Json;

/// The outputs of nodes, a JSON map inside of one, or nothing; a missing key in it is nothing again. A step may see the
/// outputs of a thousand nodes and lists of ten thousand items, so they are shared and converted only when they are read.
#[derive(Debug)]
pub(super) enum LenientValue {
    Nothing,
    Nodes(Arc<NodeOutputs>),
    /// The map at the end of this path from the root.
    Map(Arc<Json>, Vec<JsonStep>),
}

/// A step down into JSON.
#[derive(Debug, Clone)]
pub(super) enum JsonStep {
    Key(String),
    Index(usize),
}

impl JsonStep {
    fn down<'j>(&self, json: &'j Json) -> Option<&'j Json> {
        match self {
            Self::Key(key) => json.get(key.as_str()),
            Self::Index(index) => json.get(index),
        }
    }
}

impl LenientValue {
    /// The outputs of nodes.
    pub(super) fn nodes(outputs: Arc<NodeOutputs>) -> Value {
        Value::from_object(Self::Nodes(outputs))
    }

    pub(super) fn empty() -> Value {
        Value::from_object(Self::Nothing)
    }

    /// The value at the end of a path.
    fn at(root: &Arc<Json>, path: Vec<JsonStep>, json: Option<&Json>) -> Value {
        let below = |index: usize| [path.as_slice(), &[JsonStep::Index(index)]].concat();
        match json {
            None | Some(Json::Null) => Self::empty(),
            Some(Json::Object(_)) => Value::from_object(Self::Map(root.clone(), path)),
            Some(Json::Array(items)) => {
                items.iter().enumerate().map(|(index, item)| Self::at(root, below(index), Some(item))).collect()
            }
            Some(other) => Value::from(Serde(other.clone())),
        }
    }

    /// The map itself.
    fn map(&self) -> Option<&serde_json::Map<String, Json>> {
        match self {
            Self::Map(root, path) => path.iter().try_fold(root.as_ref(), |json, step| step.down(json))?.as_object(),
            Self::Nothing | Self::Nodes(_) => None,
        }
    }

    fn get(&self, key: &str) -> Value {
        match self {
            Self::Nothing => Self::empty(),
            Self::Nodes(outputs) => {
                outputs.get(key).map_or_else(Self::empty, |node| Self::at(node, Vec::new(), Some(node)))
            }
            Self::Map(root, path) => {
                let below = [path.as_slice(), &[JsonStep::Key(key.to_owned())]].concat();
                Self::at(root, below, self.map().and_then(|map| map.get(key)))
            }
        }
    }

    fn keys(&self) -> Vec<Value> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Nodes(outputs) => outputs.keys().map(|name| Value::from(name.as_str())).collect(),
            Self::Map(..) => {
                self.map().into_iter().flat_map(|map| map.keys()).map(|key| Value::from(key.as_str())).collect()
            }
        }
    }
}

impl Object for LenientValue {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(key.as_str().map_or_else(Self::empty, |key| self.get(key)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        match self.as_ref() {
            Self::Nothing => Some(0),
            Self::Nodes(outputs) => Some(outputs.len()),
            Self::Map(..) => self.map().map(serde_json::Map::len),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.as_ref() {
            Self::Nothing => return Ok(()),
            Self::Nodes(outputs) => serde_json::to_string(outputs.as_ref()),
            Self::Map(..) => serde_json::to_string(&self.map()),
        };
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

fn is_nothing(value: &Value) -> bool {
    matches!(value.downcast_object_ref(), Some(LenientValue::Nothing))
}

/// Makes `default`, `is defined` and the like treat nothing as undefined.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_test("defined", |value: &Value| !value.is_undefined() && !is_nothing(value));
    environment.add_test("undefined", |value: &Value| value.is_undefined() || is_nothing(value));
    environment.add_test("none", |value: &Value| value.is_none() || is_nothing(value));
}

fn default(value: &Value, other: Option<Value>, falsy: Option<bool>) -> Value {
    let missing = value.is_undefined() || is_nothing(value) || (falsy == Some(true) && !value.is_true());
    if missing { other.unwrap_or_else(|| Value::from("")) } else { value.clone() }
}
