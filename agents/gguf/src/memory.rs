//! The memory that a model takes, estimated from its header.

use std::path::Path;

use crate::error::Error;
use crate::header::GgufHeader;
use crate::inspect::inspect;
use crate::tensor::MAX_LAYERS;

/// Architectures that compute a text in one pass and have no KV cache. Source: `llama_model::create_memory` in llama.cpp.
const ARCHITECTURES_WITHOUT_KV_CACHE: [&str; 15] = [
    "bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "eurobert",
    "wavtokenizer-dec",
    "modern-bert",
    "gemma-embedding",
    "dream",
    "llada",
    "llada-moe",
    "rnd1",
    "clef",
];

/// The memory that a model takes, estimated from its header. Compute buffers are not included: llama.cpp sizes them from its
/// graphs, so they must be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// The layers, in order.
    pub layers: Vec<LayerMemory>,
    /// Bytes of weights before the first layer: the input embedding. llama.cpp keeps them in host memory.
    pub input: u64,
    /// Bytes of weights after the last layer, including the token embedding if it is also the output matrix.
    pub output: u64,
    /// Bytes of `output` that are also in `input`: on one device they exist once.
    pub tied: u64,
    /// Bytes of host memory for the outputs of one token: an embedding and one logit per token of the vocabulary. llama.cpp
    /// reserves the logits for embedding models too, where they are never read. Source: `llama_context::output_reserve`.
    pub output_buffer_per_token: u64,
    /// Bytes of the largest tensor of a layer. A GPU that computes large batches of layers of the CPU copies them one by one.
    pub largest_layer_tensor: u64,
    /// Elements of all weights.
    pub weight_elements: u64,
    /// The context length in training, in tokens.
    pub trained_context: Option<u32>,
    /// The sliding window of some layers, in tokens. It does not shrink their KV cache, because contexts are created with
    /// llama.cpp's `swa_full`: prefix sharing and truncation need all tokens.
    pub sliding_window: Option<u32>,
    /// Whether a CPU with fast products of a half type gains enough from dequantized layers to justify their memory.
    pub is_faster_dequantized: bool,
    /// Parts that the estimate omits or approximates.
    pub unaccounted: Vec<Unaccounted>,
}

/// The memory of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerMemory {
    /// Bytes of its weights as stored.
    pub weights: u64,
    /// Bytes of its weights after dequantization.
    pub dequantized: u64,
    /// Bytes of its weights, as stored, that are experts of a mixture of experts. Dequantization leaves them as they are.
    pub expert_weights: u64,
    /// Elements of the keys of one token in the KV cache.
    pub key_elements: u64,
    /// Elements of the values of one token in the KV cache.
    pub value_elements: u64,
}

/// Memory that a [`MemoryEstimate`] omits or approximates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccounted {
    /// The state of recurrent layers, whose size does not depend on the number of tokens; it is omitted. These layers are
    /// estimated as if they had a KV cache, unless the header states the heads of each layer.
    RecurrentState,
    /// Sliding-window layers have heads of another size; the larger size is used for all layers.
    MixedHeadSizes,
    /// A second cache that selects the tokens to attend to; it is omitted.
    Indexer,
    /// Weights of a type that this program does not know; they are omitted.
    UnknownTensorType,
}

/// Estimates the memory that a model takes from the header of its file.
pub fn estimate_memory(path: &Path) -> Result<MemoryEstimate, Error> {
    MemoryEstimate::from_header(&inspect(path)?, path)
}

impl MemoryEstimate {
    /// Estimates from the header of the file at `path`; the error says what is inconsistent in it.
    fn from_header(header: &GgufHeader, path: &Path) -> Result<Self, Error> {
        let hparams = Hyperparameters { header, path };
        let count = hparams.number("block_count")?.ok_or_else(|| hparams.damaged("`block_count` is missing"))?;
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_LAYERS).contains(count));
        let count = count.ok_or_else(|| hparams.damaged(format!("`block_count` is not between 1 and {MAX_LAYERS}")))?;
        let weights = &header.weights;
        if weights.layers.len() > count {
            let last = weights.layers.len() - 1;
            return Err(hparams.damaged(format!("it has weights for layer {last}, but only {count} layers")));
        }
        let has_kv_cache = !ARCHITECTURES_WITHOUT_KV_CACHE.contains(&header.architecture.as_str());
        let tied = if has_kv_cache && !weights.has_own_output { weights.token_embedding } else { 0 };
        let layer = |at: usize| -> Result<LayerMemory, Error> {
            let (key_elements, value_elements) = if has_kv_cache { hparams.kv_elements(at, count)? } else { (0, 0) };
            let of = |all: &[u64]| all.get(at).copied().unwrap_or(0);
            Ok(LayerMemory {
                weights: of(&weights.layers),
                dequantized: of(&weights.dequantized),
                expert_weights: of(&weights.experts),
                key_elements,
                value_elements,
            })
        };
        Ok(Self {
            layers: (0..count).map(layer).collect::<Result<_, _>>()?,
            input: weights.input,
            output: weights.output.checked_add(tied).ok_or_else(|| hparams.damaged("tensor sizes overflow"))?,
            tied,
            output_buffer_per_token: u64::from(hparams.number("embedding_length")?.unwrap_or(0))
                .saturating_add(weights.vocabulary)
                .saturating_mul(4),
            largest_layer_tensor: weights.largest_of_layers,
            weight_elements: weights.elements,
            trained_context: hparams.number("context_length")?,
            sliding_window: hparams.number("attention.sliding_window")?.filter(|window| *window > 0),
            is_faster_dequantized: weights.is_faster_dequantized(),
            unaccounted: hparams.unaccounted(has_kv_cache)?,
        })
    }

    /// Bytes of all weights on one device.
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.weights).fold(0, u64::saturating_add);
        layers.saturating_add(self.input).saturating_add(self.output).saturating_sub(self.tied)
    }
}

/// The metadata under the name of the architecture, interpreted by the rules of llama.cpp's `load_hparams`.
struct Hyperparameters<'a> {
    header: &'a GgufHeader,
    path: &'a Path,
}

impl Hyperparameters<'_> {
    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.to_owned(), reason: reason.into() }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.header.architecture)
    }

    /// A number for all layers.
    fn number(&self, name: &str) -> Result<Option<u32>, Error> {
        let key = self.key(name);
        let text = self.header.metadata.get(&key);
        let parse = |text: &String| text.parse().map_err(|_| self.damaged(format!("`{key}` is no number of 32 bits")));
        text.map(parse).transpose()
    }

    /// A number of one layer, from an array or a number for all layers.
    fn of_layer(&self, name: &str, layer: usize) -> Result<Option<u32>, Error> {
        let key = self.key(name);
        let Some(numbers) = self.header.integer_arrays.get(&key) else { return self.number(name) };
        let number =
            numbers.get(layer).ok_or_else(|| self.damaged(format!("`{key}` has only {} elements", numbers.len())))?;
        let invalid = |_| self.damaged(format!("`{key}` has an invalid element {number}"));
        u32::try_from(*number).map(Some).map_err(invalid)
    }

    /// Elements of the keys and values of one token in the KV cache of a layer.
    fn kv_elements(&self, layer: usize, layers: usize) -> Result<(u64, u64), Error> {
        let heads = self.of_layer("attention.head_count", layer)?.unwrap_or(0);
        let kv_heads = u64::from(self.of_layer("attention.head_count_kv", layer)?.unwrap_or(heads));
        let shared = self.number("attention.shared_kv_layers")?.unwrap_or(0) as usize;
        if kv_heads == 0 || layer + shared >= layers {
            return Ok((0, 0));
        }
        let (keys, values) = self.head_sizes()?;
        // Latent attention caches one vector from which keys and values are computed.
        let is_latent = self.number("attention.value_length_mla")?.is_some();
        Ok((kv_heads * u64::from(keys), if is_latent { 0 } else { kv_heads * u64::from(values) }))
    }

    /// Elements of the key and the value of one head, the larger where there are two sizes.
    fn head_sizes(&self) -> Result<(u32, u32), Error> {
        // llama.cpp uses the heads of the first layer only.
        let heads = self.of_layer("attention.head_count", 0)?;
        let width = self.number("embedding_length")?;
        let default = width.zip(heads).and_then(|(width, heads)| width.checked_div(heads));
        let length = |name: &str| -> Result<u32, Error> {
            let stated = self.number(&format!("attention.{name}"))?.or(default);
            let other = self.number(&format!("attention.{name}_swa"))?.unwrap_or(0);
            let stated = stated.ok_or_else(|| self.damaged(format!("`attention.{name}` is missing")))?;
            Ok(stated.max(other))
        };
        Ok((length("key_length")?, length("value_length")?))
    }

    fn unaccounted(&self, has_kv_cache: bool) -> Result<Vec<Unaccounted>, Error> {
        let has = |part: &str| self.header.metadata.keys().any(|key| key.starts_with(&self.key(part)));
        let mut unaccounted = Vec::new();
        if has_kv_cache && (has("ssm.") || has("wkv.") || has("shortconv.")) {
            unaccounted.push(Unaccounted::RecurrentState);
        }
        let (long, short) = (self.number("attention.key_length")?, self.number("attention.key_length_swa")?);
        if short.is_some() && short != long {
            unaccounted.push(Unaccounted::MixedHeadSizes);
        }
        if has("attention.indexer.") {
            unaccounted.push(Unaccounted::Indexer);
        }
        if self.header.weights.has_unknown_types {
            unaccounted.push(Unaccounted::UnknownTensorType);
        }
        Ok(unaccounted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse;

    /// A metadata value.
    enum MetadataFixture<'a> {
        Text(&'a str),
        Number(u32),
        Array(&'a [i32]),
    }
    use MetadataFixture::{Array, Number, Text};

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A header; a tensor is its name, dimensions and type.
    fn bytes(metadata: &[(&str, MetadataFixture<'_>)], tensors: &[(&str, &[u64], u32)]) -> Vec<u8> {
        let counts = [(tensors.len() as u64).to_le_bytes(), (metadata.len() as u64).to_le_bytes()].concat();
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat();
        for (key, value) in metadata {
            bytes.extend(string(key));
            match value {
                Text(text) => bytes.extend([8u32.to_le_bytes().to_vec(), string(text)].concat()),
                Number(number) => bytes.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
                Array(numbers) => {
                    bytes.extend([9u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
                    bytes.extend((numbers.len() as u64).to_le_bytes());
                    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                }
            }
        }
        for (name, sizes, kind) in tensors {
            bytes.extend([string(name), (sizes.len() as u32).to_le_bytes().to_vec()].concat());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend([&kind.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        }
        bytes
    }

    fn estimate(
        metadata: &[(&str, MetadataFixture<'_>)],
        tensors: &[(&str, &[u64], u32)],
    ) -> Result<MemoryEstimate, Error> {
        let (bytes, path) = (bytes(metadata, tensors), Path::new("m.gguf"));
        let header = parse(&bytes[..], u64::MAX, &mut |_| ()).map_err(|fault| fault.into_error(path, u64::MAX))?;
        MemoryEstimate::from_header(&header, path)
    }

    const TENSORS: [(&str, &[u64], u32); 5] = [
        ("token_embd.weight", &[64, 100], 8),
        ("blk.0.attn_q.weight", &[64, 64], 2),
        ("blk.1.ffn_up.weight", &[256, 2], 12),
        ("blk.1.attn_norm.weight", &[64], 0),
        ("output_norm.weight", &[64], 0),
    ];

    fn metadata_with<'a>(more: Vec<(&'a str, MetadataFixture<'a>)>) -> Vec<(&'a str, MetadataFixture<'a>)> {
        let mut metadata = vec![
            ("general.architecture", Text("llama")),
            ("llama.block_count", Number(2)),
            ("llama.embedding_length", Number(64)),
            ("llama.context_length", Number(2048)),
            ("llama.attention.head_count", Number(4)),
        ];
        metadata.extend(more);
        metadata
    }

    #[test]
    fn weights_are_counted_where_llama_cpp_places_them() {
        let found = estimate(&metadata_with(vec![]), &TENSORS).unwrap();
        let tokens = 200 * 34;
        assert_eq!((found.input, found.output, found.tied), (tokens, tokens + 256, tokens));
        assert_eq!(found.layers.iter().map(|layer| layer.weights).collect::<Vec<_>>(), [128 * 18, 2 * 144 + 256]);
        assert_eq!(found.weight_bytes(), tokens + 256 + 128 * 18 + 2 * 144 + 256);
        let dequantized = [64 * 64 * 2, 256 * 2 * 2 + 256];
        assert_eq!(found.layers.iter().map(|layer| layer.dequantized).collect::<Vec<_>>(), dequantized);
        assert_eq!((found.trained_context, found.output_buffer_per_token), (Some(2048), (64 + 100) * 4));
        let own = [&TENSORS[..], &[("output.weight", &[64, 100], 8)]].concat();
        assert_eq!(estimate(&metadata_with(vec![]), &own).unwrap().tied, 0);
    }

    #[test]
    fn experts_are_a_part_of_the_weights_of_their_layer() {
        let experts: [(&str, &[u64], u32); 3] = [
            ("blk.0.ffn_gate_up_exps.weight", &[64, 64, 4], 8),
            ("blk.0.ffn_down_exps.weight", &[64, 64, 4], 8),
            ("blk.0.ffn_gate_inp.weight", &[64, 4], 0),
        ];
        let found = estimate(&metadata_with(vec![]), &[&TENSORS[..], &experts].concat()).unwrap();
        let (one, router) = (4 * 128 * 34, 64 * 4 * 4);
        assert_eq!(found.layers[0].expert_weights, 2 * one);
        assert_eq!((found.layers[0].weights, found.layers[1].expert_weights), (128 * 18 + 2 * one + router, 0));
        assert_eq!(found.largest_layer_tensor, one);
        assert_eq!(found.weight_elements, 6400 + 4096 + 512 + 64 + 64 + 2 * 64 * 64 * 4 + 256);
    }

    #[test]
    fn the_kv_cache_size_follows_from_the_heads_and_their_sizes() {
        let cache = |more| {
            let found = estimate(&metadata_with(more), &TENSORS).unwrap();
            found.layers.iter().map(|layer| (layer.key_elements, layer.value_elements)).collect::<Vec<_>>()
        };
        assert_eq!(cache(vec![]), [(64, 64); 2], "by default as many KV heads as query heads");
        assert_eq!(cache(vec![("llama.attention.head_count_kv", Number(1))]), [(16, 16); 2]);
        assert_eq!(cache(vec![("llama.attention.head_count_kv", Array(&[0, 2]))]), [(0, 0), (32, 32)]);
        let lengths = || vec![("llama.attention.key_length", Number(24)), ("llama.attention.value_length", Number(8))];
        assert_eq!(cache(lengths()), [(96, 32); 2]);
        let shared = vec![("llama.attention.shared_kv_layers", Number(1))];
        assert_eq!(cache(shared), [(64, 64), (0, 0)], "the last layer shares the cache of the first");
        let latent = [lengths(), vec![("llama.attention.value_length_mla", Number(8))]];
        assert_eq!(cache(latent.into_iter().flatten().collect()), [(96, 0); 2]);
    }

    #[test]
    fn unaccounted_memory_is_reported() {
        let unaccounted = |more| estimate(&metadata_with(more), &TENSORS).unwrap().unaccounted;
        assert_eq!(unaccounted(vec![("llama.attention.sliding_window", Number(512))]), []);
        assert_eq!(unaccounted(vec![("llama.ssm.state_size", Number(16))]), [Unaccounted::RecurrentState]);
        assert_eq!(unaccounted(vec![("llama.attention.key_length_swa", Number(8))]), [Unaccounted::MixedHeadSizes]);
        assert_eq!(unaccounted(vec![("llama.attention.indexer.top_k", Number(8))]), [Unaccounted::Indexer]);
        let odd = estimate(&metadata_with(vec![]), &[("blk.0.x", &[8], 99)]).unwrap();
        assert_eq!((odd.unaccounted, odd.layers[0].weights), (vec![Unaccounted::UnknownTensorType], 0));
        assert_eq!(
            estimate(&metadata_with(vec![("llama.attention.sliding_window", Number(512))]), &[])
                .unwrap()
                .sliding_window,
            Some(512)
        );
    }

    #[test]
    fn inconsistent_headers_are_refused_with_a_reason() {
        let refused = |more, tensors: &[(&str, &[u64], u32)]| match estimate(&metadata_with(more), tensors) {
            Err(Error::Damaged { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(vec![], &[("blk.2.x", &[8], 0)]), "it has weights for layer 2, but only 2 layers");
        assert_eq!(refused(vec![("llama.block_count", Number(513))], &[]), "`block_count` is not between 1 and 512");
        let short = refused(vec![("llama.attention.head_count_kv", Array(&[1]))], &[]);
        assert_eq!(short, "`llama.attention.head_count_kv` has only 1 elements");
        let below = refused(vec![("llama.attention.head_count_kv", Array(&[1, -1]))], &[]);
        assert_eq!(below, "`llama.attention.head_count_kv` has an invalid element -1");
        assert_eq!(
            refused(vec![("llama.block_count", Text("many"))], &[]),
            "`llama.block_count` is no number of 32 bits"
        );
        let most = [("token_embd.weight", &[u64::MAX / 4][..], 0), ("token_embd.x", &[u64::MAX / 4], 0)];
        assert_eq!(refused(vec![], &most), "tensor sizes overflow", "their sum");
        let once = [("token_embd.weight", &[u64::MAX / 5][..], 0), ("output.x", &[u64::MAX / 5], 0)];
        assert_eq!(refused(vec![], &once), "tensor sizes overflow", "the tied embedding counts again as output");
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(
            numbers in prop::collection::vec(any::<u32>(), 8),
            heads in prop::collection::vec(any::<i32>(), 0..600),
            layer in any::<u64>(),
            sizes in prop::collection::vec(any::<u64>(), 0..4),
            kind in 0..45u32,
        ) {
            let metadata = vec![
                ("llama.block_count", Number(numbers[0] % 600)),
                ("llama.embedding_length", Number(numbers[1])),
                ("llama.attention.head_count", Number(numbers[2] % 5)),
                ("llama.attention.head_count_kv", Array(&heads)),
                ("llama.attention.key_length", Number(numbers[3])),
                ("llama.attention.value_length_swa", Number(numbers[4])),
                ("llama.attention.shared_kv_layers", Number(numbers[5])),
            ];
            let name = format!("blk.{layer}.x");
            if let Ok(found) = estimate(&metadata_with(metadata), &[(&name, &sizes, kind)]) {
                prop_assert!((1..=MAX_LAYERS).contains(&found.layers.len()));
                prop_assert!(found.weight_bytes() >= found.layers.iter().map(|layer| layer.weights).sum());
            }
        }
    }
}
