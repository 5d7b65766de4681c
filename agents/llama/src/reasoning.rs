//! The reasoning of a model: the marks that its chat template has for it, in the model's tokens.

use std::sync::Arc;

use artel_chat::{MarkPatterns, ReasoningMarks, ReasoningPhase, ReasoningSwitch, append_control, append_text};
use artel_engine::{ReasoningFormat, Token};
use artel_template::{Chat, ChatTemplate};
use serde_json::{Map, Value, json};

use crate::control_tokens::{ControlTokens, TextPart};
use crate::raw::model::LlamaModel;

/// How a model reasons.
pub(crate) struct ModelReasoning {
    marks: ReasoningMarks,
    switch: ReasoningSwitch,
    patterns: Arc<MarkPatterns>,
    end: Vec<Token>,
}

impl ModelReasoning {
    /// That of a model with this template; none if that has no marks for it.
    pub(crate) fn find(
        source: &str,
        template: &ChatTemplate,
        own_kwargs: &Map<String, Value>,
        (bos, eos): (&str, &str),
        (model, control): (&LlamaModel, &ControlTokens),
    ) -> Option<Self> {
        let render = |probe: &artel_chat::TemplateProbe| {
            let mut kwargs = own_kwargs.clone();
            kwargs.extend(probe.kwargs.clone());
            let chat = Chat {
                messages: probe.messages.clone(),
                kwargs,
                adds_generation_prompt: probe.adds_generation_prompt,
                bos_token: bos,
                eos_token: eos,
                ..Chat::default()
            };
            template.render(chat).ok().map(|text| template.shield().reveal(&text).into_owned())
        };
        let marks = ReasoningMarks::find(source, &render)?;
        let switch = ReasoningSwitch::find(source, &marks, &render);
        let encode = |text: &str, out: &mut Vec<u8>| {
            for part in control.split(text) {
                match part {
                    TextPart::Plain(_, plain) => append_text(plain.as_bytes(), out),
                    TextPart::Control(token) => append_control(model.token_text(token).as_bytes(), out),
                }
            }
        };
        let patterns = Arc::new(MarkPatterns::new(&marks, encode));
        let end = tokens(&marks.end, model, control)?;
        Some(Self { marks, switch, patterns, end })
    }

    /// The format of an output whose prompt ends with this text.
    pub(crate) fn format(&self, prompt: &str, model: &LlamaModel, control: &ControlTokens) -> ReasoningFormat {
        let phase = self.marks.phase_after(prompt);
        let start = self.marks.answer_start();
        // A part of it may stand in the prompt.
        let written = match phase {
            ReasoningPhase::After => prompt.rsplit_once(self.marks.close.as_str()).map_or("", |(_, behind)| behind),
            _ => "",
        };
        let start = start.strip_prefix(written).unwrap_or_default();
        let answer_start = tokens(start, model, control).unwrap_or_default();
        let patterns = self.patterns.clone();
        if self.marks.answer_open.is_empty() {
            let (calls_end, calls_start) = (self.end.clone(), answer_start.clone());
            return ReasoningFormat { patterns, phase, end: self.end.clone(), answer_start, calls_end, calls_start };
        }
        // Calls stand beside the answer, not within its marks.
        let calls_end = tokens(&self.marks.close, model, control).unwrap_or_default();
        ReasoningFormat { patterns, phase, end: self.end.clone(), answer_start, calls_end, calls_start: Vec::new() }
    }

    /// The variables that tell the template that the model shall not reason.
    pub(crate) fn switch_off(&self, kwargs: &mut Map<String, Value>) {
        kwargs.extend(self.switch.kwargs.clone());
    }

    /// As [`Self::switch_off`], in the messages of a conversation.
    pub(crate) fn switch_off_in(&self, messages: &mut Vec<Value>) {
        let Some(word) = self.switch.system_word else { return };
        match messages.first_mut().filter(|first| first["role"] == "system") {
            Some(system) => {
                let text = system["content"].as_str().unwrap_or_default();
                system["content"] = format!("{text} {word}").trim_start().into();
            }
            None => messages.insert(0, json!({"role": "system", "content": word})),
        }
    }
}

/// The tokens of a text in which the control tokens are known.
fn tokens(text: &str, model: &LlamaModel, control: &ControlTokens) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    for part in control.split(text) {
        match part {
            TextPart::Control(token) => tokens.push(Token(token)),
            TextPart::Plain(_, plain) => tokens.extend(model.tokenize(plain, false, false)?.into_iter().map(Token)),
        }
    }
    Some(tokens)
}
