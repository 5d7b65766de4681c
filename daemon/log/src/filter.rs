//! Which records are logged.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter, ParseError};

/// The filter without a setting: llama.cpp logs every tensor of a model at `debug`, and internal details at `info`.
pub const DEFAULT_FILTER: &str = "info,llama_cpp=warn";
/// The target of the audit log: whoever changes the level of the log leaves a trace.
pub const AUDIT_TARGET: &str = "audit";
/// The longest filter: a directive for each module of this program fits.
const MAX_FILTER_BYTES: usize = 4096;

/// Which records are logged, in the syntax of `tracing`: `debug`, or `info,artel_engine=trace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// Why a text is no filter.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFilter {
    /// A part of it is none.
    #[error("`{text}` is no filter of the log ({cause}); write a level such as `debug`, or `info,artel_engine=trace`")]
    Syntax {
        /// The text.
        text: String,
        /// What is wrong with it.
        cause: ParseError,
    },
    /// A part of it is one word, and no level. To `tracing` it is a module with everything below it: a misspelt level would
    /// silence all else.
    #[error(
        "`{0}` is no level of the log; write `error`, `warn`, `info`, `debug`, `trace` or `off`, or `{0}=trace` if it is a module"
    )]
    Level(String),
    /// It is nothing, or too much.
    #[error("a filter of the log has 1 to {MAX_FILTER_BYTES} bytes, not {0}")]
    Length(usize),
}

impl LogFilter {
    /// A text that was a filter before.
    pub(crate) fn valid(text: String) -> Self {
        Self(text)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter of a subscriber. Records of `forwarded`, which another process has filtered, and the audit log pass at every
    /// level.
    pub(crate) fn build(&self, forwarded: Option<&str>) -> EnvFilter {
        let filter = parse(&self.0).expect("it was parsed when it was made");
        [Some(AUDIT_TARGET), forwarded].into_iter().flatten().fold(filter, |filter, target| {
            let directive = format!("{target}=trace").parse::<Directive>();
            filter.add_directive(directive.expect("the name of a target and a level are a directive"))
        })
    }
}

impl FromStr for LogFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_FILTER_BYTES {
            return Err(InvalidFilter::Length(text.len()));
        }
        let mut words = text.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(['=', '[']));
        if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
            return Err(InvalidFilter::Level(word.to_owned()));
        }
        let invalid = |cause| InvalidFilter::Syntax { text: text.to_owned(), cause };
        parse(text).map(|_| Self(text.to_owned())).map_err(invalid)
    }
}

/// A client may name a filter, and needs no regular expressions for that.
fn parse(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(DEFAULT_FILTER.to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives() {
        for text in ["debug", "off", DEFAULT_FILTER, "info,artel_engine=trace", "warn,[step{task=x}]=debug"] {
            assert_eq!(text.parse::<LogFilter>().unwrap().as_str(), text);
        }
        assert_eq!(LogFilter::default(), DEFAULT_FILTER.parse().unwrap());
        for (text, part) in [
            ("info,artel=loud", "artel_engine=trace"),
            ("", "not 0"),
            ("debgu", "`debgu` is no level"),
            ("a=b=c", "`a=b=c`"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!("x,".repeat(MAX_FILTER_BYTES).parse::<LogFilter>().is_err());
    }

    #[test]
    fn forwarded_records_and_the_audit_log_pass() {
        let filter = LogFilter("error".to_owned());
        assert_eq!(filter.build(None).to_string(), "audit=trace,error");
        assert!(filter.build(Some("engine")).to_string().contains("engine=trace"));
    }
}
