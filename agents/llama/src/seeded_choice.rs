//! The choice of a token that a seed repeats.
//!
//! Each candidate gets a random number of its own, from the seed, the place and the token alone, and the greatest sum of logit and
//! Gumbel-distributed number wins: a draw from the softmax (the Gumbel-max trick; Gumbel, 1954). Other sequences of a batch and
//! drafts change no number of it. They may change the last bits of a logit, which changes the choice only where two sums are as
//! near as that; a draw from the sums of sorted probabilities would depend on every one of them and on their order.

/// The choices of one sequence.
pub(crate) struct SeededChoice {
    seed: u32,
    /// How many tokens were chosen.
    place: u64,
}

impl SeededChoice {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed, place: 0 }
    }

    /// One of these tokens, by their logits; `None` if there is none.
    pub(crate) fn choose(&mut self, candidates: impl Iterator<Item = (i32, f32)>) -> Option<i32> {
        let at_place = mixed(u64::from(self.seed) ^ mixed(self.place));
        self.place += 1;
        let sum =
            |token: i32, logit: f32| f64::from(logit) + gumbel(mixed(at_place ^ u64::from(token.cast_unsigned())));
        let sums = candidates.map(|(token, logit)| (token, sum(token, logit)));
        sums.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(token, _)| token)
    }
}

/// A number of the Gumbel distribution from random bits.
fn gumbel(bits: u64) -> f64 {
    // 53 bits, between the numbers rather than on them: neither 0 nor 1.
    let uniform = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -(-uniform.ln()).ln()
}

/// All bits depend on all bits (the finalizer of SplitMix64; Steele et al., 2014).
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_chosen_as_often_as_their_probability_says() {
        let probabilities = [0.5f32, 0.3, 0.15, 0.05];
        let mut counts = [0u32; 4];
        for seed in 0..2000 {
            let mut choice = SeededChoice::new(seed);
            for _ in 0..10 {
                let candidates = (0..4).map(|token| (token, probabilities[token as usize].ln()));
                counts[choice.choose(candidates).unwrap() as usize] += 1;
            }
        }
        for (count, probability) in counts.into_iter().zip(probabilities) {
            let share = f64::from(count) / 20_000.0;
            // Six standard deviations.
            let deviation = (f64::from(probability) * f64::from(1.0 - probability) / 20_000.0).sqrt();
            assert!((share - f64::from(probability)).abs() < 6.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn neither_the_order_nor_the_last_bits_of_the_logits_matter() {
        let logits: Vec<(i32, f32)> = (0..50).map(|token| (token, (token * 7 % 13) as f32 / 3.0)).collect();
        let choose = |logits: &[(i32, f32)]| {
            let mut choice = SeededChoice::new(42);
            (0..200).map(|_| choice.choose(logits.iter().copied()).unwrap()).collect::<Vec<_>>()
        };
        let mut noisy: Vec<(i32, f32)> = logits.iter().map(|(token, logit)| (*token, logit * (1.0 - 1e-6))).collect();
        noisy.reverse();
        assert_eq!(choose(&logits), choose(&noisy));
        assert_eq!(SeededChoice::new(1).choose(std::iter::empty()), None);
    }
}
