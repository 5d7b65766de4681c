//! The options of an indexer.

use std::time::Duration;

use artel_terms::Language;

/// The options of an indexer.
#[derive(Debug, Clone)]
pub struct IndexerOptions {
    /// The languages whose words are reduced to stems.
    pub languages: Vec<Language>,
    /// The files that are read and embedded at once.
    pub jobs: usize,
    /// The largest file.
    pub max_file_bytes: u64,
    /// A change is looked at when no other was reported for this long.
    pub quiet_period: Duration,
    /// The longest that reports which keep coming hold that up.
    pub max_quiet_period: Duration,
    /// A directory that appeared is looked at once more after this time: what is written to it before it is watched is not
    /// reported.
    pub settle_delay: Duration,
    /// How often everything is looked at although changes are reported, for file systems that do not report all of them.
    pub rescan_interval: Duration,
    /// How often everything is looked at if changes are not reported.
    pub poll_interval: Duration,
    /// The first delay after which a file that could not be embedded or stored is tried again; it doubles up to a minute.
    pub retry_delay: Duration,
    /// Whether changes are watched for; else the sources are compared once, and when [`Indexer::rescan`](crate::Indexer::rescan) asks for it.
    pub watches: bool,
}

impl Default for IndexerOptions {
    /// Sixteen files at once: small ones are a passage each, and an engine computes so many texts in one batch; files of up to
    /// 64 MiB; a saved file is looked at within a second.
    fn default() -> Self {
        Self {
            languages: Language::ALL.to_vec(),
            jobs: 16,
            max_file_bytes: 64 << 20,
            quiet_period: Duration::from_millis(200),
            max_quiet_period: Duration::from_secs(1),
            settle_delay: Duration::from_millis(700),
            rescan_interval: Duration::from_secs(600),
            poll_interval: Duration::from_secs(5),
            retry_delay: Duration::from_secs(1),
            watches: true,
        }
    }
}
