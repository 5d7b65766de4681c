//! The header of an adapter in GGUF. Source: `llama-adapter.cpp` of llama.cpp.

use std::path::Path;

use artel_gguf::{TensorInfo, inspect_adapter_tensors};

use crate::architecture::Module;
use crate::base_model::BaseModel;
use crate::error::{ConvertError, Refusal, shown};
use crate::layer::{LoraLayer, Side, layers};
use crate::matrix::{NumberType, StoredMatrix};

pub(crate) const ADAPTER_TYPE_KEY: &str = "adapter.type";
pub(crate) const ALPHA_KEY: &str = "adapter.lora.alpha";
pub(crate) const LORA_TYPE: &str = "lora";
/// The tokens after which an aLoRA applies.
const INVOCATION_KEY: &str = "adapter.alora.invocation_tokens";
/// What follows the name of the weight.
pub(crate) const SUFFIXES: [(&str, Side); 2] = [(".lora_a", Side::A), (".lora_b", Side::B)];

/// An adapter in GGUF, checked against its model.
pub(crate) struct StoredAdapter {
    /// None if the scale of each layer is one, whatever its rank: then alpha is zero or absent.
    pub(crate) alpha: Option<f32>,
    pub(crate) layers: Vec<LoraLayer>,
}

impl StoredAdapter {
    pub(crate) fn open(path: &Path, base: &BaseModel) -> Result<Self, ConvertError> {
        let refused = ConvertError::refused(path);
        let (header, tensors) = inspect_adapter_tensors(path, base.architecture.name())?;
        let kind = header.metadata.get(ADAPTER_TYPE_KEY).map_or("unknown", String::as_str);
        if kind != LORA_TYPE {
            return Err(refused(Refusal::Kind(shown(kind))));
        }
        if header.integers(INVOCATION_KEY).is_some() {
            return Err(refused(Refusal::Activated));
        }
        let alpha = header.metadata.get(ALPHA_KEY).map_or(Ok(0.0), |alpha| alpha.parse::<f32>());
        let alpha = alpha.ok().filter(|alpha| *alpha == 0.0 || alpha.is_normal());
        let alpha = alpha.ok_or_else(|| refused(Refusal::Scale("all layers".to_owned())))?;
        let matrices = tensors
            .iter()
            .map(|tensor| lora_matrix(tensor, header.data_offset(), base))
            .collect::<Result<Vec<_>, _>>()
            .map_err(&refused)?;
        Ok(Self { alpha: (alpha != 0.0).then_some(alpha), layers: layers(matrices, base).map_err(&refused)? })
    }
}

fn lora_matrix(
    tensor: &TensorInfo,
    data_offset: u64,
    base: &BaseModel,
) -> Result<(Module, Side, StoredMatrix), Refusal> {
    let whole = || Refusal::WholeTensor(shown(&tensor.name));
    let of_side = SUFFIXES.iter().find_map(|(suffix, side)| Some((tensor.name.strip_suffix(suffix)?, *side)));
    let (weight, side) = of_side.ok_or_else(whole)?;
    if weight == "token_embd.weight" {
        return Err(Refusal::Embedding(shown(&tensor.name)));
    }
    let module = Module::parse_gguf(base.architecture, weight).ok_or_else(|| Refusal::Module {
        tensor: shown(&tensor.name),
        architecture: base.architecture.name(),
        targets: base.architecture.modules().iter().map(|(_, gguf)| *gguf).collect::<Vec<_>>().join(", "),
    })?;
    let number_type = match tensor.ggml_type {
        0 => NumberType::F32,
        1 => NumberType::F16,
        30 => NumberType::Bf16,
        other => {
            let (tensor, number_type) = (shown(&tensor.name), format!("{other} of ggml"));
            return Err(Refusal::NumberType { tensor, number_type });
        }
    };
    // ggml leaves out trailing dimensions of one.
    let (columns, rows) = match tensor.dimensions[..] {
        [columns] => (columns, 1),
        [columns, rows] => (columns, rows),
        _ => return Err(whole()),
    };
    // No overflow: the parser has checked the end of every tensor against the size of the file.
    let offset = data_offset + tensor.offset;
    Ok((module, side, StoredMatrix { name: tensor.name.clone(), rows, columns, number_type, offset }))
}
