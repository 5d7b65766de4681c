//! The marks of a chat template around the reasoning of an answer.

use serde_json::{Map, Value, json};

/// A conversation to render, so as to see the marks.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateProbe {
    /// Objects with `role`, `content` and what else a message has.
    pub messages: Vec<Value>,
    /// Variables of the template.
    pub kwargs: Map<String, Value>,
    /// Whether the beginning of an answer follows.
    pub adds_generation_prompt: bool,
}

/// The texts around reasoning and answer. None of them is a part of either.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReasoningMarks {
    /// What a reasoning begins with, such as `<think>`.
    pub open: String,
    /// What it ends with, such as `</think>`.
    pub close: String,
    /// What an answer may begin with, such as `<|channel|>final<|message|>`.
    pub answer_open: Vec<String>,
    /// What an answer may end with.
    pub answer_close: Vec<String>,
    /// What stands between a reasoning and its answer, spaces included, such as `\n</think>\n\n`.
    pub end: String,
    /// Whether `close` begins another turn of the model, as the generation prompt does.
    pub repeats_turn: bool,
}

/// Where in an output a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningPhase {
    /// Neither reasoning nor answer has begun.
    Before,
    /// In the reasoning.
    Inside,
    /// Behind the reasoning; the answer has not begun.
    After,
    /// In the answer.
    Answer,
}

impl TemplateProbe {
    fn of(messages: Vec<Value>, kwargs: &Value, adds_generation_prompt: bool) -> Self {
        let kwargs = kwargs.as_object().cloned().unwrap_or_default();
        Self { messages, kwargs, adds_generation_prompt }
    }

    /// A question, and the beginning of its answer.
    pub(crate) fn question(kwargs: &Value, system: Option<&str>) -> Self {
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let messages = system.into_iter().chain([json!({"role": "user", "content": "Q"})]).collect();
        Self::of(messages, kwargs, true)
    }

    /// An answer to it.
    pub(crate) fn answered(answer: Value, kwargs: &Value) -> Self {
        Self::of(vec![json!({"role": "user", "content": "Q"}), answer], kwargs, false)
    }
}

impl ReasoningMarks {
    /// Where an output begins whose prompt ends like this.
    pub fn phase_after(&self, prompt: &str) -> ReasoningPhase {
        let prompt = prompt.trim_end();
        if prompt.ends_with(self.open.trim_end()) {
            ReasoningPhase::Inside
        } else if self.answer_open.iter().any(|open| prompt.ends_with(open.trim_end())) {
            ReasoningPhase::Answer
        } else if !self.repeats_turn && prompt.ends_with(self.close.trim_end()) {
            ReasoningPhase::After
        } else {
            ReasoningPhase::Before
        }
    }

    /// What stands between the mark that ends a reasoning and the answer.
    pub fn answer_start(&self) -> &str {
        self.end.split_once(self.close.as_str()).map_or("", |(_, start)| start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_tells_where_its_output_begins() {
        let text = |text: &str| text.to_owned();
        let (open, close, end) = (text("<think>"), text("</think>"), text("\n</think>\n\n"));
        let marks = ReasoningMarks { open, close, end, ..ReasoningMarks::default() };
        assert_eq!(marks.phase_after("<|im_start|>assistant\n<think>\n"), ReasoningPhase::Inside);
        assert_eq!(marks.phase_after("<|im_start|>assistant\n<think>\n\n</think>\n\n"), ReasoningPhase::After);
        assert_eq!(marks.phase_after("<|im_start|>assistant\n"), ReasoningPhase::Before);
        assert_eq!(marks.answer_start(), "\n\n");
    }
}
