//! `traces`: where spans are sent, and of which tasks.

use std::path::{Path, PathBuf};

use artel_yaml::{Diagnostics, YamlNode};

use crate::decode::{MapReader, number, text};
use crate::keys;

/// The longest path.
const MAX_PATH_CHARS: usize = 4096;
/// The longest address: that of the domain name system, with a scheme and a port.
const MAX_ENDPOINT_CHARS: usize = 300;

/// `traces`: where spans are sent, and of which tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceSettings {
    /// `endpoint`: the collector, which the daemon parses.
    pub endpoint: Option<String>,
    /// `sample`: the fraction of the traces that begin at the daemon and are recorded, from 0 to 1.
    pub sample: Option<f64>,
    /// `headers_file`: the file with the headers for the collector. The headers themselves are never part of the settings.
    pub headers_file: Option<PathBuf>,
    /// `ca`: the certificates to trust instead of those of the system.
    pub ca: Option<PathBuf>,
}

impl TraceSettings {
    pub(super) fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<Self> {
        let mut f = MapReader::open(node, "`traces`", &keys::TRACES, report)?;
        let dir = report.source.dir.clone();
        let file = |node: &YamlNode, what: &str, report: &mut Diagnostics<'_>| {
            let path = text(node, what, 1..=MAX_PATH_CHARS, report)?;
            Some(dir.as_deref().unwrap_or(Path::new("")).join(path))
        };
        let endpoint = f.get("endpoint").and_then(|n| text(n, "`endpoint`", 1..=MAX_ENDPOINT_CHARS, report));
        let sample = f.get("sample").and_then(|n| number(n, "`sample`", 0.0..=1.0, report));
        let headers_file = f.get("headers_file").and_then(|n| file(n, "`headers_file`", report));
        let ca = f.get("ca").and_then(|n| file(n, "`ca`", report));
        f.finish(&[], report);
        Some(Self { endpoint, sample, headers_file, ca })
    }
}
