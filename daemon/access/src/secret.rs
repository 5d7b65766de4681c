//! Secrets: the text of a token, and its hash.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Before the random part of a token, so that people and scanners for leaked secrets know what it is.
const PREFIX: &str = "artel_";
/// Random bytes of a token: more than anybody can guess.
const RANDOM_BYTES: usize = 32;

/// The text of a token. It has no form for people and none for logs, and its memory is zeroed when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A text that a client presents or that was read from a file.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret of a new token.
    pub(crate) fn random() -> Self {
        let random = Zeroizing::new(rand::random::<[u8; RANDOM_BYTES]>());
        // With room for all of it, so that no copy is left where the text was before it grew.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * RANDOM_BYTES));
        text.push_str(PREFIX);
        for byte in random.iter() {
            write!(text, "{byte:02x}").expect("a string takes what is written to it");
        }
        Self(text)
    }

    /// The text, for a client to present it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it has the form of a token.
    pub(crate) fn is_token(&self) -> bool {
        let random = self.0.strip_prefix(PREFIX).unwrap_or_default();
        random.len() == 2 * RANDOM_BYTES && random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

/// The SHA-256 of a token, which is what is stored of it. It needs no salt and no slow function: 32 random bytes are not
/// found by trying.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    pub(crate) fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether two are the same, in a time that does not depend on where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Its first bytes, by which a store finds candidates. The time of that tells something of a hash, which cannot be turned back
    /// into a text.
    pub(crate) fn prefix(&self) -> [u8; 8] {
        *self.0.first_chunk().expect("a hash has more bytes")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not the hexadecimal digits of a SHA-256")]
pub(crate) struct InvalidHash;

impl TryFrom<String> for SecretHash {
    type Error = InvalidHash;

    fn try_from(text: String) -> Result<Self, InvalidHash> {
        let mut hash = [0; 32];
        let is_hex = text.len() == 2 * hash.len() && text.bytes().all(|b| b.is_ascii_hexdigit());
        for (at, byte) in hash.iter_mut().enumerate().filter(|_| is_hex) {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| InvalidHash)?;
        }
        is_hex.then_some(Self(hash)).ok_or(InvalidHash)
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_secret_is_a_token_and_differs_from_the_next() {
        let (one, other) = (Secret::random(), Secret::random());
        assert!(one.is_token() && one.expose().len() == 70, "{}", one.expose().len());
        assert_ne!(one.expose(), other.expose());
        assert!(one.hash().is(&Secret::new(one.expose().to_owned()).hash()) && !one.hash().is(&other.hash()));
        let long = format!("{}0", one.expose());
        for other in ["", "artel_", "artel_xyz", &one.expose()[1..], &long, &one.expose().to_uppercase()] {
            assert!(!Secret::new(other.to_owned()).is_token(), "{other}");
        }
    }

    #[test]
    fn a_hash_survives_its_text() {
        let hash = SecretHash::of(b"abc");
        let text = String::from(hash);
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(SecretHash::try_from(text.clone()).unwrap().is(&hash));
        for bad in ["", "ba78", &text[1..], &text.replace('b', "g"), &"ä".repeat(32)] {
            assert!(SecretHash::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
