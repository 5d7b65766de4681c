//! The functions and operators of expressions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::budget::{EvaluationBudget, Exhausted};
use super::tree::{BinaryFunction, UnaryFunction};
use super::value::{CelList, CelText, CelValue, compared, equal};

/// The characters of a text that a message quotes.
const MAX_SHOWN_CHARS: usize = 40;

/// Why a function gives no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum FunctionFault {
    /// It does not take a value of this type.
    #[error("`{0}` does not apply to {1}")]
    Type(&'static str, &'static str),
    /// It does not take values of these types.
    #[error("`{0}` does not apply to {1} and {2}")]
    Types(&'static str, &'static str, &'static str),
    /// The pattern or what it is applied to is no text.
    #[error("`matches` applies a text to a text")]
    Matches,
    /// A division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The result is no integer of 64 bits.
    #[error("the result of `{0}` is out of range")]
    Overflow(&'static str),
    /// The text cannot be converted.
    #[error("`{0}` cannot read `{1}`")]
    Conversion(&'static str, String),
    /// No element has this index.
    #[error("there is no element {0} in a list of {1}")]
    NoElement(String, usize),
    /// A map lacks the key.
    #[error("no such key `{0}`")]
    NoSuchKey(String),
}

/// A value, or why there is none; the outer error is the budget.
type FunctionResult<'a> = Result<Result<CelValue<'a>, FunctionFault>, Exhausted>;

/// The value of a function of one value.
pub(super) fn unary<'a>(
    function: UnaryFunction,
    operand: CelValue<'a>,
    budget: &mut EvaluationBudget,
) -> FunctionResult<'a> {
    Ok(match function {
        UnaryFunction::Not => match operand {
            CelValue::Bool(b) => Ok(CelValue::Bool(!b)),
            other => Err(wrong(function, &other)),
        },
        UnaryFunction::Negate => match operand {
            CelValue::Int(i) => i.checked_neg().map(CelValue::Int).ok_or(FunctionFault::Overflow(function.name())),
            CelValue::Double(d) => Ok(CelValue::Double(-d)),
            other => Err(wrong(function, &other)),
        },
        UnaryFunction::Size => size(&operand, budget)?.ok_or_else(|| wrong(function, &operand)),
        UnaryFunction::Type => Ok(CelValue::Type(operand.type_name())),
        UnaryFunction::Dyn => Ok(operand),
        UnaryFunction::Bool => to_bool(operand),
        UnaryFunction::Int => to_int(operand, budget)?,
        UnaryFunction::Uint => to_uint(operand, budget)?,
        UnaryFunction::Double => to_double(operand, budget)?,
        UnaryFunction::String => to_text(operand, budget)?,
        UnaryFunction::Bytes => to_bytes(operand, budget)?,
    })
}

/// The value of a function of two values.
pub(super) fn binary<'a>(
    function: BinaryFunction,
    a: &CelValue<'a>,
    b: &CelValue<'a>,
    budget: &mut EvaluationBudget,
) -> FunctionResult<'a> {
    let types = || FunctionFault::Types(function.name(), a.type_name(), b.type_name());
    let order = |is: fn(Ordering) -> bool, budget: &mut EvaluationBudget| -> FunctionResult<'a> {
        Ok(compared(a, b, budget)?.map(|order| CelValue::Bool(is(order))).ok_or_else(types))
    };
    let search = |found: fn(&str, &str) -> bool, budget: &mut EvaluationBudget| -> FunctionResult<'a> {
        let (CelValue::Text(text), CelValue::Text(part)) = (a, b) else { return Ok(Err(types())) };
        budget.read_text(text.len().saturating_add(part.len()))?;
        Ok(Ok(CelValue::Bool(found(text, part))))
    };
    match function {
        BinaryFunction::Equal => Ok(Ok(CelValue::Bool(equal(a, b, budget)?))),
        BinaryFunction::NotEqual => Ok(Ok(CelValue::Bool(!equal(a, b, budget)?))),
        BinaryFunction::Less => order(Ordering::is_lt, budget),
        BinaryFunction::LessEqual => order(Ordering::is_le, budget),
        BinaryFunction::Greater => order(Ordering::is_gt, budget),
        BinaryFunction::GreaterEqual => order(Ordering::is_ge, budget),
        BinaryFunction::Contains => search(|text, part| text.contains(part), budget),
        BinaryFunction::StartsWith => search(|text, part| text.starts_with(part), budget),
        BinaryFunction::EndsWith => search(|text, part| text.ends_with(part), budget),
        BinaryFunction::In => Ok(is_in(a, b, budget)?.ok_or_else(types)),
        BinaryFunction::Index => index(a, b, budget),
        BinaryFunction::Add => match joined(a, b, budget)? {
            Some(joined) => Ok(Ok(joined)),
            None => Ok(arithmetic(function, a, b)),
        },
        BinaryFunction::Subtract | BinaryFunction::Multiply | BinaryFunction::Divide | BinaryFunction::Remainder => {
            Ok(arithmetic(function, a, b))
        }
    }
}

fn wrong(function: UnaryFunction, operand: &CelValue<'_>) -> FunctionFault {
    FunctionFault::Type(function.name(), operand.type_name())
}

/// A text in a message, cut.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

fn size<'a>(value: &CelValue<'a>, budget: &mut EvaluationBudget) -> Result<Option<CelValue<'a>>, Exhausted> {
    let count = match value {
        CelValue::Text(text) => {
            budget.read_text(text.len())?;
            text.chars().count()
        }
        CelValue::Bytes(bytes) => bytes.len(),
        CelValue::List(list) => list.len(),
        CelValue::Map(map) => map.len(),
        _ => return Ok(None),
    };
    Ok(Some(CelValue::Int(i64::try_from(count).unwrap_or(i64::MAX))))
}

/// Two texts, lists or bytes, one after the other.
fn joined<'a>(
    a: &CelValue<'a>,
    b: &CelValue<'a>,
    budget: &mut EvaluationBudget,
) -> Result<Option<CelValue<'a>>, Exhausted> {
    Ok(match (a, b) {
        (CelValue::Text(a), CelValue::Text(b)) => {
            let bytes = a.len().saturating_add(b.len());
            budget.take_bytes(bytes)?;
            budget.read_text(bytes)?;
            Some(CelValue::Text(CelText::Made([&**a, &**b].concat().into())))
        }
        (CelValue::Bytes(a), CelValue::Bytes(b)) => {
            let bytes = a.len().saturating_add(b.len());
            budget.take_bytes(bytes)?;
            budget.read_text(bytes)?;
            Some(CelValue::Bytes([&**a, &**b].concat().into()))
        }
        (CelValue::List(a), CelValue::List(b)) => {
            let count = a.len().saturating_add(b.len());
            budget.take_bytes(count.saturating_mul(size_of::<CelValue<'a>>()))?;
            budget.take_steps(count as u64)?;
            let elements = |list: &CelList<'a>| (0..list.len()).map(|index| list.get(index)).collect::<Vec<_>>();
            Some(CelValue::List(CelList::Made([elements(a), elements(b)].concat().into())))
        }
        _ => None,
    })
}

fn arithmetic<'a>(function: BinaryFunction, a: &CelValue<'a>, b: &CelValue<'a>) -> Result<CelValue<'a>, FunctionFault> {
    let types = || FunctionFault::Types(function.name(), a.type_name(), b.type_name());
    let divides = matches!(function, BinaryFunction::Divide | BinaryFunction::Remainder);
    let overflow = FunctionFault::Overflow(function.name());
    match (a, b) {
        (CelValue::Int(_), CelValue::Int(0)) | (CelValue::Uint(_), CelValue::Uint(0)) if divides => {
            Err(FunctionFault::DivisionByZero)
        }
        (CelValue::Int(a), CelValue::Int(b)) => match function {
            BinaryFunction::Add => a.checked_add(*b),
            BinaryFunction::Subtract => a.checked_sub(*b),
            BinaryFunction::Multiply => a.checked_mul(*b),
            BinaryFunction::Divide => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(CelValue::Int)
        .ok_or(overflow),
        (CelValue::Uint(a), CelValue::Uint(b)) => match function {
            BinaryFunction::Add => a.checked_add(*b),
            BinaryFunction::Subtract => a.checked_sub(*b),
            BinaryFunction::Multiply => a.checked_mul(*b),
            BinaryFunction::Divide => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(CelValue::Uint)
        .ok_or(overflow),
        (CelValue::Double(a), CelValue::Double(b)) => match function {
            BinaryFunction::Add => Ok(CelValue::Double(a + b)),
            BinaryFunction::Subtract => Ok(CelValue::Double(a - b)),
            BinaryFunction::Multiply => Ok(CelValue::Double(a * b)),
            BinaryFunction::Divide => Ok(CelValue::Double(a / b)),
            _ => Err(types()),
        },
        _ => Err(types()),
    }
}

/// Whether a list contains a value, or a map such a key.
fn is_in<'a>(
    value: &CelValue<'a>,
    container: &CelValue<'a>,
    budget: &mut EvaluationBudget,
) -> Result<Option<CelValue<'a>>, Exhausted> {
    match container {
        CelValue::List(list) => {
            for index in 0..list.len() {
                if equal(&list.get(index), value, budget)? {
                    return Ok(Some(CelValue::Bool(true)));
                }
            }
            Ok(Some(CelValue::Bool(false)))
        }
        CelValue::Map(map) if value.is_key() || matches!(value, CelValue::Double(_)) => {
            Ok(Some(CelValue::Bool(map.get(value, budget)?.is_some())))
        }
        _ => Ok(None),
    }
}

fn index<'a>(container: &CelValue<'a>, key: &CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    let key_text = || match key {
        CelValue::Text(text) => shown(text),
        CelValue::Int(i) => i.to_string(),
        CelValue::Uint(u) => u.to_string(),
        CelValue::Double(d) => d.to_string(),
        CelValue::Bool(b) => b.to_string(),
        other => other.type_name().to_owned(),
    };
    match (container, key) {
        (CelValue::List(list), CelValue::Int(_) | CelValue::Uint(_) | CelValue::Double(_)) => {
            let index = match key {
                CelValue::Int(i) => usize::try_from(*i).ok(),
                CelValue::Uint(u) => usize::try_from(*u).ok(),
                // Beyond these, a double does not tell one index from the next.
                CelValue::Double(d) if d.fract() == 0.0 && (0.0..9e15).contains(d) => Some(*d as usize),
                _ => None,
            };
            let index = index.filter(|index| *index < list.len());
            Ok(index.map(|index| list.get(index)).ok_or_else(|| FunctionFault::NoElement(key_text(), list.len())))
        }
        (CelValue::Map(map), key) if key.is_key() || matches!(key, CelValue::Double(_)) => {
            Ok(map.get(key, budget)?.ok_or_else(|| FunctionFault::NoSuchKey(key_text())))
        }
        _ => Ok(Err(FunctionFault::Types("[]", container.type_name(), key.type_name()))),
    }
}

fn to_bool(value: CelValue<'_>) -> Result<CelValue<'_>, FunctionFault> {
    match value {
        CelValue::Bool(_) => Ok(value),
        CelValue::Text(text) => match &*text {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(CelValue::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(CelValue::Bool(false)),
            other => Err(FunctionFault::Conversion("bool", shown(other))),
        },
        other => Err(wrong(UnaryFunction::Bool, &other)),
    }
}

fn to_int<'a>(value: CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    let overflow = FunctionFault::Overflow("int");
    Ok(match value {
        CelValue::Int(_) => Ok(value),
        CelValue::Uint(u) => i64::try_from(u).map(CelValue::Int).map_err(|_| overflow),
        // The bounds are excluded, as the language says: -2^63 is exact as a double, and 2^63 is what the maximum is rounded to.
        CelValue::Double(d) if d > i64::MIN as f64 && d < i64::MAX as f64 => Ok(CelValue::Int(d as i64)),
        CelValue::Double(_) => Err(overflow),
        CelValue::Text(text) => {
            budget.read_text(text.len())?;
            text.parse().map(CelValue::Int).map_err(|_| FunctionFault::Conversion("int", shown(&text)))
        }
        other => Err(wrong(UnaryFunction::Int, &other)),
    })
}

fn to_uint<'a>(value: CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    let overflow = FunctionFault::Overflow("uint");
    Ok(match value {
        CelValue::Uint(_) => Ok(value),
        CelValue::Int(i) => u64::try_from(i).map(CelValue::Uint).map_err(|_| overflow),
        CelValue::Double(d) if d >= 0.0 && d < u64::MAX as f64 => Ok(CelValue::Uint(d as u64)),
        CelValue::Double(_) => Err(overflow),
        CelValue::Text(text) => {
            budget.read_text(text.len())?;
            text.parse().map(CelValue::Uint).map_err(|_| FunctionFault::Conversion("uint", shown(&text)))
        }
        other => Err(wrong(UnaryFunction::Uint, &other)),
    })
}

fn to_double<'a>(value: CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    Ok(match value {
        CelValue::Double(_) => Ok(value),
        CelValue::Int(i) => Ok(CelValue::Double(i as f64)),
        CelValue::Uint(u) => Ok(CelValue::Double(u as f64)),
        CelValue::Text(text) => {
            budget.read_text(text.len())?;
            text.parse().map(CelValue::Double).map_err(|_| FunctionFault::Conversion("double", shown(&text)))
        }
        other => Err(wrong(UnaryFunction::Double, &other)),
    })
}

fn to_text<'a>(value: CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    let text = match value {
        CelValue::Text(_) => return Ok(Ok(value)),
        CelValue::Bool(b) => b.to_string(),
        CelValue::Int(i) => i.to_string(),
        CelValue::Uint(u) => u.to_string(),
        CelValue::Double(d) => d.to_string(),
        CelValue::Bytes(bytes) => {
            budget.read_text(bytes.len())?;
            match std::str::from_utf8(&bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => return Ok(Err(FunctionFault::Conversion("string", "bytes that are not UTF-8".to_owned()))),
            }
        }
        other => return Ok(Err(wrong(UnaryFunction::String, &other))),
    };
    budget.take_bytes(text.len())?;
    Ok(Ok(CelValue::Text(CelText::Made(text.into()))))
}

fn to_bytes<'a>(value: CelValue<'a>, budget: &mut EvaluationBudget) -> FunctionResult<'a> {
    Ok(match value {
        CelValue::Bytes(_) => Ok(value),
        CelValue::Text(text) => {
            budget.take_bytes(text.len())?;
            budget.read_text(text.len())?;
            Ok(CelValue::Bytes(Arc::from(text.as_bytes())))
        }
        other => Err(wrong(UnaryFunction::Bytes, &other)),
    })
}
