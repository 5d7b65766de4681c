//! Jinja as Python's interpreter of it runs chat templates with Transformers: what minijinja does otherwise.

mod containers;
mod filters;
mod float;
mod json;
mod operators;
mod strings;
mod text;

use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind};

use crate::text_shield::TextShield;

pub(crate) use json::tojson;
pub(crate) use strings::pay_for_widths;

/// Adds the filters, tests, methods and operators of Python, and what prints values.
pub(crate) fn install(environment: &mut Environment<'static>, shield: TextShield) {
    let shield = Arc::new(shield);
    operators::install(environment, &shield);
    filters::install(environment, &shield);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.set_unknown_method_callback(move |state, value, method, args| match value.kind() {
        ValueKind::String => strings::call(&shield, state, value.as_str().unwrap_or_default(), method, args),
        _ => containers::call(value, method, args),
    });
    environment.set_formatter(|out, state, value| {
        if text::is_plain(value) {
            return minijinja::escape_formatter(out, state, value);
        }
        out.write_str(&text::str(state, value)?).map_err(minijinja::Error::from)
    });
}
