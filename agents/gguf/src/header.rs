//! What the header of a GGUF file says.

use std::collections::BTreeMap;

use crate::tensor::WeightTotals;

/// The key of the chat template in the metadata.
const CHAT_TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// A parsed header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufHeader {
    /// `general.architecture`, such as `llama` or `bert`.
    pub architecture: String,
    /// The scalars and strings of the metadata, as text.
    pub metadata: BTreeMap<String, String>,
    /// The number of tensors.
    pub tensor_count: u64,
    /// Bytes from the start of the file to the end of the last tensor.
    pub required_bytes: u64,
    /// The size of the file.
    pub file_bytes: u64,
    /// The offset of the tensor descriptions, where the metadata ends.
    pub(crate) tensor_info_offset: u64,
    /// The offset of the tensor data.
    pub(crate) data_offset: u64,
    /// The offset of each tensor is a multiple of this.
    pub(crate) alignment: u64,
    /// The short integer arrays of the metadata.
    pub(crate) integer_arrays: BTreeMap<String, Vec<i64>>,
    /// Sizes of the weights by position in the model.
    pub(crate) weights: WeightTotals,
}

impl GgufHeader {
    /// The chat template of the model.
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata.get(CHAT_TEMPLATE_KEY).map(String::as_str)
    }

    /// The offset of the tensor data, of a file that is no piece of a model.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// An array of integers of the metadata; none if it is absent, or has more elements than a model can have layers.
    pub fn integers(&self, key: &str) -> Option<&[i64]> {
        self.integer_arrays.get(key).map(Vec::as_slice)
    }

    /// Whether it has the head of a classifier, which makes a score of a pooled text.
    pub fn has_rank_head(&self) -> bool {
        self.weights.has_classifier
    }
}
