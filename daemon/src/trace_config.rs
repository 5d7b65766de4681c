//! Where spans are sent, by flags, variables and settings.

use std::fmt;

use anyhow::{Context as _, Result};
use artel_args::TraceArgs;
use artel_otlp::{Collector, CollectorAddress, CollectorFiles};
use artel_roles::TraceSettings;

/// Every task is traced, unless its caller says otherwise.
const SAMPLE_RATIO: f64 = 1.0;

/// Where spans are sent, and of which tasks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceConfig {
    /// `None` if there are no traces.
    pub(crate) collector: Option<CollectorAddress>,
    /// The fraction of traces that begin at the daemon and are recorded.
    pub(crate) sample: f64,
    files: CollectorFiles,
}

impl TraceConfig {
    /// Flags and variables come before the settings, and these before the defaults.
    ///
    /// # Errors
    /// The address of the collector is none.
    pub(crate) fn of(flags: &TraceArgs, settings: &TraceSettings) -> Result<Self> {
        let flag = flags.traces_endpoint.as_deref().filter(|text| !text.trim().is_empty());
        let collector = match (flag, settings.endpoint.as_deref()) {
            (Some(text), _) => Some(text.parse().context("--traces-endpoint or ARTEL_TRACES_ENDPOINT is invalid")?),
            (None, Some(text)) => Some(text.parse().context("`traces.endpoint` of the settings file is invalid")?),
            (None, None) => None,
        };
        let TraceSettings { headers_file, ca, .. } = settings.clone();
        Ok(Self {
            collector,
            sample: flags.traces_sample.or(settings.sample).unwrap_or(SAMPLE_RATIO),
            files: CollectorFiles { headers: headers_file, ca },
        })
    }

    /// The collector, with the files that it needs; `None` if there are no traces. Needs a runtime of tokio.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub(crate) fn open(&self) -> Option<Result<Collector, artel_otlp::Error>> {
        let collector = self.collector.as_ref()?;
        Some(Collector::open(collector, &self.files))
    }
}

impl fmt::Display for TraceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.collector {
            Some(collector) => write!(f, "to {collector}, sample {}", self.sample),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Option<&str>, sample: Option<f64>, settings: &TraceSettings) -> Result<TraceConfig> {
        let flags = TraceArgs { traces_endpoint: endpoint.map(str::to_owned), traces_sample: sample };
        TraceConfig::of(&flags, settings)
    }

    #[test]
    fn flags_come_before_settings_and_without_both_there_are_no_traces() {
        let endpoint = Some("http://127.0.0.1:4317".to_owned());
        let settings = TraceSettings { endpoint, sample: Some(0.5), ..TraceSettings::default() };
        let seen = |endpoint, sample, settings: &TraceSettings| {
            let config = of(endpoint, sample, settings).unwrap();
            (config.collector.map(|collector| collector.to_string()), config.sample)
        };
        let other = "https://collector.example:4317";
        assert_eq!(seen(Some(other), Some(0.1), &settings), (Some(other.to_owned()), 0.1));
        assert_eq!(seen(Some(" "), None, &settings), (Some("http://127.0.0.1:4317".to_owned()), 0.5));
        assert_eq!(seen(None, Some(0.1), &TraceSettings::default()), (None, 0.1));
        assert_eq!(seen(None, None, &TraceSettings::default()), (None, 1.0));
    }

    #[test]
    fn an_invalid_address_is_named_by_its_place_and_not_shown() {
        let error = format!("{:#}", of(Some("secret@collector"), None, &TraceSettings::default()).unwrap_err());
        assert!(error.starts_with("--traces-endpoint or ARTEL_TRACES_ENDPOINT is invalid: the address"), "{error}");
        let settings = TraceSettings { endpoint: Some("secret".to_owned()), ..TraceSettings::default() };
        let error = format!("{:#}", of(None, None, &settings).unwrap_err());
        assert!(error.starts_with("`traces.endpoint`") && !error.contains("`secret`"), "{error}");
    }
}
