//! Finds an object that has a key twice. A parsed value has lost the first of them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The first key that an object of a JSON text has twice, and the object as a JSON pointer.
pub(super) fn find(text: &str) -> Option<(String, String)> {
    let (mut place, mut found) = (String::new(), None);
    let mut parser = serde_json::Deserializer::from_str(text);
    // The text is JSON: its syntax was checked before.
    let _ = Keys { place: &mut place, found: &mut found }.deserialize(&mut parser);
    found
}

/// Walks a value.
struct Keys<'a> {
    place: &'a mut String,
    found: &'a mut Option<(String, String)>,
}

impl Keys<'_> {
    /// The walker of a part, whose place ends with this.
    fn below(&mut self, part: &str) -> (usize, Keys<'_>) {
        let length = self.place.len();
        self.place.push('/');
        self.place.push_str(part);
        (length, Keys { place: self.place, found: self.found })
    }
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let (length, item) = self.below(&index.to_string());
            let is_there = items.next_element_seed(item)?.is_some();
            self.place.truncate(length);
            if !is_there {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if self.found.is_none() && keys.contains(&key) {
                *self.found = Some((self.place.clone(), key.clone()));
            }
            let (length, value) = self.below(&key.replace('~', "~0").replace('/', "~1"));
            entries.next_value_seed(value)?;
            self.place.truncate(length);
            keys.insert(key);
        }
        Ok(())
    }
}
