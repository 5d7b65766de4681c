//! Synthetic text of a given length, reproducible from a seed.

/// Tokens of the chat template around a question.
pub(crate) const CHAT_TEMPLATE_TOKENS: u32 = 8;

const WORDS: [&str; 48] = [
    "river", "stone", "light", "wind", "house", "bread", "water", "table", "green", "small", "often", "under", "carry",
    "build", "seven", "morning", "paper", "silver", "garden", "winter", "open", "quiet", "road", "letter", "window",
    "summer", "field", "hand", "story", "music", "horse", "yellow", "mountain", "answer", "market", "school", "island",
    "forest", "bridge", "kitchen", "doctor", "number", "village", "station", "corner", "circle", "evening", "people",
];

/// This many words, about one token each. Texts of different seeds differ from the first word on.
pub(crate) fn generate(seed: u64, words: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64 (Marsaglia, 2003): it need only be deterministic.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        WORDS[(state >> 32) as usize % WORDS.len()]
    };
    (0..words).map(|_| next()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_words() {
        assert_eq!(generate(3, 20), generate(3, 20));
        assert_ne!(generate(3, 20), generate(4, 20));
        assert_eq!(generate(3, 20).split(' ').count(), 20);
    }
}
