//! What a model takes of memory, as far as its header says.

use super::Header;
use super::read::MAX_LAYERS;
use super::recast::{Half, pays};
use crate::CacheType;

/// Architectures that look at a text once and keep no cache. Source: `llama_model::create_memory` in llama.cpp.
const WITHOUT_CACHE: [&str; 15] = [
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

/// What a model takes of memory, as far as its header says. Buffers for computing are not in it: llama.cpp sizes them by its
/// graphs, so they have to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anatomy {
    /// Its layers, in order.
    pub layers: Vec<Layer>,
    /// Bytes of weights before the first layer: the input embedding. llama.cpp keeps them in the machine's memory.
    pub input: u64,
    /// Bytes of weights after the last layer, the embedding of tokens among them if it is the output matrix too.
    pub output: u64,
    /// Bytes of `output` that are in `input` too: in one memory they lie there once.
    pub tied: u64,
    /// Bytes of the machine's memory that the outputs of one token take: a vector, and a number for each token of the
    /// vocabulary. llama.cpp keeps the latter of embedding models too, where nobody reads them. Source:
    /// `llama_context::output_reserve`.
    pub outputs: u64,
    /// Tokens that it was trained with at once.
    pub trained_context: Option<u32>,
    /// How far some of its layers look back. The cache of these layers takes as much as any other's nevertheless, since
    /// contexts are made with llama.cpp's `swa_full`: sharing and rewinding need all tokens.
    pub window: Option<u32>,
    /// What this machine's processor computes faster with once the layers' weights are recast to it, at a price in memory that is
    /// worth it.
    pub recast_pays: Option<Half>,
    /// What is not, or not exactly, in these figures.
    pub unreckoned: Vec<Unreckoned>,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layer {
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of its weights once they are recast.
    pub recast: u64,
    /// Numbers that the keys of one token have in the cache.
    pub keys: u64,
    /// Numbers that the values of one token have in the cache.
    pub values: u64,
}

/// What a header does not tell, or we do not reckon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreckoned {
    /// State of layers that are recurrent, which does not grow with the tokens; it comes on top. Caches are reckoned for
    /// these layers as if they had some, unless the header gives each layer's heads.
    Recurrent,
    /// Layers that look back a little have heads of another size; all are taken for the larger.
    TwoSizes,
    /// A second cache that chooses which tokens to attend to; it comes on top.
    Indexer,
    /// Weights of a type that was not known when this program was written; they come on top.
    UnknownType,
}

impl CacheType {
    /// Bytes that so many numbers take in a cache of this form.
    pub fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F32 => numbers.saturating_mul(4),
            Self::F16 | Self::Bf16 => numbers.saturating_mul(2),
            Self::Q8_0 => numbers.div_ceil(32).saturating_mul(34),
            Self::Q4_0 => numbers.div_ceil(32).saturating_mul(18),
        }
    }
}

impl Layer {
    /// Bytes that one token takes in the cache of this layer.
    pub fn cache(&self, form: crate::Cache) -> u64 {
        form.keys.bytes(self.keys).saturating_add(form.values.bytes(self.values))
    }
}

impl Anatomy {
    /// Reads it off a header; if it makes no sense, says what.
    pub(super) fn of(header: &Header) -> Result<Self, String> {
        let facts = Facts(header);
        let count = facts.number("block_count")?.ok_or("it states no number of layers")?;
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_LAYERS).contains(count));
        let count = count.ok_or_else(|| format!("its number of layers is not between 1 and {MAX_LAYERS}"))?;
        let weights = &header.weights;
        if weights.layers.len() > count {
            return Err(format!("it has weights for layer {}, and {count} layers", weights.layers.len() - 1));
        }
        let cached = !WITHOUT_CACHE.contains(&header.architecture.as_str());
        let tied = if cached && !weights.own_output { weights.tokens } else { 0 };
        let layer = |at: usize| -> Result<Layer, String> {
            let (keys, values) = if cached { facts.cache(at, count)? } else { (0, 0) };
            let of = |all: &[u64]| all.get(at).copied().unwrap_or(0);
            Ok(Layer { weights: of(&weights.layers), recast: of(&weights.recast), keys, values })
        };
        Ok(Self {
            layers: (0..count).map(layer).collect::<Result<_, _>>()?,
            input: weights.input,
            output: weights.output.checked_add(tied).ok_or("tensor sizes overflow")?,
            tied,
            outputs: u64::from(facts.number("embedding_length")?.unwrap_or(0))
                .saturating_add(weights.vocabulary)
                .saturating_mul(4),
            trained_context: facts.number("context_length")?,
            window: facts.number("attention.sliding_window")?.filter(|window| *window > 0),
            recast_pays: pays(weights),
            unreckoned: facts.unreckoned(cached)?,
        })
    }

    /// Bytes that one token takes in the cache, over all layers.
    pub fn cache_per_token(&self, form: crate::Cache) -> u64 {
        self.layers.iter().map(|layer| layer.cache(form)).fold(0, u64::saturating_add)
    }

    /// Bytes of all weights in one memory.
    pub fn weights(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.weights).fold(0, u64::saturating_add);
        layers.saturating_add(self.input).saturating_add(self.output).saturating_sub(self.tied)
    }
}

/// The metadata of a model under the name of its architecture. The rules are those of llama.cpp's `load_hparams`.
struct Facts<'a>(&'a Header);

impl Facts<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.0.architecture)
    }

    /// A number that is stated once.
    fn number(&self, name: &str) -> Result<Option<u32>, String> {
        let key = self.key(name);
        let text = self.0.metadata.get(&key);
        let parse = |text: &String| text.parse().map_err(|_| format!("`{key}` is `{text}`"));
        text.map(parse).transpose()
    }

    /// A number that is stated once or for each layer.
    fn of_layer(&self, name: &str, layer: usize) -> Result<Option<u32>, String> {
        let key = self.key(name);
        let Some(numbers) = self.0.numbers.get(&key) else { return self.number(name) };
        let number = numbers.get(layer).ok_or_else(|| format!("`{key}` has {} numbers", numbers.len()))?;
        u32::try_from(*number).map(Some).map_err(|_| format!("`{key}` has a {number}"))
    }

    /// Numbers that the keys and the values of a token have in a layer's cache.
    fn cache(&self, layer: usize, layers: usize) -> Result<(u64, u64), String> {
        let heads = self.of_layer("attention.head_count", layer)?.unwrap_or(0);
        let kv_heads = u64::from(self.of_layer("attention.head_count_kv", layer)?.unwrap_or(heads));
        let shared = self.number("attention.shared_kv_layers")?.unwrap_or(0) as usize;
        if kv_heads == 0 || layer + shared >= layers {
            return Ok((0, 0));
        }
        let (keys, values) = self.head()?;
        // Latent attention caches what keys and values are computed from, once.
        let latent = self.number("attention.value_length_mla")?.is_some();
        Ok((kv_heads * u64::from(keys), if latent { 0 } else { kv_heads * u64::from(values) }))
    }

    /// Numbers of one head's keys and values, the larger where there are two sizes.
    fn head(&self) -> Result<(u32, u32), String> {
        // llama.cpp looks at the first layer alone.
        let heads = self.of_layer("attention.head_count", 0)?;
        let width = self.number("embedding_length")?;
        let usual = width.zip(heads).and_then(|(width, heads)| width.checked_div(heads));
        let length = |name: &str| -> Result<u32, String> {
            let stated = self.number(&format!("attention.{name}"))?.or(usual);
            let other = self.number(&format!("attention.{name}_swa"))?.unwrap_or(0);
            stated.map(|stated| stated.max(other)).ok_or_else(|| format!("it does not state `attention.{name}`"))
        };
        Ok((length("key_length")?, length("value_length")?))
    }

    fn unreckoned(&self, cached: bool) -> Result<Vec<Unreckoned>, String> {
        let has = |part: &str| self.0.metadata.keys().any(|key| key.starts_with(&self.key(part)));
        let mut unreckoned = Vec::new();
        if cached && (has("ssm.") || has("wkv.") || has("shortconv.")) {
            unreckoned.push(Unreckoned::Recurrent);
        }
        let (long, short) = (self.number("attention.key_length")?, self.number("attention.key_length_swa")?);
        if short.is_some() && short != long {
            unreckoned.push(Unreckoned::TwoSizes);
        }
        if has("attention.indexer.") {
            unreckoned.push(Unreckoned::Indexer);
        }
        if self.0.weights.unknown {
            unreckoned.push(Unreckoned::UnknownType);
        }
        Ok(unreckoned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::read::parse;
    use super::*;
    use crate::Cache;

    /// A value of the metadata.
    enum Is<'a> {
        Text(&'a str),
        One(u32),
        Each(&'a [i32]),
    }
    use Is::{Each, One, Text};

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A header; of each tensor name, sizes and type.
    fn bytes(metadata: &[(&str, Is<'_>)], tensors: &[(&str, &[u64], u32)]) -> Vec<u8> {
        let counts = [(tensors.len() as u64).to_le_bytes(), (metadata.len() as u64).to_le_bytes()].concat();
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat();
        for (key, value) in metadata {
            bytes.extend(string(key));
            match value {
                Text(text) => bytes.extend([8u32.to_le_bytes().to_vec(), string(text)].concat()),
                One(number) => bytes.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
                Each(numbers) => {
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

    fn anatomy(metadata: &[(&str, Is<'_>)], tensors: &[(&str, &[u64], u32)]) -> Result<Anatomy, String> {
        let bytes = bytes(metadata, tensors);
        let header = parse(&bytes[..], u64::MAX, &mut |_| ()).map_err(|_| "it cannot be parsed".to_owned())?;
        Anatomy::of(&header)
    }

    const TENSORS: [(&str, &[u64], u32); 5] = [
        ("token_embd.weight", &[64, 100], 8),
        ("blk.0.attn_q.weight", &[64, 64], 2),
        ("blk.1.ffn_up.weight", &[256, 2], 12),
        ("blk.1.attn_norm.weight", &[64], 0),
        ("output_norm.weight", &[64], 0),
    ];

    fn usual<'a>(more: Vec<(&'a str, Is<'a>)>) -> Vec<(&'a str, Is<'a>)> {
        let mut metadata = vec![
            ("general.architecture", Text("llama")),
            ("llama.block_count", One(2)),
            ("llama.embedding_length", One(64)),
            ("llama.context_length", One(2048)),
            ("llama.attention.head_count", One(4)),
        ];
        metadata.extend(more);
        metadata
    }

    #[test]
    fn weights_are_counted_where_llama_cpp_puts_them() {
        let found = anatomy(&usual(vec![]), &TENSORS).unwrap();
        let tokens = 200 * 34;
        assert_eq!((found.input, found.output, found.tied), (tokens, tokens + 256, tokens));
        assert_eq!(found.layers.iter().map(|layer| layer.weights).collect::<Vec<_>>(), [128 * 18, 2 * 144 + 256]);
        assert_eq!(found.weights(), tokens + 256 + 128 * 18 + 2 * 144 + 256);
        let recast = [64 * 64 * 2, 256 * 2 * 2 + 256];
        assert_eq!(found.layers.iter().map(|layer| layer.recast).collect::<Vec<_>>(), recast);
        assert_eq!((found.trained_context, found.outputs), (Some(2048), (64 + 100) * 4));
        let own = [&TENSORS[..], &[("output.weight", &[64, 100], 8)]].concat();
        assert_eq!(anatomy(&usual(vec![]), &own).unwrap().tied, 0);
    }

    #[test]
    fn the_cache_follows_from_heads_and_their_lengths() {
        let cache = |more| {
            let found = anatomy(&usual(more), &TENSORS).unwrap();
            found.layers.iter().map(|layer| (layer.keys, layer.values)).collect::<Vec<_>>()
        };
        assert_eq!(cache(vec![]), [(64, 64); 2], "as many heads for keys as for queries");
        assert_eq!(cache(vec![("llama.attention.head_count_kv", One(1))]), [(16, 16); 2]);
        assert_eq!(cache(vec![("llama.attention.head_count_kv", Each(&[0, 2]))]), [(0, 0), (32, 32)]);
        let lengths = || vec![("llama.attention.key_length", One(24)), ("llama.attention.value_length", One(8))];
        assert_eq!(cache(lengths()), [(96, 32); 2]);
        let shared = vec![("llama.attention.shared_kv_layers", One(1))];
        assert_eq!(cache(shared), [(64, 64), (0, 0)], "the last layer uses the first one's");
        let latent = [lengths(), vec![("llama.attention.value_length_mla", One(8))]];
        assert_eq!(cache(latent.into_iter().flatten().collect()), [(96, 0); 2]);
    }

    #[test]
    fn a_cache_takes_what_its_form_takes() {
        let layer = Layer { keys: 192, values: 192, ..Layer::default() };
        let of = |form| layer.cache(Cache { keys: form, values: form });
        let forms = [CacheType::F32, CacheType::F16, CacheType::Bf16, CacheType::Q8_0, CacheType::Q4_0];
        assert_eq!(forms.map(of), [1536, 768, 768, 408, 216]);
    }

    #[test]
    fn what_is_not_in_the_figures_is_said() {
        let unreckoned = |more| anatomy(&usual(more), &TENSORS).unwrap().unreckoned;
        assert_eq!(unreckoned(vec![("llama.attention.sliding_window", One(512))]), []);
        assert_eq!(unreckoned(vec![("llama.ssm.state_size", One(16))]), [Unreckoned::Recurrent]);
        assert_eq!(unreckoned(vec![("llama.attention.key_length_swa", One(8))]), [Unreckoned::TwoSizes]);
        assert_eq!(unreckoned(vec![("llama.attention.indexer.top_k", One(8))]), [Unreckoned::Indexer]);
        let odd = anatomy(&usual(vec![]), &[("blk.0.x", &[8], 99)]).unwrap();
        assert_eq!((odd.unreckoned, odd.layers[0].weights), (vec![Unreckoned::UnknownType], 0));
        assert_eq!(anatomy(&usual(vec![("llama.attention.sliding_window", One(512))]), &[]).unwrap().window, Some(512));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_words() {
        let refused = |more, tensors: &[(&str, &[u64], u32)]| anatomy(&usual(more), tensors).unwrap_err();
        assert_eq!(refused(vec![], &[("blk.2.x", &[8], 0)]), "it has weights for layer 2, and 2 layers");
        assert_eq!(
            refused(vec![("llama.block_count", One(513))], &[]),
            "its number of layers is not between 1 and 512"
        );
        let short = refused(vec![("llama.attention.head_count_kv", Each(&[1]))], &[]);
        assert_eq!(short, "`llama.attention.head_count_kv` has 1 numbers");
        let below = refused(vec![("llama.attention.head_count_kv", Each(&[1, -1]))], &[]);
        assert_eq!(below, "`llama.attention.head_count_kv` has a -1");
        assert_eq!(refused(vec![("llama.block_count", Text("many"))], &[]), "`llama.block_count` is `many`");
        let most = [("token_embd.weight", &[u64::MAX / 4][..], 0), ("token_embd.x", &[u64::MAX / 4], 0)];
        assert_eq!(refused(vec![], &most), "it cannot be parsed", "the sum overflows");
        let once = [("token_embd.weight", &[u64::MAX / 5][..], 0), ("output.x", &[u64::MAX / 5], 0)];
        assert_eq!(refused(vec![], &once), "tensor sizes overflow", "as the output once more");
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(
            numbers in prop::collection::vec(any::<u32>(), 8),
            heads in prop::collection::vec(any::<i32>(), 0..600),
            layer in any::<u64>(),
            sizes in prop::collection::vec(any::<u64>(), 0..4),
            kind in 0..45u32,
        ) {
            let metadata = vec![
                ("llama.block_count", One(numbers[0] % 600)),
                ("llama.embedding_length", One(numbers[1])),
                ("llama.attention.head_count", One(numbers[2] % 5)),
                ("llama.attention.head_count_kv", Each(&heads)),
                ("llama.attention.key_length", One(numbers[3])),
                ("llama.attention.value_length_swa", One(numbers[4])),
                ("llama.attention.shared_kv_layers", One(numbers[5])),
            ];
            let name = format!("blk.{layer}.x");
            if let Ok(found) = anatomy(&usual(metadata), &[(&name, &sizes, kind)]) {
                prop_assert!((1..=MAX_LAYERS).contains(&found.layers.len()));
                prop_assert!(found.weights() >= found.layers.iter().map(|layer| layer.weights).sum());
                let cache = |form| found.cache_per_token(Cache { keys: form, values: form });
                prop_assert!(cache(CacheType::Q4_0) <= cache(CacheType::Q8_0));
                prop_assert!(cache(CacheType::F16) <= cache(CacheType::F32));
            }
        }
    }
}
