//! Top tokens on a Vulkan device beside those of the CPU, at positions whose tokens are given.
//!
//! The device is Mesa's lavapipe, which computes on the processor with Vulkan's kernels. A process that sees it is started anew: the
//! variables that show it are read once.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use artel_engine::Backend as _;
use artel_engine::backend::{BatchToken, Sampled, Slot};
use artel_engine::{AdapterSet, SamplingParams, Token, TokenLogprob};
use artel_llama::{LlamaBackend, Options};

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
    fn load(devices: &[&str], gpu_layers: Option<u32>) -> Self {
        let devices = Some(devices.iter().map(|name| (*name).to_owned()).collect());
        let options = Options { devices, gpu_layers, sequences: 1, ..options(CHAT_MODEL) };
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

#[test]
fn the_best_token_is_the_cpus_at_99_of_100_forced_positions() {
    if env::var_os(CHILD_VARIABLE).is_some() {
        return compare();
    }
    demo_models::path(CHAT_MODEL);
    let name = "vulkan::the_best_token_is_the_cpus_at_99_of_100_forced_positions";
    let driver = lavapipe();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD_VARIABLE, "1").env("GGML_VK_VISIBLE_DEVICES", "0");
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

fn compare() {
    let mut cpu = ForcedModel::load(&["CPU"], None);
    let texts = TEXTS.map(|(name, text)| {
        let (tokens, best) = continued(&mut cpu, text);
        (name, tokens, best)
    });
    drop(cpu);
    for layers in LAYERS {
        let mut device = ForcedModel::load(&["Vulkan0"], Some(layers));
        let used = device.backend.device_buffers().iter().find(|buffers| buffers.device == "Vulkan0");
        assert!(used.is_some_and(|buffers| buffers.weights > 0), "{:?}", device.backend.device_buffers());
        let mut all = Comparison::default();
        for (name, tokens, best) in &texts {
            device.clear();
            let compared = Comparison::of(best, &device.force(tokens));
            compared.print(&format!("{layers} layers, {name}"));
            all.add(compared);
        }
        all.print(&format!("{layers} layers"));
        assert!(all.positions >= MIN_COMPARED_TOKENS, "{}", all.positions);
        assert!(all.rate() >= 0.99, "{layers} layers: {:.4}", all.rate());
    }
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
