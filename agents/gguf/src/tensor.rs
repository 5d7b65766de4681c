//! The tensors of a model, and the sums of their sizes.

use crate::ggml_types;

/// Layers; the limit of llama.cpp.
pub(crate) const MAX_LAYERS: usize = 512;
/// Size of the dequantized layers above which dequantization does not pay: decoding of larger models is bound by memory
/// bandwidth rather than by the products, so it would be slower.
const MAX_DEQUANTIZED_BYTES: u64 = 512 << 20;

/// The description of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Its name, as the file says it.
    pub name: String,
    /// Elements per dimension; the row length comes first.
    pub dimensions: Vec<u64>,
    /// Its `enum ggml_type` value.
    pub ggml_type: u32,
    /// The offset of its bytes from the start of the tensor data, [`crate::GgufHeader::data_offset`].
    pub offset: u64,
    /// The bytes of its numbers; 0 for a type of unknown size.
    pub bytes: u64,
}

impl TensorInfo {
    /// The index of its layer.
    pub(crate) fn layer(&self) -> Option<usize> {
        let layer = self.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        layer.filter(|layer| *layer < MAX_LAYERS)
    }

    /// Whether it holds experts of a mixture of experts. Source: `LLM_FFN_EXPS_REGEX` in llama.cpp's common.h, which matches the
    /// fused `gate_up` too; biases are experts' as well there.
    pub(crate) fn is_expert(&self) -> bool {
        const PARTS: [&str; 4] = ["up", "down", "gate", "gate_up"];
        let Some(part) = self.name.split_once(".ffn_").map(|(_, part)| part) else { return false };
        PARTS.iter().any(|name| {
            let rest = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('_'));
            rest.is_some_and(|rest| rest.starts_with("exps") || rest.starts_with("chexps"))
        })
    }

    /// Its elements; `None` if their number overflows.
    fn elements(&self) -> Option<u64> {
        self.dimensions.iter().try_fold(1u64, |elements, more| elements.checked_mul(*more))
    }

    /// Its bytes after dequantization; `None` if it is copied unchanged, as all but the quantized matrices of layers are.
    pub(crate) fn dequantized_bytes(&self) -> Option<u64> {
        let is_matrix = self.dimensions.iter().filter(|length| **length > 1).count() == 2;
        self.half_bytes().filter(|_| self.layer().is_some() && is_matrix)
    }

    /// Its bytes in a 16-bit type; `None` if it is not quantized.
    pub(crate) fn half_bytes(&self) -> Option<u64> {
        self.elements()?.checked_mul(2).filter(|_| ggml_types::is_quantized(self.ggml_type))
    }
}

/// Bytes of the tensors by position in the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WeightTotals {
    /// Per layer, as stored.
    pub(crate) layers: Vec<u64>,
    /// Per layer, after dequantization.
    pub(crate) dequantized: Vec<u64>,
    /// Per layer, of experts, as stored.
    pub(crate) experts: Vec<u64>,
    /// The largest tensor of a layer.
    pub(crate) largest_of_layers: u64,
    /// Elements of all tensors; saturating.
    pub(crate) elements: u64,
    /// Over all layers, in types without a fast matrix product in llama.cpp.
    slow_matmul: u64,
    /// Before the first layer.
    pub(crate) input: u64,
    /// After the last layer, and all others outside of layers.
    pub(crate) output: u64,
    /// The token embedding.
    pub(crate) token_embedding: u64,
    /// Rows of the token embedding.
    pub(crate) vocabulary: u64,
    /// Whether the output has its own matrix instead of sharing the token embedding.
    pub(crate) has_own_output: bool,
    /// Whether a classifier follows the last layer.
    pub(crate) has_classifier: bool,
    /// Whether some tensors have a type of unknown size.
    pub(crate) has_unknown_types: bool,
}

impl WeightTotals {
    /// Adds a tensor to the part of the model in which llama.cpp places it. `None` if a sum overflows.
    pub(crate) fn add(&mut self, tensor: &TensorInfo) -> Option<()> {
        // Source: `LLM_TENSOR_LAYER_INPUT` in llama.cpp's llama-arch.cpp.
        const INPUT: [&str; 4] = ["token_embd.", "position_embd.", "token_types.", "per_layer_token_embd."];
        // Source: `LLM_TENSOR_CLS` and `LLM_TENSOR_CLS_OUT` there.
        const CLASSIFIER: [&str; 2] = ["cls.weight", "cls.output.weight"];
        let (name, bytes) = (tensor.name.as_str(), tensor.bytes);
        self.has_own_output |= name == "output.weight";
        self.has_classifier |= CLASSIFIER.contains(&name);
        if name == "token_embd.weight" {
            (self.token_embedding, self.vocabulary) = (bytes, tensor.dimensions.last().copied().unwrap_or(1));
        }
        self.elements = self.elements.saturating_add(tensor.elements().unwrap_or(u64::MAX));
        let sum = match tensor.layer() {
            Some(layer) => {
                let layers = self.layers.len().max(layer + 1);
                self.layers.resize(layers, 0);
                self.dequantized.resize(layers, 0);
                self.experts.resize(layers, 0);
                if tensor.is_expert() {
                    self.experts[layer] = self.experts[layer].checked_add(bytes)?;
                }
                self.largest_of_layers = self.largest_of_layers.max(bytes);
                let dequantized = tensor.dequantized_bytes();
                self.dequantized[layer] = self.dequantized[layer].checked_add(dequantized.unwrap_or(bytes))?;
                let is_slow = dequantized.is_some() && ggml_types::has_slow_matmul(tensor.ggml_type);
                self.slow_matmul = self.slow_matmul.checked_add(if is_slow { bytes } else { 0 })?;
                &mut self.layers[layer]
            }
            None if INPUT.iter().any(|prefix| name.starts_with(prefix)) => &mut self.input,
            None => &mut self.output,
        };
        *sum = sum.checked_add(bytes)?;
        Some(())
    }

    /// Whether a CPU with fast products of a half type gains enough from dequantized layers to justify their memory.
    pub(crate) fn is_faster_dequantized(&self) -> bool {
        let sum = |all: &[u64]| all.iter().copied().fold(0, u64::saturating_add);
        self.slow_matmul > sum(&self.layers) / 2 && sum(&self.dequantized) <= MAX_DEQUANTIZED_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(ggml_type: u32, rows: u64) -> TensorInfo {
        let (elements, bytes) = ggml_types::block_layout(ggml_type).unwrap();
        let (name, dimensions) = ("blk.0.ffn_up.weight".to_owned(), vec![256, rows]);
        TensorInfo { name, dimensions, ggml_type, offset: 0, bytes: 256 * rows / elements * bytes }
    }

    #[test]
    fn experts_are_told_by_their_names() {
        let is_expert = |name: &str| TensorInfo { name: name.to_owned(), ..matrix(0, 1) }.is_expert();
        let experts = ["ffn_up_exps", "ffn_down_exps", "ffn_gate_exps", "ffn_gate_up_exps", "ffn_up_chexps"];
        assert!(experts.iter().all(|name| is_expert(&format!("blk.3.{name}.weight"))));
        assert!(is_expert("blk.3.ffn_down_exps.bias"));
        let others = ["ffn_up", "ffn_gate_inp", "ffn_up_shexp", "ffn_norm_exps", "attn_q"];
        assert!(!others.iter().any(|name| is_expert(&format!("blk.3.{name}.weight"))));
    }

    #[test]
    fn small_models_of_mostly_slow_types_gain_from_dequantization() {
        const Q4_1_TYPE: u32 = 3;
        const Q8_0_TYPE: u32 = 8;
        let is_faster = |tensors: &[TensorInfo]| {
            let mut weights = WeightTotals::default();
            tensors.iter().try_for_each(|tensor| weights.add(tensor)).unwrap();
            weights.is_faster_dequantized()
        };
        assert!(is_faster(&[matrix(Q4_1_TYPE, 1000)]));
        assert!(!is_faster(&[matrix(Q8_0_TYPE, 1000)]), "its product is fast already");
        assert!(!is_faster(&[matrix(Q4_1_TYPE, 1000), matrix(Q8_0_TYPE, 1000)]), "the smaller part is slow");
        let rows = MAX_DEQUANTIZED_BYTES / 2 / 256;
        assert!(is_faster(&[matrix(Q4_1_TYPE, rows)]) && !is_faster(&[matrix(Q4_1_TYPE, rows + 1)]));
    }
}
