//! Text to tokens and back, with the GGUF's own chat template.

use std::sync::Arc;

use artel_engine::{Message, TokenizedPrompt, ChatRole, Tokenizer, Token};
use minijinja::{Environment, ErrorKind, context};

use crate::raw::Model;

/// Template output beyond this is a runaway template.
const FUEL: u64 = 1_000_000;

pub(crate) struct Vocabulary {
    model: Arc<Model>,
    environment: Result<Environment<'static>, String>,
}

impl Vocabulary {
    /// `template` replaces the GGUF's own. A template that does not parse, or none, refuses chats but not the model.
    pub(crate) fn new(model: Arc<Model>, template: Option<String>) -> Self {
        let missing = "the GGUF has no chat template: give the model a `template` in its YAML";
        let template = template.or_else(|| model.template()).ok_or_else(|| missing.to_owned());
        let environment = template.and_then(environment);
        Self { model, environment }
    }

    fn marker(&self, token: i32) -> String {
        let mut bytes = Vec::new();
        self.model.piece(token, true, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn render(&self, messages: &[Message], marks: &[String]) -> Result<String, String> {
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        let template = environment.get_template("chat").expect("added when the environment was made");
        let turns: Vec<_> = messages
            .iter()
            .zip(marks)
            .map(|(message, mark)| context! { role => speaker(message.role), content => mark })
            .collect();
        let (bos_token, eos_token) = (self.marker(self.model.bos()), self.marker(self.model.eos()));
        let values = context! { messages => turns, add_generation_prompt => true, bos_token, eos_token };
        template.render(values).map_err(|e| format!("the model's chat template failed: {e:#}"))
    }
}

impl Tokenizer for Vocabulary {
    /// The template is rendered over marks that stand for the messages; the messages themselves are tokenized as plain
    /// text, so that no message can forge a control token such as the end of a turn.
    fn apply_chat_template(&self, messages: &[Message]) -> Result<TokenizedPrompt, String> {
        let marks: Vec<String> = (0..messages.len()).map(|at| format!("\u{E000}{at}\u{E001}")).collect();
        let rendered = self.render(messages, &marks)?;
        let (mut tokens, mut opening, mut rest) = (Vec::new(), 0, rendered.as_str());
        let tokenize = |text: &str, markers: bool| {
            self.model.tokenize(text, false, markers).ok_or_else(|| "the prompt cannot be tokenized".to_owned())
        };
        if self.model.adds_bos() && !rendered.starts_with(&self.marker(self.model.bos())) {
            tokens.push(self.model.bos());
        }
        while let Some((before, at, after)) = next_mark(rest, messages.len()) {
            tokens.extend(tokenize(before, true)?);
            opening = tokens.len();
            tokens.extend(tokenize(messages[at].text.trim(), false)?);
            rest = after;
        }
        tokens.extend(tokenize(rest, true)?);
        Ok(TokenizedPrompt { tokens: tokens.into_iter().map(Token).collect(), prefix_len: opening })
    }

    fn append_bytes(&self, token: Token, out: &mut Vec<u8>) {
        self.model.piece(token.0, false, out);
    }

    fn tokenize_output(&self, text: &str) -> Result<Vec<Token>, String> {
        let tokens = self.model.tokenize(text, false, false).ok_or("the text cannot be tokenized")?;
        Ok(tokens.into_iter().map(Token).collect())
    }

    fn end_of_turn(&self) -> Token {
        Token(self.model.end_of_turn())
    }
}

/// Splits at the next mark: what is before it, which message it stands for, what is after.
fn next_mark(text: &str, count: usize) -> Option<(&str, usize, &str)> {
    let (before, rest) = text.split_once('\u{E000}')?;
    let (number, after) = rest.split_once('\u{E001}')?;
    Some((before, number.parse().ok().filter(|at| *at < count)?, after))
}

fn speaker(speaker: ChatRole) -> &'static str {
    match speaker {
        ChatRole::System => "system",
        ChatRole::User => "user",
        ChatRole::Assistant => "assistant",
    }
}

fn environment(template: String) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // What chat templates are written for: transformers sets both.
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| e.to_string())?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment
        .add_template_owned("chat", template)
        .map_err(|e| format!("the model's chat template does not parse: {e}"))?;
    Ok(environment)
}
