//! The filter `tojson`, as `json.dumps` of Python, which chat templates are written for. Nothing is escaped for HTML.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, UndefinedBehavior, Value};

use super::float;
use super::text::PaidText;

/// The most spaces of one level of indentation.
const MAX_INDENT_COLUMNS: u32 = 64;

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes the named arguments so")]
pub(crate) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let option = |given: Option<Value>, name: &str| -> Result<Value, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(given.or(named).unwrap_or_default())
    };
    // What Jinja names first is the indentation, and what Transformers names first is `ensure_ascii`, a truth value.
    let (ascii, first) = match ensure_ascii {
        Some(first) if first.kind() != ValueKind::Bool => (None, Some(first)),
        ascii => (ascii, None),
    };
    let ascii = option(ascii, "ensure_ascii")?;
    let indent = option(indent.or(first), "indent")?;
    let separators = option(None, "separators")?;
    let sort_keys = option(None, "sort_keys")?;
    kwargs.assert_all_used()?;
    let indent = indentation(&indent)?;
    let (item, key) = match separators.is_none() || separators.is_undefined() {
        true => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        false => (separators.get_item_by_index(0)?.to_string(), separators.get_item_by_index(1)?.to_string()),
    };
    let style = JsonStyle { ensure_ascii: ascii.is_true(), indent, item, key, sort_keys: sort_keys.is_true() };
    let mut writer = JsonText {
        out: PaidText::new(state),
        style,
        is_lenient: state.undefined_behavior() != UndefinedBehavior::Lenient,
    };
    writer.value(value, 0)?;
    Ok(writer.out.text)
}

/// The text of one level.
fn indentation(indent: &Value) -> Result<Option<String>, Error> {
    if indent.is_none() || indent.is_undefined() {
        return Ok(None);
    }
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let spaces = i64::try_from(indent.clone())?.max(0);
    let spaces = u32::try_from(spaces).ok().filter(|spaces| *spaces <= MAX_INDENT_COLUMNS);
    let too_many = || format!("`tojson` indents by at most {MAX_INDENT_COLUMNS} spaces");
    let spaces = spaces.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, too_many()))?;
    Ok(Some(" ".repeat(spaces as usize)))
}

struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

struct JsonText {
    out: PaidText,
    style: JsonStyle,
    /// Whether an undefined value is `null` and no error.
    is_lenient: bool,
}

impl JsonText {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.string(text);
        }
        match value.kind() {
            ValueKind::None => self.out.push("null"),
            ValueKind::Undefined if self.is_lenient => self.out.push("null"),
            ValueKind::Bool => self.out.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_value(value),
            ValueKind::Number => self.float(value),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.out.push("[")?;
                self.items(items.len(), depth, |this, at| this.value(&items[at], depth + 1))?;
                self.out.push("]")
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.style.sort_keys {
                    keys.sort();
                }
                self.out.push("{")?;
                self.items(keys.len(), depth, |this, at| {
                    this.key(&keys[at])?;
                    let separator = this.style.key.clone();
                    this.out.push(&separator)?;
                    this.value(&value.get_item(&keys[at])?, depth + 1)
                })?;
                self.out.push("}")
            }
            ValueKind::Plain if self.is_lenient => {
                let text = value.to_string();
                self.string(&text)
            }
            kind => {
                let message = format!("a value of type {kind} cannot be written as JSON");
                Err(Error::new(ErrorKind::InvalidOperation, message))
            }
        }
    }

    fn items(
        &mut self,
        count: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for at in 0..count {
            if at > 0 {
                let separator = self.style.item.clone();
                self.out.push(&separator)?;
            }
            self.line(depth + 1)?;
            item(self, at)?;
        }
        if count > 0 { self.line(depth) } else { Ok(()) }
    }

    /// A new line of this depth, if lines are indented.
    fn line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.style.indent.clone() else { return Ok(()) };
        self.out.push("\n")?;
        (0..depth).try_for_each(|_| self.out.push(&indent))
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        if let Some(text) = key.as_str() {
            return self.string(text);
        }
        match key.kind() {
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push("\"")?;
                self.value(key, 0)?;
                self.out.push("\"")
            }
            kind => {
                let message = format!("a value of type {kind} is no key in JSON");
                Err(Error::new(ErrorKind::InvalidOperation, message))
            }
        }
    }

    fn float(&mut self, value: &Value) -> Result<(), Error> {
        let number = f64::try_from(value.clone())?;
        match number {
            number if number.is_finite() => self.out.push(&float::repr(number)),
            _ if self.is_lenient => self.out.push("null"),
            number if number.is_nan() => self.out.push("NaN"),
            number => self.out.push(if number > 0.0 { "Infinity" } else { "-Infinity" }),
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.out.push("\"")?;
        for c in text.chars() {
            match c {
                '"' => self.out.push("\\\"")?,
                '\\' => self.out.push("\\\\")?,
                '\n' => self.out.push("\\n")?,
                '\r' => self.out.push("\\r")?,
                '\t' => self.out.push("\\t")?,
                '\u{8}' => self.out.push("\\b")?,
                '\u{c}' => self.out.push("\\f")?,
                c if u32::from(c) < 0x20 => self.out.push(&format!("\\u{:04x}", u32::from(c)))?,
                c if self.style.ensure_ascii && !c.is_ascii() => self.escaped(c)?,
                c => self.out.push_char(c)?,
            }
        }
        self.out.push("\"")
    }

    /// A character as its UTF-16 code units. Private code points stay, since they stand for what is ASCII.
    fn escaped(&mut self, c: char) -> Result<(), Error> {
        if crate::text_shield::is_private(c) {
            return self.out.push_char(c);
        }
        c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| self.out.push(&format!("\\u{unit:04x}")))
    }
}
