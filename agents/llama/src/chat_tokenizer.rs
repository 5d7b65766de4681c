//! Text to tokens and back, with the chat template of the GGUF.

use std::sync::Arc;

use artel_engine::backend::Error;
use artel_engine::{ChatRole, Message, Token, TokenizedPrompt, Tokenizer};
use minijinja::{Environment, ErrorKind, context};

use crate::raw::model::LlamaModel;

/// minijinja's instruction budget for one rendering; a template that exceeds it does not terminate.
const MAX_TEMPLATE_FUEL: u64 = 1_000_000;

pub(crate) struct ChatTokenizer {
    model: Arc<LlamaModel>,
    environment: Result<Environment<'static>, Error>,
}

impl ChatTokenizer {
    /// `template` replaces that of the GGUF. With an invalid or missing template the model loads, but chats are refused.
    pub(crate) fn new(model: Arc<LlamaModel>, template: Option<String>) -> Self {
        let missing = "the GGUF has no chat template: set `template` of the model in its YAML";
        let template = template.or_else(|| model.chat_template()).ok_or_else(|| Error::Tokenize(missing.to_owned()));
        let environment = template.and_then(environment);
        Self { model, environment }
    }

    fn token_text(&self, token: i32) -> String {
        let mut bytes = Vec::new();
        self.model.append_piece(token, true, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn render(&self, messages: &[Message], marks: &[String]) -> Result<String, Error> {
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        let template = environment.get_template("chat").expect("`environment` added it");
        let chat_messages: Vec<_> = messages
            .iter()
            .zip(marks)
            .map(|(message, mark)| context! { role => role_name(message.role), content => mark })
            .collect();
        let (bos_token, eos_token) = (self.token_text(self.model.bos()), self.token_text(self.model.eos()));
        let values = context! { messages => chat_messages, add_generation_prompt => true, bos_token, eos_token };
        template.render(values).map_err(|e| Error::Tokenize(format!("the model's chat template failed: {e:#}")))
    }
}

impl Tokenizer for ChatTokenizer {
    /// The template is rendered with marks instead of the messages; the messages are tokenized as plain text, so that no
    /// message can forge a control token such as the end of a turn.
    fn apply_chat_template(&self, messages: &[Message]) -> Result<TokenizedPrompt, Error> {
        let marks: Vec<String> = (0..messages.len()).map(|at| format!("\u{E000}{at}\u{E001}")).collect();
        let rendered = self.render(messages, &marks)?;
        let (mut tokens, mut prefix_len, mut rest) = (Vec::new(), 0, rendered.as_str());
        let tokenize = |text: &str, parse_special: bool| {
            let tokens = self.model.tokenize(text, false, parse_special);
            tokens.ok_or_else(|| Error::Tokenize("the prompt cannot be tokenized".to_owned()))
        };
        if self.model.adds_bos() && !rendered.starts_with(&self.token_text(self.model.bos())) {
            tokens.push(self.model.bos());
        }
        while let Some((before, at, after)) = next_mark(rest, messages.len()) {
            tokens.extend(tokenize(before, true)?);
            prefix_len = tokens.len();
            tokens.extend(tokenize(messages[at].text.trim(), false)?);
            rest = after;
        }
        tokens.extend(tokenize(rest, true)?);
        Ok(TokenizedPrompt { tokens: tokens.into_iter().map(Token).collect(), prefix_len })
    }

    fn append_bytes(&self, token: Token, out: &mut Vec<u8>) {
        self.model.append_piece(token.0, false, out);
    }

    fn tokenize_output(&self, text: &str) -> Result<Vec<Token>, Error> {
        let tokens = self.model.tokenize(text, false, false);
        let tokens = tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))?;
        Ok(tokens.into_iter().map(Token).collect())
    }

    fn end_of_turn(&self) -> Token {
        Token(self.model.end_of_turn())
    }
}

/// Splits at the next mark: the text before it, the index of its message, the text after it.
fn next_mark(text: &str, count: usize) -> Option<(&str, usize, &str)> {
    let (before, rest) = text.split_once('\u{E000}')?;
    let (number, after) = rest.split_once('\u{E001}')?;
    Some((before, number.parse().ok().filter(|at| *at < count)?, after))
}

fn role_name(role: ChatRole) -> &'static str {
    match role {
        ChatRole::System => "system",
        ChatRole::User => "user",
        ChatRole::Assistant => "assistant",
    }
}

fn environment(template: String) -> Result<Environment<'static>, Error> {
    let invalid = |e: minijinja::Error| Error::Tokenize(format!("the model's chat template does not parse: {e}"));
    let mut environment = Environment::new();
    environment.set_fuel(Some(MAX_TEMPLATE_FUEL));
    // Chat templates assume both options, because transformers sets them.
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(invalid)?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template_owned("chat", template).map_err(invalid)?;
    Ok(environment)
}
