//! Which samples are held out.

use sha2::{Digest as _, Sha256};

use crate::sample::Sample;

/// Whether a sample belongs to this part of all samples, of 1. Samples in which users say the same are on the same side, and a
/// sample stays on its side when others come or go, or the role's prompt changes.
pub(crate) fn is_held_out(sample: &Sample, share: f64, seed: u32) -> bool {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(sample.user_text());
    let hash: [u8; 32] = hash.finalize().into();
    let first = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(first) < share * f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{SampleMessage, SampleOrigin};

    fn sample(text: &str, answer: &str) -> Sample {
        Sample {
            origin: SampleOrigin::Line { file: "a".to_owned(), line: 1 },
            messages: vec![SampleMessage::new("user", text)],
            answer: answer.to_owned(),
            is_held_out: false,
        }
    }

    #[test]
    fn the_share_is_held_out_and_depends_on_the_prompt_alone() {
        let held_out = |seed| (0..2000).filter(|n| is_held_out(&sample(&n.to_string(), ""), 0.2, seed)).count();
        for seed in 0..3 {
            assert!((340..460).contains(&held_out(seed)), "{}", held_out(seed));
        }
        let of = |answer: &str, seed| is_held_out(&sample("7", answer), 0.2, seed);
        assert!((0..50).all(|seed| of("a", seed) == of("b", seed)));
        assert!((0..50).any(|seed| of("a", seed) != of("a", seed + 1)));
    }
}
