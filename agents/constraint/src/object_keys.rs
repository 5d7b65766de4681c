//! The keys of the objects of an output, so that none comes twice. A grammar without context cannot say that, and JSON with a key
//! twice means different things to different readers.

use std::collections::HashSet;
use std::sync::Arc;

use toktrie::{SimpleVob, TokTrie, TokenId};

/// The tokens of a vocabulary that can end a key.
pub(crate) struct QuotingTokens(Vec<QuotingToken>);

struct QuotingToken {
    id: TokenId,
    /// How often `"` is in it.
    quotes: usize,
    bytes: Box<[u8]>,
}

impl QuotingTokens {
    pub(crate) fn of(trie: &TokTrie) -> Self {
        let quoting = |id: TokenId| {
            let bytes = trie.token(id);
            let quotes = bytes.iter().filter(|byte| **byte == b'"').count();
            let is_text = bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
            (quotes > 0 && is_text).then(|| QuotingToken { id, quotes, bytes: bytes.into() })
        };
        Self((0..trie.vocab_size() as TokenId).filter_map(quoting).collect())
    }
}

/// Where an output is: its open lists and objects, the keys of these, and an open string. It is JSON as far as it goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectKeys {
    open: Vec<OpenValue>,
    string: Option<OpenString>,
}

#[derive(Debug, Clone)]
enum OpenValue {
    List,
    Object {
        /// Shared with the copies that look ahead by one token.
        keys: Arc<HashSet<Box<str>>>,
        /// Those of the token that is gone past.
        new_keys: Vec<Box<str>>,
        /// Whether a string that begins here is a key.
        is_key_next: bool,
    },
}

#[derive(Debug, Clone)]
struct OpenString {
    is_key: bool,
    is_escaped: bool,
    /// As it is written; of a key alone.
    written: Vec<u8>,
}

impl ObjectKeys {
    /// Goes past the bytes of a token.
    pub(crate) fn advance(&mut self, token: &[u8]) {
        for byte in token {
            let _is_repeated = !self.step(*byte);
        }
        for open in &mut self.open {
            if let OpenValue::Object { keys, new_keys, .. } = open
                && !new_keys.is_empty()
            {
                Arc::make_mut(keys).extend(new_keys.drain(..));
            }
        }
    }

    /// Takes the tokens out of a mask with which a key would come twice. Where that would leave none, all stay: the grammar then
    /// demands a key that is there, and the output is found invalid once it is complete.
    pub(crate) fn disallow_repeated(&self, mask: &mut SimpleVob, quoting: &QuotingTokens) {
        if !self.open.iter().any(|open| matches!(open, OpenValue::Object { .. })) {
            return;
        }
        // How often `"` is in the shortest token that ends a key.
        let least_quotes = match &self.string {
            Some(string) if string.is_key => 1,
            Some(_) => 3,
            None => 2,
        };
        let candidates = quoting.0.iter().filter(|token| token.quotes >= least_quotes && mask.is_allowed(token.id));
        let repeated: Vec<TokenId> =
            candidates.filter(|token| self.would_repeat(&token.bytes)).map(|token| token.id).collect();
        if repeated.is_empty() || repeated.len() == mask.num_set() {
            return;
        }
        repeated.into_iter().for_each(|token| mask.disallow_token(token));
    }

    fn would_repeat(&self, token: &[u8]) -> bool {
        // The values that the token may close, and the one around them.
        let closed = token.iter().filter(|byte| matches!(byte, b'}' | b']')).count();
        let from = self.open.len().saturating_sub(closed + 1);
        let mut ahead = Self { open: self.open[from..].to_vec(), string: self.string.clone() };
        token.iter().any(|byte| !ahead.step(*byte))
    }

    /// Goes past one byte; false if it ends a key that its object already has.
    fn step(&mut self, byte: u8) -> bool {
        if let Some(string) = &mut self.string {
            match byte {
                _ if string.is_escaped => string.is_escaped = false,
                b'\\' => string.is_escaped = true,
                b'"' => return self.end_string(),
                _ => {}
            }
            if string.is_key {
                string.written.push(byte);
            }
            return true;
        }
        match byte {
            b'"' => {
                let is_key = matches!(self.open.last(), Some(OpenValue::Object { is_key_next: true, .. }));
                self.string = Some(OpenString { is_key, is_escaped: false, written: Vec::new() });
            }
            b'{' => self.open.push(OpenValue::Object { keys: Arc::default(), new_keys: Vec::new(), is_key_next: true }),
            b'[' => self.open.push(OpenValue::List),
            b'}' | b']' => drop(self.open.pop()),
            b',' => {
                if let Some(OpenValue::Object { is_key_next, .. }) = self.open.last_mut() {
                    *is_key_next = true;
                }
            }
            _ => {}
        }
        true
    }

    fn end_string(&mut self) -> bool {
        let Some(string) = self.string.take().filter(|string| string.is_key) else { return true };
        let Some(OpenValue::Object { keys, new_keys, is_key_next }) = self.open.last_mut() else { return true };
        *is_key_next = false;
        // The same key may be written in several ways.
        let quoted = [b"\"", string.written.as_slice(), b"\""].concat();
        let Ok(key) = serde_json::from_slice::<Box<str>>(&quoted) else { return true };
        let is_new = !keys.contains(&key) && !new_keys.contains(&key);
        new_keys.push(key);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> ObjectKeys {
        let mut keys = ObjectKeys::default();
        keys.advance(text.as_bytes());
        keys
    }

    #[test]
    fn a_key_comes_once_in_its_object_however_it_is_written() {
        let keys = after(r#"{"a":"x\",\"b\"","b":{"a":1},"c"#);
        for (token, repeats) in [
            (r#"":"#, false),
            (r#"":1,"a":"#, true),
            (r#"":1,"A":"#, false),
            (r#"":1,"\u0061":"#, true),
            (r#"":{"a":1,"b":[{"a":2}]},"d":"#, false),
            (r#"":{"a":1,"a":2"#, true),
            (r#"":"","b""#, true),
            (r#"":1},"a":"#, false),
        ] {
            assert_eq!(keys.would_repeat(token.as_bytes()), repeats, "{token}");
        }
        assert!(after(r#"{"b":1,"a":[{"a":2},{"a"#).string.is_some());
        assert!(!after(r#"{"b":1,"a":[{"a":2},{"a"#).would_repeat(b"\""));
        assert!(after(r#"{"b":1,"a":[{"a":2}],"b"#).would_repeat(b"\":"));
        assert!(!after(r#"{"b":1,"a":["b"#).would_repeat(b"\",\""));
    }

    #[test]
    fn a_token_that_repeats_a_key_is_not_allowed_unless_it_is_the_only_one() {
        let env = crate::byte_vocabulary::byte_vocabulary();
        let quoting = QuotingTokens::of(env.tok_trie());
        let mask = |allowed: &[u8]| {
            let mut mask = env.tok_trie().alloc_token_set();
            allowed.iter().for_each(|byte| mask.allow_token((*byte).into()));
            mask
        };
        let keys = after(r#"{"b":1,"b"#);
        let mut both = mask(b"\"c");
        keys.disallow_repeated(&mut both, &quoting);
        assert_eq!(both.to_list(), [u32::from(b'c')]);
        let mut alone = mask(b"\"");
        keys.disallow_repeated(&mut alone, &quoting);
        assert_eq!(alone.num_set(), 1);
    }
}
