//! The key of a server.

use std::fmt;
use std::str::FromStr;

use tonic::metadata::AsciiMetadataValue;

/// The longest key: tokens that name collections have some hundred bytes for each.
const MAX_KEY_BYTES: usize = 8 << 10;

/// An api key or a token of Qdrant, a secret. It is shown neither by `Debug` nor by any error.
#[derive(Clone)]
pub struct ApiKey(AsciiMetadataValue);

/// A text that cannot be an api key. It is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an api key of Qdrant is visible ASCII text of at most {MAX_KEY_BYTES} bytes")]
pub struct InvalidApiKey;

impl FromStr for ApiKey {
    type Err = InvalidApiKey;

    /// White space around it is left out, since files end with a line break.
    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidApiKey);
        }
        let mut value: AsciiMetadataValue = text.parse().map_err(|_| InvalidApiKey)?;
        // Neither shown nor kept in the compression of headers.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl ApiKey {
    /// As the header `api-key` has it.
    pub(crate) fn header(&self) -> AsciiMetadataValue {
        self.0.clone()
    }

    /// A text without this key, which a server may quote.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        let key = self.0.to_str().expect("a key is visible ASCII");
        text.replace(key, "[key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_is_never_shown() {
        let key: ApiKey = "s3cret\n".parse().unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey");
        assert_eq!(key.hide_in("Invalid key: s3cret!"), "Invalid key: [key]!");
        for text in ["", " \n", "two words", "a\nb", "ключ", &"x".repeat(MAX_KEY_BYTES + 1)] {
            assert_eq!(text.parse::<ApiKey>().unwrap_err(), InvalidApiKey, "{text}");
        }
    }
}
