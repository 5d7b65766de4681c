//! The vocabulary of the demo chat model, from its GGUF file.

use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs};

use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// The key of its tokens, which are a list of texts.
const TOKENS_KEY: &[u8] = b"tokenizer.ggml.tokens";

/// `ARTEL_TEST_MODELS`, or where `cargo xtask setup` puts the models.
fn file() -> PathBuf {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let models = variable("ARTEL_TEST_MODELS").unwrap_or_else(|| {
        let home = || variable("HOME").unwrap().join(".cache");
        variable("ARTEL_CACHE")
            .unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(home).join("artel"))
            .join("models")
    });
    models.join("SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// The byte that a character of a byte-level vocabulary stands for; none in the names of control tokens.
fn byte_of(c: char) -> Option<u8> {
    let is_itself = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(u32::from(c)) {
        Ok(byte) if is_itself(&byte) => Some(byte),
        _ => (0..=u8::MAX).filter(|byte| !is_itself(byte)).nth((u32::from(c)).checked_sub(256)? as usize),
    }
}

pub(crate) fn model_vocabulary() -> TokEnv {
    let bytes = fs::read(file()).expect("`cargo xtask setup` fetches the demo models");
    let at = bytes.windows(TOKENS_KEY.len()).position(|window| window == TOKENS_KEY).unwrap() + TOKENS_KEY.len();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    // The types of the value and of its items take four bytes each.
    let count = number(at + 8);
    let mut next = at + 16;
    let mut tokens = Vec::new();
    for _ in 0..count {
        let length = number(next);
        let text = std::str::from_utf8(&bytes[next + 8..next + 8 + length]).unwrap();
        next += 8 + length;
        let is_control = text.starts_with("<|") || text.starts_with('<') && text.ends_with('>') && text.len() > 2;
        let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
        tokens.push(match bytes {
            Some(bytes) if !is_control => bytes,
            _ => [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat(),
        });
    }
    let end = tokens.iter().position(|token| token.ends_with(b"<|im_end|>")).unwrap() as u32;
    Arc::new(ApproximateTokEnv::new(TokTrie::from(&TokRxInfo::new(count as u32, end), &tokens)))
}
