//! A compact encoding of JSON values: words of the dictionary take one or two bytes, small numbers and short texts have no
//! separate length, and a repeated text is written once.
//!
//! The first byte of a value is its tag:
//!
//! | byte | value |
//! |---|---|
//! | `00` `01` `02` | null, false, true |
//! | `03` n | a number from 0 |
//! | `04` n | the number -1 - n |
//! | `05` | a float, eight bytes, little-endian |
//! | `06` n | a text of n bytes |
//! | `07` n | n hexadecimal digits in lower case, two per byte |
//! | `08` n | a back-reference to the n-th long text of this run of values, from 0 |
//! | `09` n | the n-th word of the [dictionary](super::dictionary), from 0 |
//! | `0a` n | an array of n values |
//! | `0b` n | an object of n keys, each followed by its value |
//! | `20`-`3f` | a text of 0 to 31 bytes |
//! | `40`-`7f` | a number from 0 to 63 |
//! | `80`-`df` | one of the first 96 words |
//! | `e0`-`ef` | an object of 0 to 15 keys |
//! | `f0`-`ff` | an array of 0 to 15 values |
//!
//! n is a LEB128 number.

mod serializer;

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::dictionary::{WORDS, index_of};

const NULL_TAG: u8 = 0x00;
const FALSE_TAG: u8 = 0x01;
const TRUE_TAG: u8 = 0x02;
const UINT_TAG: u8 = 0x03;
const NEGATIVE_TAG: u8 = 0x04;
const FLOAT_TAG: u8 = 0x05;
const TEXT_TAG: u8 = 0x06;
const HEX_TAG: u8 = 0x07;
const BACKREFERENCE_TAG: u8 = 0x08;
const WORD_TAG: u8 = 0x09;
const ARRAY_TAG: u8 = 0x0a;
const OBJECT_TAG: u8 = 0x0b;
const SHORT_TEXT_TAG: u8 = 0x20;
const SHORT_UINT_TAG: u8 = 0x40;
const SHORT_WORD_TAG: u8 = 0x80;
const SHORT_OBJECT_TAG: u8 = 0xe0;
const SHORT_ARRAY_TAG: u8 = 0xf0;

/// Texts of at least this length can be back-referenced: a back-reference takes two or three bytes.
const LONG_TEXT_BYTES: usize = 8;

/// The maximum depth of nested values, as in most JSON parsers.
const MAX_DEPTH: usize = 128;

/// A value is nested too deeply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NestingTooDeep;

/// The bytes are not a valid encoding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CorruptValue;

/// Encodes a run of values that is decoded as a whole.
#[derive(Default)]
pub(crate) struct ValueEncoder {
    bytes: Vec<u8>,
    /// The long texts so far, with their indices.
    long_texts: HashMap<String, u64>,
}

impl ValueEncoder {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a number without a tag, as LEB128.
    pub(crate) fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    pub(crate) fn value(&mut self, value: &Value) -> Result<(), NestingTooDeep> {
        self.nested(value, 0)
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Result<(), NestingTooDeep> {
        if depth == MAX_DEPTH {
            return Err(NestingTooDeep);
        }
        match value {
            Value::Null => self.bytes.push(NULL_TAG),
            Value::Bool(false) => self.bytes.push(FALSE_TAG),
            Value::Bool(true) => self.bytes.push(TRUE_TAG),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(values) => {
                self.tag_with_count(SHORT_ARRAY_TAG, 16, ARRAY_TAG, values.len());
                values.iter().try_for_each(|value| self.nested(value, depth + 1))?;
            }
            Value::Object(map) => {
                self.tag_with_count(SHORT_OBJECT_TAG, 16, OBJECT_TAG, map.len());
                for (key, value) in map {
                    self.text(key);
                    self.nested(value, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a count into the tag if it is small, or after it.
    fn tag_with_count(&mut self, short: u8, limit: usize, long: u8, count: usize) {
        if count < limit {
            self.bytes.push(short + count as u8);
        } else {
            self.bytes.push(long);
            self.varint(count as u64);
        }
    }

    fn number(&mut self, number: &Number) {
        if let Some(n) = number.as_u64() {
            match u8::try_from(n) {
                Ok(small) if small < 64 => self.bytes.push(SHORT_UINT_TAG + small),
                _ => {
                    self.bytes.push(UINT_TAG);
                    self.varint(n);
                }
            }
        } else if let Some(n) = number.as_i64() {
            self.bytes.push(NEGATIVE_TAG);
            // -1 - n, which is not negative.
            self.varint((!n).cast_unsigned());
        } else {
            self.bytes.push(FLOAT_TAG);
            self.bytes.extend(number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(word) = index_of(text) {
            return self.tag_with_count(SHORT_WORD_TAG, usize::from(SHORT_OBJECT_TAG - SHORT_WORD_TAG), WORD_TAG, word);
        }
        if text.len() >= LONG_TEXT_BYTES {
            let next = self.long_texts.len() as u64;
            if let Some(index) = self.long_texts.get(text) {
                let index = *index;
                self.bytes.push(BACKREFERENCE_TAG);
                return self.varint(index);
            }
            self.long_texts.insert(text.to_owned(), next);
            if is_hex(text) {
                self.bytes.push(HEX_TAG);
                self.varint(text.len() as u64);
                let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
                return self.bytes.extend(text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
            }
        }
        self.tag_with_count(SHORT_TEXT_TAG, 32, TEXT_TAG, text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

/// Whether a text can be stored as two digits per byte, such as a hash.
fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Decodes the output of a [`ValueEncoder`].
pub(crate) struct ValueDecoder<'b> {
    bytes: &'b [u8],
    long_texts: Vec<String>,
}

impl<'b> ValueDecoder<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, long_texts: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn varint(&mut self) -> Result<u64, CorruptValue> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(CorruptValue);
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(CorruptValue)
    }

    pub(crate) fn value(&mut self) -> Result<Value, CorruptValue> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, CorruptValue> {
        if depth == MAX_DEPTH {
            return Err(CorruptValue);
        }
        let tag = self.byte()?;
        Ok(match tag {
            NULL_TAG => Value::Null,
            FALSE_TAG => Value::Bool(false),
            TRUE_TAG => Value::Bool(true),
            SHORT_UINT_TAG..SHORT_WORD_TAG => Value::from(tag - SHORT_UINT_TAG),
            UINT_TAG => Value::from(self.varint()?),
            NEGATIVE_TAG => Value::from(!i64::try_from(self.varint()?).map_err(|_| CorruptValue)?),
            FLOAT_TAG => {
                let bytes = self.take(8)?.try_into().map_err(|_| CorruptValue)?;
                Value::Number(Number::from_f64(f64::from_le_bytes(bytes)).ok_or(CorruptValue)?)
            }
            SHORT_ARRAY_TAG.. => self.array(usize::from(tag - SHORT_ARRAY_TAG), depth)?,
            ARRAY_TAG => {
                let count = self.count()?;
                self.array(count, depth)?
            }
            SHORT_OBJECT_TAG..SHORT_ARRAY_TAG => self.object(usize::from(tag - SHORT_OBJECT_TAG), depth)?,
            OBJECT_TAG => {
                let count = self.count()?;
                self.object(count, depth)?
            }
            text => Value::String(self.text(text)?),
        })
    }

    fn array(&mut self, count: usize, depth: usize) -> Result<Value, CorruptValue> {
        (0..count).map(|_| self.nested(depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn object(&mut self, count: usize, depth: usize) -> Result<Value, CorruptValue> {
        let mut map = Map::new();
        for _ in 0..count {
            let tag = self.byte()?;
            let key = self.text(tag)?;
            map.insert(key, self.nested(depth + 1)?);
        }
        Ok(Value::Object(map))
    }

    fn text(&mut self, tag: u8) -> Result<String, CorruptValue> {
        let text = match tag {
            SHORT_WORD_TAG..SHORT_OBJECT_TAG => return word(usize::from(tag - SHORT_WORD_TAG)),
            WORD_TAG => return word(self.unbounded_count()?),
            BACKREFERENCE_TAG => {
                let index = self.unbounded_count()?;
                return self.long_texts.get(index).cloned().ok_or(CorruptValue);
            }
            HEX_TAG => {
                let digits = self.unbounded_count()?;
                let pairs = self.take(digits / 2)?;
                let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
                pairs.iter().flat_map(|pair| [digit(pair >> 4), digit(pair & 0xf)]).collect()
            }
            SHORT_TEXT_TAG..SHORT_UINT_TAG => self.verbatim(usize::from(tag - SHORT_TEXT_TAG))?,
            TEXT_TAG => {
                let count = self.count()?;
                self.verbatim(count)?
            }
            _ => return Err(CorruptValue),
        };
        if text.len() >= LONG_TEXT_BYTES {
            self.long_texts.push(text.clone());
        }
        Ok(text)
    }

    fn verbatim(&mut self, count: usize) -> Result<String, CorruptValue> {
        std::str::from_utf8(self.take(count)?).map(str::to_owned).map_err(|_| CorruptValue)
    }

    /// The number of bytes or values that follow. It is limited to the remaining bytes, so that corrupt counts allocate nothing.
    fn count(&mut self) -> Result<usize, CorruptValue> {
        let count = self.unbounded_count()?;
        if count <= self.bytes.len() { Ok(count) } else { Err(CorruptValue) }
    }

    fn unbounded_count(&mut self) -> Result<usize, CorruptValue> {
        usize::try_from(self.varint()?).map_err(|_| CorruptValue)
    }

    fn byte(&mut self) -> Result<u8, CorruptValue> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], CorruptValue> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(CorruptValue)?;
        self.bytes = rest;
        Ok(taken)
    }
}

fn word(index: usize) -> Result<String, CorruptValue> {
    WORDS.get(index).map(|word| (*word).to_owned()).ok_or(CorruptValue)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn encoded(values: &[Value]) -> Vec<u8> {
        let mut encoder = ValueEncoder::default();
        values.iter().for_each(|value| encoder.value(value).unwrap());
        encoder.into_bytes()
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Value>, CorruptValue> {
        let mut decoder = ValueDecoder::new(bytes);
        let mut values = Vec::new();
        while !decoder.is_empty() {
            values.push(decoder.value()?);
        }
        Ok(values)
    }

    #[test]
    fn the_encoding_is_stable() {
        let hash = "00ff".repeat(16);
        let values = [json!({"kind": "resumed", "step": 7}), json!([-1, 300, true, null, "ab", hash, hash, 0.5])];
        let bytes = encoded(&values);
        let mut expected = vec![0xe2, 0x80, index_of("resumed").unwrap() as u8 + 0x80, 0x82, 0x47];
        expected.extend([0xf8, 0x04, 0x00, 0x03, 0xac, 0x02, 0x02, 0x00, 0x22, b'a', b'b', 0x07, 64]);
        expected.extend([0x00, 0xff].repeat(16));
        expected.extend([0x08, 0x00, 0x05, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
        assert_eq!(bytes, expected);
        assert_eq!(decoded(&bytes).unwrap(), values);
    }

    #[test]
    fn depth_is_limited_when_encoding_and_decoding() {
        let deep = |depth: usize| (1..depth).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        let bytes = encoded(&[deep(MAX_DEPTH)]);
        assert_eq!(decoded(&bytes).unwrap(), [deep(MAX_DEPTH)]);
        assert_eq!(ValueEncoder::default().value(&deep(MAX_DEPTH + 1)), Err(NestingTooDeep));
        assert_eq!(decoded(&[0xf1; 200_000]), Err(CorruptValue));
    }

    fn value() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(WORDS).prop_map(Value::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
            ".{0,40}".prop_map(Value::from),
            "[0-9a-f]{0,40}".prop_map(Value::from),
            word,
        ];
        leaf.prop_recursive(5, 60, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::vec(("[a-z]{0,9}", inner), 0..20).prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_encoded_value_is_decoded(values in prop::collection::vec(value(), 0..4)) {
            prop_assert_eq!(decoded(&encoded(&values)).unwrap(), values);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&bytes);
        }

        #[test]
        fn truncated_bytes_are_refused(value in value(), at in any::<prop::sample::Index>()) {
            let bytes = encoded(std::slice::from_ref(&value));
            prop_assert_eq!(ValueDecoder::new(&bytes[..at.index(bytes.len())]).value(), Err(CorruptValue));
        }
    }
}
