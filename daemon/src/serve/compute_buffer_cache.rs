//! Measured sizes of compute buffers. The header of a model does not state them, so they are kept on disk between starts.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use artel_model::open_regular_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Families in the cache: enough for a large catalog in many configurations.
const MAX_FAMILY_ITEMS: usize = 1000;
/// Shapes of a family: more than a model gets between changes of its settings. The oldest ones go first.
const MAX_SHAPE_ITEMS: usize = 32;

/// The sizes of compute buffers by families of engines, the keys of which are hashes, and in each by the shapes of its engines.
pub(super) struct ComputeBufferCache {
    path: PathBuf,
    families: Mutex<BTreeMap<String, Vec<MeasuredBuffer>>>,
}

/// What differs between engines of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EngineShape {
    /// Tokens of the context of a sequence.
    pub(super) context: u32,
    pub(super) sequences: u32,
    #[serde(flatten)]
    pub(super) division: LayerDivision,
}

/// How the layers of an engine are divided between the CPU and other devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct LayerDivision {
    /// The layers on the devices; none: all.
    pub(super) gpu_layers: Option<u32>,
    /// The first layers whose experts are on the CPU.
    pub(super) cpu_expert_layers: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct MeasuredBuffer {
    #[serde(flatten)]
    shape: EngineShape,
    bytes: u64,
}

/// What is known of the size of a buffer, the better knowledge last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KnownSize {
    /// Nothing.
    Unknown,
    /// That of a smaller cache was measured.
    AtLeast(u64),
    /// It was measured.
    Measured(u64),
}

impl KnownSize {
    /// The size, where it takes the place of a guess.
    pub(super) fn or_guess(self, guess: u64) -> u64 {
        match self {
            Self::Unknown => guess,
            Self::AtLeast(bytes) => guess.max(bytes),
            Self::Measured(bytes) => bytes,
        }
    }
}

impl ComputeBufferCache {
    /// Opens the cache in the data directory. An unreadable file counts as empty, also one of an earlier version, whose sizes may be
    /// those of smaller caches.
    pub(super) fn open(data: &Path) -> Self {
        let path = data.join("measured.json");
        let file = open_regular_file(&path).ok().map(BufReader::new);
        let families = file.and_then(|file| serde_json::from_reader(file).ok());
        Self { path, families: Mutex::new(families.unwrap_or_default()) }
    }

    /// The key of a family: a hash of everything that the sizes depend on beside the shape.
    pub(super) fn family(parts: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is known of an engine of this context and so many sequences. Without a division, it may have any: the largest is told.
    pub(super) fn get(
        &self,
        family: &str,
        (context, sequences): (u32, u32),
        division: Option<LayerDivision>,
    ) -> KnownSize {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let of_family = families.get(family).into_iter().flatten();
        let known = of_family.filter_map(|MeasuredBuffer { shape, bytes }| {
            let is_alike = division.is_none_or(|division| shape.division == division);
            let is_within = shape.context <= context && shape.sequences <= sequences;
            let is_same = (shape.context, shape.sequences) == (context, sequences);
            let size = if is_same { KnownSize::Measured(*bytes) } else { KnownSize::AtLeast(*bytes) };
            (is_alike && is_within).then_some(size)
        });
        known.max().unwrap_or(KnownSize::Unknown)
    }

    /// Stores a size. If the file cannot be written, the size is measured again after the next start.
    pub(super) fn put(&self, family: String, shape: EngineShape, bytes: u64) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        if families.len() >= MAX_FAMILY_ITEMS && !families.contains_key(&family) {
            families.clear();
        }
        let of_family = families.entry(family).or_default();
        match of_family.iter_mut().find(|measured| measured.shape == shape) {
            Some(measured) if measured.bytes == bytes => return,
            Some(measured) => measured.bytes = bytes,
            None => {
                if of_family.len() >= MAX_SHAPE_ITEMS {
                    of_family.remove(0);
                }
                of_family.push(MeasuredBuffer { shape, bytes });
            }
        }
        let result = serde_json::to_vec(&*families).map_err(std::io::Error::from).and_then(|text| {
            let temporary = self.path.with_extension("json.new");
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &self.path)
        });
        if let Err(error) = result {
            tracing::warn!(%error, path = %self.path.display(), "failed to store the sizes of compute buffers; they are measured again after the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: LayerDivision = LayerDivision { gpu_layers: None, cpu_expert_layers: 0 };

    fn shape(context: u32, sequences: u32) -> EngineShape {
        EngineShape { context, sequences, division: WHOLE }
    }

    #[test]
    fn measured_sizes_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let family = ComputeBufferCache::family(&["model", "8"]);
        assert_ne!(family, ComputeBufferCache::family(&["model8", ""]));
        let cache = ComputeBufferCache::open(dir.path());
        let known = |cache: &ComputeBufferCache| cache.get(&family, (512, 4), Some(WHOLE));
        assert_eq!(known(&cache), KnownSize::Unknown);
        cache.put(family.clone(), shape(512, 4), 7);
        assert_eq!(known(&ComputeBufferCache::open(dir.path())), KnownSize::Measured(7));
        // The format of an earlier version.
        std::fs::write(dir.path().join("measured.json"), format!("{{\"{family}\": 7}}")).unwrap();
        assert_eq!(known(&ComputeBufferCache::open(dir.path())), KnownSize::Unknown);
    }

    #[test]
    fn the_size_of_a_smaller_cache_is_never_that_of_a_larger_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let put = |context, sequences, bytes| cache.put("f".to_owned(), shape(context, sequences), bytes);
        let get = |context, sequences| cache.get("f", (context, sequences), Some(WHOLE));
        put(1024, 8, 70);
        assert_eq!(get(4096, 8), KnownSize::AtLeast(70));
        assert_eq!([get(4096, 8).or_guess(64), get(4096, 8).or_guess(90)], [70, 90]);
        assert_eq!([get(512, 8), get(4096, 4)], [KnownSize::Unknown; 2], "a larger one says nothing");
        put(4096, 8, 100);
        put(2048, 8, 120);
        assert_eq!(get(4096, 8), KnownSize::Measured(100), "what was measured is known better");
        put(4096, 8, 110);
        assert_eq!(get(4096, 8), KnownSize::Measured(110));
    }

    #[test]
    fn each_division_of_the_layers_has_its_size_and_an_unknown_one_the_largest() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let division = |gpu_layers| LayerDivision { gpu_layers: Some(gpu_layers), cpu_expert_layers: 0 };
        for (layers, bytes) in [(24, 90), (1, 30)] {
            cache.put("f".to_owned(), EngineShape { division: division(layers), ..shape(512, 4) }, bytes);
        }
        let get = |division| cache.get("f", (512, 4), division);
        assert_eq!(get(Some(division(1))), KnownSize::Measured(30));
        assert_eq!(get(Some(division(12))), KnownSize::Unknown);
        assert_eq!(get(None), KnownSize::Measured(90));
    }

    #[test]
    fn a_family_keeps_its_newest_shapes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ComputeBufferCache::open(dir.path());
        let shapes = MAX_SHAPE_ITEMS as u32 + 1;
        (1..=shapes).for_each(|sequences| cache.put("f".to_owned(), shape(512, sequences), 1));
        assert_eq!(cache.get("f", (512, 1), None), KnownSize::Unknown);
        assert_eq!(cache.get("f", (512, shapes), None), KnownSize::Measured(1));
    }
}
