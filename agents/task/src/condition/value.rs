//! The values of expressions. Those of a task are read where they are, none is converted as a whole, and copies share their content.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::budget::{EvaluationBudget, Exhausted};
use crate::id::{NodeName, ValueName};
use crate::portable::MAX_VALUE_DEPTH;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum CelValue<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(CelText<'a>),
    Bytes(Arc<[u8]>),
    List(CelList<'a>),
    Map(CelMap<'a>),
    /// The name of a type.
    Type(&'static str),
}

/// A text of a task or one that was made.
#[derive(Debug, Clone)]
pub(super) enum CelText<'a> {
    Read(&'a str),
    Made(Arc<str>),
}

/// A list of a task or one that was made.
#[derive(Debug, Clone)]
pub(super) enum CelList<'a> {
    Read(&'a [Json]),
    Made(Arc<[CelValue<'a>]>),
}

/// A map of a task or one that was made, whose keys are distinct.
#[derive(Debug, Clone)]
pub(super) enum CelMap<'a> {
    Read(&'a Map<String, Json>),
    Nodes(&'a BTreeMap<NodeName, Arc<Json>>),
    Values(&'a BTreeMap<ValueName, Arc<Json>>),
    Made(Arc<[(CelValue<'a>, CelValue<'a>)]>),
}

/// Why a value has no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoJson {
    Exhausted(Exhausted),
    /// It is nested too deeply.
    TooDeep,
    /// JSON has no such type.
    Type(&'static str),
}

impl From<Exhausted> for NoJson {
    fn from(exhausted: Exhausted) -> Self {
        Self::Exhausted(exhausted)
    }
}

impl Deref for CelText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Read(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'a> CelValue<'a> {
    /// An integer becomes a signed one where it fits: literals in an expression are signed, and CEL does not mix the two in
    /// arithmetic.
    pub(super) fn read(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(signed), _) => Self::Int(signed),
                (None, Some(unsigned)) => Self::Uint(unsigned),
                (None, None) => Self::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(CelText::Read(text)),
            Json::Array(items) => Self::List(CelList::Read(items)),
            Json::Object(map) => Self::Map(CelMap::Read(map)),
        }
    }

    /// Its type as CEL names it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
        }
    }

    /// Whether a map can have it as a key.
    pub(super) fn is_key(&self) -> bool {
        matches!(self, Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Text(_))
    }

    /// The value as JSON, copied.
    pub(super) fn json(&self, budget: &mut EvaluationBudget) -> Result<Json, NoJson> {
        self.json_below(MAX_VALUE_DEPTH + 1, budget)
    }

    fn json_below(&self, depth: usize, budget: &mut EvaluationBudget) -> Result<Json, NoJson> {
        let depth = depth.checked_sub(1).ok_or(NoJson::TooDeep)?;
        budget.take_steps(1)?;
        budget.take_bytes(size_of::<Json>())?;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Uint(u) => (*u).into(),
            Self::Double(d) if d.is_finite() => (*d).into(),
            Self::Text(text) => copied(text, budget)?.into(),
            Self::Type(name) => (*name).into(),
            Self::List(list) => {
                let items = (0..list.len()).map(|index| list.get(index).json_below(depth, budget));
                Json::Array(items.collect::<Result<_, _>>()?)
            }
            Self::Map(map) => {
                let mut object = Map::new();
                for (key, value) in map.entries(budget)? {
                    object.insert(key_text(&key, budget)?, value.json_below(depth, budget)?);
                }
                Json::Object(object)
            }
            Self::Double(_) | Self::Bytes(_) => return Err(NoJson::Type(self.type_name())),
        })
    }
}

fn copied(text: &str, budget: &mut EvaluationBudget) -> Result<String, Exhausted> {
    budget.take_bytes(text.len())?;
    budget.read_text(text.len())?;
    Ok(text.to_owned())
}

fn key_text(key: &CelValue<'_>, budget: &mut EvaluationBudget) -> Result<String, NoJson> {
    Ok(match key {
        CelValue::Text(text) => copied(text, budget)?,
        CelValue::Bool(b) => b.to_string(),
        CelValue::Int(i) => i.to_string(),
        CelValue::Uint(u) => u.to_string(),
        other => return Err(NoJson::Type(other.type_name())),
    })
}

impl<'a> CelList<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Read(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// An element; null beyond the end.
    pub(super) fn get(&self, index: usize) -> CelValue<'a> {
        let element = match self {
            Self::Read(items) => items.get(index).map(CelValue::read),
            Self::Made(items) => items.get(index).cloned(),
        };
        element.unwrap_or(CelValue::Null)
    }
}

impl<'a> CelMap<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Read(map) => map.len(),
            Self::Nodes(map) => map.len(),
            Self::Values(map) => map.len(),
            Self::Made(entries) => entries.len(),
        }
    }

    /// The value of a text as the key.
    pub(super) fn field(&self, name: &str, budget: &mut EvaluationBudget) -> Result<Option<CelValue<'a>>, Exhausted> {
        budget.read_text(name.len())?;
        Ok(match self {
            Self::Read(map) => map.get(name).map(CelValue::read),
            Self::Nodes(map) => map.get(name).map(|json| CelValue::read(json)),
            Self::Values(map) => map.get(name).map(|json| CelValue::read(json)),
            Self::Made(entries) => {
                budget.take_steps(entries.len() as u64)?;
                budget.read_text(name.len().saturating_mul(entries.len()))?;
                let is_key = |key: &CelValue<'_>| matches!(key, CelValue::Text(text) if **text == *name);
                entries.iter().find(|(key, _)| is_key(key)).map(|(_, value)| value.clone())
            }
        })
    }

    /// The value of a key. Numbers are equal if they have the same value, whatever their types.
    pub(super) fn get(
        &self,
        key: &CelValue<'_>,
        budget: &mut EvaluationBudget,
    ) -> Result<Option<CelValue<'a>>, Exhausted> {
        match (key, self) {
            (CelValue::Text(name), _) => self.field(name, budget),
            (_, Self::Made(entries)) => {
                budget.take_steps(entries.len() as u64)?;
                for (other, value) in entries.iter() {
                    if equal(other, key, budget)? {
                        return Ok(Some(value.clone()));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Its keys, in their order.
    pub(super) fn keys(&self, budget: &mut EvaluationBudget) -> Result<CelList<'a>, Exhausted> {
        let keys: Vec<CelValue<'a>> = self.entries(budget)?.into_iter().map(|(key, _)| key).collect();
        budget.take_bytes(size_of_val(keys.as_slice()))?;
        Ok(CelList::Made(keys.into()))
    }

    /// Its entries, in their order.
    fn entries(&self, budget: &mut EvaluationBudget) -> Result<Vec<(CelValue<'a>, CelValue<'a>)>, Exhausted> {
        budget.take_steps(self.len() as u64)?;
        budget.take_bytes(self.len().saturating_mul(size_of::<(CelValue<'a>, CelValue<'a>)>()))?;
        let name = |name: &'a str| CelValue::Text(CelText::Read(name));
        Ok(match self {
            Self::Read(map) => map.iter().map(|(key, json)| (name(key), CelValue::read(json))).collect(),
            Self::Nodes(map) => map.iter().map(|(key, json)| (name(key.as_str()), CelValue::read(json))).collect(),
            Self::Values(map) => map.iter().map(|(key, json)| (name(key.as_str()), CelValue::read(json))).collect(),
            Self::Made(entries) => entries.to_vec(),
        })
    }
}

/// Whether two values are equal. Numbers are compared by value, whatever their types.
pub(super) fn equal(a: &CelValue<'_>, b: &CelValue<'_>, budget: &mut EvaluationBudget) -> Result<bool, Exhausted> {
    budget.take_steps(1)?;
    Ok(match (a, b) {
        (CelValue::Null, CelValue::Null) => true,
        (CelValue::Bool(a), CelValue::Bool(b)) => a == b,
        (CelValue::Type(a), CelValue::Type(b)) => a == b,
        (CelValue::Text(a), CelValue::Text(b)) => {
            budget.read_text(a.len().min(b.len()))?;
            **a == **b
        }
        (CelValue::Bytes(a), CelValue::Bytes(b)) => {
            budget.read_text(a.len().min(b.len()))?;
            a == b
        }
        (CelValue::List(a), CelValue::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for index in 0..a.len() {
                if !equal(&a.get(index), &b.get(index), budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (CelValue::Map(a), CelValue::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.entries(budget)? {
                match b.get(&key, budget)? {
                    Some(other) if equal(&value, &other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => compared_numbers(a, b) == Some(Ordering::Equal),
    })
}

/// The order of two values; `None` if they have none.
pub(super) fn compared(
    a: &CelValue<'_>,
    b: &CelValue<'_>,
    budget: &mut EvaluationBudget,
) -> Result<Option<Ordering>, Exhausted> {
    Ok(match (a, b) {
        (CelValue::Bool(a), CelValue::Bool(b)) => Some(a.cmp(b)),
        (CelValue::Text(a), CelValue::Text(b)) => {
            budget.read_text(a.len().min(b.len()))?;
            Some((**a).cmp(&**b))
        }
        (CelValue::Bytes(a), CelValue::Bytes(b)) => {
            budget.read_text(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        _ => compared_numbers(a, b),
    })
}

/// The order of two numbers by their exact values; `None` if one is no number.
fn compared_numbers(a: &CelValue<'_>, b: &CelValue<'_>) -> Option<Ordering> {
    match (a, b) {
        (CelValue::Double(a), CelValue::Double(b)) => a.partial_cmp(b),
        (CelValue::Double(a), b) => Some(compared_with_double(integer(b)?, *a)?.reverse()),
        (a, CelValue::Double(b)) => compared_with_double(integer(a)?, *b),
        (a, b) => Some(integer(a)?.cmp(&integer(b)?)),
    }
}

fn integer(value: &CelValue<'_>) -> Option<i128> {
    match value {
        CelValue::Int(i) => Some((*i).into()),
        CelValue::Uint(u) => Some((*u).into()),
        _ => None,
    }
}

/// An integer of 64 bits and a double: no conversion of the integer, which could round it.
fn compared_with_double(integer: i128, double: f64) -> Option<Ordering> {
    const BEYOND_ANY_INTEGER: f64 = 36_893_488_147_419_103_232.0;
    if double.is_nan() {
        return None;
    }
    if double.abs() >= BEYOND_ANY_INTEGER {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = double.trunc();
    Some(integer.cmp(&(whole as i128)).then_with(|| 0.0.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_that_json_does_not_have_is_no_item() {
        let json = |double| CelValue::Double(double).json(&mut EvaluationBudget::default());
        assert_eq!(json(1e300), Ok(Json::from(1e300)));
        assert_eq!(json(f64::INFINITY), Err(NoJson::Type("double")));
    }

    #[test]
    fn integers_are_compared_with_doubles_exactly() {
        let order = |integer: CelValue<'_>, double: f64| compared_numbers(&integer, &CelValue::Double(double));
        assert_eq!(order(CelValue::Int(9_007_199_254_740_993), 9_007_199_254_740_992.0), Some(Ordering::Greater));
        assert_eq!(order(CelValue::Int(9_007_199_254_740_992), 9_007_199_254_740_992.0), Some(Ordering::Equal));
        assert_eq!(order(CelValue::Uint(u64::MAX), 18_446_744_073_709_551_616.0), Some(Ordering::Less));
        assert_eq!(order(CelValue::Int(-1), -1.5), Some(Ordering::Greater));
        assert_eq!(order(CelValue::Int(1), 1.5), Some(Ordering::Less));
        assert_eq!(order(CelValue::Int(0), f64::INFINITY), Some(Ordering::Less));
        assert_eq!(order(CelValue::Int(0), f64::NAN), None);
    }
}
