//! Top tokens on a Vulkan device beside those of the CPU, at positions whose tokens are given.
//!
//! The CPU has dequantized weights, since it multiplies quantized ones with numbers rounded to 8 bits. Vulkan does so too where the
//! driver has products of whole numbers, as lavapipe does.
//!
//! The device is Mesa's lavapipe, which computes on the processor with Vulkan's kernels. A process that sees it is started anew: the
//! variables that show it are read once.

use std::env;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use artel_engine::Backend as _;
use artel_engine::backend::{BatchToken, Sampled, Slot};
use artel_engine::{AdapterSet, SamplingParams, Token, TokenLogprob};
use artel_llama::{LlamaBackend, Options};
use llama_cpp_sys_2 as sys;

use crate::demo_models;
use crate::model::options;

const CHAT_MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Set in the process that sees the device.
const CHILD_VARIABLE: &str = "ARTEL_TEST_VULKAN";
/// What is forced: the tokens of each text, and then the CPU's.
const TEXTS: [(&str, &str); 4] = [
    ("English", include_str!("../texts/english.txt")),
    ("German", include_str!("../texts/german.txt")),
    ("Spanish", include_str!("../texts/spanish.txt")),
    ("code", include_str!("../texts/code.txt")),
];
/// Tokens of a text at most: four of them and their continuations are more than a thousand positions.
const TEXT_TOKENS: usize = 256;
/// Tokens with which the CPU continues each text.
const CONTINUATION_TOKENS: usize = 64;
/// Fewer positions say little about one in a hundred.
const MIN_COMPARED_TOKENS: usize = 1000;
/// Where the best two tokens are closer than this on the CPU, rounding decides between them.
const NEAR_TIE_LOGITS: f32 = 0.01;
/// Above this, rounding to 16 bits does not decide.
const CLEAR_LOGITS: f32 = 0.05;
/// The layers of the model with the output, and half of them.
const LAYERS: [u32; 2] = [31, 15];

/// The best token of a position.
struct TopToken {
    bytes: Vec<u8>,
    /// By how much its logit is above that of the second best one.
    margin: f32,
}

/// A model that computes one sequence.
struct ForcedModel {
    backend: LlamaBackend,
    position: u32,
}

impl ForcedModel {
    fn load(device: &str, gpu_layers: Option<u32>, dequantized: Option<PathBuf>) -> Self {
        let devices = Some(vec![device.to_owned()]);
        let options = Options { devices, gpu_layers, dequantized, sequences: 1, ..options(CHAT_MODEL) };
        Self { backend: LlamaBackend::load(options).unwrap(), position: 0 }
    }

    /// Begins a text.
    fn clear(&mut self) {
        assert!(self.backend.truncate_kv(Slot(0), 0));
        self.position = 0;
    }

    /// The best token after each of these, which follow those of earlier calls.
    fn force(&mut self, tokens: &[Token]) -> Vec<TopToken> {
        let batch_tokens = self.backend.limits().batch_tokens as usize;
        tokens.chunks(batch_tokens).flat_map(|tokens| self.force_batch(tokens)).collect()
    }

    /// Its best tokens beside those of the texts.
    fn compare(&mut self, name: &str, texts: &[ForcedText]) -> Comparison {
        let mut all = Comparison::default();
        for text in texts {
            self.clear();
            let compared = Comparison::of(&text.best, &self.force(&text.tokens));
            compared.print(&format!("{name}, {}", text.name));
            all.add(compared);
        }
        all.print(name);
        all
    }

    fn force_batch(&mut self, tokens: &[Token]) -> Vec<TopToken> {
        let entry = |(position, token): (u32, &Token)| BatchToken {
            slot: Slot(0),
            position,
            token: *token,
            needs_logits: true,
        };
        let batch: Vec<BatchToken> = (self.position..).zip(tokens).map(entry).collect();
        self.backend.decode(AdapterSet::NONE, &batch).unwrap();
        self.position += batch.len() as u32;
        (0..batch.len()).map(|at| top_token(self.backend.logprobs(at, Token(0), 2).unwrap())).collect()
    }
}

fn top_token(logprobs: TokenLogprob) -> TopToken {
    let [first, second] = <[_; 2]>::try_from(logprobs.top).unwrap();
    TopToken { bytes: first.bytes, margin: first.logprob - second.logprob }
}

/// A text with its continuation.
struct ForcedText {
    name: &'static str,
    tokens: Vec<Token>,
    /// The CPU's best token after each.
    best: Vec<TopToken>,
}

/// Positions at which a device was compared with the CPU.
#[derive(Default)]
struct Comparison {
    positions: usize,
    /// By how much the CPU's best token was above its second one where the device had another one.
    differing: Vec<f32>,
}

impl Comparison {
    fn of(cpu: &[TopToken], device: &[TopToken]) -> Self {
        assert_eq!(cpu.len(), device.len());
        let pairs = cpu.iter().zip(device).filter(|(cpu, device)| cpu.bytes != device.bytes);
        Self { positions: cpu.len(), differing: pairs.map(|(cpu, _)| cpu.margin).collect() }
    }

    fn add(&mut self, other: Self) {
        self.positions += other.positions;
        self.differing.extend(other.differing);
    }

    /// The part of the positions with the same best token, from 0 to 1.
    fn rate(&self) -> f64 {
        1.0 - self.differing.len() as f64 / self.positions as f64
    }

    fn print(&self, name: &str) {
        let ties = self.differing.iter().filter(|margin| **margin < NEAR_TIE_LOGITS).count();
        let largest = self.differing.iter().copied().fold(0.0, f32::max);
        println!(
            "{name}: the same best token at {:.2} % of {} positions; {} differ, {ties} of them near-ties, the surest by {largest:.3}",
            100.0 * self.rate(),
            self.positions,
            self.differing.len()
        );
    }
}

/// Layers on the device compute what they compute on the CPU, where neither of them rounds to 8 bits.
#[test]
fn the_best_token_is_the_cpus_at_99_of_100_positions() {
    let exact = [("GGML_VK_DISABLE_F16", "1")];
    child("the_best_token_is_the_cpus_at_99_of_100_positions", &exact, || {
        let dir = tempfile::tempdir().unwrap();
        let unquantized = unquantized(dir.path());
        let texts = forced_texts(&unquantized);
        for layers in LAYERS {
            let all = on_vulkan(layers, Some(&unquantized), &texts);
            assert!(all.rate() >= 0.99, "{layers} layers: {:.4}", all.rate());
            let clear = all.differing.iter().filter(|margin| **margin > CLEAR_LOGITS).count();
            assert_eq!(clear, 0, "{layers} layers: {:?}", all.differing);
        }
    });
}

/// As Vulkan computes by default: with 8 bits where weights have 4, as the CPU does, so that each differs from the exact one about
/// as often.
#[test]
fn rounding_to_8_bits_changes_the_best_token_as_often_as_on_the_cpu() {
    child("rounding_to_8_bits_changes_the_best_token_as_often_as_on_the_cpu", &[], || {
        let dir = tempfile::tempdir().unwrap();
        let texts = forced_texts(&unquantized(dir.path()));
        let cpu = ForcedModel::load("CPU", None, None).compare("the CPU, quantized weights", &texts);
        let vulkan = on_vulkan(LAYERS[0], None, &texts);
        assert!(vulkan.rate() >= cpu.rate() - 0.01, "{:.4} {:.4}", vulkan.rate(), cpu.rate());
    });
}

/// Runs a test in a process that sees lavapipe.
fn child(name: &str, variables: &[(&str, &str)], test: impl FnOnce()) {
    if env::var_os(CHILD_VARIABLE).is_some() {
        return test();
    }
    demo_models::path(CHAT_MODEL);
    let driver = lavapipe();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", &format!("vulkan::{name}"), "--nocapture"]).env(CHILD_VARIABLE, "1");
    child.env("GGML_VK_VISIBLE_DEVICES", "0").envs(variables.iter().copied());
    // Vulkan loaders before 1.3.207 read the first name, later ones both.
    let output = child.env("VK_ICD_FILENAMES", &driver).env("VK_DRIVER_FILES", &driver).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

fn lavapipe() -> PathBuf {
    let files = fs::read_dir("/usr/share/vulkan/icd.d").expect("Mesa's Vulkan drivers are installed");
    let is_lavapipe = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd");
    files.map(|file| file.unwrap().path()).find(is_lavapipe).expect("lavapipe is among them")
}

/// A copy of the model whose matrices, those of the input and the output too, have 16 bits a weight.
#[allow(unsafe_code)]
fn unquantized(dir: &Path) -> PathBuf {
    let path = dir.join("f16.gguf");
    let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let (from, to) = (c_path(&demo_models::path(CHAT_MODEL)), c_path(&path));
    // SAFETY: the paths end with a zero byte, and the parameters are read during the call alone.
    let status = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.ftype = sys::LLAMA_FTYPE_MOSTLY_F16;
        params.allow_requantize = true;
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
    };
    assert_eq!(status, 0, "llama.cpp dequantizes the model");
    path
}

/// The texts with the best tokens of a CPU with these weights.
fn forced_texts(unquantized: &Path) -> [ForcedText; TEXTS.len()] {
    let mut cpu = ForcedModel::load("CPU", None, Some(unquantized.to_owned()));
    TEXTS.map(|(name, text)| {
        let (tokens, best) = continued(&mut cpu, text);
        ForcedText { name, tokens, best }
    })
}

/// The best tokens with so many layers on Vulkan beside those of the texts.
fn on_vulkan(layers: u32, unquantized: Option<&Path>, texts: &[ForcedText]) -> Comparison {
    let mut device = ForcedModel::load("Vulkan0", Some(layers), unquantized.map(Path::to_owned));
    let used = device.backend.device_buffers().iter().find(|buffers| buffers.device == "Vulkan0");
    assert!(used.is_some_and(|buffers| buffers.weights > 0), "{:?}", device.backend.device_buffers());
    let all = device.compare(&format!("{layers} layers on Vulkan"), texts);
    assert!(all.positions >= MIN_COMPARED_TOKENS, "{}", all.positions);
    all
}

/// The tokens of a text with a continuation by the model, and the best token after each.
fn continued(model: &mut ForcedModel, text: &str) -> (Vec<Token>, Vec<TopToken>) {
    let tokenizer = model.backend.tokenizer();
    let mut tokens = tokenizer.tokenize_output(text).unwrap();
    tokens.truncate(TEXT_TOKENS);
    model.clear();
    let mut best = model.force(&tokens);
    let mut last = (tokens.len() - 1) % model.backend.limits().batch_tokens as usize;
    let mut greedy = model.backend.create_sampler(&SamplingParams::GREEDY, None, &[]).unwrap();
    for _ in 0..CONTINUATION_TOKENS {
        let Sampled::Token(token) = model.backend.sample(last, &mut greedy).unwrap() else { break };
        tokens.push(token);
        best.extend(model.force(&[token]));
        last = 0;
    }
    (tokens, best)
}
