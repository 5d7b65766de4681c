//! What an attempt streams: its reasoning and its answer, published to the task's subscribers as they come.

use artel_engine::TokenLogprob;
use artel_metrics::LocalHistogram;
use artel_retrieval::CitationFilter;
use artel_stream::{StepProgress, StreamItem};
use artel_task::event::{MAX_LOGPROBS_BYTES, MAX_REASONING_BYTES};
use tokio::time::Instant;

use super::step_job::{PROGRESS_INTERVAL, StepJob};

/// The most tokens whose text is held back, such as white space that may be the end.
const MAX_UNSENT_ITEMS: usize = 512;

/// The texts of an answer that has ended.
pub(super) struct AnswerTexts {
    pub(super) text: String,
    /// What the model reasoned, if that is shown and it did.
    pub(super) reasoning: Option<String>,
    /// How likely the tokens of the text were, as far as they fit into an output.
    pub(super) logprobs: Vec<TokenLogprob>,
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

/// What an answer is, which says what may be changed of it.
#[derive(Clone)]
pub(super) enum AnswerShape {
    /// A schema shapes it; the white space around it is a part of it.
    Schema,
    /// Text.
    Text,
    /// Text that cites: marks of passages that were not found never leave the daemon.
    CitingText(CitationFilter),
}

/// The texts that an attempt has streamed so far, and their publication.
pub(super) struct StreamedOutput<'a> {
    job: &'a StepJob,
    /// Whether subscribers read it; of several answers, they read the first one.
    is_published: bool,
    shape: AnswerShape,
    pub(super) answer: TrimmedText,
    reasoning: TrimmedText,
    /// How likely the answer's tokens were, as far as they fit into an output.
    logprobs: Vec<TokenLogprob>,
    logprobs_bytes: usize,
    /// Those that no subscriber has yet, because their text is held back.
    unsent_logprobs: Vec<TokenLogprob>,
    first_token: Option<Instant>,
    /// When the last piece came.
    last_text: Option<Instant>,
    /// The times between pieces; counted here alone until the end, so that the pieces cost next to nothing.
    gaps: LocalHistogram,
    /// When progress was last published, or the stream began.
    last_progress: Instant,
}

impl<'a> StreamedOutput<'a> {
    pub(super) fn new(job: &'a StepJob, is_published: bool, shape: AnswerShape) -> Self {
        let (gaps, last_progress) = (job.metrics.token_gaps(), Instant::now());
        Self {
            job,
            is_published,
            shape,
            answer: TrimmedText::default(),
            reasoning: TrimmedText::default(),
            logprobs: Vec::new(),
            logprobs_bytes: 0,
            unsent_logprobs: Vec::new(),
            first_token: None,
            last_text: None,
            gaps,
            last_progress,
        }
    }

    /// Adds more of the answer.
    pub(super) fn append(&mut self, text: String, tokens: u32, logprobs: &[TokenLogprob]) {
        self.record(tokens);
        let text = match &mut self.shape {
            AnswerShape::Schema => text,
            AnswerShape::Text => self.answer.without_outer_space(text),
            AnswerShape::CitingText(marks) => self.answer.without_outer_space(marks.push(&text).text),
        };
        self.publish(text, logprobs);
    }

    /// Adds what was held back in case it became a mark of a passage.
    pub(super) fn finish(&mut self) {
        if let AnswerShape::CitingText(marks) = &mut self.shape {
            let text = self.answer.without_outer_space(marks.finish().text);
            self.publish(text, &[]);
        }
    }

    fn publish(&mut self, text: String, logprobs: &[TokenLogprob]) {
        let offset = self.answer.text.len() as u64;
        self.answer.text.push_str(&text);
        if !logprobs.is_empty() {
            self.keep_logprobs(logprobs);
        }
        if !text.is_empty() && self.is_published {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            let logprobs = std::mem::take(&mut self.unsent_logprobs);
            let logprobs = (!logprobs.is_empty()).then(|| logprobs.into());
            self.job.channel.send(StreamItem::Token { step, role, text: text.into(), offset, logprobs });
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
        if !text.is_empty() && self.is_published {
            let (step, role) = (self.job.step.clone(), self.job.role.name.clone());
            self.job.channel.send(StreamItem::Reasoning { step, role, text: text.into(), offset });
        }
    }

    pub(super) fn into_texts(self) -> AnswerTexts {
        let reasoning = Some(self.reasoning.text).filter(|text| !text.is_empty());
        AnswerTexts { text: self.answer.text, reasoning, logprobs: self.logprobs }
    }

    /// Keeps those that fit into the output; one more tells that there were more.
    fn keep_logprobs(&mut self, logprobs: &[TokenLogprob]) {
        for token in logprobs {
            if self.logprobs_bytes <= MAX_LOGPROBS_BYTES {
                self.logprobs_bytes += token.max_encoded_len();
                self.logprobs.push(token.clone());
            }
        }
        // White space without an end is no answer whose tokens are told.
        if self.is_published && self.unsent_logprobs.len() < MAX_UNSENT_ITEMS {
            self.unsent_logprobs.extend_from_slice(logprobs);
        }
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
        if self.is_published && self.last_progress.elapsed() >= PROGRESS_INTERVAL {
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
