//! Copies of model files with dequantized weights: the quantized matrices of the layers become BF16 or F16.
//!
//! Processors with BF16 instructions read prompts faster from such a copy than from Q4_1, and decode several sequences at once
//! faster; a single sequence decodes slightly slower. F16 has the same effect on processors with AVX2 only, where BF16 gains
//! less. The weights take about three times the memory.
//!
//! The loss of precision is smaller than that of llama.cpp's own Q4_1 products, which round every multiplied number to 8 bits:
//! the mean Kullback-Leibler divergence from the same weights with an F32 cache is several times smaller for BF16 than for Q4_1.
//! F16 has three more bits than BF16, and numbers outside of its range are outside of that of the products of Q4_1 and Q5_1
//! too, which sum 32 numbers in F16.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artel_model::{PieceName, open_regular_file, piece_paths};

use crate::error::Error;
use crate::ggml_types;
use crate::hash::sampled_hash;
use crate::header::GgufHeader;
use crate::inspect::inspect;
use crate::parse::SPLIT_COUNT_KEY;
use crate::pieces::{OpenedModel, open_model};
use crate::tensor::TensorInfo;

/// A 16-bit floating-point type to which weights are dequantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfType {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an F32.
    Bf16,
}

impl HalfType {
    /// Its `enum ggml_type` value.
    pub fn ggml_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Bf16 => 30,
        }
    }

    /// The suffix of the names of dequantized files.
    fn suffix(self) -> &'static str {
        match self {
            Self::F16 => ".f16.gguf",
            Self::Bf16 => ".bf16.gguf",
        }
    }
}

/// Converts complete blocks of a ggml type, by its `enum ggml_type` value, to little-endian numbers of a half type. `None` for a
/// type that it cannot convert. In production it is ggml's own code.
pub type BlockConverter<'a> = &'a dyn Fn(u32, &[u8], HalfType) -> Option<Vec<u8>>;

/// Blocks converted at once.
const CHUNK_BLOCKS: u64 = 4096;
/// A file that was not loaded for this long is removed.
const MAX_UNUSED_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The suffix of a file that is being written; the writer's process id precedes it.
const PARTIAL_SUFFIX: &str = ".part";
/// A partial file that was not modified for this long has no writer any more.
const MAX_PARTIAL_AGE: Duration = Duration::from_secs(3600);

/// Returns the dequantized file of a model in `dir`, and writes it first if it is missing, with at most `max_bytes`: one file, also
/// of a model in pieces. `progress`
/// takes the fraction written, from 0 to 1, and neither it nor `convert` is called if nothing is written. Blocks until done.
///
/// # Errors
/// If the model cannot be read or converted, or the file cannot be written or would exceed `max_bytes`; then no file is left.
pub fn dequantize(
    from: &Path,
    dir: &Path,
    half: HalfType,
    max_bytes: u64,
    convert: BlockConverter<'_>,
    progress: &dyn Fn(f32),
) -> Result<PathBuf, Error> {
    /// Numbers the partial files of this process, because several threads may write the same file.
    static PARTIAL_FILES: AtomicU64 = AtomicU64::new(0);
    let to = dir.join(file_name(from, half)?);
    // Updated before the check, so that `remove_stale_files` does not remove the file in between. If the update fails, the file
    // is removed too early at worst.
    let _ = File::options().append(true).open(&to).and_then(|file| file.set_modified(SystemTime::now()));
    if inspect(&to).is_err() {
        let write = |source| Error::Write { path: to.clone(), source };
        fs::create_dir_all(dir).map_err(write)?;
        let number = PARTIAL_FILES.fetch_add(1, Ordering::Relaxed);
        let partial = PathBuf::from(format!("{}.{}-{number}{PARTIAL_SUFFIX}", to.display(), std::process::id()));
        let written = Conversion { from, half, new_bytes: TensorInfo::dequantized_bytes, max_bytes }
            .write(&partial, convert, progress);
        if let Err(error) = written.and_then(|()| fs::rename(&partial, &to).map_err(write)) {
            // `remove_stale_files` retries a failed removal.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    }
    Ok(to)
}

/// Removes from `dir` the dequantized files that were not loaded for thirty days, and abandoned partial files.
pub fn remove_stale_files(dir: &Path) {
    let is_stale = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut suffixes = [HalfType::F16, HalfType::Bf16].iter().map(|half| half.suffix());
        let max_age = match suffixes.find_map(|suffix| name.split_once(suffix)) {
            Some((_, "")) => MAX_UNUSED_AGE,
            Some((_, rest)) if rest.ends_with(PARTIAL_SUFFIX) => MAX_PARTIAL_AGE,
            // Not a file of this module.
            _ => return false,
        };
        let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
        modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > max_age)
    };
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in files.filter(|path| is_stale(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "failed to remove a dequantized model file");
        }
    }
}

/// A name that is unique to the content and the modification time of a file, or of the newest piece of a model.
fn file_name(from: &Path, half: HalfType) -> Result<String, Error> {
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let modified = piece_paths(from).iter().filter_map(modified).max();
    let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let digits: String = sampled_hash(from)?[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    let stem = match PieceName::parse(&name) {
        Ok(Some(piece)) => piece.prefix().to_owned(),
        _ => from.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let stem = &stem[..stem.floor_char_boundary(100)];
    Ok(format!("{stem}-{digits}{:x}{}", modified.as_nanos(), half.suffix()))
}

/// A copy of a model in which some tensors have another type.
pub(crate) struct Conversion<'a> {
    pub(crate) from: &'a Path,
    pub(crate) half: HalfType,
    /// A tensor's bytes after dequantization; `None` if it is copied unchanged.
    pub(crate) new_bytes: fn(&TensorInfo) -> Option<u64>,
    pub(crate) max_bytes: u64,
}

impl Conversion<'_> {
    /// Writes it to `to`, which must not exist.
    pub(crate) fn write(&self, to: &Path, convert: BlockConverter<'_>, progress: &dyn Fn(f32)) -> Result<(), Error> {
        let Self { from, half, new_bytes, max_bytes } = *self;
        let write = |source| Error::Write { path: to.to_owned(), source };
        let unsupported = |tensor: &TensorInfo| {
            let reason =
                format!("`{}` has the type {} of ggml, which has no conversion", tensor.name, tensor.ggml_type);
            Error::Unsupported { path: from.to_owned(), reason }
        };
        let mut tensors = Vec::new();
        let OpenedModel { header, files } = open_model(from, &mut |at, tensor| tensors.push((at, tensor)))?;
        let sizes = tensors.iter().map(|(_, tensor)| new_bytes(tensor).unwrap_or(tensor.bytes));
        let required_bytes = sizes.fold(header.data_offset, u64::saturating_add);
        if required_bytes > max_bytes {
            let reason =
                format!("it needs {required_bytes} bytes and only {max_bytes} bytes of disk space are available");
            return Err(write(io::Error::new(io::ErrorKind::StorageFull, reason)));
        }
        let open = |path: &Path| open_regular_file(path).map(BufReader::new).map_err(|e| Error::of_read(path, e));
        let mut sources = files.iter().map(|(path, _)| open(path)).collect::<Result<Vec<_>, _>>()?;
        let file = File::options().write(true).create_new(true).open(to).map_err(write)?;
        let mut target = BufWriter::with_capacity(1 << 20, file);
        let mut metadata = vec![0; usize::try_from(header.tensor_info_offset).unwrap_or(usize::MAX)];
        sources[0].read_exact(&mut metadata).map_err(|e| Error::of_read(&files[0].0, e))?;
        if files.len() > 1 {
            state_one_file(&mut metadata, &header);
        }
        target.write_all(&metadata).map_err(write)?;
        target.write_all(&self.tensor_infos(&tensors, &header)).map_err(write)?;
        let total: u64 = tensors.iter().map(|(_, tensor)| tensor.bytes).sum::<u64>().max(1);
        let mut done = 0;
        for (at, tensor) in &tensors {
            let ((path, data_offset), source) = (&files[*at], &mut sources[*at]);
            let read = |source| Error::of_read(path, source);
            // No overflow: the parser has checked the end of every tensor.
            source.seek(SeekFrom::Start(data_offset + tensor.offset)).map_err(read)?;
            let mut rest = source.take(tensor.bytes);
            let dequantized_bytes = new_bytes(tensor);
            // Chunks consist of complete blocks, as their conversion requires.
            let block = dequantized_bytes.and_then(|_| ggml_types::block_layout(tensor.ggml_type));
            let block_bytes = block.map_or(32, |(_, bytes)| bytes);
            let mut remaining = tensor.bytes;
            while remaining > 0 {
                let mut chunk = vec![0; remaining.min(CHUNK_BLOCKS * block_bytes) as usize];
                rest.read_exact(&mut chunk).map_err(read)?;
                remaining -= chunk.len() as u64;
                if dequantized_bytes.is_some() {
                    chunk = convert(tensor.ggml_type, &chunk, half).ok_or_else(|| unsupported(tensor))?;
                }
                target.write_all(&chunk).map_err(write)?;
            }
            let written_bytes = dequantized_bytes.unwrap_or(tensor.bytes);
            target.write_all(&padding(written_bytes, &header)).map_err(write)?;
            done += tensor.bytes;
            progress(done as f32 / total as f32);
        }
        let file = target.into_inner().map_err(|e| write(e.into_error()))?;
        file.sync_all().map_err(write)?;
        inspect(to).map(drop)
    }

    /// The tensor descriptions of the header, padded to the start of the tensor data.
    fn tensor_infos(&self, tensors: &[(usize, TensorInfo)], header: &GgufHeader) -> Vec<u8> {
        let (mut bytes, mut offset) = (Vec::new(), 0u64);
        for (_, tensor) in tensors {
            let dequantized = (self.new_bytes)(tensor).map(|bytes| (self.half.ggml_type(), bytes));
            let (ggml_type, length) = dequantized.unwrap_or((tensor.ggml_type, tensor.bytes));
            bytes.extend((tensor.name.len() as u64).to_le_bytes());
            bytes.extend(tensor.name.as_bytes());
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            bytes.extend(tensor.dimensions.iter().flat_map(|length| length.to_le_bytes()));
            bytes.extend(ggml_type.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset = (offset + length).next_multiple_of(header.alignment);
        }
        let end = header.tensor_info_offset + bytes.len() as u64;
        bytes.extend(padding(end, header));
        bytes
    }
}

/// Changes the metadata of a first piece to those of one file with the tensors of all: their number, and that there are no others.
fn state_one_file(metadata: &mut [u8], header: &GgufHeader) {
    /// The offset of the number of tensors.
    const COUNT_OFFSET_BYTES: usize = 8;
    metadata[COUNT_OFFSET_BYTES..COUNT_OFFSET_BYTES + 8].copy_from_slice(&header.tensor_count.to_le_bytes());
    // llama.cpp takes a number of pieces of no other type. The copy is inspected when it is written: it is refused if this is the text
    // of another entry.
    const U16_TYPE: u32 = 2;
    let length = SPLIT_COUNT_KEY.len() as u64;
    let entry = [&length.to_le_bytes()[..], SPLIT_COUNT_KEY.as_bytes(), &U16_TYPE.to_le_bytes()].concat();
    let at = metadata.windows(entry.len()).position(|window| window == entry).map(|at| at + entry.len());
    if let Some(count) = at.and_then(|at| metadata.get_mut(at..at + 2)) {
        count.copy_from_slice(&1u16.to_le_bytes());
    }
}

/// Zeros from an offset up to the next aligned offset.
fn padding(length: u64, header: &GgufHeader) -> Vec<u8> {
    vec![0; (length.next_multiple_of(header.alignment) - length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_model::TestModel;

    /// A token embedding in Q8_0, and a layer with a matrix in Q4_1 and a vector in F32.
    fn file() -> Vec<u8> {
        let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &3u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
        bytes.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
        let tensors: [(&str, &[u64], u32, u64); 3] =
            [("token_embd.weight", &[32, 2], 8, 0), ("blk.0.up.weight", &[32, 2], 3, 96), ("blk.0.norm", &[8], 0, 160)];
        for (name, dimensions, kind, offset) in tensors {
            bytes.extend([string(name), (dimensions.len() as u32).to_le_bytes().to_vec()].concat());
            bytes.extend(dimensions.iter().flat_map(|length| length.to_le_bytes()));
            bytes.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend((0..68).collect::<Vec<u8>>());
        bytes.resize(bytes.len() + 28, 0);
        // Scale 1 and minimum -2: the quants of the first row are all 3, those of the second are 1 or 14.
        for steps in [0x33, 0xE1] {
            bytes.extend([0x00, 0x3C, 0x00, 0xC0]);
            bytes.extend([steps; 16]);
        }
        bytes.resize(bytes.len() + 24, 0);
        bytes.extend((0..8).flat_map(|n| (n as f32).to_le_bytes()));
        bytes
    }

    /// The steps of `file`, in Q4_1 with scale 1 and minimum -2, as ggml converts them.
    fn convert(ggml_type: u32, blocks: &[u8], half: HalfType) -> Option<Vec<u8>> {
        let number = |step: u8| -> [u8; 2] {
            let (f16, bf16): (u16, u16) = match step {
                1 => (0xBC00, 0xBF80),
                3 => (0x3C00, 0x3F80),
                14 => (0x4A00, 0x4140),
                other => panic!("no step of the file is {other}"),
            };
            if half == HalfType::F16 { f16.to_le_bytes() } else { bf16.to_le_bytes() }
        };
        assert_eq!((ggml_type, blocks.len() % 20), (3, 0), "complete blocks of Q4_1");
        let of_block = |block: &[u8]| -> Vec<u8> {
            let (low, high) = (block[4..].iter().map(|steps| steps & 15), block[4..].iter().map(|steps| steps >> 4));
            low.chain(high).flat_map(number).collect()
        };
        Some(blocks.chunks(20).flat_map(of_block).collect())
    }

    /// Each tensor's name, type and bytes.
    fn tensors(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let header = open_model(path, &mut |_, tensor| found.push(tensor)).unwrap().header;
        let bytes = fs::read(path).unwrap();
        let of = |tensor: TensorInfo| {
            let from = (header.data_offset + tensor.offset) as usize;
            (tensor.name, tensor.ggml_type, bytes[from..from + tensor.bytes as usize].to_vec())
        };
        found.into_iter().map(of).collect()
    }

    #[test]
    fn only_quantized_matrices_of_layers_are_dequantized() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        let dir_of_dequantized = dir.path().join("weights");
        let dequantized = dequantize(&path, &dir_of_dequantized, HalfType::Bf16, 1000, &convert, &|_| ()).unwrap();
        let (before, after) = (tensors(&path), tensors(&dequantized));
        assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
        assert_eq!((before[1].1, after[1].1), (3, 30));
        let numbers = after[1].2.chunks(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
        let wanted = [vec![1.0; 32], vec![-1.0; 16], vec![12.0; 16]].concat();
        assert_eq!(numbers.collect::<Vec<_>>(), wanted);
        let other = tensors(&dequantize(&path, dir.path(), HalfType::F16, 1000, &convert, &|_| ()).unwrap());
        assert_eq!((other[1].1, &other[1].2[..2], &other[1].2[126..]), (1, &[0x00, 0x3C][..], &[0x00, 0x4A][..]));
        assert_eq!(fs::read_dir(&dir_of_dequantized).unwrap().count(), 1, "no partial file is left");
        assert_eq!(
            dequantize(&path, &dir_of_dequantized, HalfType::Bf16, 0, &convert, &|_| panic!("it exists")).unwrap(),
            dequantized
        );
    }

    #[test]
    fn the_copy_of_a_model_in_pieces_is_the_one_file_that_the_whole_model_gives() {
        let dir = tempfile::tempdir().unwrap();
        let model = TestModel::with_layers("llama", 4);
        let convert = |_: u32, blocks: &[u8], _: HalfType| -> Option<Vec<u8>> {
            Some(blocks.chunks(18).flat_map(|block| block.iter().cycle().take(64).copied()).collect())
        };
        let copy = |path: &Path| dequantize(path, dir.path(), HalfType::F16, 1 << 20, &convert, &|_| ()).unwrap();
        let whole = copy(&model.write(&dir.path().join("w.gguf")));
        let pieces = model.write_pieces(dir.path(), "m", 3);
        let joined = copy(&pieces[0]);
        assert_eq!(tensors(&joined), tensors(&whole));
        assert_eq!(copy(&pieces[2]), joined, "whichever piece is named");
        let name = joined.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("m-") && name.ends_with(".f16.gguf") && !name.contains("of-00003"), "{name}");
        let (joined, whole) = (inspect(&joined).unwrap(), inspect(&whole).unwrap());
        assert_eq!((joined.tensor_count, joined.metadata["split.count"].as_str()), (whole.tensor_count, "1"));
        fs::remove_file(&pieces[1]).unwrap();
        assert!(dequantize(&pieces[0], dir.path(), HalfType::F16, 1 << 20, &convert, &|_| ()).is_err());
    }

    #[test]
    fn a_damaged_file_is_written_again_and_each_model_has_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        let dequantized = dequantize(&path, dir.path(), HalfType::Bf16, 1000, &convert, &|_| ()).unwrap();
        let complete = fs::read(&dequantized).unwrap();
        fs::write(&dequantized, &complete[..complete.len() - 1]).unwrap();
        assert_eq!(dequantize(&path, dir.path(), HalfType::Bf16, 1000, &convert, &|_| ()).unwrap(), dequantized);
        assert_eq!(fs::read(&dequantized).unwrap(), complete);
        let mut other = file();
        *other.last_mut().unwrap() += 1;
        fs::write(&path, other).unwrap();
        assert_ne!(dequantize(&path, dir.path(), HalfType::Bf16, 1000, &convert, &|_| ()).unwrap(), dequantized);
        fs::write(&path, &file()[..200]).unwrap();
        let truncated = dequantize(&path, dir.path(), HalfType::Bf16, 1000, &convert, &|_| ());
        assert!(matches!(truncated, Err(Error::Truncated { .. })));
    }

    #[test]
    fn a_failure_gives_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        let no_dir = dequantize(&path, &path.join("no"), HalfType::Bf16, 1000, &convert, &|_| ());
        assert!(matches!(no_dir, Err(Error::Write { .. })));
        let refused =
            dequantize(&path, dir.path(), HalfType::Bf16, 300, &convert, &|_| panic!("nothing must be written"));
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("only 300 bytes of disk space are available"), "{error}");
        assert!(error.is_transient(), "space may be freed");
        let error = dequantize(&path, dir.path(), HalfType::Bf16, 1000, &|_, _, _| None, &|_| ()).unwrap_err();
        assert!(error.to_string().contains("`blk.0.up.weight` has the type 3 of ggml"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no partial file is left");
    }

    #[test]
    fn unused_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let ago = |time: Duration| SystemTime::now() - time - Duration::from_secs(60);
        let files = [
            ("used.bf16.gguf", ago(MAX_UNUSED_AGE / 2)),
            ("unused.bf16.gguf", ago(MAX_UNUSED_AGE)),
            ("unused.f16.gguf", ago(MAX_UNUSED_AGE)),
            ("current.bf16.gguf.1-0.part", ago(MAX_PARTIAL_AGE / 2)),
            ("abandoned.bf16.gguf.1-0.part", ago(MAX_PARTIAL_AGE)),
            ("an operator's.gguf", ago(MAX_UNUSED_AGE)),
        ];
        for (name, modified) in files {
            File::create(dir.path().join(name)).unwrap().set_modified(modified).unwrap();
        }
        remove_stale_files(dir.path());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let remaining: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(
            remaining,
            ["an operator's.gguf", "current.bf16.gguf.1-0.part", "used.bf16.gguf"].map(str::to_owned).into()
        );
        remove_stale_files(&dir.path().join("nowhere"));
    }
}
