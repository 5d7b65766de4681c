//! Texts that are almost the same: pairs by the share of their parts that they have in common.
//!
//! A. Broder, "On the resemblance and containment of documents", 1997: the least hashes of two sets agree as often as the sets do.
//! Bands of such hashes find candidates, which are then compared in full.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};

/// The characters of a part. Shorter parts are common to texts that have nothing else in common.
const PART_CHARS: usize = 5;
/// The share of parts from which two texts are almost the same, of 1.
const MIN_SIMILARITY_RATIO: f64 = 0.8;
/// Bands of hashes: two texts that share eight tenths of their parts agree in one of them in 99.9 of 100 cases.
const BAND_ITEMS: usize = 16;
const BAND_HASH_ITEMS: usize = 4;
/// The most texts of one band that are compared with each other: with more, all have a long part in common.
const MAX_BUCKET_TEXTS: usize = 64;
/// The part of a long text that is looked at.
const MAX_TEXT_CHARS: usize = 4096;

/// Pairs of texts that are almost the same, by their indices, the lower one first.
pub(crate) fn pairs(texts: &[String]) -> BTreeSet<(usize, usize)> {
    let parts: Vec<HashSet<u64>> = texts.iter().map(|text| parts_of(text)).collect();
    let mut buckets: HashMap<(usize, [u64; BAND_HASH_ITEMS]), Vec<usize>> = HashMap::new();
    for (index, parts) in parts.iter().enumerate() {
        for (band, hashes) in bands_of(parts) {
            let bucket = buckets.entry((band, hashes)).or_default();
            if bucket.len() < MAX_BUCKET_TEXTS {
                bucket.push(index);
            }
        }
    }
    let mut found = BTreeSet::new();
    for bucket in buckets.values() {
        for (at, first) in bucket.iter().enumerate() {
            for second in &bucket[at + 1..] {
                if similarity(&parts[*first], &parts[*second]) >= MIN_SIMILARITY_RATIO {
                    found.insert((*first, *second));
                }
            }
        }
    }
    found
}

/// The parts of a text, in which case and white space are no difference.
fn parts_of(text: &str) -> HashSet<u64> {
    let folded = text.split_whitespace().flat_map(|word| word.chars().chain([' ']));
    let chars: Vec<char> = folded.take(MAX_TEXT_CHARS).flat_map(char::to_lowercase).collect();
    if chars.len() <= PART_CHARS {
        return HashSet::from([hash_of(&chars)]);
    }
    chars.windows(PART_CHARS).map(|part| hash_of(&part)).collect()
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn bands_of(parts: &HashSet<u64>) -> impl Iterator<Item = (usize, [u64; BAND_HASH_ITEMS])> {
    (0..BAND_ITEMS).map(|band| {
        let least = |at: usize| {
            let salt = hash_of(&(band * BAND_HASH_ITEMS + at)) | 1;
            parts.iter().map(|part| (part ^ salt).wrapping_mul(salt).rotate_left(29)).min().unwrap_or(0)
        };
        (band, std::array::from_fn(least))
    })
}

fn similarity(first: &HashSet<u64>, second: &HashSet<u64>) -> f64 {
    let common = first.intersection(second).count();
    let all = first.len() + second.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_almost_the_same_are_pairs() {
        let texts = [
            "My order 55128 came with a cracked shade and I want my money back, please.",
            "My order 55129 came with a cracked shade and I want my money back, please.",
            "my  order 55128 came with a cracked shade and I want my money back, PLEASE.",
            "When does the shop open on Saturdays?",
            "",
        ];
        assert_eq!(pairs(&texts.map(str::to_owned)), BTreeSet::from([(0, 1), (0, 2), (1, 2)]));
    }

    #[test]
    fn many_texts_with_a_common_beginning_are_compared_in_bounded_time() {
        let texts: Vec<String> =
            (0..5000).map(|n| format!("{} {}", "The same long beginning of all. ".repeat(8), n * 7919)).collect();
        assert!(!pairs(&texts).is_empty());
    }
}
