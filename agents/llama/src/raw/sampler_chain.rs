//! Sampling of the next token from logits.

use std::ptr::NonNull;

use artel_engine::request::{DryParams, SamplingParams};
use llama_cpp_sys_2 as sys;

use super::dry_samplers::DrySamplers;
use super::model::LlamaModel;
use super::owned_sampler::OwnedSampler;
use crate::seeded_choice::SeededChoice;
use crate::token_bias::TokenBias;

/// The samplers of one sequence.
pub(crate) struct SamplerChain {
    chain: OwnedSampler,
    candidates: Vec<sys::llama_token_data>,
    /// Only the most likely token is needed, without a candidate list.
    is_greedy: bool,
    /// Chooses among what the chain leaves, if there is a seed; the chain chooses otherwise.
    seeded: Option<SeededChoice>,
    bias: TokenBias,
    /// Tokens before the next one that the chain counts.
    window_tokens: usize,
}

impl SamplerChain {
    /// The order is llama.cpp's own: biases, penalties, DRY, what cuts the tail off, XTC, the temperature, the choice.
    pub(crate) fn new(
        sampling: &SamplingParams,
        (model, dry_samplers): (&LlamaModel, &mut DrySamplers),
        bias: TokenBias,
        context_tokens: u32,
        default_seed: u32,
    ) -> Option<Self> {
        let is_deterministic = sampling.temperature <= 0.0;
        let dry_window = |dry: &DryParams| dry.last_n.unwrap_or(context_tokens).min(context_tokens);
        let dry = match &sampling.dry {
            Some(dry) => Some(dry_samplers.get(model, dry, dry_window(dry))?),
            None => None,
        };
        let dry_tokens = sampling.dry.as_ref().map_or(0, dry_window);
        let penalty_tokens = if sampling.has_penalties() { sampling.penalty_last_n } else { 0 };
        let is_greedy = is_deterministic && penalty_tokens == 0 && dry.is_none() && bias.is_empty();
        // SAFETY: the chain takes ownership of each sampler and frees it.
        let chain = unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            let chain = OwnedSampler::new(NonNull::new(chain)?);
            let add = |sampler| sys::llama_sampler_chain_add(chain.as_ptr(), sampler);
            if penalty_tokens > 0 {
                add(sys::llama_sampler_init_penalties(
                    model.vocabulary_size(),
                    i32::try_from(penalty_tokens).unwrap_or(i32::MAX),
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                ));
            }
            if let Some(dry) = dry {
                add(dry.into_raw());
            }
            if is_deterministic {
                add(sys::llama_sampler_init_greedy());
            } else {
                add(sys::llama_sampler_init_top_k(i32::try_from(sampling.top_k).unwrap_or(0)));
                if sampling.typical_p < 1.0 {
                    add(sys::llama_sampler_init_typical(sampling.typical_p, 1));
                }
                add(sys::llama_sampler_init_top_p(sampling.top_p, 1));
                add(sys::llama_sampler_init_min_p(sampling.min_p, 1));
                if let Some(xtc) = sampling.xtc {
                    let seed = sampling.seed.unwrap_or(default_seed);
                    add(sys::llama_sampler_init_xtc(xtc.probability, xtc.threshold, 1, seed));
                }
                add(sys::llama_sampler_init_temp(sampling.temperature));
                if sampling.seed.is_none() {
                    add(sys::llama_sampler_init_dist(default_seed));
                }
            }
            chain
        };
        let seeded = sampling.seed.filter(|_| !is_deterministic).map(SeededChoice::new);
        let window_tokens = penalty_tokens.max(dry_tokens) as usize;
        Some(Self { chain, candidates: Vec::new(), is_greedy, seeded, bias, window_tokens })
    }

    /// Whether biases may forbid tokens.
    pub(crate) fn has_bias(&self) -> bool {
        !self.bias.is_empty()
    }

    /// Records the end of a prompt for the penalties.
    pub(crate) fn accept_prompt(&mut self, prompt: impl DoubleEndedIterator<Item = i32> + ExactSizeIterator) {
        let skipped = prompt.len().saturating_sub(self.window_tokens);
        prompt.skip(skipped).for_each(|token| self.accept(token));
    }

    /// Records a token for the penalties.
    pub(crate) fn accept(&mut self, token: i32) {
        // SAFETY: the chain is alive; tokens come from the vocabulary.
        unsafe { sys::llama_sampler_accept(self.chain.as_ptr(), token) }
    }

    /// Samples one of the allowed tokens; `None` if there is none.
    pub(crate) fn sample(&mut self, logits: &[f32], is_allowed: impl Fn(u32) -> bool) -> Option<i32> {
        if self.is_greedy {
            return argmax(logits, is_allowed).map(|id| id as i32);
        }
        self.candidates.clear();
        let all = (0u32..).zip(logits).filter(|(id, logit)| logit.is_finite() && is_allowed(*id));
        self.candidates.extend(all.map(|(id, logit)| sys::llama_token_data { id: id as i32, logit: *logit, p: 0.0 }));
        if !self.bias.is_empty() {
            let bias = &self.bias;
            self.candidates.retain(|candidate| !bias.forbids(candidate.id));
            self.candidates.iter_mut().for_each(|candidate| candidate.logit += bias.of(candidate.id));
        }
        if self.candidates.is_empty() {
            return None;
        }
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array describes `candidates`, which is borrowed exclusively during the call; samplers only shrink it.
        unsafe { sys::llama_sampler_apply(self.chain.as_ptr(), &raw mut array) };
        if let Some(seeded) = &mut self.seeded {
            // SAFETY: samplers leave the array within `candidates`, which nothing else uses now.
            let left = unsafe { std::slice::from_raw_parts(array.data, array.size) };
            return seeded.choose(left.iter().map(|candidate| (candidate.id, candidate.logit)));
        }
        let selected = usize::try_from(array.selected).ok().filter(|at| *at < array.size)?;
        // SAFETY: `selected` is below the array's size.
        Some(unsafe { (*array.data.add(selected)).id })
    }
}

/// The allowed token with the greatest finite logit; the first of equal ones, as in llama.cpp's greedy sampler.
fn argmax(logits: &[f32], is_allowed: impl Fn(u32) -> bool) -> Option<u32> {
    const ROW_LOGITS: usize = 256;
    let mut best: Option<(u32, f32)> = None;
    for (row, from) in logits.chunks(ROW_LOGITS).zip((0u32..).step_by(ROW_LOGITS)) {
        // Few rows contain a greater logit, and a vectorized maximum of a row is faster than a check of each logit.
        if best.is_some_and(|(_, best)| max_of(row) <= best) {
            continue;
        }
        for (id, logit) in (from..).zip(row) {
            if logit.is_finite() && best.is_none_or(|(_, best)| *logit > best) && is_allowed(id) {
                best = Some((id, *logit));
            }
        }
    }
    best.map(|(id, _)| id)
}

/// The maximum, ignoring NaN.
fn max_of(row: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = row.as_chunks::<16>();
    let mut maxima = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for (max, logit) in maxima.iter_mut().zip(block) {
            *max = greater(*max, *logit);
        }
    }
    maxima.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::argmax;

    proptest! {
        #[test]
        fn argmax_is_the_first_of_the_greatest_allowed_logits(
            logits in prop::collection::vec(
                prop_oneof![8 => (-9..9).prop_map(|n| n as f32), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)],
                0..900,
            ),
            modulus in 1..5u32,
        ) {
            let allowed = |id: u32| id.is_multiple_of(modulus);
            let all = (0u32..).zip(&logits).filter(|(id, logit)| logit.is_finite() && allowed(*id));
            let simple = all.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(id, _)| id);
            prop_assert_eq!(argmax(&logits, allowed), simple);
        }
    }
}
