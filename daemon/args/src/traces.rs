//! The flags of traces.

use clap::Args as Flags;

/// Where spans of tasks are sent, and of which tasks.
#[derive(Debug, Clone, Default, Flags)]
pub struct TraceArgs {
    /// The collector of OpenTelemetry to which spans of tasks are sent, over OTLP/gRPC: http://HOST:PORT or https://HOST:PORT
    /// [default: `traces.endpoint` of the settings file, or no traces]
    #[arg(long, env = "ARTEL_TRACES_ENDPOINT", value_name = "URL")]
    pub traces_endpoint: Option<String>,
    /// The fraction of tasks that are traced without a word of their caller, from 0 to 1 [default: `traces.sample` of the settings
    /// file, or 1]
    #[arg(long, env = "ARTEL_TRACES_SAMPLE", value_name = "FRACTION", value_parser = fraction)]
    pub traces_sample: Option<f64>,
}

/// A text that is no fraction.
#[derive(Debug, thiserror::Error)]
#[error("a fraction is a number from 0 to 1")]
struct InvalidFraction;

fn fraction(text: &str) -> Result<f64, InvalidFraction> {
    text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction)).ok_or(InvalidFraction)
}
