//! Text to tokens and back, with the chat template of the GGUF.

use std::path::Path;
use std::sync::Arc;

use artel_engine::backend::Error;
use artel_engine::{Message, Token, TokenizedPrompt, Tokenizer};

use crate::chat_template::{ChatPart, ChatTemplate};
use crate::raw::model::LlamaModel;

pub(crate) struct ChatTokenizer {
    model: Arc<LlamaModel>,
    template: Result<ChatTemplate, Error>,
}

impl ChatTokenizer {
    /// `template` replaces that of the GGUF at `path`. With an invalid or missing template the model loads, but chats are refused.
    pub(crate) fn new(model: Arc<LlamaModel>, template: Option<String>, path: &Path) -> Self {
        let missing = "the GGUF has no chat template: set `template` of the model in its YAML";
        let template = template.or_else(|| model.chat_template()).ok_or_else(|| Error::Tokenize(missing.to_owned()));
        let template = template.and_then(|source| ChatTemplate::parse(&source, path));
        Self { model, template }
    }

    fn token_text(&self, token: i32) -> String {
        let mut bytes = Vec::new();
        self.model.append_piece(token, true, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Tokenizer for ChatTokenizer {
    /// The messages are tokenized as plain text, so that no message can forge a control token such as the end of a turn.
    fn apply_chat_template(&self, messages: &[Message]) -> Result<TokenizedPrompt, Error> {
        let template = self.template.as_ref().map_err(Clone::clone)?;
        let (bos, eos) = (self.token_text(self.model.bos()), self.token_text(self.model.eos()));
        let rendered = template.render(messages, &bos, &eos)?;
        let (mut tokens, mut prefix_len) = (Vec::new(), 0);
        let tokenize = |text: &str, parse_special: bool| {
            let tokens = self.model.tokenize(text, false, parse_special);
            tokens.ok_or_else(|| Error::Tokenize("the prompt cannot be tokenized".to_owned()))
        };
        if self.model.adds_bos() && !rendered.starts_with(&bos) {
            tokens.push(self.model.bos());
        }
        for part in rendered.parts() {
            match part {
                ChatPart::Text(text) => tokens.extend(tokenize(text, true)?),
                ChatPart::Message(at) => {
                    prefix_len = tokens.len();
                    tokens.extend(tokenize(messages[at].text.trim(), false)?);
                }
            }
        }
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
