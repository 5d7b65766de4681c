//! Small models of the tests, as whole files and in pieces as `llama-gguf-split` writes them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::writer::{GgufWriter, MetadataValue, TensorLayout};

/// A model with some numbers in its metadata and some tensors.
#[derive(Debug, Clone)]
pub(crate) struct TestModel {
    pub(crate) architecture: &'static str,
    /// Whether each piece states it, and not the first one alone.
    pub(crate) states_architecture: bool,
    pub(crate) numbers: Vec<(String, u32)>,
    /// Name, dimensions, type of ggml.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32)>,
}

impl TestModel {
    /// One with this many layers of two matrices, and an embedding.
    pub(crate) fn with_layers(architecture: &'static str, layers: u32) -> Self {
        let key = |name: &str| format!("{architecture}.{name}");
        let numbers = [("block_count", layers), ("embedding_length", 32), ("attention.head_count", 2)];
        let layer = |at: u32| ["attn_q", "ffn_up"].map(|name| (format!("blk.{at}.{name}.weight"), vec![32, 4], 2));
        let embedding = ("token_embd.weight".to_owned(), vec![32, 10], 0);
        Self {
            architecture,
            states_architecture: false,
            numbers: numbers.map(|(name, value)| (key(name), value)).to_vec(),
            tensors: [embedding].into_iter().chain((0..layers).flat_map(layer)).collect(),
        }
    }

    /// Any one whose tensors have names of their own.
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let name = prop_oneof![
            (0..20u32, "[a-z]{1,6}").prop_map(|(at, name)| format!("blk.{at}.{name}.weight")),
            Just("token_embd.weight".to_owned()),
            Just("output.weight".to_owned()),
            "[a-z.]{1,12}",
        ];
        let dimensions = prop::collection::vec(1..5u64, 0..3).prop_map(|more| [vec![256], more].concat());
        let tensors =
            prop::collection::btree_map(name, (dimensions, prop::sample::select(vec![0, 1, 2, 3, 8, 12, 999])), 0..24);
        let numbers = prop::collection::btree_map("[a-z]{1,8}\\.[a-z]{1,8}", any::<u32>(), 0..6);
        (tensors, numbers, any::<bool>()).prop_map(|(tensors, numbers, states_architecture)| Self {
            architecture: "llama",
            states_architecture,
            numbers: numbers.into_iter().collect(),
            tensors: tensors.into_iter().map(|(name, (dimensions, kind))| (name, dimensions, kind)).collect(),
        })
    }

    /// Writes it as one file.
    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        fs::write(path, self.bytes(0..self.tensors.len(), None)).unwrap();
        path.to_owned()
    }

    /// Writes it in pieces with as many tensors each as possible.
    pub(crate) fn write_pieces(&self, dir: &Path, name: &str, count: u32) -> Vec<PathBuf> {
        let all = self.tensors.len();
        let bound = |at: u32| all * at as usize / count as usize;
        let path = |at: u32| dir.join(format!("{name}-{:05}-of-{count:05}.gguf", at + 1));
        (0..count).map(|at| self.write_piece(&path(at), at, bound(at)..bound(at + 1), count)).collect()
    }

    /// Writes some tensors as the piece of this number, from 0.
    pub(crate) fn write_piece(&self, path: &Path, number: u32, tensors: Range<usize>, count: u32) -> PathBuf {
        fs::write(path, self.bytes(tensors, Some((number as u16, count as u16)))).unwrap();
        path.to_owned()
    }

    fn bytes(&self, tensors: Range<usize>, piece: Option<(u16, u16)>) -> Vec<u8> {
        let is_first = piece.is_none_or(|(number, _)| number == 0);
        let mut metadata = Vec::new();
        if is_first || self.states_architecture {
            metadata.push(("general.architecture", MetadataValue::Text(self.architecture.to_owned())));
        }
        if is_first {
            metadata.extend(self.numbers.iter().map(|(key, value)| (key.as_str(), MetadataValue::U32(*value))));
            metadata.push(("test.heads", MetadataValue::U32s(vec![3, 1])));
        }
        if let Some((number, count)) = piece {
            metadata.push(("split.no", MetadataValue::U16(number)));
            metadata.push(("split.count", MetadataValue::U16(count)));
            metadata.push(("split.tensors.count", MetadataValue::I32(self.tensors.len() as i32)));
        }
        let layout = |(name, dimensions, kind): &(String, Vec<u64>, u32)| TensorLayout {
            name: name.clone(),
            dimensions: dimensions.clone(),
            ggml_type: *kind,
        };
        let layouts: Vec<TensorLayout> = self.tensors[tensors.clone()].iter().map(layout).collect();
        let mut writer = GgufWriter::new(Vec::new(), &metadata, &layouts).unwrap();
        for (at, layout) in tensors.zip(&layouts) {
            // Each tensor has bytes of its own.
            let data: Vec<u8> = (0..layout.data_bytes()).map(|n| (n as usize * 7 + at) as u8).collect();
            writer.write_tensor(&data).unwrap();
        }
        writer.finish().unwrap()
    }
}
