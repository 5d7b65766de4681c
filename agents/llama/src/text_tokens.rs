//! The tokens of texts that are computed as a whole, and of a query with a document.

use std::sync::Arc;

use artel_engine::backend::Error;
use artel_engine::{PooledTokens, TextTokenizer, Token};
use artel_model::ModelPurpose;

use crate::raw::model::LlamaModel;

/// What stands for the query and the document in a template for reranking. Source: llama.cpp's server.
const QUERY_MARK: &str = "{query}";
const DOCUMENT_MARK: &str = "{document}";

pub(crate) struct TextTokens {
    model: Arc<LlamaModel>,
    purpose: ModelPurpose,
    pair: PairForm,
}

/// How a query and a document become one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PairForm {
    /// With the tokens that the vocabulary has for the begin, the end and the separation of texts.
    Separated,
    /// By the template that the file has for it. The texts of clients become no control tokens; the template's own do.
    Template(Vec<TemplatePart>),
}

/// A part of a template for reranking.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Query,
    Document,
}

impl TextTokens {
    pub(crate) fn new(model: Arc<LlamaModel>, purpose: ModelPurpose) -> Self {
        let template = model.chat_template_of("rerank").filter(|_| purpose == ModelPurpose::Rerank);
        let pair = template.map_or(PairForm::Separated, |template| PairForm::Template(template_parts(&template)));
        Self { model, purpose, pair }
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

    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>, Error> {
        let tokens = self.model.tokenize(text, add_special, parse_special);
        let tokens = tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))?;
        Ok(tokens.into_iter().map(Token).collect())
    }

    /// Source: `format_prompt_rerank` in llama.cpp's server.
    fn separated(&self, query: &str, document: &str) -> Result<PooledTokens, Error> {
        let marks = self.model.pair_marks();
        let mut tokens: Vec<Token> = marks.begin.map(Token).into_iter().collect();
        tokens.extend(self.tokenize(query, false, false)?);
        tokens.extend([marks.end, marks.separator].into_iter().flatten().map(Token));
        let start = tokens.len();
        tokens.extend(self.tokenize(document, false, false)?);
        let cuttable = start..tokens.len();
        tokens.extend(marks.end.map(Token));
        Ok(PooledTokens { tokens, cuttable })
    }
}

impl TextTokenizer for TextTokens {
    fn tokenize_text(&self, text: &str) -> Result<PooledTokens, Error> {
        self.check(ModelPurpose::Embedding)?;
        let tokens = self.tokenize(text, true, false)?;
        // The last token is the separator that BERT was trained with.
        let last = tokens.len().saturating_sub(1);
        Ok(PooledTokens { cuttable: 1.min(last)..last, tokens })
    }

    fn tokenize_pair(&self, query: &str, document: &str) -> Result<PooledTokens, Error> {
        self.check(ModelPurpose::Rerank)?;
        let PairForm::Template(parts) = &self.pair else { return self.separated(query, document) };
        let mut pair = PooledTokens::default();
        for part in parts {
            let tokens = match part {
                TemplatePart::Text(text) => self.tokenize(text, false, true)?,
                TemplatePart::Query => self.tokenize(query, false, false)?,
                TemplatePart::Document => self.tokenize(document, false, false)?,
            };
            if *part == TemplatePart::Document {
                pair.cuttable = pair.tokens.len()..pair.tokens.len() + tokens.len();
            }
            pair.tokens.extend(tokens);
        }
        Ok(pair)
    }
}

/// The parts of a template: its text, and where the query and the document stand.
fn template_parts(template: &str) -> Vec<TemplatePart> {
    let (mut parts, mut rest) = (Vec::new(), template);
    loop {
        let marks = [(QUERY_MARK, TemplatePart::Query), (DOCUMENT_MARK, TemplatePart::Document)];
        let found = marks.into_iter().filter_map(|(mark, part)| Some((rest.find(mark)?, mark, part)));
        let Some((at, mark, part)) = found.min_by_key(|(at, ..)| *at) else { break };
        if at > 0 {
            parts.push(TemplatePart::Text(rest[..at].to_owned()));
        }
        parts.push(part);
        rest = &rest[at + mark.len()..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_its_text_and_the_places_of_both() {
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        let parts = template_parts("<s>Q: {query}\nD: {document}</s>");
        assert_eq!(
            parts,
            [text("<s>Q: "), TemplatePart::Query, text("\nD: "), TemplatePart::Document, text("</s>")]
        );
        assert_eq!(template_parts("{document}{query}"), [TemplatePart::Document, TemplatePart::Query]);
        assert_eq!(template_parts("{other}"), [text("{other}")]);
    }
}
