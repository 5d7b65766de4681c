//! Small models, of which the header is all that matters, and adapters for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use artel_gguf::{GgufWriter, MetadataValue, TensorLayout, inspect_adapter_tensors};
use artel_peft::{AdapterRefusal, ConvertError, GgufAdapter, SETTINGS_FILE, WEIGHTS_FILE, peft_to_gguf};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// The `enum ggml_type` value of F32.
const F32_TYPE: u32 = 0;

pub(crate) const LAYERS: u32 = 2;
pub(crate) const STATE_ELEMENTS: u64 = 8;
pub(crate) const INNER_ELEMENTS: u64 = 12;
pub(crate) const HEADS: u32 = 4;
pub(crate) const KEY_HEADS: u32 = 2;
pub(crate) const HEAD_ROWS: u64 = 4;
pub(crate) const VOCABULARY_TOKENS: u64 = 20;

pub(crate) const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

/// A place for files of a test.
pub(crate) struct Workplace {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) model: HeaderModel,
}

/// The header of a model.
#[derive(Clone)]
pub(crate) struct HeaderModel {
    pub(crate) architecture: &'static str,
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) has_head: bool,
}

/// A module: its paths in both forms, its inputs and outputs.
pub(crate) type TestModule = (String, String, u64, u64);

impl HeaderModel {
    pub(crate) fn new(architecture: &'static str) -> Self {
        let key = |name: &str| format!("{architecture}.attention.{name}");
        let metadata =
            vec![(key("head_count"), MetadataValue::U32(HEADS)), (key("head_count_kv"), MetadataValue::U32(KEY_HEADS))];
        Self { architecture, metadata, has_head: true }
    }

    pub(crate) fn modules(&self) -> Vec<TestModule> {
        let (queries, keys) = (u64::from(HEADS) * HEAD_ROWS, u64::from(KEY_HEADS) * HEAD_ROWS);
        let separate = [
            ("self_attn.q_proj", "attn_q", STATE_ELEMENTS, queries),
            ("self_attn.k_proj", "attn_k", STATE_ELEMENTS, keys),
            ("self_attn.v_proj", "attn_v", STATE_ELEMENTS, keys),
            ("self_attn.o_proj", "attn_output", queries, STATE_ELEMENTS),
            ("mlp.gate_proj", "ffn_gate", STATE_ELEMENTS, INNER_ELEMENTS),
            ("mlp.up_proj", "ffn_up", STATE_ELEMENTS, INNER_ELEMENTS),
            ("mlp.down_proj", "ffn_down", INNER_ELEMENTS, STATE_ELEMENTS),
        ];
        let fused = [
            ("self_attn.qkv_proj", "attn_qkv", STATE_ELEMENTS, queries + 2 * keys),
            ("self_attn.o_proj", "attn_output", queries, STATE_ELEMENTS),
            ("mlp.gate_up_proj", "ffn_up", STATE_ELEMENTS, 2 * INNER_ELEMENTS),
            ("mlp.down_proj", "ffn_down", INNER_ELEMENTS, STATE_ELEMENTS),
        ];
        let of_layer: &[_] = if self.architecture == "phi3" { &fused } else { &separate };
        let mut modules = Vec::new();
        for layer in 0..LAYERS {
            modules.extend(of_layer.iter().map(|(peft, gguf, inputs, outputs)| {
                let peft = format!("model.layers.{layer}.{peft}");
                (peft, format!("blk.{layer}.{gguf}.weight"), *inputs, *outputs)
            }));
        }
        if self.has_head {
            modules.push(("lm_head".to_owned(), "output.weight".to_owned(), STATE_ELEMENTS, VOCABULARY_TOKENS));
        }
        modules
    }

    pub(crate) fn write(&self, path: &Path) {
        let layout = |name: &str, inputs: u64, outputs: u64| TensorLayout {
            name: name.to_owned(),
            dimensions: vec![inputs, outputs],
            ggml_type: F32_TYPE,
        };
        let mut layouts = vec![layout("token_embd.weight", STATE_ELEMENTS, VOCABULARY_TOKENS)];
        layouts.extend(self.modules().iter().map(|(_, gguf, inputs, outputs)| layout(gguf, *inputs, *outputs)));
        let architecture = MetadataValue::Text(self.architecture.to_owned());
        let mut metadata = vec![("general.architecture", architecture)];
        metadata.extend(self.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())));
        write_gguf(
            path,
            &metadata,
            &layouts
                .into_iter()
                .map(|layout| {
                    let bytes = layout.data_bytes() as usize;
                    (layout, vec![0; bytes])
                })
                .collect::<Vec<_>>(),
        );
    }
}

fn write_gguf(path: &Path, metadata: &[(&str, MetadataValue)], tensors: &[(TensorLayout, Vec<u8>)]) {
    let layouts: Vec<TensorLayout> = tensors.iter().map(|(layout, _)| layout.clone()).collect();
    let mut writer = GgufWriter::new(Vec::new(), metadata, &layouts).unwrap();
    tensors.iter().for_each(|(_, data)| writer.write_tensor(data).unwrap());
    fs::write(path, writer.finish().unwrap()).unwrap();
}

/// Pseudorandom numbers, the same in every run; each of them is a whole number of 1/64, exact in F16 and BF16.
fn numbers(seed: u64, count: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) % 129) as f32 / 64.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn f32_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A tensor of PEFT's file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestTensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl TestTensor {
    pub(crate) fn f32(rows: u64, columns: u64, seed: u64) -> Self {
        let data = f32_bytes(&numbers(seed, rows * columns));
        Self { dtype: Dtype::F32, shape: vec![rows as usize, columns as usize], data }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        let pairs = || self.data.chunks(2).map(|pair| [pair[0], pair[1]]);
        match self.dtype {
            Dtype::F32 => self.data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect(),
            Dtype::F16 => pairs().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// The same numbers in another type.
    pub(crate) fn converted(&self, dtype: Dtype) -> Self {
        let values = self.values();
        let data = match dtype {
            Dtype::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
            _ => self.data.clone(),
        };
        Self { dtype, shape: self.shape.clone(), data }
    }
}

/// An adapter of PEFT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestAdapter {
    pub(crate) settings: Value,
    pub(crate) tensors: BTreeMap<String, TestTensor>,
}

impl TestAdapter {
    /// One of rank 2 and alpha 4 for these modules.
    pub(crate) fn of(modules: &[TestModule]) -> Self {
        let settings =
            json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": "all-linear"});
        let mut adapter = Self { settings, tensors: BTreeMap::new() };
        for (at, (path, _, inputs, outputs)) in modules.iter().enumerate() {
            adapter.set(path, 2, *inputs, *outputs, at as u64);
        }
        adapter
    }

    pub(crate) fn set(&mut self, path: &str, rank: u64, inputs: u64, outputs: u64, seed: u64) {
        self.tensors.insert(tensor_name(path, "A"), TestTensor::f32(rank, inputs, seed * 2 + 1));
        self.tensors.insert(tensor_name(path, "B"), TestTensor::f32(outputs, rank, seed * 2 + 2));
    }

    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(SETTINGS_FILE), self.settings.to_string()).unwrap();
        let view = |tensor: &TestTensor| {
            // A view borrows its numbers.
            TensorView::new(tensor.dtype, tensor.shape.clone(), Box::leak(tensor.data.clone().into_boxed_slice()))
                .unwrap()
        };
        let views: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.clone(), view(tensor))).collect();
        fs::write(dir.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

pub(crate) fn tensor_name(path: &str, side: &str) -> String {
    format!("base_model.model.{path}.lora_{side}.weight")
}

impl Workplace {
    pub(crate) fn new(model: HeaderModel) -> Self {
        let dir = tempfile::tempdir().unwrap();
        model.write(&dir.path().join("model.gguf"));
        Self { dir, model }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn to_gguf(&self, adapter: &TestAdapter) -> Result<GgufAdapter, ConvertError> {
        adapter.write(&self.path("peft"));
        peft_to_gguf(&self.path("peft"), &self.path("model.gguf"), &self.path("adapter.gguf"))
    }

    /// Why an adapter is not converted; nothing is written then.
    pub(crate) fn refusal(&self, adapter: &TestAdapter) -> AdapterRefusal {
        let error = self.to_gguf(adapter).unwrap_err();
        assert!(!self.path("adapter.gguf").exists(), "{error}");
        refusal_of(error)
    }

    /// The numbers of the tensors of the adapter in GGUF, with their dimensions.
    pub(crate) fn gguf_tensors(&self) -> BTreeMap<String, (Vec<u64>, Vec<f32>)> {
        let path = self.path("adapter.gguf");
        let (header, tensors) = inspect_adapter_tensors(&path, self.model.architecture).unwrap();
        let bytes = fs::read(&path).unwrap();
        let values = |offset: u64, length: u64| -> Vec<f32> {
            let start = (header.data_offset() + offset) as usize;
            let data = &bytes[start..start + length as usize];
            data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
        };
        tensors
            .into_iter()
            .map(|tensor| (tensor.name, (tensor.dimensions, values(tensor.offset, tensor.bytes))))
            .collect()
    }
}

pub(crate) fn refusal_of(error: ConvertError) -> AdapterRefusal {
    match error {
        ConvertError::Refused { refusal, .. } => refusal,
        other => panic!("another error: {other}"),
    }
}
