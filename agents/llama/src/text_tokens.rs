//! The tokens of texts that are computed as a whole, and of a query with a document.

use std::sync::Arc;

use artel_engine::backend::Error;
use artel_engine::{PooledTokens, TextTokenizer, Token};
use artel_model::ModelPurpose;

use crate::pair_template::PairTemplate;
use crate::raw::model::LlamaModel;

pub(crate) struct TextTokens {
    model: Arc<LlamaModel>,
    purpose: ModelPurpose,
    /// How the file wants a query and a document to be read; without it, between the tokens of the vocabulary for that.
    template: Option<PairTemplate>,
}

impl TextTokens {
    pub(crate) fn new(model: Arc<LlamaModel>, purpose: ModelPurpose) -> Self {
        let source = model.chat_template_of("rerank").filter(|_| purpose == ModelPurpose::Rerank);
        let template = source.map(|source| PairTemplate::new(&source, &model));
        Self { model, purpose, template }
    }

    fn check(&self, wanted: ModelPurpose) -> Result<(), Error> {
        if self.purpose == wanted {
            return Ok(());
        }
        let is = |purpose| match purpose {
            ModelPurpose::Chat => "a chat model",
            ModelPurpose::Embedding => "an embedding model",
            ModelPurpose::Rerank => "a model that reranks",
        };
        Err(Error::Unsupported(format!("this model is {}, not {}", is(self.purpose), is(wanted))))
    }

    /// The tokens of a text in which no control token is known; `add_special` puts those of the model around it.
    fn tokenize(&self, text: &str, add_special: bool) -> Result<Vec<Token>, Error> {
        let tokens = self.model.tokenize(text, add_special, false);
        let tokens = tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))?;
        Ok(tokens.into_iter().map(Token).collect())
    }

    /// Source: `format_prompt_rerank` in llama.cpp's server.
    fn separated(&self, query: &str, document: &str) -> Result<PooledTokens, Error> {
        let marks = self.model.pair_marks();
        let mut tokens: Vec<Token> = marks.begin.map(Token).into_iter().collect();
        tokens.extend(self.tokenize(query, false)?);
        tokens.extend([marks.end, marks.separator].into_iter().flatten().map(Token));
        let start = tokens.len();
        tokens.extend(self.tokenize(document, false)?);
        let cuttable = start..tokens.len();
        tokens.extend(marks.end.map(Token));
        Ok(PooledTokens { tokens, cuttable })
    }
}

impl TextTokenizer for TextTokens {
    fn tokenize_text(&self, text: &str) -> Result<PooledTokens, Error> {
        self.check(ModelPurpose::Embedding)?;
        let tokens = self.tokenize(text, true)?;
        // The last token is the separator that BERT was trained with.
        let last = tokens.len().saturating_sub(1);
        Ok(PooledTokens { cuttable: 1.min(last)..last, tokens })
    }

    fn tokenize_pair(&self, query: &str, document: &str) -> Result<PooledTokens, Error> {
        self.check(ModelPurpose::Rerank)?;
        match &self.template {
            Some(template) => template.tokenize(&self.model, query, document),
            None => self.separated(query, document),
        }
    }
}
