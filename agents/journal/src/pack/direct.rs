//! Facts packed as they are told, without a JSON value in between: most of what a journal writes has no free values.

use std::fmt::Display;

use serde::ser::{self, Serialize};
use serde_json::Number;

use super::{ARRAY, FALSE, MAX_DEPTH, NULL, OBJECT, Packer, SHORT_ARRAY, SHORT_OBJECT, TRUE};

/// Why something cannot be packed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unfit(String);

impl ser::Error for Unfit {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Packer {
    /// Packs what [`Packer::value`] would, given the JSON of this.
    pub(crate) fn fact(&mut self, fact: &impl Serialize) -> Result<(), Unfit> {
        fact.serialize(Direct { packer: self, depth: 0 })
    }
}

/// Packs a value that lies so deep in others.
struct Direct<'p> {
    packer: &'p mut Packer,
    depth: usize,
}

/// Packs the values of an array or an object, of which so many are to come.
struct Parts<'p> {
    packer: &'p mut Packer,
    depth: usize,
    left: usize,
}

impl<'p> Direct<'p> {
    fn array(self, count: Option<usize>) -> Result<Parts<'p>, Unfit> {
        self.parts(SHORT_ARRAY, ARRAY, count)
    }

    fn object(self, count: Option<usize>) -> Result<Parts<'p>, Unfit> {
        self.parts(SHORT_OBJECT, OBJECT, count)
    }

    fn parts(self, short: u8, long: u8, count: Option<usize>) -> Result<Parts<'p>, Unfit> {
        let left = count.ok_or_else(|| Unfit("it does not say how long it is".to_owned()))?;
        if self.depth + 1 >= MAX_DEPTH {
            return Err(Unfit("it nests too deep".to_owned()));
        }
        self.packer.counted(short, 16, long, left);
        Ok(Parts { packer: self.packer, depth: self.depth + 1, left })
    }

    /// An object of one text, as variants with content are.
    fn variant(self, name: &str) -> Result<Self, Unfit> {
        let Parts { packer, depth, .. } = self.object(Some(1))?;
        packer.text(name);
        Ok(Self { packer, depth })
    }

    fn number(self, number: impl Into<Number>) {
        self.packer.digits(&number.into());
    }
}

macro_rules! numbers {
    ($($name:ident: $Number:ty),*) => {
        $(fn $name(self, number: $Number) -> Result<(), Unfit> {
            self.number(number);
            Ok(())
        })*
    };
}

impl<'p> ser::Serializer for Direct<'p> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Parts<'p>;
    type SerializeTuple = Parts<'p>;
    type SerializeTupleStruct = Parts<'p>;
    type SerializeTupleVariant = Parts<'p>;
    type SerializeMap = Parts<'p>;
    type SerializeStruct = Parts<'p>;
    type SerializeStructVariant = Parts<'p>;

    numbers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    numbers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_f32(self, number: f32) -> Result<(), Unfit> {
        self.serialize_f64(f64::from(number))
    }

    /// JSON has no NaN and no infinity.
    fn serialize_f64(self, number: f64) -> Result<(), Unfit> {
        match Number::from_f64(number) {
            Some(number) => self.number(number),
            None => self.packer.bytes.push(NULL),
        }
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), Unfit> {
        self.packer.bytes.push(if value { TRUE } else { FALSE });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Unfit> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Unfit> {
        self.packer.text(text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Unfit> {
        bytes.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Unfit> {
        self.serialize_unit()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unfit> {
        self.packer.bytes.push(NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unfit> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unfit> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        value.serialize(self.variant(variant)?)
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Parts<'p>, Unfit> {
        self.array(count)
    }

    fn serialize_tuple(self, count: usize) -> Result<Parts<'p>, Unfit> {
        self.array(Some(count))
    }

    fn serialize_tuple_struct(self, _: &'static str, count: usize) -> Result<Parts<'p>, Unfit> {
        self.array(Some(count))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Parts<'p>, Unfit> {
        self.variant(variant)?.array(Some(count))
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Parts<'p>, Unfit> {
        self.object(count)
    }

    fn serialize_struct(self, _: &'static str, count: usize) -> Result<Parts<'p>, Unfit> {
        self.object(Some(count))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Parts<'p>, Unfit> {
        self.variant(variant)?.object(Some(count))
    }
}

impl Parts<'_> {
    fn part<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Unfit> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Unfit("it has more parts than it said".to_owned()))?;
        self.inner(value)
    }

    fn field<T: ?Sized + Serialize>(&mut self, name: &str, value: &T) -> Result<(), Unfit> {
        self.packer.text(name);
        self.part(value)
    }

    fn inner<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Unfit> {
        value.serialize(Direct { packer: self.packer, depth: self.depth })
    }

    fn done(self) -> Result<(), Unfit> {
        if self.left == 0 { Ok(()) } else { Err(Unfit("it has fewer parts than it said".to_owned())) }
    }
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Unfit;

    /// Keys are texts in JSON, whatever they are here.
    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Unfit> {
        match serde_json::to_value(key) {
            Ok(serde_json::Value::String(key)) => self.packer.text(&key),
            _ => return Err(Unfit("it has a key that is no text".to_owned())),
        }
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Unfit> {
        self.part(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.done()
    }
}

macro_rules! parts {
    ($($Trait:ident: $name:ident($($key:ident: $Key:ty)?) $call:ident),*) => {
        $(impl ser::$Trait for Parts<'_> {
            type Ok = ();
            type Error = Unfit;

            fn $name<T: ?Sized + Serialize>(&mut self, $($key: $Key,)? value: &T) -> Result<(), Unfit> {
                self.$call($($key,)? value)
            }

            fn end(self) -> Result<(), Unfit> {
                self.done()
            }
        })*
    };
}

parts!(
    SerializeSeq: serialize_element() part,
    SerializeTuple: serialize_element() part,
    SerializeTupleStruct: serialize_field() part,
    SerializeTupleVariant: serialize_field() part,
    SerializeStruct: serialize_field(name: &'static str) field,
    SerializeStructVariant: serialize_field(name: &'static str) field
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Serialize;
    use serde_json::json;

    use super::super::Unpacker;
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        Bare,
        One(f32),
        Two(i8, char),
        Named { at: Option<u64> },
    }

    #[derive(Serialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Tagged {
        Accepted(Inner),
        Waiting {
            step: Inner,
            #[serde(skip_serializing_if = "Option::is_none")]
            schema: Option<u8>,
        },
    }

    #[derive(Serialize)]
    struct Inner {
        text: &'static str,
        labels: BTreeMap<&'static str, bool>,
        took: Duration,
    }

    fn inner() -> Inner {
        Inner { text: "a text of some length", labels: BTreeMap::from([("a", true)]), took: Duration::from_millis(1) }
    }

    fn packed(pack: impl FnOnce(&mut Packer)) -> Vec<u8> {
        let mut packer = Packer::default();
        pack(&mut packer);
        packer.bytes()
    }

    #[test]
    fn a_fact_is_packed_like_its_json() {
        let facts = (
            [Shape::Bare, Shape::One(0.5), Shape::One(f32::NAN)],
            (Shape::Two(-1, 'ß'), Shape::Named { at: Some(u64::MAX) }, Shape::Named { at: None }),
            [Tagged::Accepted(inner()), Tagged::Waiting { step: inner(), schema: None }],
            ((), "", vec![300u32; 20]),
        );
        let value = serde_json::to_value(&facts).unwrap();
        let direct = packed(|packer| packer.fact(&facts).unwrap());
        assert_eq!(direct, packed(|packer| packer.value(&value).unwrap()));
        assert_eq!(Unpacker::new(&direct).value(), Ok(value));
    }

    #[test]
    fn what_no_reader_would_take_is_refused() {
        let deep = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert!(Packer::default().fact(&deep).is_err());
        let below = &deep[0];
        let direct = packed(|packer| packer.fact(below).unwrap());
        assert_eq!(Unpacker::new(&direct).value().as_ref(), Ok(below));
        assert!(Packer::default().fact(&BTreeMap::from([(1, 2)])).is_err(), "serde_json would make a text of this key");
    }
}
