//! What an adapter has to fit: the model's architecture, the shapes of its weights and its numbers of heads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use artel_gguf::{GgufHeader, TensorInfo, inspect_tensors};

use crate::architecture::{AdaptedModule, Architecture, Rotated};
use crate::error::{AdapterRefusal, ConvertError, shown};

/// The most heads of a layer: the largest models have about two hundred.
const MAX_HEADS: u64 = 65_536;

/// Whether an adapter of these `target_modules` could be converted for a model, by its file, or by all pieces of one that is split. None
/// are all linear layers but the head.
///
/// # Errors
/// If the model cannot be read, or is of an architecture that is not converted, or has no linear layer of one of these names.
pub fn check_base(base_gguf: &Path, targets: &[String]) -> Result<(), ConvertError> {
    let base = BaseModel::open(base_gguf)?;
    let unknown = targets.iter().find(|target| !base.has_target(target));
    let refusal =
        |target: &String| AdapterRefusal::Target { target: shown(target), targets: base.architecture.target_list() };
    unknown.map_or(Ok(()), |target| Err(ConvertError::refused(base_gguf)(refusal(target))))
}

/// The header of the model.
pub(crate) struct BaseModel {
    pub(crate) path: PathBuf,
    pub(crate) architecture: Architecture,
    /// Rows and columns of its matrices, by name.
    shapes: HashMap<String, [u64; 2]>,
    header: GgufHeader,
}

impl BaseModel {
    /// Reads the header of a model's file, or of all pieces of one that is split.
    pub(crate) fn open(path: &Path) -> Result<Self, ConvertError> {
        let (header, tensors) = inspect_tensors(path)?;
        let unknown = || AdapterRefusal::Architecture(shown(&header.architecture));
        let architecture = Architecture::parse(&header.architecture).ok_or_else(unknown);
        let architecture = architecture.map_err(ConvertError::refused(path))?;
        let shape = |tensor: TensorInfo| match tensor.dimensions[..] {
            [columns, rows] => Some((tensor.name, [rows, columns])),
            _ => None,
        };
        let shapes = tensors.into_iter().filter_map(shape).collect();
        Ok(Self { path: path.to_owned(), architecture, shapes, header })
    }

    /// Whether `target_modules` with this name adapts a linear layer: one whose path ends with it.
    fn has_target(&self, target: &str) -> bool {
        let modules = self.shapes.keys().filter_map(|name| AdaptedModule::parse_gguf(self.architecture, name));
        modules
            .map(|module| module.peft_name())
            .any(|path| path.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.')))
    }

    /// Rows and columns of a module's weight: outputs and inputs.
    pub(crate) fn shape(&self, module: &AdaptedModule) -> Option<[u64; 2]> {
        self.shapes.get(&module.gguf_name()).copied()
    }

    /// The number of heads by which the rows of a module's weight are ordered; none if they are ordered as in Transformers.
    pub(crate) fn heads_of_rows(&self, module: &AdaptedModule) -> Result<Option<u64>, ConvertError> {
        let (Architecture::Llama, Some(rotated), Some(layer)) = (self.architecture, module.rotated(), module.layer())
        else {
            return Ok(None);
        };
        let name = self.architecture.name();
        let queries = format!("{name}.attention.head_count");
        let keys = format!("{name}.attention.head_count_kv");
        // A model that does not say how many heads its keys have has one for each of the queries.
        let key = match rotated {
            Rotated::Keys if self.says(&keys) => keys,
            Rotated::Keys | Rotated::Queries => queries,
        };
        let heads = self.number(&key, layer).filter(|heads| (1..=MAX_HEADS).contains(heads));
        let heads = heads.ok_or(AdapterRefusal::HeadCount(key)).map_err(ConvertError::refused(&self.path))?;
        Ok(Some(heads))
    }

    fn says(&self, key: &str) -> bool {
        self.header.metadata.contains_key(key) || self.header.integers(key).is_some()
    }

    /// A number that is the same in all layers, or has a value for each.
    fn number(&self, key: &str, layer: u32) -> Option<u64> {
        match self.header.integers(key) {
            Some(numbers) => u64::try_from(*numbers.get(usize::try_from(layer).ok()?)?).ok(),
            None => self.header.metadata.get(key)?.parse().ok(),
        }
    }
}
