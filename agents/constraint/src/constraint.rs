//! One output in its schema.

use std::sync::Arc;

use llguidance::Matcher;
use toktrie::{SimpleVob, TokenId};

use crate::error::Error;
use crate::object_keys::{ObjectKeys, QuotingTokens};

/// Where the random numbers of a rehearsal begin: it is the same each time.
const FIRST_RANDOM_INTEGER: u64 = 1;

/// The parser state of one output in its schema.
pub struct Constraint {
    matcher: Matcher,
    /// The keys of its open objects, if the grammar lets one come twice.
    keys: Option<(ObjectKeys, Arc<QuotingTokens>)>,
}

impl Constraint {
    pub(crate) fn new(matcher: Matcher, quoting: Option<Arc<QuotingTokens>>) -> Self {
        Self { matcher, keys: quoting.map(|quoting| (ObjectKeys::default(), quoting)) }
    }

    /// The constraint of another output; this one is at its beginning.
    pub(crate) fn restarted(&self) -> Self {
        Self::new(self.matcher.deep_clone(), self.keys.as_ref().map(|(_, quoting)| quoting.clone()))
    }

    /// The tokens that are allowed next; `None` if the output is complete, or if nothing can follow.
    ///
    /// # Errors
    /// Finding them takes more than a budget.
    pub fn mask(&mut self) -> Result<Option<SimpleVob>, Error> {
        if let Some(error) = self.matcher.get_error().filter(|error| !is_dead_end(error)) {
            return Err(Error::costly(&error));
        }
        if self.matcher.is_stopped() {
            return Ok(None);
        }
        let mut mask = match self.matcher.compute_mask_or_eos() {
            Ok(mask) => mask,
            // It may be a key of which all names are taken: what was written is not valid, and is found so.
            Err(error) if is_dead_end(&error.to_string()) => return Ok(None),
            Err(error) => return Err(Error::costly(&error)),
        };
        if let Some((keys, quoting)) = &self.keys {
            keys.disallow_repeated(&mut mask, quoting);
        }
        Ok(Some(mask))
    }

    /// Advances past a sampled token.
    ///
    /// # Errors
    /// The token is not allowed here, or accepting it takes more than a budget.
    pub fn accept(&mut self, token: TokenId) -> Result<(), Error> {
        self.matcher.consume_token(token).map_err(|e| Error::costly(&e))?;
        self.note(&[token]);
        Ok(())
    }

    /// Advances past bytes, whatever tokens they came in.
    ///
    /// # Errors
    /// They are not allowed here, or accepting them takes more than a budget.
    pub fn accept_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let vocabulary = self.matcher.tok_env().map_err(|e| Error::costly(&e))?;
        vocabulary.tok_trie().greedy_tokenize(bytes).into_iter().try_for_each(|token| self.accept(token))
    }

    /// Advances past the tokens that the schema forces next and returns them.
    pub fn take_forced(&mut self) -> Vec<TokenId> {
        let tokens = if self.matcher.is_stopped() { Vec::new() } else { self.matcher.consume_ff_tokens() };
        self.note(&tokens);
        tokens
    }

    /// Whether the output is complete.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether the output may end here, though more could follow.
    pub fn may_end(&mut self) -> bool {
        self.is_complete() || self.matcher.is_accepting().unwrap_or(false)
    }

    /// Writes so many tokens, one as good as the other, to see what masks take.
    ///
    /// # Errors
    /// One takes more than a budget.
    pub(crate) fn rehearse(&mut self, count: usize) -> Result<(), Error> {
        let Ok(vocabulary) = self.matcher.tok_env() else { return Ok(()) };
        let trie = vocabulary.tok_trie();
        let mut random = FIRST_RANDOM_INTEGER;
        for _ in 0..count {
            for token in trie.greedy_tokenize(&self.matcher.compute_ff_bytes()) {
                self.accept(token)?;
            }
            let Some(mask) = self.mask()? else { break };
            let allowed: Vec<TokenId> = mask.iter().filter(|token| !trie.eos_tokens().contains(token)).collect();
            // Texts end soon, and what follows is seen.
            let leads_on = |token: &&TokenId| matches!(trie.token(**token).first(), Some(b'"' | b','));
            let leading: Vec<TokenId> = allowed.iter().filter(leads_on).copied().collect();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choices = if random >> 63 == 1 && !leading.is_empty() { leading } else { allowed };
            let Some(token) = choices.get((random >> 33) as usize % choices.len().max(1)) else { break };
            self.accept(*token)?;
        }
        Ok(())
    }

    fn note(&mut self, tokens: &[TokenId]) {
        let Some((keys, _)) = &mut self.keys else { return };
        if tokens.is_empty() {
            return;
        }
        if let Ok(vocabulary) = self.matcher.tok_env() {
            let trie = vocabulary.tok_trie();
            tokens.iter().for_each(|token| keys.advance(trie.token(*token)));
        }
    }
}

/// Whether llguidance ended because no token can follow.
pub(crate) fn is_dead_end(error: &str) -> bool {
    error.contains("NoExtensionBias")
}
