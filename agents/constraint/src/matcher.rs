//! A grammar of llguidance at its beginning.

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};

use crate::conjoined_patterns;
use crate::constraint::is_dead_end;
use crate::error::{Error, shown};
use crate::grammar::Grammar;

/// A matcher for one form of a schema.
pub(crate) fn start(factory: &ParserFactory, form: &Grammar) -> Result<Matcher, Error> {
    conjoined_patterns::check(&form.schema)?;
    let parser = factory.create_parser(TopLevelGrammar::from_json_schema(form.schema.clone()));
    // With its causes, of which the last one says most.
    let parser = parser.map_err(|error| refusal(&format!("{error:#}")))?;
    begun(Matcher::new(Ok(parser)))
}

/// A matcher that can begin.
pub(crate) fn begun(mut matcher: Matcher) -> Result<Matcher, Error> {
    if let Some(error) = matcher.get_error() {
        return Err(refusal(&error));
    }
    match matcher.compute_mask_or_eos() {
        Ok(_) => Ok(matcher),
        Err(error) if is_dead_end(&error.to_string()) => Err(Error::Unsupported("nothing can be written".to_owned())),
        Err(error) => Err(Error::costly(&error)),
    }
}

/// Why llguidance does not take a schema.
fn refusal(error: &str) -> Error {
    match error.rsplit_once("Unsatisfiable schema: ") {
        Some((_, reason)) => {
            let is_text = reason.starts_with("Regex is empty");
            let reason =
                if is_text { "no text satisfies `pattern`, `format` and the lengths together" } else { reason };
            Error::Unsatisfiable { place: String::new(), reason: shown(reason) }
        }
        None => Error::Unsupported(shown(error)),
    }
}
