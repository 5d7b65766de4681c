//! Values as Python prints them: `str` and `repr`.

use std::fmt::{self, Write};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::float;

/// The bytes that one unit of fuel pays for.
pub(crate) const FUEL_BYTES: u64 = 64;
/// The most bytes of one text of a template without fuel.
const MAX_UNPAID_BYTES: u64 = 64 * 1024 * 1024;

/// A text that grows only as far as the fuel of a rendering pays for.
pub(crate) struct PaidText {
    pub(crate) text: String,
    limit: usize,
}

impl PaidText {
    pub(crate) fn new(state: &State<'_, '_>) -> Self {
        let remaining = state.fuel_levels().map_or(MAX_UNPAID_BYTES, |(_, fuel)| fuel.saturating_mul(FUEL_BYTES));
        Self { text: String::new(), limit: usize::try_from(remaining).unwrap_or(usize::MAX) }
    }

    pub(crate) fn push(&mut self, text: &str) -> Result<(), Error> {
        if self.text.len().saturating_add(text.len()) > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        self.text.push_str(text);
        Ok(())
    }

    pub(crate) fn push_char(&mut self, c: char) -> Result<(), Error> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    pub(crate) fn push_value(&mut self, value: &Value) -> Result<(), Error> {
        write!(self, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel))
    }
}

impl Write for PaidText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text).map_err(|_| fmt::Error)
    }
}

/// `str` of a value.
pub(crate) fn str(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut out = PaidText::new(state);
    write_str(&mut out, value)?;
    Ok(out.text)
}

/// Whether minijinja prints it as Python does.
pub(crate) fn is_plain(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Number => value.is_integer(),
        kind => !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable),
    }
}

pub(crate) fn write_str(out: &mut PaidText, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value),
    }
}

/// `repr` of a value.
fn write_repr(out: &mut PaidText, value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        return write_quoted(out, text);
    }
    match value.kind() {
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push(&float::repr(number)),
            Err(_) => out.push_value(value),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.push(open)?;
            let mut count = 0;
            for item in value.try_iter()? {
                if count > 0 {
                    out.push(", ")?;
                }
                write_repr(out, &item)?;
                count += 1;
            }
            if count == 1 && value.is_tuple() {
                out.push(",")?;
            }
            out.push(close)
        }
        ValueKind::Map => {
            out.push("{")?;
            for (at, key) in value.try_iter()?.enumerate() {
                if at > 0 {
                    out.push(", ")?;
                }
                write_repr(out, &key)?;
                out.push(": ")?;
                write_repr(out, &value.get_item(&key)?)?;
            }
            out.push("}")
        }
        ValueKind::Undefined => out.push("Undefined"),
        _ => out.push_value(value),
    }
}

/// `repr` of a string.
fn write_quoted(out: &mut PaidText, text: &str) -> Result<(), Error> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            c if c == quote => {
                out.push("\\")?;
                out.push_char(c)?;
            }
            c if c.is_control() && u32::from(c) < 0x100 => out.push(&format!("\\x{:02x}", u32::from(c)))?,
            c => out.push_char(c)?,
        }
    }
    out.push_char(quote)
}
