//! Text to tokens and back, with the chat template of the GGUF.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use artel_chat::{CallFormat, ToolPrompt, append_control, append_text};
use artel_engine::backend::Error;
use artel_engine::{ChatRole, Message, Token, TokenizedPrompt, Tokenizer, ToolSet};
use artel_template::{Chat, ChatTemplate};
use serde_json::{Map, Value, json};

use crate::chat_template;
use crate::control_tokens::{ControlTokens, TextPart};
use crate::prefix_lengths::{PrefixKey, PrefixLengths, common_text};
use crate::raw::model::LlamaModel;
use crate::reasoning::ModelReasoning;

/// Two texts that no template changes; where they begin in a prompt, the text of the last message does.
const PROBES: [&str; 2] = ["\u{E000}", "\u{E001}"];
/// How the text of a message may begin: tokens join letters to a space before them, and marks to marks; digits are on their own.
const CONTINUATIONS: [&str; 3] = ["a", "<", "1"];

pub(crate) struct ChatTokenizer {
    model: Arc<LlamaModel>,
    control: ControlTokens,
    template: Result<ChatTemplate, Error>,
    template_kwargs: Map<String, Value>,
    /// How the model reasons, if its template has marks for that.
    reasoning: Option<ModelReasoning>,
    bos: String,
    eos: String,
    end_of_turn: i32,
    prefixes: PrefixLengths,
    /// How the model is told of tools, found out for the first request with some.
    tool_prompt: OnceLock<ToolPrompt>,
    path: PathBuf,
}

impl ChatTokenizer {
    /// `template` replaces that of the GGUF at `path`. With an invalid or missing template the model loads, but chats are refused.
    pub(crate) fn new(
        model: Arc<LlamaModel>,
        template: Option<String>,
        template_kwargs: Map<String, Value>,
        path: &Path,
    ) -> Self {
        let missing = "the GGUF has no chat template: set `template` of the model in its YAML";
        let control = ControlTokens::of(&model);
        let template = template.or_else(|| model.chat_template()).ok_or_else(|| Error::Tokenize(missing.to_owned()));
        let load = |source: String| ChatTemplate::load(&source, control.shield());
        let (bos, eos) = (model.token_text(model.bos()), model.token_text(model.eos()));
        let source = template.clone().unwrap_or_default();
        let template = template.and_then(|source| load(source).map_err(|e| chat_template::fault(path, &e.into())));
        let reasoning = template.as_ref().ok().and_then(|template| {
            ModelReasoning::find(&source, template, &template_kwargs, (&bos, &eos), (&model, &control))
        });
        let end_of_turn = template
            .as_ref()
            .ok()
            .and_then(|template| end_of_turn(template, &template_kwargs, (&bos, &eos), (&model, &control)));
        Self {
            end_of_turn: end_of_turn.unwrap_or_else(|| model.end_of_turn()),
            model,
            control,
            template,
            template_kwargs,
            reasoning,
            bos,
            eos,
            prefixes: PrefixLengths::default(),
            tool_prompt: OnceLock::new(),
            path: path.to_owned(),
        }
    }

    /// The text of a prompt, with people's texts shielded.
    fn render(
        &self,
        messages: &[Message],
        kwargs: &Map<String, Value>,
        tools: Option<&ToolSet>,
        reasons: bool,
    ) -> Result<String, Error> {
        let template = self.template.as_ref().map_err(Clone::clone)?;
        let has_tools = tools.is_some_and(|tools| !tools.is_empty());
        let mut messages: Vec<Value> = messages.iter().map(|message| self.template_message(message)).collect();
        let mut all = self.template_kwargs.clone();
        all.extend(kwargs.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(reasoning) = self.reasoning.as_ref().filter(|_| !reasons) {
            reasoning.switch_off(&mut all);
            reasoning.switch_off_in(&mut messages);
        }
        let has_calls = has_tools || messages.iter().any(|message: &Value| message["role"] == "tool");
        let none = ToolSet::default();
        let (messages, tools) = match has_calls {
            true => self.tool_prompt().prepare(messages, tools.unwrap_or(&none)),
            false => (messages, None),
        };
        let chat = Chat {
            messages,
            tools,
            kwargs: all,
            adds_generation_prompt: true,
            bos_token: &self.bos,
            eos_token: &self.eos,
            ..Chat::default()
        };
        template.render(chat).map_err(|e| chat_template::fault(&self.path, &e))
    }

    /// A message as templates take it.
    fn template_message(&self, message: &Message) -> Value {
        let mut value = json!({"role": role_name(message.role), "content": message.text});
        match &message.answers {
            _ if !message.calls.is_empty() => return self.tool_prompt().calls_message(&message.text, &message.calls),
            Some(call) => {
                value["tool_call_id"] = call.id.as_str().into();
                value["name"] = call.name.as_str().into();
            }
            None => {}
        }
        value
    }

    fn tool_prompt(&self) -> &ToolPrompt {
        self.tool_prompt.get_or_init(|| {
            let Ok(template) = &self.template else { return ToolPrompt::generic() };
            ToolPrompt::detect(&|messages, tools| {
                let (bos_token, eos_token) = (self.bos.as_str(), self.eos.as_str());
                let kwargs = self.template_kwargs.clone();
                let chat = Chat { messages, tools, kwargs, bos_token, eos_token, ..Chat::default() };
                template.render(chat).ok().map(|text| template.shield().reveal(&text).into_owned())
            })
        })
    }

    /// How many bytes of a prompt's text come before that of its last message, whatever that is.
    fn prefix_bytes(
        &self,
        messages: &[Message],
        kwargs: &Map<String, Value>,
        (tools, reasons): (Option<&ToolSet>, bool),
        text: &str,
    ) -> usize {
        let key = PrefixKey::of(messages, kwargs, tools, reasons);
        if let Some(bytes) = self.prefixes.get(key, text) {
            return bytes;
        }
        let probe = |probe: &str| {
            let mut messages = messages.to_vec();
            messages.last_mut()?.text = probe.to_owned();
            self.render(&messages, kwargs, tools, reasons).ok()
        };
        let [Some(first), Some(second)] = PROBES.map(probe) else { return 0 };
        let bytes = common_text(&first, &second);
        if common_text(&first[..bytes], text) < bytes {
            return common_text(&first[..bytes], text);
        }
        self.prefixes.insert(key, &first[..bytes]);
        bytes
    }

    /// The tokens of a rendered text: those of the whole text with its control tokens known, except in people's texts.
    pub(crate) fn tokenize_rendered(&self, text: &str, prefix_bytes: usize) -> Result<TokenizedPrompt, Error> {
        let template = self.template.as_ref().map_err(Clone::clone)?;
        let (mut tokens, mut prefix_len) = (Vec::new(), None);
        if self.model.adds_bos() && !text.starts_with(&self.bos) {
            tokens.push(self.model.bos());
        }
        for part in self.control.split(text) {
            match part {
                TextPart::Control(token) => tokens.push(token),
                TextPart::Plain(start, plain) => {
                    let of_part = self.tokenize(&template.shield().reveal(plain))?;
                    if prefix_len.is_none() && start + plain.len() >= prefix_bytes {
                        let before = plain.get(..prefix_bytes.saturating_sub(start)).unwrap_or_default();
                        let stable = self.stable_tokens(&template.shield().reveal(before), &of_part)?;
                        prefix_len = Some(tokens.len() + stable);
                    }
                    tokens.extend(of_part);
                }
            }
        }
        let prefix_len = prefix_len.unwrap_or(tokens.len());
        Ok(TokenizedPrompt { tokens: tokens.into_iter().map(Token).collect(), prefix_len, reasoning: None })
    }

    /// How many of these tokens, which begin with those of a text, stay the same however that text goes on.
    fn stable_tokens(&self, text: &str, tokens: &[i32]) -> Result<usize, Error> {
        let mut least = if text.is_empty() { 0 } else { tokens.len() };
        for continuation in CONTINUATIONS.iter().filter(|_| !text.is_empty()) {
            let other = self.tokenize(&format!("{text}{continuation}"))?;
            least = least.min(tokens.iter().zip(&other).take_while(|(a, b)| a == b).count());
        }
        Ok(least)
    }

    /// The tokens of a text in which no control token is known.
    fn tokenize(&self, text: &str) -> Result<Vec<i32>, Error> {
        let tokens = self.model.tokenize(text, false, false);
        tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))
    }
}

impl Tokenizer for ChatTokenizer {
    fn apply_chat_template(
        &self,
        messages: &[Message],
        template_kwargs: &Map<String, Value>,
        tools: Option<&ToolSet>,
        reasons: bool,
    ) -> Result<TokenizedPrompt, Error> {
        let text = self.render(messages, template_kwargs, tools, reasons)?;
        let prefix_bytes = self.prefix_bytes(messages, template_kwargs, (tools, reasons), &text);
        let prompt = self.tokenize_rendered(&text, prefix_bytes)?;
        let format = |reasoning: &ModelReasoning| reasoning.format(&text, &self.model, &self.control);
        Ok(TokenizedPrompt { reasoning: self.reasoning.as_ref().map(format), ..prompt })
    }

    fn append_bytes(&self, token: Token, out: &mut Vec<u8>) {
        self.model.append_piece(token.0, false, out);
    }

    fn append_marked(&self, token: Token, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.model.append_piece(token.0, false, &mut bytes);
        if !bytes.is_empty() {
            return append_text(&bytes, out);
        }
        self.model.append_piece(token.0, true, &mut bytes);
        append_control(&bytes, out);
    }

    fn call_format(&self) -> CallFormat {
        self.tool_prompt().format().clone()
    }

    fn tokenize_output(&self, text: &str) -> Result<Vec<Token>, Error> {
        Ok(self.tokenize(text)?.into_iter().map(Token).collect())
    }

    fn control_text(&self, text: &str) -> Option<String> {
        let control = |part| match part {
            TextPart::Control(token) => Some(self.model.token_text(token)),
            TextPart::Plain(..) => None,
        };
        self.control.split(text).into_iter().find_map(control)
    }

    fn end_of_turn(&self) -> Token {
        Token(self.end_of_turn)
    }
}

/// The token that a template writes behind an answer, if it ends a generation. What a file names as the end of a turn may be another one.
fn end_of_turn(
    template: &ChatTemplate,
    kwargs: &Map<String, Value>,
    (bos_token, eos_token): (&str, &str),
    (model, control): (&LlamaModel, &ControlTokens),
) -> Option<i32> {
    let [question, answer] = PROBES;
    let messages = vec![json!({"role": "user", "content": question}), json!({"role": "assistant", "content": answer})];
    let text =
        template.render(Chat { messages, kwargs: kwargs.clone(), bos_token, eos_token, ..Chat::default() }).ok()?;
    let (_, behind) = text.rsplit_once(answer)?;
    let of_part = |part| match part {
        TextPart::Control(token) => Some(token),
        TextPart::Plain(..) => None,
    };
    let first = control.split(behind).into_iter().find_map(of_part);
    first.filter(|token| model.is_end_of_generation(*token))
}

fn role_name(role: ChatRole) -> &'static str {
    match role {
        ChatRole::System => "system",
        ChatRole::User => "user",
        ChatRole::Assistant => "assistant",
        ChatRole::Tool => "tool",
    }
}

#[cfg(test)]
mod tests;
