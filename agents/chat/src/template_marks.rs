//! Finds the marks of a chat template, by rendering conversations with it.

use serde_json::json;

use crate::known_marks;
use crate::reasoning_marks::{ReasoningMarks, TemplateProbe};

/// Texts that no template changes, and that no template has.
const REASONING: &str = "Rq7reasoning";
const ANSWER: &str = "Aq7answer";
/// The names under which templates read the reasoning of an earlier answer.
const FIELDS: [&str; 4] = ["reasoning_content", "thinking", "reasoning", "thought"];
/// Marks are words, not paragraphs.
const MAX_MARK_BYTES: usize = 160;

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
    let mut answers = vec![answer_open];
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
    fn a_template_without_such_words_is_not_rendered() {
        let render = |_: &TemplateProbe| -> Option<String> { panic!("it is rendered") };
        assert_eq!(ReasoningMarks::find("{{ messages[0].content }}", &render), None);
    }
}
