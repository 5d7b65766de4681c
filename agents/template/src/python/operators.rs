//! The operators of Python that differ from minijinja's. The text of a template is changed to apply them as filters: see `guard`.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, State, Value};

use super::strings::invalid;
use super::text;
use crate::text_shield::TextShield;

/// Adds what guarded templates apply.
pub(crate) fn install(environment: &mut Environment<'static>, shield: &Arc<TextShield>) {
    let revealing = shield.clone();
    environment.add_filter("__plain", move |value: Value| revealed(&revealing, value));
    environment.add_filter("__text", printed);
    environment.add_filter("__percent", percent);
    environment.add_filter("__iterable", iterable);
    let revealing = shield.clone();
    environment.add_filter("__container", move |value: Value| container(&revealing, value));
}

/// An operand of a comparison.
fn revealed(shield: &TextShield, value: Value) -> Value {
    let Some(text) = value.as_str() else { return value };
    match shield.reveal(text) {
        Cow::Owned(plain) => Value::from(plain),
        Cow::Borrowed(_) => value,
    }
}

/// The right side of `in`; Python refuses one that holds nothing.
fn container(shield: &TextShield, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::None => Err(invalid("argument of type 'NoneType' is not iterable")),
        _ => Ok(revealed(shield, value)),
    }
}

/// What a loop passes through.
fn iterable(value: Value) -> Result<Value, Error> {
    if value.is_none() { Err(invalid("'NoneType' object is not iterable")) } else { Ok(value) }
}

/// An operand of `~`.
fn printed(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if text::is_plain(&value) { Ok(value) } else { text::str(state, &value).map(Value::from) }
}

/// A value to be formatted; a number stays one.
fn formattable(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::Number { Ok(value) } else { printed(state, value) }
}

/// `%`: the remainder, or a text with values in it.
fn percent(state: &mut State<'_, '_>, left: &Value, right: Value) -> Result<Value, Error> {
    if left.as_str().is_some() {
        let mut args = vec![left.clone()];
        if right.is_tuple() {
            for item in right.try_iter()? {
                args.push(formattable(state, item)?);
            }
        } else {
            args.push(formattable(state, right)?);
        }
        return state.apply_filter("format", &args);
    }
    let integers = (i128::try_from(left.clone()), i128::try_from(right.clone()));
    if let (Ok(left), Ok(right)) = integers
        && right != 0
    {
        // The sign is that of the divisor.
        let remainder = left.checked_rem(right).unwrap_or(0);
        let is_other_sign = remainder != 0 && (remainder < 0) != (right < 0);
        return Ok(Value::from(if is_other_sign { remainder + right } else { remainder }));
    }
    let (Ok(left), Ok(right)) = (f64::try_from(left.clone()), f64::try_from(right)) else {
        return Err(invalid("`%` takes two numbers, or a text and what it is to hold"));
    };
    if right == 0.0 {
        return Err(invalid("division by zero"));
    }
    Ok(Value::from(left - right * (left / right).floor()))
}
