//! A template that is parsed and rendered within budgets.

use std::ops::Range;
use std::sync::Arc;

use artel_task::deep_stack::on_deep_stack;
use minijinja::{AutoEscape, Environment, Template, Value};

use crate::bounded_writer::BoundedWriter;
use crate::chains;
use crate::error::{InvalidTemplate, RenderError};
use crate::guard::{self, GuardedSource};
use crate::operators::OperatorDialect;
use crate::render_budget::RenderBudget;
use crate::{MAX_SOURCE_CHARS, python};

/// The stack of one rendering: the instructions suffice for a value that is nested a hundred thousand times, whose end recurses.
const RENDERING_STACK_BYTES: usize = 256 * 1024 * 1024;
/// The name of the one template of an environment.
const NAME: &str = "template";

/// A parsed template. Cheap to clone.
#[derive(Clone)]
pub struct BoundedTemplate {
    environment: Arc<Environment<'static>>,
    guarded: Arc<GuardedSource>,
}

impl BoundedTemplate {
    /// Parses a template. `configure` adds what the template sees to an environment with the filters and functions of Jinja and
    /// the methods of Python.
    ///
    /// # Errors
    /// It is too long, has too long a chain of operators, is nested too deeply, or is no template.
    pub fn parse(
        source: &str,
        configure: impl FnOnce(&mut Environment<'static>) + Send,
    ) -> Result<Self, InvalidTemplate> {
        Self::parse_dialect(source, OperatorDialect::Jinja, configure)
    }

    pub(crate) fn parse_dialect(
        source: &str,
        dialect: OperatorDialect,
        configure: impl FnOnce(&mut Environment<'static>) + Send,
    ) -> Result<Self, InvalidTemplate> {
        if source.chars().nth(MAX_SOURCE_CHARS).is_some() {
            return Err(InvalidTemplate::TooLong);
        }
        on_deep_stack(RENDERING_STACK_BYTES, || Self::parse_here(source, dialect, configure))?
    }

    fn parse_here(
        source: &str,
        dialect: OperatorDialect,
        configure: impl FnOnce(&mut Environment<'static>),
    ) -> Result<Self, InvalidTemplate> {
        if let Some(excess) = chains::excess(source) {
            return Err(InvalidTemplate::Chain(excess));
        }
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(|state, value, method, args| {
            if method == "format" {
                python::pay_for_widths(state, value.as_str().unwrap_or_default())?;
            }
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        });
        environment.add_filter("tojson", python::tojson);
        configure(&mut environment);
        guard::install(&mut environment);
        let mut guarded = GuardedSource::of(source, dialect);
        let text = std::mem::take(&mut guarded.text);
        match environment.add_template_owned(NAME, text) {
            Ok(()) => Ok(Self { environment: Arc::new(environment), guarded: Arc::new(guarded) }),
            Err(error) => {
                let place = guarded.place_of(&error);
                Err(InvalidTemplate::Syntax(error, place))
            }
        }
    }

    /// Renders it with the values of a map.
    ///
    /// # Errors
    /// It exceeds a budget, reads a value that is missing or of a wrong type, or raises an error of its own.
    pub fn render(&self, values: Value) -> Result<String, RenderError> {
        self.render_within(values, RenderBudget::default())
    }

    pub(crate) fn render_within(&self, values: Value, budget: RenderBudget) -> Result<String, RenderError> {
        on_deep_stack(RENDERING_STACK_BYTES, || self.render_here(values, budget))?
    }

    fn render_here(&self, values: Value, budget: RenderBudget) -> Result<String, RenderError> {
        let mut out = BoundedWriter::new(budget.text_bytes);
        // What it clones is shared.
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(budget.instructions));
        let template = environment.get_template(NAME).map_err(|e| RenderError::of(e, budget))?;
        template.render_captured_to(values, &mut out).map_err(|e| RenderError::of(e, budget))?;
        String::from_utf8(out.bytes).map_err(|_| RenderError::NotUtf8)
    }

    /// The template, to ask which names it reads.
    pub fn jinja(&self) -> Template<'_, '_> {
        self.environment.get_template(NAME).expect("the template was added when it was parsed")
    }

    /// The names that Jinja defines.
    pub fn globals(&self) -> Vec<&str> {
        self.environment.globals().map(|(name, _)| name).collect()
    }

    /// The place in the source, in bytes, of an error of its rendering.
    pub fn place_of(&self, error: &minijinja::Error) -> Option<Range<usize>> {
        self.guarded.place_of(error)
    }
}

impl std::fmt::Debug for BoundedTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedTemplate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> Result<String, RenderError> {
        let template = BoundedTemplate::parse(source, |_| ()).unwrap();
        template.render(Value::from_pairs([("input", "text")]))
    }

    #[test]
    fn a_namespace_changes_and_nothing_holds_one() {
        let counted = "{% set n = namespace(a=0) %}{% for i in range(5) %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}";
        assert_eq!(rendered(counted).unwrap(), "10");
        assert_eq!(rendered("{% set n = namespace() %}{% set n.a | upper %}x{% endset %}{{ n.a }}").unwrap(), "X");
        for holder in [
            "{% set n.n = n %}{{ n }}",
            "{% set n.n = [n] %}{{ n }}",
            "{% set n.n = {'n': n} %}{{ n }}",
            "{% set a, n.n = 1, n %}{{ n }}",
            "{% set m = namespace(n=n) %}{{ m }}",
            "{% set m = namespace() %}{% set m.n = n %}{% set n.m = m %}{{ n }}",
            "{% set n.n | default(n, true) %}{% endset %}{{ n }}",
            "{% set n.n = n if n else n %}{{ n }}",
            "{% set n.n = (n)|default(n) %}{{ n }}",
            "{% macro m(x) %}{% set x.n = x %}{% endmacro %}{{ m(n) }}{{ n }}",
        ] {
            let refused = rendered(&format!("{{% set n = namespace() %}}{holder}"));
            let reason = refused.expect_err(holder).to_string();
            assert!(reason.contains("no value may hold a namespace"), "{holder}: {reason}");
        }
    }

    #[test]
    fn a_template_that_names_itself_ends() {
        for source in [
            "{% include 'template' %}",
            "{% extends 'template' %}",
            "{% import 'template' as t %}{{ t }}",
            "{% from 'template' import t %}{{ t }}",
            "{% set n = namespace() %}{% import 'template' as t %}{% set n.t = t %}{{ n }}",
        ] {
            assert!(rendered(source).is_err(), "{source}");
        }
    }

    #[test]
    fn what_exceeds_a_budget_is_told_by_it() {
        let parsed = |source: &str| BoundedTemplate::parse(source, |_| ()).map(drop);
        assert!(matches!(parsed(&"x".repeat(MAX_SOURCE_CHARS + 1)), Err(InvalidTemplate::TooLong)));
        assert!(parsed(&"ü".repeat(MAX_SOURCE_CHARS)).is_ok());
        assert!(matches!(parsed(&format!("{{{{ 1{} }}}}", "+1".repeat(999))), Err(InvalidTemplate::Chain(_))));
        assert!(matches!(parsed("{{ ("), Err(InvalidTemplate::Syntax(..))));
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
        assert!(matches!(rendered(endless), Err(RenderError::TooMuch(_))));
        assert!(matches!(
            rendered("{% for i in range(20) %}{{ input * 20000 }}{% endfor %}"),
            Err(RenderError::TooLong(_))
        ));
    }
}
