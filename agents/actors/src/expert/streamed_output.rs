//! What an attempt has streamed so far.

use artel_engine::TokenLogprob;
use artel_metrics::LocalHistogram;
use artel_stream::{StepProgress, StreamItem};
use artel_task::event::MAX_LOGPROBS_BYTES;
use tokio::time::Instant;

use super::step_job::{PROGRESS_INTERVAL, StepJob};

/// The text that an attempt has streamed so far, and its publication to the task's subscribers.
pub(super) struct StreamedOutput<'a> {
    job: &'a StepJob,
    /// Whether subscribers read it; of several answers, they read the first one.
    is_published: bool,
    /// Whether a schema shapes it; the white space around it is then a part of it.
    has_schema: bool,
    /// What the subscribers have.
    pub(super) text: String,
    /// How likely its tokens were, as far as they fit into an output.
    pub(super) logprobs: Vec<TokenLogprob>,
    logprobs_bytes: usize,
    /// Those that no subscriber has yet, because their text is held back.
    unsent_logprobs: Vec<TokenLogprob>,
    /// White space behind it, which is a part of the output if more text follows. With a schema, it always is.
    held_space: String,
    first_token: Option<Instant>,
    /// When the last piece came.
    last_text: Option<Instant>,
    /// The times between pieces; counted here alone until the end, so that the pieces cost next to nothing.
    gaps: LocalHistogram,
    /// When progress was last published, or the stream began.
    last_progress: Instant,
}

impl<'a> StreamedOutput<'a> {
    pub(super) fn new(job: &'a StepJob, is_published: bool, has_schema: bool) -> Self {
        let (gaps, last_progress) = (job.metrics.token_gaps(), Instant::now());
        Self {
            job,
            is_published,
            has_schema,
            text: String::new(),
            logprobs: Vec::new(),
            logprobs_bytes: 0,
            unsent_logprobs: Vec::new(),
            held_space: String::new(),
            first_token: None,
            last_text: None,
            gaps,
            last_progress,
        }
    }

    pub(super) fn append(&mut self, text: String, tokens: u32, logprobs: &[TokenLogprob]) {
        let now = Instant::now();
        let first_token = *self.first_token.get_or_insert(now);
        if let Some(last) = self.last_text.replace(now) {
            self.gaps.observe_time(now.duration_since(last));
        }
        let text = if self.has_schema { text } else { self.without_outer_space(text) };
        let offset = self.text.len() as u64;
        self.text.push_str(&text);
        let has_readers = self.is_published && self.job.channel.has_token_subscribers();
        if !logprobs.is_empty() {
            self.keep_logprobs(logprobs, has_readers);
        }
        if !text.is_empty() && has_readers {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            let logprobs = std::mem::take(&mut self.unsent_logprobs);
            let logprobs = (!logprobs.is_empty()).then(|| logprobs.into());
            self.job.channel.send(StreamItem::Token { step, role, text: text.into(), offset, logprobs });
        }
        self.publish_progress(|| StepProgress::Decode { tokens, elapsed: first_token.elapsed() });
    }

    /// Keeps those that fit into the output; one more tells that there were more.
    fn keep_logprobs(&mut self, logprobs: &[TokenLogprob], has_readers: bool) {
        for token in logprobs {
            if self.logprobs_bytes <= MAX_LOGPROBS_BYTES {
                self.logprobs_bytes += token.max_encoded_len();
                self.logprobs.push(token.clone());
            }
        }
        if has_readers {
            self.unsent_logprobs.extend_from_slice(logprobs);
        }
    }

    /// The text with the space that was held back, but without space at the beginning or the end of the output.
    fn without_outer_space(&mut self, text: String) -> String {
        // As most pieces are.
        if self.held_space.is_empty() && !self.text.is_empty() && !text.ends_with(char::is_whitespace) {
            return text;
        }
        let mut text = std::mem::take(&mut self.held_space) + &text;
        if self.text.is_empty() {
            text = text.trim_start().to_owned();
        }
        self.held_space = text.split_off(text.trim_end().len());
        text
    }

    /// Publishes the progress unless the last item is younger than [`PROGRESS_INTERVAL`].
    pub(super) fn publish_progress(&mut self, progress: impl FnOnce() -> StepProgress) {
        if self.is_published && self.last_progress.elapsed() >= PROGRESS_INTERVAL {
            self.last_progress = Instant::now();
            self.job.publish_progress(progress());
        }
    }
}
