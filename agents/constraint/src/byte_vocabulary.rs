//! A vocabulary that belongs to no model: bytes, and short runs of digits and letters as every model has them. What a schema costs
//! depends on them: a token of three digits takes three steps of the automaton of a number.

use std::sync::Arc;

use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// The longest run of digits; models have all of three, or none beyond one.
const MAX_DIGITS_PER_TOKEN: usize = 3;

/// The vocabulary: the tokens 0 to 255 are bytes, and the last one is the end of a text.
pub fn byte_vocabulary() -> TokEnv {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    for digits in 2..=MAX_DIGITS_PER_TOKEN {
        tokens.extend((0..10usize.pow(digits as u32)).map(|number| format!("{number:0digits$}").into_bytes()));
    }
    let letters = || b'a'..=b'z';
    tokens.extend(letters().flat_map(|first| letters().map(move |second| vec![first, second])));
    tokens.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<|end|>".as_bytes()].concat());
    let end = tokens.len() as u32 - 1;
    Arc::new(ApproximateTokEnv::new(TokTrie::from(&TokRxInfo::new(end + 1, end), &tokens)))
}
