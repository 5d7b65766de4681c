//! From GGUF to PEFT's directory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use crate::architecture::Module;
use crate::atomic::{write_directory, write_part};
use crate::base_model::BaseModel;
use crate::error::ConvertError;
use crate::gguf_adapter::StoredAdapter;
use crate::layer::{LoraLayer, heads_of_rows, most_frequent};
use crate::lora_settings::WrittenSettings;
use crate::matrix::MatrixFile;
use crate::row_order::{Direction, reorder_rows};
use crate::safetensors_file::write_matrices;
use crate::{SETTINGS_FILE, WEIGHTS_FILE};

/// An adapter that was written as a PEFT directory.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftAdapter {
    /// `r`: the rank that most layers have.
    pub rank: u64,
    /// `lora_alpha`.
    pub alpha: f64,
    /// The weights that it adapts.
    pub layer_count: usize,
    /// `target_modules`: the names of modules that all layers of the model have adapted, and the paths of the others.
    pub target_modules: Vec<String>,
}

/// Writes an adapter in GGUF as a PEFT directory, which must not exist; `base_gguf` is the model's file, or any piece
/// of it. Numbers become F32, and ranks other than that of most layers stand in `rank_pattern`. Of a model of
/// architecture `gemma3` the modules are named as in one that reads no images. Blocks until done.
///
/// # Errors
/// If a file cannot be read or written, or the adapter has something that PEFT's LoRA cannot say or the model does not have.
pub fn gguf_to_peft(adapter_gguf: &Path, base_gguf: &Path, out_dir: &Path) -> Result<PeftAdapter, ConvertError> {
    let base = BaseModel::open(base_gguf)?;
    let adapter = StoredAdapter::open(adapter_gguf, &base)?;
    let refused = ConvertError::refused(adapter_gguf);
    let heads = |layer: &LoraLayer| heads_of_rows(layer, base.heads_of_rows(&layer.module)?).map_err(&refused);
    let heads = adapter.layers.iter().map(heads).collect::<Result<Vec<_>, _>>()?;
    let settings = settings(&adapter, &base);
    let mut source = MatrixFile::open(adapter_gguf)?;
    write_directory(out_dir, |dir| {
        let weights = dir.join(WEIGHTS_FILE);
        write_part(&weights, |out| write_weights(out, &adapter.layers, &heads, &mut source, out_dir))?;
        let json = settings.to_json();
        write_part(&dir.join(SETTINGS_FILE), |out| out.write_all(json.as_bytes()).map_err(ConvertError::write(out_dir)))
    })?;
    Ok(PeftAdapter {
        rank: settings.rank,
        alpha: settings.alpha,
        layer_count: adapter.layers.len(),
        target_modules: settings.target_modules,
    })
}

/// The settings with which PEFT gives each layer the scale that llama.cpp does: alpha over its own rank, or one.
fn settings(adapter: &StoredAdapter, base: &BaseModel) -> WrittenSettings {
    let layers = &adapter.layers;
    let rank = most_frequent(layers.iter().map(|layer| layer.rank)).unwrap_or(1);
    let others = layers.iter().filter(|layer| layer.rank != rank);
    let rank_pattern: Vec<(String, u64)> = others.map(|layer| (layer.module.peft_name(), layer.rank)).collect();
    let alpha_pattern = match adapter.alpha {
        Some(_) => Vec::new(),
        None => rank_pattern.iter().map(|(path, rank)| (path.clone(), *rank as f64)).collect(),
    };
    let alpha = adapter.alpha.map_or(rank as f64, f64::from);
    WrittenSettings { rank, alpha, rank_pattern, alpha_pattern, target_modules: target_modules(layers, base) }
}

/// The names of modules: short where the adapter has those of all layers, so that PEFT adds none that it lacks.
fn target_modules(layers: &[LoraLayer], base: &BaseModel) -> Vec<String> {
    let mut adapted: BTreeMap<&str, Vec<Module>> = BTreeMap::new();
    for layer in layers {
        adapted.entry(layer.module.target()).or_default().push(layer.module);
    }
    let counts = base.target_counts();
    let names = |(target, modules): (&str, Vec<Module>)| match counts.get(target) == Some(&modules.len()) {
        true => vec![target.to_owned()],
        false => modules.iter().map(Module::peft_name).collect(),
    };
    adapted.into_iter().flat_map(names).collect()
}

fn write_weights(
    out: &mut impl Write,
    layers: &[LoraLayer],
    heads: &[Option<usize>],
    source: &mut MatrixFile,
    shown_path: &Path,
) -> Result<(), ConvertError> {
    let names = layers.iter().flat_map(|layer| {
        let name = |side: &str| format!("base_model.model.{}.lora_{side}.weight", layer.module.peft_name());
        [(name("A"), layer.a.rows, layer.a.columns), (name("B"), layer.b.rows, layer.b.columns)]
    });
    let names: Vec<_> = names.collect();
    let mut numbers = |at: usize| {
        let (layer, heads) = (&layers[at / 2], heads[at / 2]);
        if at.is_multiple_of(2) {
            return source.read(&layer.a);
        }
        let b = source.read(&layer.b)?;
        Ok(match heads {
            Some(heads) => reorder_rows(&b, layer.rank as usize, heads, Direction::ToPeft),
            None => b,
        })
    };
    write_matrices(out, &names, &mut numbers, ConvertError::write(shown_path))
}
