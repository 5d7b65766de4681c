//! Encodes serializable values without an intermediate JSON value: most events have no free values.

use std::fmt::Display;

use serde::ser::{self, Serialize};
use serde_json::Number;

use super::{
    ARRAY_TAG, FALSE_TAG, MAX_DEPTH, NULL_TAG, OBJECT_TAG, SHORT_ARRAY_TAG, SHORT_OBJECT_TAG, TRUE_TAG, ValueEncoder,
};

/// Why a value cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("it has a sequence of unknown length")]
    UnknownLength,
    #[error("it is nested too deeply")]
    Nesting,
    #[error("it has more elements than declared")]
    ExtraElement,
    #[error("it has fewer elements than declared")]
    MissingElement,
    #[error("it has a key that is not a string")]
    Key,
    /// A type refuses to be serialized.
    #[error("{0}")]
    Refused(String),
}

impl ser::Error for EncodeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Refused(message.to_string())
    }
}

impl ValueEncoder {
    /// Encodes a value as [`ValueEncoder::value`] would encode its JSON.
    pub(crate) fn serialize(&mut self, value: &impl Serialize) -> Result<(), EncodeError> {
        value.serialize(ValueSerializer { encoder: self, depth: 0 })
    }
}

/// Encodes a value at this depth.
struct ValueSerializer<'e> {
    encoder: &'e mut ValueEncoder,
    depth: usize,
}

/// Encodes the values of an array or an object.
struct CompoundSerializer<'e> {
    encoder: &'e mut ValueEncoder,
    depth: usize,
    remaining: usize,
}

impl<'e> ValueSerializer<'e> {
    fn array(self, count: Option<usize>) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.compound(SHORT_ARRAY_TAG, ARRAY_TAG, count)
    }

    fn object(self, count: Option<usize>) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.compound(SHORT_OBJECT_TAG, OBJECT_TAG, count)
    }

    fn compound(self, short: u8, long: u8, count: Option<usize>) -> Result<CompoundSerializer<'e>, EncodeError> {
        let count = count.ok_or(EncodeError::UnknownLength)?;
        if self.depth + 1 >= MAX_DEPTH {
            return Err(EncodeError::Nesting);
        }
        self.encoder.tag_with_count(short, 16, long, count);
        Ok(CompoundSerializer { encoder: self.encoder, depth: self.depth + 1, remaining: count })
    }

    /// Starts an object of one key, the form of variants with content.
    fn variant(self, name: &str) -> Result<Self, EncodeError> {
        let CompoundSerializer { encoder, depth, .. } = self.object(Some(1))?;
        encoder.text(name);
        Ok(Self { encoder, depth })
    }

    fn number(self, number: impl Into<Number>) {
        self.encoder.number(&number.into());
    }
}

macro_rules! numbers {
    ($($name:ident: $Number:ty),*) => {
        $(fn $name(self, number: $Number) -> Result<(), EncodeError> {
            self.number(number);
            Ok(())
        })*
    };
}

impl<'e> ser::Serializer for ValueSerializer<'e> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = CompoundSerializer<'e>;
    type SerializeTuple = CompoundSerializer<'e>;
    type SerializeTupleStruct = CompoundSerializer<'e>;
    type SerializeTupleVariant = CompoundSerializer<'e>;
    type SerializeMap = CompoundSerializer<'e>;
    type SerializeStruct = CompoundSerializer<'e>;
    type SerializeStructVariant = CompoundSerializer<'e>;

    numbers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    numbers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_f32(self, number: f32) -> Result<(), EncodeError> {
        self.serialize_f64(f64::from(number))
    }

    /// JSON has no NaN and no infinity.
    fn serialize_f64(self, number: f64) -> Result<(), EncodeError> {
        match Number::from_f64(number) {
            Some(number) => self.number(number),
            None => self.encoder.bytes.push(NULL_TAG),
        }
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.encoder.bytes.push(if value { TRUE_TAG } else { FALSE_TAG });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), EncodeError> {
        self.encoder.text(text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), EncodeError> {
        bytes.serialize(self)
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.encoder.bytes.push(NULL_TAG);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self.variant(variant)?)
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.array(count)
    }

    fn serialize_tuple(self, count: usize) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.array(Some(count))
    }

    fn serialize_tuple_struct(self, _: &'static str, count: usize) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.array(Some(count))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.variant(variant)?.array(Some(count))
    }

    fn serialize_map(self, count: Option<usize>) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.object(count)
    }

    fn serialize_struct(self, _: &'static str, count: usize) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.object(Some(count))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<CompoundSerializer<'e>, EncodeError> {
        self.variant(variant)?.object(Some(count))
    }
}

impl CompoundSerializer<'_> {
    fn element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.remaining = self.remaining.checked_sub(1).ok_or(EncodeError::ExtraElement)?;
        self.nested(value)
    }

    fn field<T: ?Sized + Serialize>(&mut self, name: &str, value: &T) -> Result<(), EncodeError> {
        self.encoder.text(name);
        self.element(value)
    }

    fn nested<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(ValueSerializer { encoder: self.encoder, depth: self.depth })
    }

    fn finish(self) -> Result<(), EncodeError> {
        if self.remaining == 0 { Ok(()) } else { Err(EncodeError::MissingElement) }
    }
}

impl ser::SerializeMap for CompoundSerializer<'_> {
    type Ok = ();
    type Error = EncodeError;

    /// Keys must be strings, as in JSON.
    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), EncodeError> {
        match serde_json::to_value(key) {
            Ok(serde_json::Value::String(key)) => self.encoder.text(&key),
            _ => return Err(EncodeError::Key),
        }
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.element(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

macro_rules! compound_serializers {
    ($($Trait:ident: $name:ident($($key:ident: $Key:ty)?) $call:ident),*) => {
        $(impl ser::$Trait for CompoundSerializer<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $name<T: ?Sized + Serialize>(&mut self, $($key: $Key,)? value: &T) -> Result<(), EncodeError> {
                self.$call($($key,)? value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        })*
    };
}

compound_serializers!(
    SerializeSeq: serialize_element() element,
    SerializeTuple: serialize_element() element,
    SerializeTupleStruct: serialize_field() element,
    SerializeTupleVariant: serialize_field() element,
    SerializeStruct: serialize_field(name: &'static str) field,
    SerializeStructVariant: serialize_field(name: &'static str) field
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Serialize;
    use serde_json::json;

    use super::super::ValueDecoder;
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum VariantFixture {
        Bare,
        One(f32),
        Two(i8, char),
        Named { at: Option<u64> },
    }

    #[derive(Serialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum TaggedFixture {
        Accepted(RecordFixture),
        Waiting {
            step: RecordFixture,
            #[serde(skip_serializing_if = "Option::is_none")]
            schema: Option<u8>,
        },
    }

    #[derive(Serialize)]
    struct RecordFixture {
        text: &'static str,
        labels: BTreeMap<&'static str, bool>,
        took: Duration,
    }

    fn inner() -> RecordFixture {
        RecordFixture {
            text: "a text of some length",
            labels: BTreeMap::from([("a", true)]),
            took: Duration::from_millis(1),
        }
    }

    fn encoded(encode: impl FnOnce(&mut ValueEncoder)) -> Vec<u8> {
        let mut encoder = ValueEncoder::default();
        encode(&mut encoder);
        encoder.into_bytes()
    }

    #[test]
    fn a_value_is_encoded_like_its_json() {
        let values = (
            [VariantFixture::Bare, VariantFixture::One(0.5), VariantFixture::One(f32::NAN)],
            (
                VariantFixture::Two(-1, 'ß'),
                VariantFixture::Named { at: Some(u64::MAX) },
                VariantFixture::Named { at: None },
            ),
            [TaggedFixture::Accepted(inner()), TaggedFixture::Waiting { step: inner(), schema: None }],
            ((), "", vec![300u32; 20]),
        );
        let value = serde_json::to_value(&values).unwrap();
        let direct = encoded(|encoder| encoder.serialize(&values).unwrap());
        assert_eq!(direct, encoded(|encoder| encoder.value(&value).unwrap()));
        assert_eq!(ValueDecoder::new(&direct).value(), Ok(value));
    }

    #[test]
    fn a_value_that_could_not_be_decoded_is_refused() {
        let deep = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert!(ValueEncoder::default().serialize(&deep).is_err());
        let below = &deep[0];
        let direct = encoded(|encoder| encoder.serialize(below).unwrap());
        assert_eq!(ValueDecoder::new(&direct).value().as_ref(), Ok(below));
        assert!(
            ValueEncoder::default().serialize(&BTreeMap::from([(1, 2)])).is_err(),
            "serde_json would convert this key to a string"
        );
    }
}
