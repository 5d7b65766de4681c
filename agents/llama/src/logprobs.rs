//! How likely the model found a token, from its logits.

use artel_engine::{TokenLogprob, TopLogprob};
use artel_model::sampling::LEAST_LOG_PROBABILITY;

use crate::raw::model::LlamaModel;

/// The log-softmax of a token and of the likeliest ones, over the logits as the model gave them.
pub(crate) fn of_token(model: &LlamaModel, logits: &[f32], token: i32, top: u32) -> TokenLogprob {
    let sum = log_sum_of_exponentials(logits);
    let logprob = |logit: f32| ((f64::from(logit) - sum) as f32).max(LEAST_LOG_PROBABILITY);
    let own = usize::try_from(token).ok().and_then(|at| logits.get(at)).copied().unwrap_or(f32::NEG_INFINITY);
    let likeliest = greatest(logits, top as usize);
    let top = likeliest.into_iter().map(|(id, logit)| TopLogprob { bytes: bytes(model, id), logprob: logprob(logit) });
    TokenLogprob { bytes: bytes(model, token), logprob: logprob(own), forced: false, top: top.collect() }
}

/// The natural logarithm of the sum of `exp(logit)` over the finite logits. Each exponential is rounded to F32, which moves the result
/// by less than `1e-7`.
pub(crate) fn log_sum_of_exponentials(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    let sum = logits.iter().filter(|logit| logit.is_finite()).map(|logit| f64::from((logit - most).exp())).sum::<f64>();
    f64::from(most) + sum.ln()
}

/// The tokens with the greatest finite logits, the greatest first; of equal ones, the first.
fn greatest(logits: &[f32], count: usize) -> Vec<(i32, f32)> {
    let mut found: Vec<(i32, f32)> = Vec::with_capacity(count + 1);
    for (id, logit) in (0i32..).zip(logits).filter(|(_, logit)| logit.is_finite()) {
        let is_small = found.len() == count && found.last().is_none_or(|(_, least)| *logit <= *least);
        if !is_small {
            let at = found.partition_point(|(_, other)| *other >= *logit);
            found.insert(at, (id, *logit));
            found.truncate(count);
        }
    }
    found
}

/// The bytes of a token; the name of one that has none.
fn bytes(model: &LlamaModel, token: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    model.append_piece(token, false, &mut bytes);
    if bytes.is_empty() { model.token_text(token).into_bytes() } else { bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_greatest_are_the_first_of_a_sorted_list(
            logits in prop::collection::vec(prop_oneof![9 => (-9..9).prop_map(|n| n as f32), 1 => Just(f32::NEG_INFINITY)], 0..200),
            count in 0..21usize,
        ) {
            let mut sorted: Vec<(i32, f32)> = (0i32..).zip(logits.iter().copied()).filter(|(_, l)| l.is_finite()).collect();
            sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            sorted.truncate(count);
            prop_assert_eq!(greatest(&logits, count), sorted);
        }
    }

    #[test]
    fn the_exponentials_of_log_probabilities_add_up_to_one() {
        let logits = [700.0f32, 699.0, -50.0, f32::NEG_INFINITY];
        let sum = log_sum_of_exponentials(&logits);
        let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - sum).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }
}
