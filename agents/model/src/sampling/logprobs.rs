//! How likely the tokens of an output were.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The natural logarithm of the probability of a token that cannot come: JSON has no infinity, and OpenAI's API has this number.
pub const LEAST_LOG_PROBABILITY: f32 = -9999.0;

/// A token of an output and how likely the model found it.
///
/// The probability is the model's own: the softmax of its logits, before temperature, penalties, biases, cuts and schemas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The bytes of the token; they need not end at a character's boundary.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability; 0 for a token that the schema forced, of which the model was not asked.
    pub logprob: f32,
    /// Whether the schema left no other token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// The likeliest tokens at its place, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopLogprob>,
}

/// One of the likeliest tokens at a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// The bytes of the token; for a control token, its name.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

impl TokenLogprob {
    /// A token that the schema forced.
    pub fn forced(bytes: Vec<u8>) -> Self {
        Self { bytes, logprob: 0.0, forced: true, top: Vec::new() }
    }

    /// An upper bound for its size in a message, in bytes.
    pub fn max_encoded_len(&self) -> usize {
        // A float, the lengths and the keys.
        const FIXED_BYTES: usize = 16;
        let top = self.top.iter().map(|top| top.bytes.len() + FIXED_BYTES).sum::<usize>();
        self.bytes.len() + FIXED_BYTES + top
    }
}

/// Bytes as text: they need not be UTF-8.
mod hex {
    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        serializer.serialize_str(&digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>();
        let digits = digits.filter(|digits| digits.len() % 2 == 0);
        let digits = digits.ok_or_else(|| serde::de::Error::custom("bytes are pairs of hexadecimal digits"))?;
        Ok(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_kind_survive_as_json() {
        let top = vec![TopLogprob { bytes: Vec::new(), logprob: LEAST_LOG_PROBABILITY }];
        let token = TokenLogprob { bytes: vec![0, 0xff, b'a'], logprob: -0.5, forced: false, top };
        let json = serde_json::to_value(&token).unwrap();
        assert_eq!(json["bytes"], "00ff61");
        assert_eq!(serde_json::from_value::<TokenLogprob>(json).unwrap(), token);
        assert!(serde_json::from_str::<TokenLogprob>(r#"{"bytes": "0", "logprob": 0}"#).is_err());
        assert_eq!(TokenLogprob::forced(vec![b'x']).top, []);
    }
}
