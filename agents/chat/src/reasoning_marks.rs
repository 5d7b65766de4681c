//! The marks of a chat template around the reasoning of an answer.

use serde_json::{Map, Value, json};

use crate::known_marks;

/// Texts that no template changes, and that no template has.
const REASONING: &str = "Rq7reasoning";
const ANSWER: &str = "Aq7answer";
/// The names under which templates read the reasoning of an earlier answer.
const FIELDS: [&str; 4] = ["reasoning_content", "thinking", "reasoning", "thought"];
/// Marks are words, not paragraphs.
const MAX_MARK_BYTES: usize = 160;

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

    fn answered(answer: Value, kwargs: &Value) -> Self {
        Self::of(vec![json!({"role": "user", "content": "Q"}), answer], kwargs, false)
    }
}

impl ReasoningMarks {
    /// The marks of a template with this source. `render` renders a conversation with it.
    pub fn find(source: &str, render: &dyn Fn(&TemplateProbe) -> Option<String>) -> Option<Self> {
        // A template that speaks of none of these writes none either, and is not rendered for nothing.
        const WORDS: [&str; 6] = ["think", "THINK", "reason", "thought", "analysis", "inner_prefix"];
        if !WORDS.iter().any(|word| source.contains(word)) {
            return None;
        }
        Self::probed(render).or_else(|| known_marks::of_source(source))
    }

    /// The marks that the template writes around the reasoning of an earlier answer.
    fn probed(render: &dyn Fn(&TemplateProbe) -> Option<String>) -> Option<Self> {
        let (off, on) = (json!({}), json!({"enable_thinking": true, "thinking": true}));
        let mut fields = json!({"role": "assistant", "content": ANSWER});
        FIELDS.iter().for_each(|field| fields[*field] = REASONING.into());
        let parts = json!([{"type": "thinking", "thinking": REASONING}, {"type": "text", "text": ANSWER}]);
        let parts = json!({"role": "assistant", "content": parts});
        for (answer, kwargs) in [(&fields, &off), (&fields, &on), (&parts, &off)] {
            let Some(text) = render(&TemplateProbe::answered(answer.clone(), kwargs)) else { continue };
            let Some((before, rest)) = text.split_once(REASONING) else { continue };
            let Some((between, behind)) = rest.split_once(ANSWER) else { continue };
            if rest.matches(REASONING).count() > 0 || between.len() > MAX_MARK_BYTES {
                continue;
            }
            let start = render(&TemplateProbe::question(&off, None)).unwrap_or_default();
            let plain = json!({"role": "assistant", "content": ANSWER});
            let plain = render(&TemplateProbe::answered(plain, kwargs)).unwrap_or_default();
            let found = tagged(before, between, behind).or_else(|| turns(before, between, &start, &plain));
            if found.is_some() {
                return found;
            }
        }
        None
    }

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

/// Marks of which the one that ends a reasoning tells the one that begins it, such as `</think>`.
fn tagged(before: &str, between: &str, behind: &str) -> Option<ReasoningMarks> {
    let close = between.trim_start();
    let pairs = [("</", ">", "<"), ("[/", "]", "["), ("<|END_", "|>", "<|START_")];
    let pair = pairs.iter().find(|(prefix, ..)| close.starts_with(prefix));
    let (close, open) = match pair {
        Some((prefix, last, opening)) => {
            let end = close.find(last)? + last.len();
            (&close[..end], format!("{opening}{}", &close[prefix.len()..end]))
        }
        // Kimi K3 closes an element by a tag of three tokens.
        None => {
            let name = close.strip_prefix("<|close|>")?;
            let end = name.find("<|sep|>")? + "<|sep|>".len();
            (&close[.."<|close|>".len() + end], format!("<|open|>{}", &name[..end]))
        }
    };
    if !before.trim_end().ends_with(&open) {
        return None;
    }
    let start = between.split_once(close)?.1.trim();
    let answer_close = counterpart(start).filter(|close| behind.trim_start().starts_with(close.as_str()));
    Some(ReasoningMarks {
        open,
        close: close.to_owned(),
        answer_open: Some(start.to_owned()).filter(|start| !start.is_empty()).into_iter().collect(),
        answer_close: answer_close.into_iter().collect(),
        end: between.to_owned(),
        repeats_turn: false,
    })
}

/// The text that ends what this one begins.
fn counterpart(open: &str) -> Option<String> {
    if let Some(name) = open.strip_prefix("<|START_") {
        return Some(format!("<|END_{name}"));
    }
    open.strip_prefix("<|open|>").map(|name| format!("<|close|>{name}"))
}

/// Marks of templates that write reasoning and answer as two turns with different headers, such as the channels of gpt-oss.
/// `start` is a prompt up to the answer, and `plain` one with an answer without reasoning.
fn turns(before: &str, between: &str, start: &str, plain: &str) -> Option<ReasoningMarks> {
    let open = before.strip_prefix(start)?.to_owned();
    let answer_open = plain.strip_prefix(start)?.split_once(ANSWER)?.0.to_owned();
    let close = between.strip_suffix(answer_open.as_str())?.to_owned();
    let is_header = |text: &str| !text.trim().is_empty() && text.len() <= MAX_MARK_BYTES;
    if !is_header(&open) || !is_header(&answer_open) || !is_header(&close) {
        return None;
    }
    let mut answers = vec![answer_open.clone()];
    // What gpt-oss says between calls of tools is meant for the user, too.
    if open.contains("analysis") {
        answers.push(open.replace("analysis", "commentary"));
    }
    Some(ReasoningMarks {
        open,
        answer_open: answers,
        answer_close: vec![close.clone()],
        end: between.to_owned(),
        close,
        repeats_turn: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_tells_where_its_output_begins() {
        let marks = known_marks::of_source("... </think> ...").unwrap();
        assert_eq!(marks.phase_after("<|im_start|>assistant\n<think>\n"), ReasoningPhase::Inside);
        assert_eq!(marks.phase_after("<|im_start|>assistant\n<think>\n\n</think>\n\n"), ReasoningPhase::After);
        assert_eq!(marks.phase_after("<|im_start|>assistant\n"), ReasoningPhase::Before);
        assert_eq!(marks.answer_start(), "\n\n");
    }

    #[test]
    fn a_template_without_such_words_is_not_rendered() {
        let render = |_: &TemplateProbe| -> Option<String> { panic!("it is rendered") };
        assert_eq!(ReasoningMarks::find("{{ messages[0].content }}", &render), None);
    }
}
