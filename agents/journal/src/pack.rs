//! JSON values as few bytes: known words are a byte or two, small numbers and short texts have no length of their own, and
//! a text that comes twice is written once.
//!
//! The first byte of a value says what follows:
//!
//! | byte | what |
//! |---|---|
//! | `00` `01` `02` | null, false, true |
//! | `03` n | a number from 0 |
//! | `04` n | the number -1 - n |
//! | `05` | a float, eight bytes, little end first |
//! | `06` n | a text of n bytes |
//! | `07` n | n hexadecimal digits in lower case, packed in pairs |
//! | `08` n | the n-th long text of this run of values again, from 0 |
//! | `09` n | the n-th of the [words](super::words), from 0 |
//! | `0a` n | an array of n values |
//! | `0b` n | an object of n texts with a value each |
//! | `20`-`3f` | a text of 0 to 31 bytes |
//! | `40`-`7f` | a number from 0 to 63 |
//! | `80`-`df` | one of the first 96 words |
//! | `e0`-`ef` | an object of 0 to 15 |
//! | `f0`-`ff` | an array of 0 to 15 |
//!
//! n is a LEB128 number.

mod direct;

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use crate::words::{WORDS, place};

const NULL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const UINT: u8 = 0x03;
const NEGATIVE: u8 = 0x04;
const FLOAT: u8 = 0x05;
const TEXT: u8 = 0x06;
const HEX: u8 = 0x07;
const AGAIN: u8 = 0x08;
const WORD: u8 = 0x09;
const ARRAY: u8 = 0x0a;
const OBJECT: u8 = 0x0b;
const SHORT_TEXT: u8 = 0x20;
const SHORT_UINT: u8 = 0x40;
const SHORT_WORD: u8 = 0x80;
const SHORT_OBJECT: u8 = 0xe0;
const SHORT_ARRAY: u8 = 0xf0;

/// Texts of this many bytes are worth remembering: pointing at one takes two or three.
const LONG: usize = 8;

/// How deep values may lie in each other, as in every reader of JSON.
const MAX_DEPTH: usize = 128;

/// A value lies too deep.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// The bytes are none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// Packs a run of values that is read as a whole.
#[derive(Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
    /// The long texts so far, with their places.
    long: HashMap<String, u64>,
}

impl Packer {
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A number by itself.
    pub(crate) fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    pub(crate) fn value(&mut self, value: &Value) -> Result<(), TooDeep> {
        self.nested(value, 0)
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Result<(), TooDeep> {
        if depth == MAX_DEPTH {
            return Err(TooDeep);
        }
        match value {
            Value::Null => self.bytes.push(NULL),
            Value::Bool(false) => self.bytes.push(FALSE),
            Value::Bool(true) => self.bytes.push(TRUE),
            Value::Number(number) => self.digits(number),
            Value::String(text) => self.text(text),
            Value::Array(values) => {
                self.counted(SHORT_ARRAY, 16, ARRAY, values.len());
                values.iter().try_for_each(|value| self.nested(value, depth + 1))?;
            }
            Value::Object(map) => {
                self.counted(SHORT_OBJECT, 16, OBJECT, map.len());
                for (key, value) in map {
                    self.text(key);
                    self.nested(value, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// A count in the first byte if it is small, or after it.
    fn counted(&mut self, short: u8, below: usize, long: u8, count: usize) {
        if count < below {
            self.bytes.push(short + count as u8);
        } else {
            self.bytes.push(long);
            self.number(count as u64);
        }
    }

    fn digits(&mut self, number: &Number) {
        if let Some(n) = number.as_u64() {
            match u8::try_from(n) {
                Ok(small) if small < 64 => self.bytes.push(SHORT_UINT + small),
                _ => {
                    self.bytes.push(UINT);
                    self.number(n);
                }
            }
        } else if let Some(n) = number.as_i64() {
            self.bytes.push(NEGATIVE);
            // -1 - n, which is below zero no more.
            self.number((!n).cast_unsigned());
        } else {
            self.bytes.push(FLOAT);
            self.bytes.extend(number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(word) = place(text) {
            return self.counted(SHORT_WORD, usize::from(SHORT_OBJECT - SHORT_WORD), WORD, word);
        }
        if text.len() >= LONG {
            let next = self.long.len() as u64;
            if let Some(at) = self.long.get(text) {
                let at = *at;
                self.bytes.push(AGAIN);
                return self.number(at);
            }
            self.long.insert(text.to_owned(), next);
            if is_hex(text) {
                self.bytes.push(HEX);
                self.number(text.len() as u64);
                let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
                return self.bytes.extend(text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
            }
        }
        self.counted(SHORT_TEXT, 32, TEXT, text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

/// Whether a text is worth packing in pairs, such as a hash.
fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Unpacks what a [`Packer`] packed.
pub(crate) struct Unpacker<'b> {
    bytes: &'b [u8],
    long: Vec<String>,
}

impl<'b> Unpacker<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, long: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn number(&mut self) -> Result<u64, Garbled> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Garbled);
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Garbled)
    }

    pub(crate) fn value(&mut self) -> Result<Value, Garbled> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, Garbled> {
        if depth == MAX_DEPTH {
            return Err(Garbled);
        }
        let tag = self.byte()?;
        Ok(match tag {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            SHORT_UINT..SHORT_WORD => Value::from(tag - SHORT_UINT),
            UINT => Value::from(self.number()?),
            NEGATIVE => Value::from(!i64::try_from(self.number()?).map_err(|_| Garbled)?),
            FLOAT => {
                let bytes = self.take(8)?.try_into().map_err(|_| Garbled)?;
                Value::Number(Number::from_f64(f64::from_le_bytes(bytes)).ok_or(Garbled)?)
            }
            SHORT_ARRAY.. => self.array(usize::from(tag - SHORT_ARRAY), depth)?,
            ARRAY => {
                let count = self.count()?;
                self.array(count, depth)?
            }
            SHORT_OBJECT..SHORT_ARRAY => self.object(usize::from(tag - SHORT_OBJECT), depth)?,
            OBJECT => {
                let count = self.count()?;
                self.object(count, depth)?
            }
            text => Value::String(self.text(text)?),
        })
    }

    fn array(&mut self, count: usize, depth: usize) -> Result<Value, Garbled> {
        (0..count).map(|_| self.nested(depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn object(&mut self, count: usize, depth: usize) -> Result<Value, Garbled> {
        let mut map = Map::new();
        for _ in 0..count {
            let tag = self.byte()?;
            let key = self.text(tag)?;
            map.insert(key, self.nested(depth + 1)?);
        }
        Ok(Value::Object(map))
    }

    fn text(&mut self, tag: u8) -> Result<String, Garbled> {
        let text = match tag {
            SHORT_WORD..SHORT_OBJECT => return word(usize::from(tag - SHORT_WORD)),
            WORD => return word(self.count_of_any()?),
            AGAIN => {
                let at = self.count_of_any()?;
                return self.long.get(at).cloned().ok_or(Garbled);
            }
            HEX => {
                let digits = self.count_of_any()?;
                let pairs = self.take(digits / 2)?;
                let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
                pairs.iter().flat_map(|pair| [digit(pair >> 4), digit(pair & 0xf)]).collect()
            }
            SHORT_TEXT..SHORT_UINT => self.verbatim(usize::from(tag - SHORT_TEXT))?,
            TEXT => {
                let count = self.count()?;
                self.verbatim(count)?
            }
            _ => return Err(Garbled),
        };
        if text.len() >= LONG {
            self.long.push(text.clone());
        }
        Ok(text)
    }

    fn verbatim(&mut self, count: usize) -> Result<String, Garbled> {
        std::str::from_utf8(self.take(count)?).map(str::to_owned).map_err(|_| Garbled)
    }

    /// The number of bytes or values that follow: no more than bytes are left, so that garbled ones take no memory.
    fn count(&mut self) -> Result<usize, Garbled> {
        let count = self.count_of_any()?;
        if count <= self.bytes.len() { Ok(count) } else { Err(Garbled) }
    }

    fn count_of_any(&mut self) -> Result<usize, Garbled> {
        usize::try_from(self.number()?).map_err(|_| Garbled)
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Garbled> {
        let (taken, left) = self.bytes.split_at_checked(count).ok_or(Garbled)?;
        self.bytes = left;
        Ok(taken)
    }
}

fn word(at: usize) -> Result<String, Garbled> {
    WORDS.get(at).map(|word| (*word).to_owned()).ok_or(Garbled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn packed(values: &[Value]) -> Vec<u8> {
        let mut packer = Packer::default();
        values.iter().for_each(|value| packer.value(value).unwrap());
        packer.bytes()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<Value>, Garbled> {
        let mut unpacker = Unpacker::new(bytes);
        let mut values = Vec::new();
        while !unpacker.is_empty() {
            values.push(unpacker.value()?);
        }
        Ok(values)
    }

    #[test]
    fn the_bytes_are_the_format_and_stay() {
        let hash = "00ff".repeat(16);
        let values = [json!({"kind": "resumed", "step": 7}), json!([-1, 300, true, null, "ab", hash, hash, 0.5])];
        let bytes = packed(&values);
        let mut expected = vec![0xe2, 0x80, place("resumed").unwrap() as u8 + 0x80, 0x82, 0x47];
        expected.extend([0xf8, 0x04, 0x00, 0x03, 0xac, 0x02, 0x02, 0x00, 0x22, b'a', b'b', 0x07, 64]);
        expected.extend([0x00, 0xff].repeat(16));
        expected.extend([0x08, 0x00, 0x05, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
        assert_eq!(bytes, expected);
        assert_eq!(unpacked(&bytes).unwrap(), values);
    }

    #[test]
    fn depth_has_a_limit_both_ways() {
        let deep = |depth: usize| (1..depth).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        let bytes = packed(&[deep(MAX_DEPTH)]);
        assert_eq!(unpacked(&bytes).unwrap(), [deep(MAX_DEPTH)]);
        assert_eq!(Packer::default().value(&deep(MAX_DEPTH + 1)), Err(TooDeep));
        assert_eq!(unpacked(&[0xf1; 200_000]), Err(Garbled));
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
        fn whatever_is_packed_is_unpacked(values in prop::collection::vec(value(), 0..4)) {
            prop_assert_eq!(unpacked(&packed(&values)).unwrap(), values);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpacked(&bytes);
        }

        #[test]
        fn what_was_cut_is_refused(value in value(), at in any::<prop::sample::Index>()) {
            let bytes = packed(std::slice::from_ref(&value));
            prop_assert_eq!(Unpacker::new(&bytes[..at.index(bytes.len())]).value(), Err(Garbled));
        }
    }
}
