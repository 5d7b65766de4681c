//! How likely a model finds given answers: the sum of the negative log-likelihoods of their tokens, teacher forced.
//!
//! Each sample is a prompt and an answer as tokens, and each token of the answer is judged after the true tokens before it: nothing
//! is sampled, and no template is used. Samples go through the context one after another; a batch holds as many as fit, each in a
//! sequence of its own, so that short ones are computed together.

mod entries;
mod sample;

use std::path::{Path, PathBuf};

use artel_engine::Backend as _;
use artel_engine::backend::{self as engine_backend, DecodeError, Slot};
use artel_model::{ModelPurpose, SplitMode};
use serde_json::Map;

use crate::backend::LlamaBackend;
use crate::context_params::ContextParams;
use crate::kv_cache::KvCacheTypes;
use crate::logprobs::log_sum_of_exponentials;
use entries::{Entry, batches};
pub use sample::TokenSample;

/// Samples that a batch may hold parts of. A recurrent model has a state for each; batches of short samples are full with fewer.
const MAX_BATCH_SAMPLES: u32 = 16;

/// How a model is loaded to measure its loss. The fields have the meaning of those of [`crate::Options`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Compute threads.
    pub threads: u32,
    /// Tokens of the longest sample, the prompt and its answer.
    pub context: u32,
    /// The devices to use, by name; `None`: llama.cpp uses all GPUs, or the CPU if there are none.
    pub devices: Option<Vec<String>>,
    /// The types of the KV cache. F32 comes closest to what a trainer computes.
    pub kv_cache: KvCacheTypes,
}

/// The loss over the answers of all samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerLoss {
    /// The sum of the negative log-likelihoods of all answer tokens, in nats.
    pub nats: f64,
    /// Answer tokens.
    pub tokens: u64,
    /// Samples.
    pub samples: u64,
}

impl AnswerLoss {
    /// The mean negative log-likelihood of an answer token, in nats.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// Why a loss is not known. A sample is named by its index, from 0.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] crate::Error),
    /// An adapter cannot be loaded.
    #[error(transparent)]
    Adapter(engine_backend::Error),
    /// There is nothing to measure.
    #[error("there are no samples, and so no loss; give at least one")]
    NoSamples,
    /// A sample without a prompt or without an answer.
    #[error("the sample has no tokens of its {part}: leave it out")]
    Empty {
        /// The sample.
        index: usize,
        /// `prompt` or `answer`.
        part: &'static str,
    },
    /// A sample does not fit into the context.
    #[error(
        "the sample has {prompt} tokens of its prompt and {answer} of its answer, and the context holds {context}: raise the \
         context, or leave the sample out"
    )]
    TooLong {
        /// The sample.
        index: usize,
        /// Tokens of its prompt.
        prompt: usize,
        /// Tokens of its answer.
        answer: usize,
        /// Tokens that fit.
        context: u32,
    },
    /// A sample of another model's tokens.
    #[error(
        "the sample has the token {token}, and the vocabulary of {path} has {vocabulary} tokens: write the samples with the \
         tokenizer of this model"
    )]
    UnknownToken {
        /// The sample.
        index: usize,
        /// The token.
        token: i32,
        /// The model.
        path: PathBuf,
        /// The size of its vocabulary.
        vocabulary: i32,
    },
    /// The model computes infinities, or no numbers at all.
    #[error(
        "the likelihood of an answer token is {value}: the weights or an adapter are damaged, or exceed the range of their type"
    )]
    NotFinite {
        /// The sample.
        index: usize,
        /// What was computed.
        value: f64,
    },
    /// llama.cpp could not compute a batch.
    #[error("failed to compute the sample: {source}")]
    Compute {
        /// The first sample of the batch.
        index: usize,
        /// What llama.cpp says.
        source: DecodeError,
    },
}

impl Error {
    /// The index of the sample at fault, if it is one.
    pub fn sample(&self) -> Option<usize> {
        match self {
            Self::Empty { index, .. }
            | Self::TooLong { index, .. }
            | Self::UnknownToken { index, .. }
            | Self::NotFinite { index, .. }
            | Self::Compute { index, .. } => Some(*index),
            Self::Load(_) | Self::Adapter(_) | Self::NoSamples => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Load(error) => error.is_transient(),
            Self::Adapter(error) => matches!(error, engine_backend::Error::Exhausted(_)),
            _ => false,
        }
    }
}

/// Loads a model with adapters, each with its scale, and measures the loss of all answers. Blocks until done.
///
/// # Errors
/// If the model or an adapter cannot be loaded, or a sample cannot be measured. Every sample is checked before the first one is
/// computed.
pub fn answer_loss(
    model: &Path,
    adapters: &[(PathBuf, f32)],
    samples: &[TokenSample],
    options: &Options,
) -> Result<AnswerLoss, Error> {
    check_lengths(samples, options.context)?;
    let no_progress = |_| {};
    let mut backend = LlamaBackend::load_with_params(
        load_options(model, options),
        &no_progress,
        ContextParams::for_consecutive_sequences,
    )?;
    check_vocabulary(samples, model, backend.vocabulary_size())?;
    let set = backend.load_adapters(adapters).map_err(Error::Adapter)?;
    let limits = backend.limits();
    let mut loss = AnswerLoss { nats: 0.0, tokens: 0, samples: 0 };
    for batch in batches(samples, limits.batch_tokens as usize, limits.sequences) {
        let tokens: Vec<_> = batch.iter().map(Entry::batch_token).collect();
        backend.decode(set, &tokens).map_err(|source| Error::Compute { index: batch[0].sample, source })?;
        add_batch(&mut loss, &mut backend, &batch)?;
    }
    Ok(loss)
}

/// Adds the losses of a batch that was computed, and frees the sequences of the samples that end in it.
fn add_batch(loss: &mut AnswerLoss, backend: &mut LlamaBackend, batch: &[Entry]) -> Result<(), Error> {
    let compute = |index, reason: &str| Error::Compute { index, source: DecodeError::Batch(reason.to_owned()) };
    for (at, entry) in batch.iter().enumerate() {
        let index = entry.sample;
        if let Some(target) = entry.target {
            let logits = backend.entry_logits(at).map_err(|error| compute(index, &error.to_string()))?;
            let logit = usize::try_from(target).ok().and_then(|at| logits.get(at)).copied();
            let logit = logit.ok_or_else(|| compute(index, "an answer token has no logit"))?;
            let nats = log_sum_of_exponentials(logits) - f64::from(logit);
            if !nats.is_finite() {
                return Err(Error::NotFinite { index, value: -nats });
            }
            loss.nats += nats;
            loss.tokens += 1;
        }
        if entry.is_last {
            loss.samples += 1;
            if !backend.truncate_kv(Slot(entry.sequence), 0) {
                return Err(compute(index, "llama.cpp cannot free its sequence"));
            }
        }
    }
    Ok(())
}

fn load_options(model: &Path, options: &Options) -> crate::Options {
    let Options { threads, context, devices, kv_cache } = options.clone();
    crate::Options {
        path: model.to_owned(),
        dequantized: None,
        sha256: None,
        context: Some(context),
        sequences: MAX_BATCH_SAMPLES,
        threads,
        devices,
        split_mode: SplitMode::Layer,
        tensor_split: Vec::new(),
        gpu_layers: None,
        cpu_expert_layers: 0,
        purpose: ModelPurpose::Chat,
        template: None,
        template_kwargs: Map::new(),
        kv_cache,
    }
}

/// What can be said of samples before a model is loaded.
fn check_lengths(samples: &[TokenSample], context: u32) -> Result<(), Error> {
    if samples.is_empty() {
        return Err(Error::NoSamples);
    }
    for (index, TokenSample { prompt, answer }) in samples.iter().enumerate() {
        for (part, tokens) in [("prompt", prompt), ("answer", answer)] {
            if tokens.is_empty() {
                return Err(Error::Empty { index, part });
            }
        }
        let (prompt, answer) = (prompt.len(), answer.len());
        if prompt.saturating_add(answer) > context as usize {
            return Err(Error::TooLong { index, prompt, answer, context });
        }
    }
    Ok(())
}

fn check_vocabulary(samples: &[TokenSample], path: &Path, vocabulary: i32) -> Result<(), Error> {
    for (index, TokenSample { prompt, answer }) in samples.iter().enumerate() {
        if let Some(token) = prompt.iter().chain(answer).find(|token| !(0..vocabulary).contains(*token)) {
            return Err(Error::UnknownToken { index, token: *token, path: path.to_owned(), vocabulary });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt: usize, answer: usize) -> TokenSample {
        TokenSample { prompt: vec![1; prompt], answer: vec![2; answer] }
    }

    #[test]
    fn a_sample_that_cannot_be_measured_is_named_with_its_figures() {
        assert!(matches!(check_lengths(&[], 8), Err(Error::NoSamples)));
        assert!(check_lengths(&[sample(5, 3)], 8).is_ok());
        let error = check_lengths(&[sample(5, 3), sample(5, 4)], 8).unwrap_err();
        assert_eq!(error.sample(), Some(1));
        assert!(error.to_string().contains("5 tokens of its prompt and 4 of its answer, and the context holds 8"));
        let error = check_lengths(&[sample(5, 0)], 8).unwrap_err();
        assert_eq!(error.to_string(), "the sample has no tokens of its answer: leave it out");
        let error = check_vocabulary(&[sample(1, 1)], Path::new("m.gguf"), 2).unwrap_err();
        assert_eq!(error.sample(), Some(0));
        assert!(error.to_string().contains("the token 2, and the vocabulary of m.gguf has 2 tokens"), "{error}");
    }
}
