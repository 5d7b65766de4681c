//! The filters and tests of Jinja where minijinja's differ, and those that it lacks.

use std::sync::Arc;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::strings::{self, capitalized, string};
use super::text::{self, PaidText};
use crate::text_shield::{ShieldedText, TextShield};

pub(crate) fn install(environment: &mut Environment<'static>, shield: &Arc<TextShield>) {
    environment.add_filter("string", |state: &State<'_, '_>, value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => text::str(state, &value).map(Value::from),
    });
    environment.add_filter("capitalize", |state: &State<'_, '_>, value: Value| {
        text::str(state, &value).map(|text| capitalized(&text))
    });
    environment.add_filter("join", join);
    let revealing = shield.clone();
    environment.add_filter("trim", move |state: &State<'_, '_>, value: Value, characters: Option<Value>| {
        let text = text::str(state, &value)?;
        let shielded = ShieldedText::new(&revealing, &text);
        let range = strings::stripped(&revealing, shielded.plain(), characters.as_ref(), true, true)?;
        Ok::<_, Error>(shielded.part(range).to_owned())
    });
    let revealing = shield.clone();
    environment.add_filter(
        "replace",
        move |state: &State<'_, '_>, value: Value, old: &str, new: &str, count: Option<i64>| {
            strings::replace(&revealing, state, &text::str(state, &value)?, old, new, count)
        },
    );
    environment.add_filter("center", |state: &mut State<'_, '_>, value: Value, width: Option<i64>| {
        let text = Value::from(text::str(state, &value)?);
        text.call_method(state, "center", &[Value::from(width.unwrap_or(80))])
    });
    environment.add_filter("wordcount", |state: &State<'_, '_>, value: Value| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        text::str(state, &value).map(|text| text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count())
    });
    environment.add_filter("truncate", minijinja_contrib::filters::truncate);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    install_tests(environment, shield);
}

fn install_tests(environment: &mut Environment<'static>, shield: &Arc<TextShield>) {
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    for (names, is_equal) in [(["eq", "equalto", "=="], true), (["ne", "!=", "__ne"], false)] {
        for name in names {
            let revealing = shield.clone();
            environment.add_test(name, move |left: &Value, right: &Value| {
                (plain(&revealing, left) == plain(&revealing, right)) == is_equal
            });
        }
    }
    let revealing = shield.clone();
    environment.add_test("in", move |value: &Value, container: &Value| -> Result<bool, Error> {
        let value = plain(&revealing, value);
        if let Some(text) = container.as_str() {
            return Ok(revealing.reveal(text).contains(string(&value)?));
        }
        let mut items = container.try_iter()?;
        Ok(items.any(|item| plain(&revealing, &item) == value))
    });
}

fn plain(shield: &TextShield, value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| Value::from(&*shield.reveal(text)))
}

/// `join(separator='', attribute=None)`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja passes the named arguments so")]
fn join(
    state: &State<'_, '_>,
    values: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let separator = separator.or(kwargs.get("d")?);
    let attribute = attribute.or(kwargs.get("attribute")?);
    kwargs.assert_all_used()?;
    let separator = separator.map(|separator| text::str(state, &separator)).transpose()?.unwrap_or_default();
    if matches!(values.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number) {
        return Err(Error::new(ErrorKind::InvalidOperation, "`join` takes a list"));
    }
    let mut out = PaidText::new(state);
    for (at, value) in values.try_iter()?.enumerate() {
        if at > 0 {
            out.push(&separator)?;
        }
        let value = match &attribute {
            Some(attribute) => value.get_item(attribute)?,
            None => value,
        };
        text::write_str(&mut out, &value)?;
    }
    Ok(out.text)
}
