//! Texts that are computed as a whole: each becomes one unit vector, or a score.

use artel_engine::Token;
use artel_engine::backend::Error;
use artel_model::ModelPurpose;

use crate::context_params::ContextParams;
use crate::raw::context::LlamaContext;
use crate::raw::model::LlamaModel;

/// The architectures whose classifiers end in a softmax over `yes` and `no`, so that their score is a probability already.
/// Source: `llm_graph_context::build_pooling` in llama.cpp's llama-graph.cpp.
const SOFTMAX_ARCHITECTURES: [&str; 2] = ["qwen3", "qwen3vl"];

/// What is made of a pooled text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PooledResult {
    /// A unit vector.
    Vector,
    /// The score of a reranker and its sigmoid, which is a relevance from 0 to 1.
    Logit,
    /// The score of a reranker that is a relevance from 0 to 1 itself.
    Probability,
}

impl PooledResult {
    /// That of a model of this architecture; `None` for a chat model.
    pub(crate) fn of(purpose: ModelPurpose, architecture: &str) -> Option<Self> {
        match purpose {
            ModelPurpose::Chat => None,
            ModelPurpose::Embedding => Some(Self::Vector),
            ModelPurpose::Rerank if SOFTMAX_ARCHITECTURES.contains(&architecture) => Some(Self::Probability),
            ModelPurpose::Rerank => Some(Self::Logit),
        }
    }

    /// The outputs that a classifier may have: a score, or one each for `yes` and `no`.
    pub(crate) fn takes_outputs(self, outputs: u32) -> bool {
        match self {
            Self::Vector => true,
            Self::Logit => outputs == 1,
            Self::Probability => outputs == 2,
        }
    }

    /// From the numbers of llama.cpp; `None` if one of them is not finite, or there is none.
    fn finish(self, mut numbers: Vec<f32>) -> Option<Vec<f32>> {
        match self {
            Self::Vector => {
                let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
                if length > 0.0 {
                    numbers.iter_mut().for_each(|x| *x /= length);
                }
            }
            Self::Logit => {
                let score = *numbers.first()?;
                numbers = vec![score, 1.0 / (1.0 + (-score).exp())];
            }
            // Source: llama.cpp's server, which takes the first one.
            Self::Probability => numbers = vec![*numbers.first()?; 2],
        }
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }
}

/// Computes texts that fit into one batch.
pub(crate) fn pool(
    model: &LlamaModel,
    context: &mut LlamaContext,
    params: &ContextParams,
    result: PooledResult,
    texts: &[Vec<Token>],
) -> Result<Vec<Vec<f32>>, Error> {
    let sequences = || (0u32..).zip(texts).filter(|(_, tokens)| !tokens.is_empty());
    // Also those that the last batch used and this one does not: all of them share the cells. A sequence as a whole can always be
    // freed.
    for sequence in 0..params.sequences {
        context.truncate(sequence, 0);
    }
    let mut entries = Vec::new();
    for (sequence, tokens) in sequences() {
        entries.extend((0u32..).zip(tokens).map(|(at, token)| (token.0, at, sequence, true)));
    }
    if !entries.is_empty() {
        let failed = |code| Error::Compute(format!("llama_decode failed with code {code}"));
        context.decode(entries.into_iter()).map_err(failed)?;
    }
    let width =
        if result == PooledResult::Vector { model.embedding_size() } else { model.classifier_outputs() as usize };
    let mut vectors = vec![vec![0.0; width.max(2)]; texts.len()];
    for (sequence, _) in sequences() {
        let numbers = context.pooled(sequence, width);
        let numbers = numbers.ok_or_else(|| Error::Compute("the model has no pooled output".to_owned()))?;
        let finished = result.finish(numbers);
        vectors[sequence as usize] =
            finished.ok_or_else(|| Error::Compute("the model gave a number that is not finite".to_owned()))?;
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_a_logit_but_for_models_that_give_probabilities() {
        let result = |architecture| PooledResult::of(ModelPurpose::Rerank, architecture).unwrap();
        assert_eq!(result("bert").finish(vec![0.0]), Some(vec![0.0, 0.5]));
        assert_eq!(result("qwen3").finish(vec![0.75, 0.25]), Some(vec![0.75, 0.75]));
        assert_eq!(result("bert").finish(vec![f32::NAN]), None);
        assert_eq!(result("bert").finish(vec![-1000.0]), Some(vec![-1000.0, 0.0]), "the sigmoid does not overflow");
        assert!(
            result("bert").takes_outputs(1) && !result("bert").takes_outputs(3) && result("qwen3").takes_outputs(2)
        );
        let vector = PooledResult::of(ModelPurpose::Embedding, "bert").unwrap().finish(vec![3.0, 4.0]);
        assert_eq!(vector, Some(vec![0.6, 0.8]));
        assert_eq!(PooledResult::of(ModelPurpose::Chat, "llama"), None);
    }
}
