//! Sampling of the next token from logits.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// Tokens before the next one that the repeat penalty counts.
pub(crate) const PENALTY_TOKENS: u16 = 64;

/// A llama.cpp sampler chain.
pub(crate) struct SamplerChain {
    chain: NonNull<sys::llama_sampler>,
    candidates: Vec<sys::llama_token_data>,
    /// Only the most likely token is needed, without a candidate list.
    is_greedy: bool,
}

impl SamplerChain {
    pub(crate) fn new(sampling: &artel_engine::SamplingParams, vocabulary: i32, default_seed: u32) -> Option<Self> {
        // SAFETY: the chain takes ownership of each sampler and frees it.
        let chain = unsafe {
            let chain = NonNull::new(sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params()))?;
            let add = |sampler| sys::llama_sampler_chain_add(chain.as_ptr(), sampler);
            if sampling.repeat_penalty != 1.0 {
                let last = i32::from(PENALTY_TOKENS);
                add(sys::llama_sampler_init_penalties(vocabulary, last, sampling.repeat_penalty, 0.0, 0.0));
            }
            if sampling.temperature <= 0.0 {
                add(sys::llama_sampler_init_greedy());
            } else {
                add(sys::llama_sampler_init_top_k(i32::try_from(sampling.top_k).unwrap_or(0)));
                add(sys::llama_sampler_init_top_p(sampling.top_p, 1));
                add(sys::llama_sampler_init_min_p(sampling.min_p, 1));
                add(sys::llama_sampler_init_temp(sampling.temperature));
                add(sys::llama_sampler_init_dist(sampling.seed.unwrap_or(default_seed)));
            }
            chain
        };
        let is_greedy = sampling.temperature <= 0.0 && sampling.repeat_penalty == 1.0;
        Some(Self { chain, candidates: Vec::new(), is_greedy })
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

impl Drop for SamplerChain {
    fn drop(&mut self) {
        // SAFETY: `new` created the chain; its samplers are freed with it.
        unsafe { sys::llama_sampler_free(self.chain.as_ptr()) }
    }
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
