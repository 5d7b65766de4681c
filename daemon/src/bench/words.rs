//! Text of a given length that is new each time and the same for everybody.

/// Tokens of the chat template around a question.
pub(super) const FRAME: u32 = 8;

const WORDS: [&str; 48] = [
    "river", "stone", "light", "wind", "house", "bread", "water", "table", "green", "small", "often", "under", "carry",
    "build", "seven", "morning", "paper", "silver", "garden", "winter", "open", "quiet", "road", "letter", "window",
    "summer", "field", "hand", "story", "music", "horse", "yellow", "mountain", "answer", "market", "school", "island",
    "forest", "bridge", "kitchen", "doctor", "number", "village", "station", "corner", "circle", "evening", "people",
];

/// So many words, each about a token; another seed gives other words from the first one on.
pub(super) fn text(seed: u64, words: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64 (Marsaglia, 2003): no more is asked of it than to be the same everywhere.
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
    fn a_seed_gives_its_own_words() {
        assert_eq!(text(3, 20), text(3, 20));
        assert_ne!(text(3, 20), text(4, 20));
        assert_eq!(text(3, 20).split(' ').count(), 20);
    }
}
