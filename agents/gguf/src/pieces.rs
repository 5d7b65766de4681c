//! Opens the files of a model: one, or all pieces of a model that is split into several, which are read as one.
//!
//! Source: `llama-gguf-split` and `llama_model_loader` of llama.cpp. The first piece has all metadata, and the others say only which
//! of how many they are. Each has the descriptions of its own tensors, relative to its own data.

use std::collections::{BTreeMap, HashSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use artel_model::{PieceNumbers, open_regular_file, piece_paths};

use crate::error::Error;
use crate::header::GgufHeader;
use crate::parse::{MAX_TENSORS, SPLIT_COUNT_KEY, SPLIT_NUMBER_KEY, parse_piece, tokens};
use crate::tensor::{TensorInfo, WeightTotals};

/// What a piece says of all: the number of their tensors.
const SPLIT_TENSORS_KEY: &str = "split.tensors.count";

/// A model's files and its header.
pub(crate) struct OpenedModel {
    /// Of a model in pieces: the metadata of the first piece without what is said of pieces, the tensors of all, sizes summed.
    pub(crate) header: GgufHeader,
    /// Each file, in order, with the offset of its tensor data.
    pub(crate) files: Vec<(PathBuf, u64)>,
}

/// Reads and checks the headers of a model of which a file is named; `on_tensor` takes the tensors in order, each with the index of
/// its file.
///
/// # Errors
/// A file is missing or invalid, or the pieces do not belong together.
pub(crate) fn open_model(path: &Path, on_tensor: &mut dyn FnMut(usize, TensorInfo)) -> Result<OpenedModel, Error> {
    let paths = piece_paths(path);
    if paths.len() > 1 {
        return open_pieces(paths, on_tensor);
    }
    let header = open_file(path, WeightTotals::default(), &mut |tensor| on_tensor(0, tensor))?;
    refuse_piece(path, &header)?;
    Ok(OpenedModel { files: vec![(path.to_owned(), header.data_offset)], header })
}

/// Refuses a file whose header says that it is a piece, and whose name does not: the others are not found by it.
pub(crate) fn refuse_piece(path: &Path, header: &GgufHeader) -> Result<(), Error> {
    let count = number(&header.metadata, SPLIT_COUNT_KEY).filter(|count| *count > 1);
    let (Some(count), piece) = (count, number(&header.metadata, SPLIT_NUMBER_KEY).unwrap_or(0)) else { return Ok(()) };
    let reason = format!(
        "this is piece {} of {count} of a model, and its name does not say so: the others are found by names like \
         `NAME-{:05}-of-{count:05}.gguf` in one directory; rename it, or name the link or file that has this name",
        piece.saturating_add(1),
        piece.saturating_add(1)
    );
    Err(Error::WrongKind { path: path.to_owned(), reason })
}

/// Reads and checks the header of one file; its tensors are added to `weights`.
pub(crate) fn open_file(
    path: &Path,
    weights: WeightTotals,
    on_tensor: &mut dyn FnMut(TensorInfo),
) -> Result<GgufHeader, Error> {
    let read = |source| Error::of_read(path, source);
    let file = open_regular_file(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let header =
        parse_piece(BufReader::new(file), size, weights, on_tensor).map_err(|fault| fault.into_error(path, size))?;
    if header.required_bytes > size {
        let required_bytes = header.required_bytes;
        return Err(Error::Truncated { path: path.to_owned(), required_bytes, actual_bytes: size });
    }
    Ok(header)
}

/// Calls `take` with each token of a model's vocabulary, in order; a model in pieces has it in the first one.
///
/// # Errors
/// If the file cannot be read, or is no GGUF.
pub fn for_each_token(path: &Path, mut take: impl FnMut(&str)) -> Result<(), Error> {
    let first = piece_paths(path).into_iter().next().unwrap_or_else(|| path.to_owned());
    let read = |source| Error::of_read(&first, source);
    let file = open_regular_file(&first).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    tokens(BufReader::new(file), size, &mut take).map_err(|fault| fault.into_error(&first, size))
}

fn open_pieces(paths: Vec<PathBuf>, on_tensor: &mut dyn FnMut(usize, TensorInfo)) -> Result<OpenedModel, Error> {
    let count = paths.len() as u32;
    let numbers: Vec<u32> = (1..=count).zip(&paths).filter(|(_, path)| !path.exists()).map(|(at, _)| at).collect();
    if numbers.len() == paths.len() {
        return Err(Error::Missing { path: paths[0].clone() });
    }
    if !numbers.is_empty() {
        return Err(Error::MissingPieces { path: paths[0].clone(), missing: PieceNumbers { numbers, count } });
    }
    let mut names = HashSet::new();
    let mut twice = None;
    let mut model: Option<GgufHeader> = None;
    let mut files = Vec::new();
    for (at, path) in paths.into_iter().enumerate() {
        let weights = model.as_mut().map(|model| std::mem::take(&mut model.weights)).unwrap_or_default();
        let piece = open_file(&path, weights, &mut |tensor| {
            if !names.insert(tensor.name.clone()) {
                twice.get_or_insert_with(|| tensor.name.clone());
            }
            on_tensor(at, tensor);
        })?;
        let refused = |reason: String| Err(Error::PieceMismatch { path: path.clone(), reason });
        if let Some(reason) = mismatch(&piece, model.as_ref(), at, count) {
            return refused(reason);
        }
        if let Some(name) = twice.take() {
            // A name is content of the file.
            let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            return refused(format!("its tensor `{name}` is in an earlier piece, or twice in this one"));
        }
        files.push((path, piece.data_offset));
        model = Some(match model {
            None => piece,
            Some(first) => joined(first, piece),
        });
    }
    let mut header = model.expect("a model in pieces has at least two");
    let stated = number(&header.metadata, SPLIT_TENSORS_KEY);
    if stated != Some(header.tensor_count) {
        let (path, has) = (files[0].0.clone(), header.tensor_count);
        let states = stated.map_or_else(|| "does not say how many there are".to_owned(), |all| format!("says {all}"));
        let reason = format!("the pieces have {has} tensors, and the first one {states} (`{SPLIT_TENSORS_KEY}`)");
        return Err(Error::PieceMismatch { path, reason });
    }
    header.metadata.retain(|key, _| ![SPLIT_NUMBER_KEY, SPLIT_COUNT_KEY, SPLIT_TENSORS_KEY].contains(&key.as_str()));
    Ok(OpenedModel { header, files })
}

/// The header of the pieces so far, and one more, whose tensors are in its totals already.
fn joined(model: GgufHeader, piece: GgufHeader) -> GgufHeader {
    GgufHeader {
        tensor_count: model.tensor_count.saturating_add(piece.tensor_count),
        required_bytes: model.required_bytes.saturating_add(piece.required_bytes),
        file_bytes: model.file_bytes.saturating_add(piece.file_bytes),
        weights: piece.weights,
        ..model
    }
}

/// Why a piece does not belong to those before it, or is not the one that its name says.
fn mismatch(piece: &GgufHeader, model: Option<&GgufHeader>, at: usize, count: u32) -> Option<String> {
    let stated = |key: &str| number(&piece.metadata, key);
    let (Some(own), Some(all)) = (stated(SPLIT_NUMBER_KEY), stated(SPLIT_COUNT_KEY)) else {
        let keys = format!("`{SPLIT_NUMBER_KEY}` and `{SPLIT_COUNT_KEY}`");
        return Some(format!("its name is that of a piece, and its header says nothing of pieces ({keys})"));
    };
    if (own, all) != (at as u64, u64::from(count)) {
        let own = own.saturating_add(1);
        return Some(format!("its name says piece {} of {count}, and its header piece {own} of {all}", at + 1));
    }
    let model = model?;
    if !piece.architecture.is_empty() && piece.architecture != model.architecture {
        return Some("its header has another architecture than that of the first piece".to_owned());
    }
    let (first, all) = (number(&model.metadata, SPLIT_TENSORS_KEY), stated(SPLIT_TENSORS_KEY));
    if all.is_some() && all != first {
        return Some("it says another number of tensors of the whole model than the first piece".to_owned());
    }
    (model.tensor_count.saturating_add(piece.tensor_count) > MAX_TENSORS)
        .then(|| format!("the pieces have more than {MAX_TENSORS} tensors, the limit of a model"))
}

fn number(metadata: &BTreeMap<String, String>, key: &str) -> Option<u64> {
    metadata.get(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::inspect::inspect;
    use crate::test_model::TestModel;

    fn error(path: &Path) -> String {
        let error = inspect(path).unwrap_err();
        assert!(!error.is_transient(), "{error}");
        error.to_string()
    }

    #[test]
    fn any_piece_stands_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let model = TestModel::with_layers("llama", 4);
        let whole = model.write(&dir.path().join("w.gguf"));
        let pieces = model.write_pieces(dir.path(), "m", 3);
        let named: Vec<GgufHeader> = pieces.iter().map(|path| inspect(path).unwrap()).collect();
        assert!(named.iter().all(|header| *header == named[0]));
        let whole = inspect(&whole).unwrap();
        let bytes: u64 = pieces.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert_eq!((named[0].tensor_count, named[0].file_bytes), (whole.tensor_count, bytes));
        assert!(named[0].required_bytes <= bytes && named[0].required_bytes > bytes - 3 * 32, "all but the padding");
        assert_eq!(
            crate::estimate_memory(&pieces[1]).unwrap(),
            crate::estimate_memory(&dir.path().join("w.gguf")).unwrap()
        );
    }

    #[test]
    fn missing_pieces_are_named_with_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let pieces = TestModel::with_layers("llama", 4).write_pieces(dir.path(), "m", 4);
        fs::remove_file(&pieces[1]).unwrap();
        let place = dir.path().display();
        let of = |numbers: &str| format!("{place}/m-00001-of-00004.gguf: {numbers} of 4 ");
        for path in &pieces {
            assert!(error(path).starts_with(&of("piece 2")), "{}", error(path));
        }
        fs::remove_file(&pieces[0]).unwrap();
        let both = error(&pieces[2]);
        assert!(both.starts_with(&of("pieces 1 and 2")) && both.contains(&format!("not found in {place}; ")), "{both}");
        pieces[2..].iter().for_each(|path| fs::remove_file(path).unwrap());
        assert!(matches!(inspect(&pieces[2]), Err(Error::Missing { .. })), "none is there");
    }

    #[test]
    fn pieces_that_do_not_belong_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, count| TestModel::with_layers("llama", 4).write_pieces(dir.path(), name, count);
        let (of_two, of_three) = (write("a", 2), write("b", 3));
        fs::copy(&of_two[1], &of_three[1]).unwrap();
        assert!(
            error(&of_three[0])
                .contains("b-00002-of-00003.gguf: its name says piece 2 of 3, and its header piece 2 of 2")
        );
        let swapped = write("c", 3);
        fs::copy(&swapped[1], &swapped[2]).unwrap();
        assert!(error(&swapped[0]).contains("its name says piece 3 of 3, and its header piece 2 of 3"));
        let longer = TestModel::with_layers("llama", 7).write_pieces(dir.path(), "d", 3);
        fs::copy(&longer[1], &write("e", 3)[1]).unwrap();
        assert!(
            error(&dir.path().join("e-00001-of-00003.gguf")).contains("another number of tensors of the whole model")
        );
        let first = write("f", 3);
        let two_firsts = TestModel::with_layers("llama", 4).write_piece(&first[1], 0, 1..3, 3);
        assert!(error(&two_firsts).contains("its header piece 1 of 3"));
        TestModel::with_layers("llama", 4).write_piece(&first[1], 1, 0..3, 3);
        assert!(error(&first[0]).contains("its tensor `token_embd.weight` is in an earlier piece"));
        let fewer = write("g", 3);
        TestModel::with_layers("llama", 4).write_piece(&fewer[1], 1, 0..0, 3);
        assert!(
            error(&fewer[0]).contains("tensors, and the first one says 9 (`split.tensors.count`)"),
            "{}",
            error(&fewer[0])
        );
        let other = TestModel { states_architecture: true, ..TestModel::with_layers("bert", 4) };
        let mixed = write("h", 3);
        fs::copy(&other.write_pieces(dir.path(), "i", 3)[1], &mixed[1]).unwrap();
        assert!(error(&mixed[0]).contains("another architecture than that of the first piece"));
        let whole = TestModel::with_layers("llama", 4).write(&write("j", 3)[2]);
        assert!(error(&whole).contains("its header says nothing of pieces"));
    }

    #[test]
    fn a_truncated_piece_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let pieces = TestModel::with_layers("llama", 4).write_pieces(dir.path(), "m", 3);
        let bytes = fs::read(&pieces[2]).unwrap();
        fs::write(&pieces[2], &bytes[..bytes.len() - 40]).unwrap();
        assert!(error(&pieces[0]).contains("m-00003-of-00003.gguf: the file is truncated"), "{}", error(&pieces[0]));
    }

    #[test]
    fn a_piece_under_another_name_is_refused_with_the_form_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let pieces = TestModel::with_layers("llama", 4).write_pieces(dir.path(), "m", 3);
        let renamed = dir.path().join("m.gguf");
        fs::rename(&pieces[1], &renamed).unwrap();
        let refused = error(&renamed);
        assert!(
            refused.contains("this is piece 2 of 3 of a model") && refused.contains("NAME-00002-of-00003.gguf"),
            "{refused}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_model_that_is_split_and_read_as_one_has_the_same_header(
            model in TestModel::any(),
            count in 2..7u32,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let whole = inspect(&model.write(&dir.path().join("w.gguf"))).unwrap();
            let pieces = model.write_pieces(dir.path(), "m", count);
            let mut joined = inspect(&pieces[(count - 1) as usize]).unwrap();
            prop_assert!(joined.required_bytes >= joined.tensor_count);
            // Where things lie is a matter of the files.
            (joined.file_bytes, joined.required_bytes) = (whole.file_bytes, whole.required_bytes);
            (joined.data_offset, joined.tensor_info_offset) = (whole.data_offset, whole.tensor_info_offset);
            prop_assert_eq!(joined, whole);
        }

        #[test]
        fn damage_of_any_piece_never_panics(piece in 0..3usize, at in 0..400usize, byte: u8, cut in 0..700usize) {
            let dir = tempfile::tempdir().unwrap();
            let pieces = TestModel::with_layers("llama", 4).write_pieces(dir.path(), "m", 3);
            let mut bytes = fs::read(&pieces[piece]).unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.max(1));
            fs::write(&pieces[piece], bytes).unwrap();
            let error = inspect(&pieces[0]).err().map(|error| error.to_string());
            prop_assert!(error.is_none_or(|error| error.contains("-of-00003.gguf")));
        }
    }
}
