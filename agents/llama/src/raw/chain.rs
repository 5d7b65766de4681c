//! Which token comes next, given the logits of all.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// A chain of llama.cpp's samplers.
pub(crate) struct Chain {
    chain: NonNull<sys::llama_sampler>,
    candidates: Vec<sys::llama_token_data>,
    /// The likeliest token is all that is asked for, which needs no candidates.
    greedy: bool,
}

impl Chain {
    pub(crate) fn new(sampling: &artel_engine::SamplingParams, vocabulary: i32, random: u32) -> Option<Self> {
        // SAFETY: each sampler is handed to the chain, which frees it.
        let chain = unsafe {
            let chain = NonNull::new(sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params()))?;
            let add = |sampler| sys::llama_sampler_chain_add(chain.as_ptr(), sampler);
            if sampling.repeat_penalty != 1.0 {
                add(sys::llama_sampler_init_penalties(vocabulary, 64, sampling.repeat_penalty, 0.0, 0.0));
            }
            if sampling.temperature <= 0.0 {
                add(sys::llama_sampler_init_greedy());
            } else {
                add(sys::llama_sampler_init_top_k(i32::try_from(sampling.top_k).unwrap_or(0)));
                add(sys::llama_sampler_init_top_p(sampling.top_p, 1));
                add(sys::llama_sampler_init_min_p(sampling.min_p, 1));
                add(sys::llama_sampler_init_temp(sampling.temperature));
                add(sys::llama_sampler_init_dist(sampling.seed.unwrap_or(random)));
            }
            chain
        };
        let greedy = sampling.temperature <= 0.0 && sampling.repeat_penalty == 1.0;
        Some(Self { chain, candidates: Vec::new(), greedy })
    }

    /// Notes a token for the penalties.
    pub(crate) fn accept(&mut self, token: i32) {
        // SAFETY: the chain is alive; tokens come from the vocabulary.
        unsafe { sys::llama_sampler_accept(self.chain.as_ptr(), token) }
    }

    /// Picks a token among those that are allowed; `None` if none is.
    pub(crate) fn pick(&mut self, logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<i32> {
        if self.greedy {
            return likeliest(logits, allowed).map(|id| id as i32);
        }
        self.candidates.clear();
        let all = (0u32..).zip(logits).filter(|(id, logit)| logit.is_finite() && allowed(*id));
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
        // SAFETY: the array describes `candidates`, which nobody else touches during the call; samplers only shrink it.
        unsafe { sys::llama_sampler_apply(self.chain.as_ptr(), &raw mut array) };
        let selected = usize::try_from(array.selected).ok().filter(|at| *at < array.size)?;
        // SAFETY: `selected` is below the array's size.
        Some(unsafe { (*array.data.add(selected)).id })
    }
}

/// The allowed token with the greatest finite logit; of equal ones the first, as llama.cpp's own sampler does it.
fn likeliest(logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<u32> {
    const ROW: usize = 256;
    let mut best: Option<(u32, f32)> = None;
    for (row, from) in logits.chunks(ROW).zip((0u32..).step_by(ROW)) {
        // Few rows hold anything better, and one look at all of a row is faster than one at each of it.
        if best.is_some_and(|(_, best)| greatest(row) <= best) {
            continue;
        }
        for (id, logit) in (from..).zip(row) {
            if logit.is_finite() && best.is_none_or(|(_, best)| *logit > best) && allowed(id) {
                best = Some((id, *logit));
            }
        }
    }
    best.map(|(id, _)| id)
}

/// The greatest of some numbers, as far as they are numbers.
fn greatest(row: &[f32]) -> f32 {
    let more = |a: f32, b: f32| if b > a { b } else { a };
    let (lanes, rest) = row.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for lane in lanes {
        for (most, logit) in most.iter_mut().zip(lane) {
            *most = more(*most, *logit);
        }
    }
    most.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, more)
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: made in `new`; frees the samplers in it too.
        unsafe { sys::llama_sampler_free(self.chain.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::likeliest;

    proptest! {
        #[test]
        fn the_likeliest_is_the_first_of_the_greatest_that_are_allowed(
            logits in prop::collection::vec(
                prop_oneof![8 => (-9..9).prop_map(|n| n as f32), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)],
                0..900,
            ),
            modulus in 1..5u32,
        ) {
            let allowed = |id: u32| id.is_multiple_of(modulus);
            let all = (0u32..).zip(&logits).filter(|(id, logit)| logit.is_finite() && allowed(*id));
            let simple = all.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(id, _)| id);
            prop_assert_eq!(likeliest(&logits, allowed), simple);
        }
    }
}
