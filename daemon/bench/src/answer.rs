//! An answer of a server, with the times at which it arrived.

use std::time::{Duration, Instant};

/// An answer and the times at which its chunks arrived.
#[derive(Debug, Clone)]
pub(crate) struct TimedAnswer {
    pub(crate) sent_at: Instant,
    pub(crate) finished_at: Instant,
    pub(crate) chunk_times: Vec<Instant>,
    /// Tokens of the prompt, and those of them that no cache held, if the server reports them.
    pub(crate) prompt_tokens: u64,
    pub(crate) prefill_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) text: String,
    /// For each hop of a chain: from the last chunk of one role to the first chunk of the next.
    pub(crate) hop_latencies: Vec<Duration>,
}

impl TimedAnswer {
    /// An answer of which no chunk has arrived.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self {
            sent_at: now,
            finished_at: now,
            chunk_times: Vec::new(),
            prompt_tokens: 0,
            prefill_tokens: 0,
            output_tokens: 0,
            text: String::new(),
            hop_latencies: Vec::new(),
        }
    }

    /// Time to the first chunk; to the end if the model generated nothing.
    pub(crate) fn time_to_first_token(&self) -> Duration {
        *self.chunk_times.first().unwrap_or(&self.finished_at) - self.sent_at
    }
}
