//! From PEFT's directory to GGUF. Source of the form of what is written: `llama-adapter.cpp` of llama.cpp.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use artel_files::whole_file;
use artel_gguf::{GgufWriter, MetadataValue, TensorLayout};
use safetensors::Dtype;

use crate::architecture::AdaptedModule;
use crate::base_model::BaseModel;
use crate::error::{AdapterRefusal, ConvertError, shown};
use crate::layer::{LoraLayer, Side, heads_of_rows, layers, most_frequent};
use crate::lora_settings::PeftSettings;
use crate::matrix::{MatrixFile, NumberType, StoredMatrix, encode, require_finite};
use crate::row_order::rows_in_gguf;
use crate::safetensors_file::{StoredTensor, stored_tensors};
use crate::{SETTINGS_FILE, WEIGHTS_FILE};

/// What all tensors of PEFT's file begin with: the names of its two wrappers.
const PEFT_PREFIX: &str = "base_model.model.";
/// The weights in older adapters.
const PICKLED_FILE: &str = "adapter_model.bin";
const ADAPTER_TYPE_KEY: &str = "adapter.type";
const ALPHA_KEY: &str = "adapter.lora.alpha";
const LORA_TYPE: &str = "lora";
/// What follows the name of the weight.
const A_SUFFIX: &str = ".lora_a";
const B_SUFFIX: &str = ".lora_b";
/// The `enum ggml_type` value of F32.
const F32_TYPE: u32 = 0;

/// An adapter that was written as GGUF.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufAdapter {
    /// `general.architecture` of the model and the adapter.
    pub architecture: String,
    /// The alpha of all layers; llama.cpp divides it by the rank of each.
    pub alpha: f32,
    /// The weights that it adapts.
    pub layer_count: usize,
    /// The largest rank.
    pub max_rank: u64,
}

/// Writes the adapter of a PEFT directory as GGUF, for the model whose file is `base_gguf`; of a model in pieces, any
/// of them. A file that is there is replaced when the new one is whole. Numbers become F32. Blocks until done.
///
/// # Errors
/// If a file cannot be read or written, or the adapter has something that GGUF cannot say or the model does not have.
pub fn peft_to_gguf(peft_dir: &Path, base_gguf: &Path, out: &Path) -> Result<GgufAdapter, ConvertError> {
    let base = BaseModel::open(base_gguf)?;
    let settings_path = peft_dir.join(SETTINGS_FILE);
    let settings = PeftSettings::open(&settings_path)?;
    let weights_path = peft_dir.join(WEIGHTS_FILE);
    if !weights_path.exists() && peft_dir.join(PICKLED_FILE).exists() {
        return Err(ConvertError::refused(peft_dir)(AdapterRefusal::Pickled));
    }
    let refused = ConvertError::refused(&weights_path);
    let mut matrices = Vec::new();
    for tensor in stored_tensors(&weights_path)? {
        matrices.extend(lora_matrix(&tensor, &base).map_err(&refused)?);
    }
    let layers = layers(matrices, &base).map_err(&refused)?;
    let scales = scales(&layers, &settings, &settings_path)?;
    let plan = layers
        .into_iter()
        .zip(scales.factors)
        .map(|(layer, factor)| {
            let heads = heads_of_rows(&layer, base.heads_of_rows(&layer.module)?).map_err(&refused)?;
            Ok(PlannedLayer { layer, factor, heads })
        })
        .collect::<Result<Vec<_>, ConvertError>>()?;
    let mut source = MatrixFile::open(&weights_path)?;
    write(&plan, scales.alpha, &base, &mut source, &weights_path, out)?;
    Ok(GgufAdapter {
        architecture: base.architecture.name().to_owned(),
        alpha: scales.alpha,
        layer_count: plan.len(),
        max_rank: plan.iter().map(|planned| planned.layer.rank).max().unwrap_or(0),
    })
}

/// A layer, and what is done to its B.
struct PlannedLayer {
    layer: LoraLayer,
    /// By what its numbers are multiplied, if not by one.
    factor: Option<f64>,
    /// The heads by which its rows are reordered, if they are.
    heads: Option<usize>,
}

/// The alpha of an adapter, and what its layers have instead.
struct Scales {
    alpha: f32,
    factors: Vec<Option<f64>>,
}

/// The matrix of a LoRA that a tensor is; none for a tensor that says nothing about it.
fn lora_matrix(
    tensor: &StoredTensor,
    base: &BaseModel,
) -> Result<Option<(AdaptedModule, Side, StoredMatrix)>, AdapterRefusal> {
    let whole = || AdapterRefusal::WholeTensor(shown(&tensor.name));
    let name = tensor.name.strip_prefix(PEFT_PREFIX).ok_or_else(|| unknown_module(tensor, base))?;
    if name.contains("embed_tokens") {
        return Err(AdapterRefusal::Embedding(shown(&tensor.name)));
    }
    // PEFT saves a copy of the head with an adapter of it.
    if name == "lm_head.base_layer.weight" {
        return Ok(None);
    }
    let sides = [(".lora_A.weight", Side::A), (".lora_B.weight", Side::B)];
    let of_side = sides.iter().find_map(|(suffix, side)| Some((name.strip_suffix(suffix)?, *side)));
    let (path, side) = of_side.ok_or_else(whole)?;
    let module = AdaptedModule::parse_peft(base.architecture, path).ok_or_else(|| unknown_module(tensor, base))?;
    let number_type = match tensor.dtype {
        Dtype::F32 => NumberType::F32,
        Dtype::F16 => NumberType::F16,
        Dtype::BF16 => NumberType::Bf16,
        other => {
            let (tensor, number_type) = (shown(&tensor.name), format!("{other:?}"));
            return Err(AdapterRefusal::NumberType { tensor, number_type });
        }
    };
    let [rows, columns] = tensor.shape[..] else { return Err(whole()) };
    Ok(Some((
        module,
        side,
        StoredMatrix { name: tensor.name.clone(), rows, columns, number_type, offset: tensor.offset },
    )))
}

fn unknown_module(tensor: &StoredTensor, base: &BaseModel) -> AdapterRefusal {
    let (architecture, targets) = (base.architecture.name(), base.architecture.target_list());
    AdapterRefusal::Module { tensor: shown(&tensor.name), architecture, targets }
}

/// The alpha that most layers have, and for each of the others the factor that gives it its own scale.
fn scales(layers: &[LoraLayer], settings: &PeftSettings, path: &Path) -> Result<Scales, ConvertError> {
    let refused = ConvertError::refused(path);
    let paths: Vec<String> = layers.iter().map(|layer| layer.module.peft_name()).collect();
    let scales = settings.of_each(&paths).map_err(&refused)?;
    for (layer, scale) in layers.iter().zip(&scales) {
        let module = layer.module.to_string();
        if scale.rank != layer.rank {
            return Err(refused(AdapterRefusal::Rank { module, found: layer.rank, stated: scale.rank }));
        }
        if !(scale.alpha as f32).is_normal() {
            return Err(refused(AdapterRefusal::Scale(module)));
        }
    }
    let alpha = most_frequent(scales.iter().map(|scale| scale.alpha as f32)).unwrap_or(1.0);
    let factor = |own: f64| (own as f32 != alpha).then(|| own / f64::from(alpha));
    Ok(Scales { alpha, factors: scales.iter().map(|scale| factor(scale.alpha)).collect() })
}

fn write(
    plan: &[PlannedLayer],
    alpha: f32,
    base: &BaseModel,
    source: &mut MatrixFile,
    source_path: &Path,
    out: &Path,
) -> Result<(), ConvertError> {
    let text = |text: &str| MetadataValue::Text(text.to_owned());
    let metadata = [
        ("general.architecture", text(base.architecture.name())),
        ("general.type", text("adapter")),
        (ADAPTER_TYPE_KEY, text(LORA_TYPE)),
        (ALPHA_KEY, MetadataValue::F32(alpha)),
    ];
    let layout = |layer: &LoraLayer, matrix: &StoredMatrix, suffix: &str| TensorLayout {
        name: format!("{}{suffix}", layer.module.gguf_name()),
        dimensions: vec![matrix.columns, matrix.rows],
        ggml_type: F32_TYPE,
    };
    let layouts: Vec<TensorLayout> = plan
        .iter()
        .flat_map(|PlannedLayer { layer, .. }| [layout(layer, &layer.a, A_SUFFIX), layout(layer, &layer.b, B_SUFFIX)])
        .collect();
    let failed = ConvertError::write(out);
    write_file(out, |file| {
        let mut writer = GgufWriter::new(file, &metadata, &layouts).map_err(&failed)?;
        for planned in plan {
            writer.write_tensor(&encode(&source.read(&planned.layer.a)?)).map_err(&failed)?;
            let b = planned.b(source.read(&planned.layer.b)?).map_err(ConvertError::refused(source_path))?;
            writer.write_tensor(&encode(&b)).map_err(&failed)?;
        }
        writer.finish().map(drop).map_err(&failed)
    })
}

/// Writes a file; one that is there is replaced when the new one is whole.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    // An error of ours on its way through a function that knows those of files alone.
    let mut refused = None;
    let written = whole_file::write(path, |out| {
        write(out).map_err(|error| {
            refused = Some(error);
            io::Error::other("refused")
        })
    });
    written.map_err(|source| refused.unwrap_or_else(|| ConvertError::write(path)(source)))
}

impl PlannedLayer {
    /// Its B as it is written.
    fn b(&self, mut numbers: Vec<f32>) -> Result<Vec<f32>, AdapterRefusal> {
        if let Some(factor) = self.factor {
            numbers.iter_mut().for_each(|number| *number = (f64::from(*number) * factor) as f32);
            require_finite(&numbers, &self.layer.b.name)?;
        }
        Ok(match self.heads {
            Some(heads) => rows_in_gguf(&numbers, self.layer.rank as usize, heads),
            None => numbers,
        })
    }
}
