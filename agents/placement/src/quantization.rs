//! What a model would have in another data type.

use crate::footprint::{LayerFootprint, ModelFootprint};

/// Names of quantizations and their thousandths of a bit per weight in files of models of some billions of weights, the most
/// exact first. Source: the table in llama.cpp's `tools/quantize/README.md` for Llama 3.1 8B. Below the last one, models lose
/// much of what they know.
const QUANTIZATIONS: [(&str, u64); 5] =
    [("Q8_0", 8501), ("Q6_K", 6563), ("Q5_K_M", 5704), ("Q4_K_M", 4894), ("Q3_K_M", 3996)];

/// The footprint of the same model in each quantization that has fewer bits per weight than its file, with name and bytes of
/// weights, those of adapters not included, the most exact first. None if the weights are not those of the file, or their number
/// is unknown.
pub(crate) fn smaller(footprint: &ModelFootprint) -> Vec<(&'static str, u64, ModelFootprint)> {
    let own = |layer: &LayerFootprint| layer.weight_bytes.saturating_sub(layer.adapter_bytes);
    let layers = footprint.layers.iter().map(own).fold(0, u64::saturating_add);
    let outside = footprint.input_bytes.saturating_add(footprint.output_bytes).saturating_sub(footprint.tied_bytes);
    let bytes = layers.saturating_add(outside);
    let is_dequantized = footprint.layers.iter().any(|layer| layer.weight_bytes != layer.file_bytes);
    if is_dequantized || footprint.weight_elements == 0 {
        return Vec::new();
    }
    let millibits = u128::from(bytes) * 8000 / u128::from(footprint.weight_elements);
    let fewer = QUANTIZATIONS.iter().filter(|(_, bits)| u128::from(*bits) < millibits);
    fewer
        .map(|(name, bits)| {
            let scaled = |bytes: u64| {
                let scaled = (u128::from(bytes) * u128::from(*bits)).div_ceil(millibits);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            };
            let mut smaller = footprint.clone();
            for layer in &mut smaller.layers {
                layer.weight_bytes = scaled(own(layer)).saturating_add(layer.adapter_bytes);
                layer.file_bytes = layer.weight_bytes;
                layer.expert_bytes = scaled(layer.expert_bytes).min(layer.weight_bytes);
            }
            for part in [&mut smaller.input_bytes, &mut smaller.output_bytes, &mut smaller.tied_bytes] {
                *part = scaled(*part);
            }
            smaller.tied_bytes = smaller.tied_bytes.min(smaller.input_bytes).min(smaller.output_bytes);
            (*name, scaled(bytes), smaller)
        })
        .collect()
}
