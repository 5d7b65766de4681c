//! Embeds texts: each becomes one unit vector.

use std::path::Path;

use artel_engine::Embeddings;
use artel_engine::backend::Error;
use artel_gguf::GgufHeader;

use crate::context_params::{ContextParams, MAX_BATCH_TEXTS};
use crate::error;
use crate::raw::context::LlamaContext;
use crate::raw::model::LlamaModel;

/// The pooling types of llama.cpp that give a vector for a text: mean, first token, last token.
const VECTOR_POOLING: [&str; 3] = ["1", "2", "3"];

/// Refuses a model that gives no vector for a text: a reranker gives scores, and llama.cpp aborts at an unknown type of pooling.
/// A model that names no type fails when it first embeds a text.
pub(crate) fn check_pooling(path: &Path, header: &GgufHeader) -> Result<(), error::Error> {
    let pooling = header.metadata.get(&format!("{}.pooling_type", header.architecture));
    match pooling.map(String::as_str) {
        Some(found) if !VECTOR_POOLING.contains(&found) => Err(error::Error::Pooling { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Embeds texts in batches as large as the context takes them.
pub(crate) fn embed(
    model: &LlamaModel,
    context: &mut LlamaContext,
    params: &ContextParams,
    texts: &[String],
) -> Result<Embeddings, Error> {
    let mut embedded = Embeddings::default();
    let max_tokens = params.context_tokens as usize;
    let texts = texts.iter().map(|text| tokens_to_embed(model, max_tokens, text)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = texts.as_slice();
    while !rest.is_empty() {
        let (mut count, mut tokens) = (0, 0);
        while count < rest.len().min(MAX_BATCH_TEXTS as usize)
            && tokens + rest[count].len() <= params.batch_tokens as usize
        {
            tokens += rest[count].len();
            count += 1;
        }
        // Each text alone fits into a batch.
        let (batch, remaining) = rest.split_at(count.max(1));
        embedded.vectors.extend(embed_batch(model, context, batch)?);
        embedded.tokens += tokens as u32;
        rest = remaining;
    }
    Ok(embedded)
}

/// The tokens of a text to embed, truncated to the batch.
fn tokens_to_embed(model: &LlamaModel, max_tokens: usize, text: &str) -> Result<Vec<i32>, Error> {
    let tokens = model.tokenize(text, true, false);
    let mut tokens = tokens.ok_or_else(|| Error::Tokenize("the text cannot be tokenized".to_owned()))?;
    if tokens.len() > max_tokens {
        // The last token is the separator that BERT was trained with.
        let last = tokens[tokens.len() - 1];
        tokens.truncate(max_tokens - 1);
        tokens.push(last);
    }
    Ok(tokens)
}

/// Embeds texts that fit into one batch; returns unit vectors.
fn embed_batch(model: &LlamaModel, context: &mut LlamaContext, texts: &[Vec<i32>]) -> Result<Vec<Vec<f32>>, Error> {
    let width = model.embedding_size();
    let sequences = || (0u32..).zip(texts).filter(|(_, tokens)| !tokens.is_empty());
    for (sequence, _) in sequences() {
        // A sequence as a whole can always be freed.
        context.truncate(sequence, 0);
    }
    let mut entries = Vec::new();
    for (sequence, tokens) in sequences() {
        entries.extend((0u32..).zip(tokens).map(|(at, token)| (*token, at, sequence, true)));
    }
    if !entries.is_empty() {
        let failed = |code| Error::Compute(format!("llama_decode failed with code {code}"));
        context.decode(entries.into_iter()).map_err(failed)?;
    }
    let mut vectors = vec![vec![0.0; width]; texts.len()];
    for (sequence, _) in sequences() {
        let vector = context.embedding(sequence);
        let mut vector = vector.ok_or_else(|| Error::Compute("the model has no pooled embedding".to_owned()))?;
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vectors[sequence as usize] = vector;
    }
    Ok(vectors)
}
