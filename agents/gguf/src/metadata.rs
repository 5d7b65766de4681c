//! The metadata of a header, within budgets: a file may be sparse, so that its size says nothing of the work and the memory that
//! its header asks for.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::reader::{HeaderFault, HeaderReader};
use crate::tensor::MAX_LAYERS;

/// Bytes of all metadata; the largest vocabularies with their merges have about 20 MiB.
const MAX_METADATA_BYTES: u64 = 256 << 20;
/// Elements of all arrays; the largest vocabularies have about 300,000 tokens in four arrays.
const MAX_ARRAY_ELEMENTS: u64 = 8 << 20;
/// Bytes of all keys and texts that are kept; fifty entries with short texts have a few kilobytes.
const MAX_KEPT_BYTES: u64 = 8 << 20;
/// Bytes of a text that is kept. Longer ones, such as chat templates, are read by llama.cpp alone.
const MAX_KEPT_TEXT_BYTES: u64 = 64 << 10;
/// Bytes of a key; the specification's limit.
const MAX_KEY_BYTES: u64 = 65_535;
/// Integers kept over all arrays; arrays with more than one element per layer are skipped.
const MAX_KEPT_INTEGERS: usize = 64 * MAX_LAYERS;
/// Bytes of a token that is told: longer ones are none of a language.
const MAX_TOKEN_BYTES: u64 = 1024;
/// The array of the vocabulary.
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
/// The characters of a key that an error repeats.
const MAX_SHOWN_CHARS: usize = 60;

/// The value types of the specification that are no fixed number of bytes.
const TEXT_TYPE: u32 = 8;
const ARRAY_TYPE: u32 = 9;

/// What this crate uses of the metadata.
#[derive(Default)]
pub(crate) struct Metadata {
    /// Scalars and short texts, as text.
    pub(crate) texts: BTreeMap<String, String>,
    /// Short integer arrays.
    pub(crate) integer_arrays: BTreeMap<String, Vec<i64>>,
}

/// What the rest of the metadata may still take.
struct MetadataBudget {
    bytes: u64,
    elements: u64,
    kept_bytes: u64,
    kept_integers: usize,
}

impl MetadataBudget {
    /// Takes bytes of the file for the value of a key.
    fn take_bytes(&mut self, key: &str, bytes: u64) -> Result<(), HeaderFault> {
        take(&mut self.bytes, bytes).ok_or_else(|| over_budget(key, &format!("{MAX_METADATA_BYTES} bytes of metadata")))
    }

    fn take_elements(&mut self, key: &str, count: u64) -> Result<(), HeaderFault> {
        take(&mut self.elements, count)
            .ok_or_else(|| over_budget(key, &format!("{MAX_ARRAY_ELEMENTS} elements of all arrays")))
    }

    fn take_kept(&mut self, key: &str, bytes: u64) -> Result<(), HeaderFault> {
        take(&mut self.kept_bytes, bytes)
            .ok_or_else(|| over_budget(key, &format!("{MAX_KEPT_BYTES} bytes of keys and short texts")))
    }
}

fn take(remaining: &mut u64, wanted: u64) -> Option<()> {
    *remaining = remaining.checked_sub(wanted)?;
    Some(())
}

fn over_budget(key: &str, budget: &str) -> HeaderFault {
    let shown: String = key.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    HeaderFault::OverBudget(format!("`{shown}` exceeds the budget of {budget}"))
}

/// Reads the metadata; `on_token` takes the tokens of the vocabulary, if they are wanted.
pub(crate) fn read(
    reader: &mut HeaderReader<impl BufRead>,
    entries: u64,
    mut on_token: Option<&mut dyn FnMut(&str)>,
) -> Result<Metadata, HeaderFault> {
    let mut metadata = Metadata::default();
    let mut budget = MetadataBudget {
        bytes: MAX_METADATA_BYTES,
        elements: MAX_ARRAY_ELEMENTS,
        kept_bytes: MAX_KEPT_BYTES,
        kept_integers: MAX_KEPT_INTEGERS,
    };
    for _ in 0..entries {
        let length = reader.count(MAX_KEY_BYTES, "bytes of a key")?;
        let key = reader.text(length)?;
        budget.take_bytes(&key, length)?;
        match reader.u32()? {
            ARRAY_TYPE => {
                let integers = match &mut on_token {
                    Some(take) if key == TOKENS_KEY => array(reader, &key, &mut budget, Some(&mut **take))?,
                    _ => array(reader, &key, &mut budget, None)?,
                };
                if !integers.is_empty() {
                    budget.take_kept(&key, key.len() as u64)?;
                    metadata.integer_arrays.insert(key, integers);
                }
            }
            kind => {
                if let Some(text) = scalar(reader, kind, &key, &mut budget)? {
                    budget.take_kept(&key, (key.len() + text.len()) as u64)?;
                    metadata.texts.insert(key, text);
                }
            }
        }
    }
    Ok(metadata)
}

/// A scalar as text; none for a text that is not kept.
fn scalar(
    reader: &mut HeaderReader<impl BufRead>,
    kind: u32,
    key: &str,
    budget: &mut MetadataBudget,
) -> Result<Option<String>, HeaderFault> {
    if let Some(width) = width(kind) {
        budget.take_bytes(key, width)?;
    }
    Ok(Some(match kind {
        6 => f32::from_le_bytes(reader.bytes()?).to_string(),
        7 => (reader.bytes::<1>()?[0] != 0).to_string(),
        10 => reader.u64()?.to_string(),
        12 => f64::from_le_bytes(reader.bytes()?).to_string(),
        TEXT_TYPE => {
            let length = reader.u64()?;
            budget.take_bytes(key, length)?;
            if length > MAX_KEPT_TEXT_BYTES {
                reader.skip(length)?;
                return Ok(None);
            }
            reader.text(length)?
        }
        kind => integer(reader, kind)?.ok_or_else(|| unknown(kind))?.to_string(),
    }))
}

/// An array: its elements if they are a few integers, otherwise none. `take` takes those of an array of texts.
fn array(
    reader: &mut HeaderReader<impl BufRead>,
    key: &str,
    budget: &mut MetadataBudget,
    mut take: Option<&mut dyn FnMut(&str)>,
) -> Result<Vec<i64>, HeaderFault> {
    let kind = reader.u32()?;
    let count = reader.u64()?;
    budget.take_elements(key, count)?;
    let Some(width) = width(kind) else {
        if kind != TEXT_TYPE {
            return Err(unknown(kind));
        }
        // Each text has its length before it.
        budget.take_bytes(key, count * 8)?;
        reader.require(count * 8)?;
        for _ in 0..count {
            let length = reader.u64()?;
            budget.take_bytes(key, length)?;
            match &mut take {
                Some(take) if length <= MAX_TOKEN_BYTES => take(&reader.text(length)?),
                _ => reader.skip(length)?,
            }
        }
        return Ok(Vec::new());
    };
    budget.take_bytes(key, count * width)?;
    reader.require(count * width)?;
    let is_kept = is_integer(kind) && count <= budget.kept_integers.min(MAX_LAYERS) as u64;
    if !is_kept {
        reader.skip(count * width)?;
        return Ok(Vec::new());
    }
    let integers = (0..count).map(|_| integer(reader, kind)).collect::<Result<Option<Vec<_>>, _>>()?;
    let integers = integers.ok_or_else(|| unknown(kind))?;
    budget.kept_integers -= integers.len();
    Ok(integers)
}

/// The value types that [`integer`] reads.
fn is_integer(kind: u32) -> bool {
    matches!(kind, 0..=5 | 11)
}

/// An integer; none for another type.
fn integer(reader: &mut HeaderReader<impl BufRead>, kind: u32) -> Result<Option<i64>, HeaderFault> {
    Ok(Some(match kind {
        0 => u8::from_le_bytes(reader.bytes()?).into(),
        1 => i8::from_le_bytes(reader.bytes()?).into(),
        2 => u16::from_le_bytes(reader.bytes()?).into(),
        3 => i16::from_le_bytes(reader.bytes()?).into(),
        4 => reader.u32()?.into(),
        5 => i32::from_le_bytes(reader.bytes()?).into(),
        11 => i64::from_le_bytes(reader.bytes()?),
        _ => return Ok(None),
    }))
}

/// The bytes of a value of a type; none for texts, arrays and unknown types.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn unknown(kind: u32) -> HeaderFault {
    HeaderFault::Damaged(match kind {
        ARRAY_TYPE => "nested arrays are not supported".to_owned(),
        kind => format!("unknown value type {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{self, BufReader, Read};
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
    }

    fn array_of(kind: u32, count: u64) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat()
    }

    /// Counts the bytes that are read.
    struct CountedReads<R>(R, Rc<Cell<u64>>);

    impl<R: Read> Read for CountedReads<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.set(self.1.get() + count as u64);
            Ok(count)
        }
    }

    /// The metadata of bytes that zeros follow, as in a sparse file; with the number of bytes that were read.
    fn sparse(bytes: &[u8], entries: u64) -> (Result<Metadata, HeaderFault>, u64) {
        let count = Rc::new(Cell::new(0));
        let file = BufReader::new(CountedReads(bytes.chain(io::repeat(0)), count.clone()));
        (read(&mut HeaderReader::new(file, u64::MAX), entries, None), count.get())
    }

    fn refusal(bytes: &[u8]) -> String {
        match sparse(bytes, 1).0 {
            Err(HeaderFault::OverBudget(reason) | HeaderFault::Damaged(reason)) => reason,
            Err(_) => panic!("another fault"),
            Ok(_) => panic!("it was read"),
        }
    }

    #[test]
    fn an_entry_over_budget_is_refused_by_its_name_before_it_is_read() {
        let many = entry("a.many", ARRAY_TYPE, &array_of(0, MAX_ARRAY_ELEMENTS + 1));
        assert_eq!(refusal(&many), "`a.many` exceeds the budget of 8388608 elements of all arrays");
        let long = entry("a.long", TEXT_TYPE, &(MAX_METADATA_BYTES + 1).to_le_bytes());
        assert_eq!(refusal(&long), "`a.long` exceeds the budget of 268435456 bytes of metadata");
        let most = entry("a.most", ARRAY_TYPE, &array_of(12, u64::MAX));
        assert!(refusal(&most).contains("elements"));
        assert_eq!(refusal(&entry("a", ARRAY_TYPE, &array_of(ARRAY_TYPE, 1))), "nested arrays are not supported");
        for bytes in [&many, &long, &most] {
            assert!(sparse(bytes, 1).1 < 1 << 20);
        }
    }

    #[test]
    fn the_budget_holds_for_all_entries_together() {
        let bytes: Vec<u8> =
            (0..40).flat_map(|_| entry("k", ARRAY_TYPE, &array_of(0, MAX_ARRAY_ELEMENTS / 32))).collect();
        let mut file = Vec::new();
        for chunk in bytes.chunks(bytes.len() / 40) {
            file.extend_from_slice(chunk);
            file.resize(file.len() + (MAX_ARRAY_ELEMENTS / 32) as usize, 0);
        }
        let (result, _) = sparse(&file, 40);
        assert!(matches!(result, Err(HeaderFault::OverBudget(reason)) if reason.contains("elements")));
    }

    #[test]
    fn an_array_that_the_file_cannot_hold_is_refused_before_it_is_read() {
        let bytes = entry("a", ARRAY_TYPE, &array_of(12, 1 << 20));
        let result = read(&mut HeaderReader::new(&bytes[..], bytes.len() as u64), 1, None);
        assert!(matches!(result, Err(HeaderFault::Read(e)) if e.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn long_texts_are_passed_over_and_what_follows_is_read() {
        let length = MAX_KEPT_TEXT_BYTES + 1;
        let mut bytes = entry("template", TEXT_TYPE, &length.to_le_bytes());
        bytes.resize(bytes.len() + length as usize, b'x');
        bytes.extend(entry("n", 4, &7u32.to_le_bytes()));
        bytes.extend(entry("heads", ARRAY_TYPE, &[array_of(1, 2), vec![3, 0xff]].concat()));
        let Ok(metadata) = sparse(&bytes, 3).0 else { panic!("the header is sound") };
        assert_eq!(metadata.texts, BTreeMap::from([("n".to_owned(), "7".to_owned())]));
        assert_eq!(metadata.integer_arrays, BTreeMap::from([("heads".to_owned(), vec![3, -1])]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Entries of any type with any counts, and then zeros without end.
        #[test]
        fn a_hostile_header_takes_no_more_than_its_budget(
            entries in prop::collection::vec((0..14u32, 0..14u32, prop_oneof![0..600u64, any::<u64>(), 1..1u64 << 28]), 1..24),
            claimed in 1..70_000u64,
        ) {
            let mut bytes = Vec::new();
            for (kind, inner, count) in entries {
                let value = if kind == ARRAY_TYPE { array_of(inner, count) } else { count.to_le_bytes().to_vec() };
                bytes.extend(entry("hostile.key", kind, &value));
            }
            let (result, read) = sparse(&bytes, claimed);
            // Keys, types and the reader's buffer come on top.
            prop_assert!(read <= MAX_METADATA_BYTES + claimed * 32 + (1 << 20), "{read}");
            if let Ok(metadata) = result {
                let texts: usize = metadata.texts.iter().map(|(key, text)| key.len() + text.len()).sum();
                let integers: usize = metadata.integer_arrays.values().map(Vec::len).sum();
                prop_assert!(texts as u64 <= MAX_KEPT_BYTES && integers <= MAX_KEPT_INTEGERS);
            }
        }
    }
}
