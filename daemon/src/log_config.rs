//! How the log is written, by flags, variables and settings.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use artel_args::LogArgs;
use artel_log::{LineFormat, LogFilter, is_connected_to_journal};
use artel_roles::LogFormat;

/// The variable of the filter. Processes that the daemon starts take theirs from it.
pub(crate) const FILTER_VARIABLE: &str = "ARTEL_LOG";

/// `log` of a settings file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) format: Option<LogFormat>,
    /// The filter, as it is written.
    pub(crate) level: Option<String>,
}

/// How the log is written, by flags, variables and settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// `None` if nothing says so.
    pub(crate) format: Option<LogFormat>,
    pub(crate) filter: LogFilter,
}

impl LogConfig {
    /// Flags and variables come before the settings, and these before the defaults.
    ///
    /// # Errors
    /// The filter is none.
    pub(crate) fn of(flags: &LogArgs, settings: &LogSettings) -> Result<Self> {
        let flag = flags.log_level.as_deref().filter(|text| !text.trim().is_empty());
        let filter = match (flag, settings.level.as_deref()) {
            (Some(text), _) => text.parse().with_context(|| format!("--log-level or {FILTER_VARIABLE} is invalid"))?,
            (None, Some(text)) => text.parse().context("`log.level` of the settings file is invalid")?,
            (None, None) => LogFilter::default(),
        };
        // The command line takes no other words than these.
        let flag = flags.log_format.as_deref().and_then(LogFormat::named);
        Ok(Self { format: flag.or(settings.format), filter })
    }

    /// What the lines of the log look like. Without a setting: JSON with `--json`, the journal's form if the journal reads
    /// standard error, or else text.
    pub(crate) fn line_format(&self, json: bool) -> LineFormat {
        match self.format {
            Some(LogFormat::Json) => LineFormat::Json,
            Some(LogFormat::Journald) => LineFormat::Journald,
            None if json => LineFormat::Json,
            None if is_connected_to_journal() => LineFormat::Journald,
            Some(LogFormat::Text) | None => LineFormat::Text { color: io::stderr().is_terminal() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(level: Option<&str>, format: Option<&str>, settings: &LogSettings) -> Result<LogConfig> {
        let flags = LogArgs { log_level: level.map(str::to_owned), log_format: format.map(str::to_owned) };
        LogConfig::of(&flags, settings)
    }

    #[test]
    fn flags_come_before_settings_and_these_before_defaults() {
        let settings = LogSettings { format: Some(LogFormat::Text), level: Some("warn".to_owned()) };
        let seen = |level, format, settings: &LogSettings| {
            let config = of(level, format, settings).unwrap();
            (config.filter.to_string(), config.format)
        };
        assert_eq!(seen(Some("debug"), Some("json"), &settings), ("debug".to_owned(), Some(LogFormat::Json)));
        assert_eq!(seen(Some(" "), None, &settings), ("warn".to_owned(), Some(LogFormat::Text)));
        let (filter, format) = seen(None, None, &LogSettings::default());
        assert_eq!((filter.as_str(), format), (artel_log::DEFAULT_FILTER, None));
    }

    #[test]
    fn an_invalid_filter_is_named_with_its_place() {
        let error = format!("{:#}", of(Some("info,artel=loud"), None, &LogSettings::default()).unwrap_err());
        assert!(error.starts_with("--log-level or ARTEL_LOG is invalid: `info,artel=loud` is no filter"), "{error}");
        let settings = LogSettings { format: None, level: Some("a=b=c".to_owned()) };
        let error = format!("{:#}", of(None, None, &settings).unwrap_err());
        assert!(error.starts_with("`log.level` of the settings file is invalid"), "{error}");
    }

    #[test]
    fn a_format_that_is_asked_for_is_used_and_json_output_has_a_json_log() {
        let line_format = |format, json| LogConfig { format, filter: LogFilter::default() }.line_format(json);
        assert_eq!(line_format(None, true), LineFormat::Json);
        assert!(matches!(line_format(Some(LogFormat::Text), true), LineFormat::Text { .. }));
        assert_eq!(line_format(Some(LogFormat::Journald), true), LineFormat::Journald);
    }
}
