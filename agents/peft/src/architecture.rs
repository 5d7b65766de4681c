//! The architectures whose adapters are converted, and the names of their linear layers in both forms.
//!
//! Source: `gguf-py/gguf/tensor_mapping.py` and `conversion/` of llama.cpp.

use std::fmt;

/// The models' modules of architectures whose attention and feed-forward parts have a matrix for each purpose.
const SEPARATE: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
/// Those of architectures that have one matrix for queries, keys and values, and one for gate and up.
const FUSED: [(&str, &str); 4] = [
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
/// The matrix after the last layer.
const HEAD: (&str, &str) = ("lm_head", "output");

/// Where the layers of a text are in Transformers.
const TEXT_LAYERS: [&str; 1] = ["model.layers."];
/// Those of Gemma 3: first of its models of texts alone, then of those that read images too, by the version of Transformers.
const GEMMA3_LAYERS: [&str; 3] = ["model.layers.", "model.language_model.layers.", "language_model.model.layers."];

/// What llama.cpp calls an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// Also Mistral, SmolLM2 and others that Transformers gives classes of their own.
    Llama,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
    Phi3,
}

/// All of them, as a message lists them.
pub(crate) const SUPPORTED: &str = "llama, qwen2, qwen3, gemma2, gemma3 and phi3";

impl Architecture {
    /// By `general.architecture`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma2" => Self::Gemma2,
            "gemma3" => Self::Gemma3,
            "phi3" => Self::Phi3,
            _ => return None,
        })
    }

    /// Its `general.architecture`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
        }
    }

    /// The name in a layer in Transformers, and that in GGUF.
    pub(crate) fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Phi3 => &FUSED,
            _ => &SEPARATE,
        }
    }

    /// The names of its linear layers as `target_modules` has them, in words.
    pub(crate) fn target_list(self) -> String {
        let names = self.modules().iter().map(|(peft, _)| peft.rsplit('.').next().unwrap_or(peft));
        names.collect::<Vec<_>>().join(", ")
    }

    fn layer_prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Gemma3 => &GEMMA3_LAYERS,
            _ => &TEXT_LAYERS,
        }
    }
}

/// A linear layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AdaptedModule {
    /// The number of its layer; the head follows the last one.
    layer: LayerNumber,
    /// Its place in [`Architecture::modules`].
    index: usize,
    /// Its names in both forms, without the layer.
    names: (&'static str, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum LayerNumber {
    Of(u32),
    AfterLast,
}

impl AdaptedModule {
    /// Parses `model.layers.0.self_attn.q_proj` or `lm_head`.
    pub(crate) fn parse_peft(architecture: Architecture, path: &str) -> Option<Self> {
        if path == HEAD.0 {
            return Some(Self::head());
        }
        let in_layers = architecture.layer_prefixes().iter().find_map(|prefix| path.strip_prefix(prefix))?;
        let (layer, name) = in_layers.split_once('.')?;
        Self::in_layer(architecture, layer, |(peft, _)| peft == name)
    }

    /// Parses `blk.0.attn_q.weight` or `output.weight`.
    pub(crate) fn parse_gguf(architecture: Architecture, tensor: &str) -> Option<Self> {
        let path = tensor.strip_suffix(".weight")?;
        if path == HEAD.1 {
            return Some(Self::head());
        }
        let (layer, name) = path.strip_prefix("blk.")?.split_once('.')?;
        Self::in_layer(architecture, layer, |(_, gguf)| gguf == name)
    }

    fn head() -> Self {
        Self { layer: LayerNumber::AfterLast, index: 0, names: HEAD }
    }

    fn in_layer(architecture: Architecture, layer: &str, is_named: impl Fn((&str, &str)) -> bool) -> Option<Self> {
        let number: u32 = layer.parse().ok()?;
        // `01` and `+1` would be second names of a layer.
        if number.to_string() != layer {
            return None;
        }
        let index = architecture.modules().iter().position(|names| is_named(*names))?;
        Some(Self { layer: LayerNumber::Of(number), index, names: architecture.modules()[index] })
    }

    /// The number of its layer; none for the head.
    pub(crate) fn layer(&self) -> Option<u32> {
        match self.layer {
            LayerNumber::Of(number) => Some(number),
            LayerNumber::AfterLast => None,
        }
    }

    /// Its path in Transformers.
    pub(crate) fn peft_name(&self) -> String {
        match self.layer {
            LayerNumber::Of(number) => format!("{}{number}.{}", TEXT_LAYERS[0], self.names.0),
            LayerNumber::AfterLast => self.names.0.to_owned(),
        }
    }

    /// The name of its weight in GGUF.
    pub(crate) fn gguf_name(&self) -> String {
        match self.layer {
            LayerNumber::Of(number) => format!("blk.{number}.{}.weight", self.names.1),
            LayerNumber::AfterLast => format!("{}.weight", self.names.1),
        }
    }

    /// Whether it makes queries or keys, of which rotary embedding is applied to the rows.
    pub(crate) fn rotated(&self) -> Option<Rotated> {
        match self.names.1 {
            "attn_q" => Some(Rotated::Queries),
            "attn_k" => Some(Rotated::Keys),
            _ => None,
        }
    }
}

impl fmt::Display for AdaptedModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peft_name())
    }
}

/// What is rotated by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotated {
    Queries,
    Keys,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Architecture; 6] = [
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::Phi3,
    ];

    #[test]
    fn each_module_has_one_name_in_each_form() {
        for architecture in ALL {
            assert_eq!(Architecture::parse(architecture.name()), Some(architecture));
            assert!(SUPPORTED.contains(architecture.name()));
            for (peft, gguf) in architecture.modules() {
                let module = AdaptedModule::parse_peft(architecture, &format!("model.layers.11.{peft}")).unwrap();
                assert_eq!(module.gguf_name(), format!("blk.11.{gguf}.weight"));
                assert_eq!(AdaptedModule::parse_gguf(architecture, &module.gguf_name()), Some(module));
                assert_eq!(AdaptedModule::parse_peft(architecture, &module.peft_name()), Some(module));
                assert_eq!(module.layer(), Some(11));
            }
            let head = AdaptedModule::parse_peft(architecture, "lm_head").unwrap();
            assert_eq!((head.gguf_name().as_str(), head.layer()), ("output.weight", None));
            assert_eq!(AdaptedModule::parse_gguf(architecture, "output.weight"), Some(head));
        }
    }

    #[test]
    fn second_names_of_a_layer_and_names_of_other_parts_are_unknown() {
        let paths = [
            "01.mlp.up_proj",
            "+1.mlp.up_proj",
            "-1.mlp.up_proj",
            "1.mlp",
            "1",
            "1.mlp.up_proj.x",
            "1.input_layernorm",
        ];
        for path in paths {
            assert_eq!(AdaptedModule::parse_peft(Architecture::Llama, &format!("model.layers.{path}")), None, "{path}");
        }
        for path in ["layers.1.mlp.up_proj", "model.embed_tokens", "", "vision.model.layers.1.mlp.up_proj"] {
            assert_eq!(AdaptedModule::parse_peft(Architecture::Llama, path), None, "{path}");
        }
        assert_eq!(AdaptedModule::parse_gguf(Architecture::Llama, "token_embd.weight"), None);
        assert_eq!(AdaptedModule::parse_gguf(Architecture::Phi3, "blk.0.attn_q.weight"), None);
    }

    #[test]
    fn models_that_read_images_keep_their_text_layers_below_other_names() {
        for path in GEMMA3_LAYERS.map(|prefix| format!("{prefix}2.self_attn.k_proj")) {
            let module = AdaptedModule::parse_peft(Architecture::Gemma3, &path).unwrap();
            assert_eq!(module.gguf_name(), "blk.2.attn_k.weight");
            assert_eq!(
                AdaptedModule::parse_peft(Architecture::Gemma2, &path).is_some(),
                path.starts_with("model.layers.")
            );
        }
    }
}
