//! What an attempt streams: its reasoning and its answer, published to the task's subscribers as they come.

use artel_metrics::LocalHistogram;
use artel_stream::{StepProgress, StreamItem};
use artel_task::event::MAX_REASONING_BYTES;
use tokio::time::Instant;

use super::step_job::{PROGRESS_INTERVAL, StepJob};

/// The texts of an answer that has ended.
pub(super) struct AnswerTexts {
    pub(super) text: String,
    /// What the model reasoned, if that is shown and it did.
    pub(super) reasoning: Option<String>,
}

/// A text that grows, without space at its beginning and end.
#[derive(Default)]
pub(super) struct TrimmedText {
    /// What the subscribers have.
    pub(super) text: String,
    /// White space behind it, which is a part of it if more text follows.
    held_space: String,
}

impl TrimmedText {
    /// The part of more text that is certain, with the space that was held back.
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
}

/// The texts that an attempt has streamed so far, and their publication.
pub(super) struct StreamedOutput<'a> {
    job: &'a StepJob,
    pub(super) answer: TrimmedText,
    reasoning: TrimmedText,
    first_token: Option<Instant>,
    /// When the last piece came.
    last_text: Option<Instant>,
    /// The times between pieces; counted here alone until the end, so that the pieces cost next to nothing.
    gaps: LocalHistogram,
    /// When progress was last published, or the stream began.
    last_progress: Instant,
}

impl<'a> StreamedOutput<'a> {
    pub(super) fn new(job: &'a StepJob) -> Self {
        let (gaps, last_progress) = (job.metrics.token_gaps(), Instant::now());
        Self {
            job,
            answer: TrimmedText::default(),
            reasoning: TrimmedText::default(),
            first_token: None,
            last_text: None,
            gaps,
            last_progress,
        }
    }

    /// Adds more of the answer.
    pub(super) fn append(&mut self, text: String, tokens: u32) {
        self.record(tokens);
        // Space is a part of what a schema describes.
        let text = if self.job.role.output.is_none() { self.answer.without_outer_space(text) } else { text };
        let offset = self.answer.text.len() as u64;
        self.answer.text.push_str(&text);
        if !text.is_empty() && self.job.channel.has_token_subscribers() {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            self.job.channel.send(StreamItem::Token { step, role, text: text.into(), offset });
        }
    }

    /// Adds more of the reasoning. It is kept and published if it is shown, as far as it is not too long.
    pub(super) fn append_reasoning(&mut self, text: String, tokens: u32) {
        self.record(tokens);
        if !self.job.reasoning.show {
            return;
        }
        let mut text = self.reasoning.without_outer_space(text);
        let kept = &mut self.reasoning.text;
        text.truncate(text.floor_char_boundary(MAX_REASONING_BYTES.saturating_sub(kept.len())));
        let offset = kept.len() as u64;
        kept.push_str(&text);
        if !text.is_empty() && self.job.channel.has_token_subscribers() {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            self.job.channel.send(StreamItem::Reasoning { step, role, text: text.into(), offset });
        }
    }

    pub(super) fn into_texts(self) -> AnswerTexts {
        let reasoning = Some(self.reasoning.text).filter(|text| !text.is_empty());
        AnswerTexts { text: self.answer.text, reasoning }
    }

    /// Records that a piece came.
    fn record(&mut self, tokens: u32) {
        let now = Instant::now();
        let first_token = *self.first_token.get_or_insert(now);
        if let Some(last) = self.last_text.replace(now) {
            self.gaps.observe_time(now.duration_since(last));
        }
        self.publish_progress(|| StepProgress::Decode { tokens, elapsed: first_token.elapsed() });
    }

    /// Publishes the progress unless the last item is younger than [`PROGRESS_INTERVAL`].
    pub(super) fn publish_progress(&mut self, progress: impl FnOnce() -> StepProgress) {
        if self.last_progress.elapsed() >= PROGRESS_INTERVAL {
            self.last_progress = Instant::now();
            self.job.publish_progress(progress());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_around_a_text_is_no_part_of_it() {
        let mut trimmed = TrimmedText::default();
        for piece in ["\n\n", " It", " is ", "\n", "so.", "\n"] {
            let text = trimmed.without_outer_space(piece.to_owned());
            trimmed.text.push_str(&text);
        }
        assert_eq!(trimmed.text, "It is \nso.");
    }
}
