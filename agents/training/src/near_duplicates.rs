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
/// The most texts of one band and side that are compared: with more, all have a long part in common.
const MAX_BUCKET_TEXTS: usize = 64;
/// The part of a long text that is looked at.
const MAX_TEXT_CHARS: usize = 4096;

/// Pairs of a text of one side and one of the other that are almost the same, by their indices. `is_other` says which texts are of the
/// other side. Of very many texts that are alike, some pairs are found.
pub(crate) fn pairs_across(texts: &[String], is_other: impl Fn(usize) -> bool) -> BTreeSet<(usize, usize)> {
    let parts: Vec<HashSet<u64>> = texts.iter().map(|text| parts_of(text)).collect();
    let mut buckets: HashMap<(usize, [u64; BAND_HASH_ITEMS]), [Vec<usize>; 2]> = HashMap::new();
    for (index, parts) in parts.iter().enumerate() {
        for key in bands_of(parts) {
            let side = &mut buckets.entry(key).or_default()[usize::from(is_other(index))];
            if side.len() < MAX_BUCKET_TEXTS {
                side.push(index);
            }
        }
    }
    let mut found = BTreeSet::new();
    for [own, others] in buckets.values() {
        for (first, second) in own.iter().flat_map(|first| others.iter().map(move |second| (*first, *second))) {
            if !found.contains(&(first, second)) && similarity(&parts[first], &parts[second]) >= MIN_SIMILARITY_RATIO {
                found.insert((first, second));
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
        let texts = texts.map(str::to_owned);
        assert_eq!(pairs_across(&texts, |index| index > 0), BTreeSet::from([(0, 1), (0, 2)]));
        assert_eq!(pairs_across(&texts, |index| index == 2), BTreeSet::from([(0, 2), (1, 2)]));
    }

    #[test]
    fn a_text_behind_many_that_are_alike_is_compared_and_the_work_is_bounded() {
        let begin = "My lamp came with a cracked shade, no one answers the telephone of your shop, and the parcel had been opened by others \
                     before it reached us on a Friday, so please pay me back what was due for order";
        let alike = |n: usize| format!("{begin} {}", n * 7919);
        let texts: Vec<String> = (0..5000).map(alike).collect();
        assert!(!pairs_across(&texts, |index| index == 4999).is_empty());
        let found = pairs_across(&texts, |index| index % 2 == 1).len();
        assert!(found < 2500 * 2500 / 2, "{found} of all pairs, which are all alike");
    }
}
