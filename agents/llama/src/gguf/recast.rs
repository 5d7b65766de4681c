//! A model's file with other weights: the quantized matrices of its layers as BF16 or F16.
//!
//! Processors that multiply BF16 read prompts through these twice as fast as through Q4_1 or faster, and decode eight sequences
//! 1.1 to 1.4 times as fast (SmolLM2-135M on two cores of a Zen 4: 490 to 760 and 250 to 306 tokens/s, as the machine has it,
//! and 137 to 190 and 127 to 131); a sequence alone is some tenth slower. F16 does so for those that have AVX2 only (two cores
//! of a Zen 3: 330 to 410 and 85 to 108 tokens/s, and 176 and 79; when memory is slow 250 to 280 and 78 to 87, and 157 to 166 and 69
//! to 83; alone 41 to 48, and 58), where BF16 does less (290 to 320 and 90). The weights take 3.2 times the memory.
//!
//! What is lost by it is less than what llama.cpp loses on Q4_1, for whose products it
//! makes 8 bits of every number that is multiplied: over 800 tokens of English the mean divergence (Kullback-Leibler) of BF16
//! from these weights with an F32 cache is 0.0007, and Q4_1's 0.0043. F16 has three bits more than BF16, and what it cannot hold
//! the products of Q4_1 and Q5_1 cannot either: they have the sums of 32 numbers in F16.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::read::Tensor;
use super::{Error, Header, Weights, inspect, kinds, open_telling, sample};
use crate::raw::number;

/// The numbers of two bytes that weights are recast to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// IEEE 754's.
    F16,
    /// The upper half of an F32.
    Bf16,
}

impl Half {
    /// Its number among ggml's types.
    fn kind(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Bf16 => 30,
        }
    }

    /// How the name of a recast file ends.
    fn ending(self) -> &'static str {
        match self {
            Self::F16 => ".f16.gguf",
            Self::Bf16 => ".bf16.gguf",
        }
    }

    /// Which of them this machine's processor multiplies fast, if any.
    fn fast() -> Option<Self> {
        if number::has_bf16() {
            return Some(Self::Bf16);
        }
        number::has_f16().then_some(Self::F16)
    }
}

/// Bytes of recast layers above which it does not pay by itself: where memory and not the products is what a token waits for,
/// it would only be slower.
const MOST: u64 = 512 << 20;
/// Blocks that are converted at once.
const PIECE: u64 = 4096;
/// A file that nobody has loaded for so long goes.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How the name of a file ends while it is written, after whose it is.
const PART: &str = ".part";
/// What was not written to its end, and was not touched for so long, nobody is writing any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What becomes of a tensor.
pub(super) struct Recast {
    pub(super) bytes: u64,
}

impl Recast {
    /// None if it stays as it is.
    pub(super) fn of(tensor: &Tensor) -> Option<Self> {
        let is_matrix = tensor.dimensions.iter().filter(|length| **length > 1).count() == 2;
        let meant = tensor.layer().is_some() && is_matrix && kinds::is_quantized(tensor.kind);
        let elements = tensor.dimensions.iter().try_fold(1u64, |elements, more| elements.checked_mul(*more))?;
        meant.then_some(()).and(elements.checked_mul(2)).map(|bytes| Self { bytes })
    }
}

/// What it pays to recast to on this machine.
pub(super) fn pays(weights: &Weights) -> Option<Half> {
    let sum = |all: &[u64]| all.iter().copied().fold(0, u64::saturating_add);
    let gains = weights.slow > sum(&weights.layers) / 2 && sum(&weights.recast) <= MOST;
    Half::fast().filter(|_| gains)
}

/// The recast file of a model in `dir`, which is made if it is not there and takes at most `room` bytes; `progress` takes the
/// share that is written, from 0 to 1, and is not called if nothing is. Blocks for as long as that takes.
///
/// # Errors
/// If the model cannot be read, or the file cannot be written or would be larger; then there is none.
pub fn recast(from: &Path, dir: &Path, half: Half, room: u64, progress: &dyn Fn(f32)) -> Result<PathBuf, Error> {
    /// Several threads may want the same file.
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let to = dir.join(name(from, half)?);
    // Before it is looked at, so that nobody sweeps it up in between. One that cannot be touched goes too early at worst.
    let _ = File::options().append(true).open(&to).and_then(|file| file.set_modified(SystemTime::now()));
    if inspect(&to).is_err() {
        let write = |source| Error::Write { path: to.clone(), source };
        fs::create_dir_all(dir).map_err(write)?;
        let one = PARTS.fetch_add(1, Ordering::Relaxed);
        let part = PathBuf::from(format!("{}.{}-{one}{PART}", to.display(), std::process::id()));
        let written = convert(from, &part, half, room, progress).and_then(|()| fs::rename(&part, &to).map_err(write));
        if let Err(error) = written {
            // What cannot be removed is swept up later.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    }
    Ok(to)
}

/// Removes from `dir` the recast files that nobody has loaded for thirty days, and those that were not written to their end.
pub fn sweep(dir: &Path) {
    let goes = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut endings = [Half::F16, Half::Bf16].iter().map(|half| half.ending());
        let most = match endings.find_map(|ending| name.split_once(ending)) {
            Some((_, "")) => UNUSED,
            Some((_, rest)) if rest.ends_with(PART) => ABANDONED,
            // Not ours.
            _ => return false,
        };
        let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
        modified.and_then(|at| at.elapsed().ok()).is_some_and(|unused| unused > most)
    };
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in files.filter(|path| goes(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a model's recast file cannot be removed");
        }
    }
}

/// Another file has another name, and so has one that was changed.
fn name(from: &Path, half: Half) -> Result<String, Error> {
    let modified = fs::metadata(from).and_then(|file| file.modified()).ok();
    let modified = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let digits: String = sample(from)?[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let stem = from.file_stem().unwrap_or_default().to_string_lossy();
    let stem = &stem[..stem.floor_char_boundary(100)];
    Ok(format!("{stem}-{digits}{:x}{}", modified.as_nanos(), half.ending()))
}

fn convert(from: &Path, to: &Path, half: Half, room: u64, progress: &dyn Fn(f32)) -> Result<(), Error> {
    let read = |source| Error::Read { path: from.to_owned(), source };
    let write = |source| Error::Write { path: to.to_owned(), source };
    let mut tensors = Vec::new();
    let header = open_telling(from, &mut |tensor| tensors.push(tensor))?;
    let lengths = tensors.iter().map(|tensor| Recast::of(tensor).map_or(tensor.length, |recast| recast.bytes));
    let needed = lengths.fold(header.data, u64::saturating_add);
    if needed > room {
        let what = format!("it takes {needed} bytes and the disk has room for {room}");
        return Err(write(io::Error::new(io::ErrorKind::StorageFull, what)));
    }
    let mut source = BufReader::new(File::open(from).map_err(read)?);
    let file = File::options().write(true).create_new(true).open(to).map_err(write)?;
    let mut target = BufWriter::with_capacity(1 << 20, file);
    let mut metadata = vec![0; usize::try_from(header.described).unwrap_or(usize::MAX)];
    source.read_exact(&mut metadata).map_err(read)?;
    target.write_all(&metadata).map_err(write)?;
    target.write_all(&described(&tensors, &header, half)).map_err(write)?;
    let total: u64 = tensors.iter().map(|tensor| tensor.length).sum::<u64>().max(1);
    let mut done = 0;
    for tensor in &tensors {
        let from = header.data.checked_add(tensor.offset).ok_or_else(|| read(io::ErrorKind::InvalidData.into()))?;
        source.seek(SeekFrom::Start(from)).map_err(read)?;
        let mut rest = (&mut source).take(tensor.length);
        let (length, bytes) = match Recast::of(tensor) {
            Some(recast) => (recast.bytes, kinds::block(tensor.kind).map_or(32, |(_, bytes)| bytes)),
            None => (tensor.length, 32),
        };
        // Whole blocks of those that are recast.
        let mut left = tensor.length;
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE * bytes) as usize];
            rest.read_exact(&mut piece).map_err(read)?;
            left -= piece.len() as u64;
            let piece = if length == tensor.length { piece } else { number::to_half(tensor.kind, &piece, half) };
            target.write_all(&piece).map_err(write)?;
        }
        target.write_all(&padding(length, &header)).map_err(write)?;
        done += tensor.length;
        progress(done as f32 / total as f32);
    }
    let file = target.into_inner().map_err(|e| write(e.into_error()))?;
    file.sync_all().map_err(write)?;
    inspect(to).map(drop)
}

/// What the header says of the tensors, and what fills it up to the first of them.
fn described(tensors: &[Tensor], header: &Header, half: Half) -> Vec<u8> {
    let (mut bytes, mut offset) = (Vec::new(), 0u64);
    for tensor in tensors {
        let recast = Recast::of(tensor).map(|recast| (half.kind(), recast.bytes));
        let (kind, length) = recast.unwrap_or((tensor.kind, tensor.length));
        bytes.extend((tensor.name.len() as u64).to_le_bytes());
        bytes.extend(tensor.name.as_bytes());
        bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
        bytes.extend(tensor.dimensions.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset = (offset + length).next_multiple_of(header.alignment);
    }
    let end = header.described + bytes.len() as u64;
    bytes.extend(padding(end, header));
    bytes
}

/// What fills so many bytes up to the next place where a tensor may begin.
fn padding(length: u64, header: &Header) -> Vec<u8> {
    vec![0; (length.next_multiple_of(header.alignment) - length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An embedding in Q8_0, and a layer of a matrix in Q4_1 and of numbers in F32.
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
        // Steps of 1 from -2 on: all of the first row are 3 steps up, those of the second one 1 or 14.
        for steps in [0x33, 0xE1] {
            bytes.extend([0x00, 0x3C, 0x00, 0xC0]);
            bytes.extend([steps; 16]);
        }
        bytes.resize(bytes.len() + 24, 0);
        bytes.extend((0..8).flat_map(|n| (n as f32).to_le_bytes()));
        bytes
    }

    /// Each tensor's name, type and bytes.
    fn tensors(path: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let header = open_telling(path, &mut |tensor| found.push(tensor)).unwrap();
        let bytes = fs::read(path).unwrap();
        let of = |tensor: Tensor| {
            let from = (header.data + tensor.offset) as usize;
            (tensor.name, tensor.kind, bytes[from..from + tensor.length as usize].to_vec())
        };
        found.into_iter().map(of).collect()
    }

    #[test]
    fn quantized_matrices_of_layers_are_recast_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        let kept = dir.path().join("weights");
        let cast = recast(&path, &kept, Half::Bf16, 1000, &|_| ()).unwrap();
        let (before, after) = (tensors(&path), tensors(&cast));
        assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
        assert_eq!((before[1].1, after[1].1), (3, 30));
        let numbers = after[1].2.chunks(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
        let wanted = [vec![1.0; 32], vec![-1.0; 16], vec![12.0; 16]].concat();
        assert_eq!(numbers.collect::<Vec<_>>(), wanted);
        let other = tensors(&recast(&path, dir.path(), Half::F16, 1000, &|_| ()).unwrap());
        assert_eq!((other[1].1, &other[1].2[..2], &other[1].2[126..]), (1, &[0x00, 0x3C][..], &[0x00, 0x4A][..]));
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1, "nothing half written is left");
        assert_eq!(recast(&path, &kept, Half::Bf16, 0, &|_| panic!("it is there")).unwrap(), cast);
    }

    #[test]
    fn a_damaged_file_is_written_again_and_another_model_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        let cast = recast(&path, dir.path(), Half::Bf16, 1000, &|_| ()).unwrap();
        let whole = fs::read(&cast).unwrap();
        fs::write(&cast, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(recast(&path, dir.path(), Half::Bf16, 1000, &|_| ()).unwrap(), cast);
        assert_eq!(fs::read(&cast).unwrap(), whole);
        let mut other = file();
        *other.last_mut().unwrap() += 1;
        fs::write(&path, other).unwrap();
        assert_ne!(recast(&path, dir.path(), Half::Bf16, 1000, &|_| ()).unwrap(), cast);
        fs::write(&path, &file()[..200]).unwrap();
        assert!(matches!(recast(&path, dir.path(), Half::Bf16, 1000, &|_| ()), Err(Error::Truncated { .. })));
    }

    #[test]
    fn where_nothing_can_be_written_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, file()).unwrap();
        assert!(matches!(recast(&path, &path.join("no"), Half::Bf16, 1000, &|_| ()), Err(Error::Write { .. })));
        let small = recast(&path, dir.path(), Half::Bf16, 300, &|_| panic!("nothing is written")).unwrap_err();
        assert!(small.to_string().contains("the disk has room for 300"), "{small}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_nobody_uses_goes() {
        let dir = tempfile::tempdir().unwrap();
        let ago = |time: Duration| SystemTime::now() - time - Duration::from_secs(60);
        let files = [
            ("used.bf16.gguf", ago(UNUSED / 2)),
            ("unused.bf16.gguf", ago(UNUSED)),
            ("unused.f16.gguf", ago(UNUSED)),
            ("coming.bf16.gguf.1-0.part", ago(ABANDONED / 2)),
            ("abandoned.bf16.gguf.1-0.part", ago(ABANDONED)),
            ("an operator's.gguf", ago(UNUSED)),
        ];
        for (name, modified) in files {
            File::create(dir.path().join(name)).unwrap().set_modified(modified).unwrap();
        }
        sweep(dir.path());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(
            left,
            ["an operator's.gguf", "coming.bf16.gguf.1-0.part", "used.bf16.gguf"].map(str::to_owned).into()
        );
        sweep(&dir.path().join("nowhere"));
    }
}
