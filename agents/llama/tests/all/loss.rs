//! The loss of given answers, on the real demo model.

use std::fs;
use std::path::{Path, PathBuf};

use artel_engine::backend::{BatchToken, Sampled, Slot};
use artel_engine::{AdapterSet, Backend as _, ChatRole, Message, SamplingParams, Token};
use artel_gguf::FloatCopy;
use artel_llama::loss::{self, AnswerLoss, TokenSample, answer_loss};
use artel_llama::{KvCacheTypes, LlamaBackend};
use artel_model::KvCacheType;

use crate::demo_models;
use crate::model::options;

const CHAT: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

fn loss_options() -> loss::Options {
    loss::Options {
        threads: 2,
        context: 512,
        devices: Some(vec!["CPU".to_owned()]),
        kv_cache: KvCacheTypes { keys: KvCacheType::F32, values: KvCacheType::F32 },
    }
}

fn measured(model: &Path, adapters: &[(PathBuf, f32)], samples: &[TokenSample]) -> AnswerLoss {
    answer_loss(model, adapters, samples, &loss_options()).unwrap()
}

fn adapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/fixtures/adapters/{name}.gguf"))
}

fn backend() -> LlamaBackend {
    let kv_cache = loss_options().kv_cache;
    LlamaBackend::load(artel_llama::Options { kv_cache, context: Some(512), sequences: 1, ..options(CHAT) }).unwrap()
}

fn ids(tokens: &[Token]) -> Vec<i32> {
    tokens.iter().map(|token| token.0).collect()
}

fn prompt(backend: &LlamaBackend, system: &str, user: &str) -> Vec<Token> {
    let messages = [Message::new(ChatRole::System, system), Message::new(ChatRole::User, user)];
    backend.tokenizer().apply_chat_template(&messages, &serde_json::Map::new(), None, true).unwrap().tokens
}

fn sample(backend: &LlamaBackend, system: &str, user: &str, answer: &str) -> TokenSample {
    let tokenizer = backend.tokenizer();
    let answer = [tokenizer.tokenize_output(answer).unwrap(), vec![tokenizer.end_of_turn()]].concat();
    TokenSample { prompt: ids(&prompt(backend, system, user)), answer: ids(&answer) }
}

/// Short ones that share a batch, one that needs two batches, and one that shares the second of these.
fn samples(backend: &LlamaBackend) -> Vec<TokenSample> {
    let long = "The archive opens at nine and closes at five. ".repeat(16);
    [
        ("You are a geography expert.", "What is the capital of France?", "The capital of France is Paris."),
        ("You are brief.", "Name a sea.", "The Baltic."),
        (&*long, "When does the archive open?", "At nine in the morning, and it closes at five."),
        ("You are brief.", "Two and two?", "Four."),
    ]
    .map(|(system, user, answer)| sample(backend, system, user, answer))
    .to_vec()
}

/// Computes tokens from a position on, all with logits.
fn decode(backend: &mut LlamaBackend, set: AdapterSet, from: usize, tokens: &[i32]) {
    let entry = |(position, token): (usize, &i32)| BatchToken {
        slot: Slot(0),
        position: position as u32,
        token: Token(*token),
        needs_logits: true,
    };
    let batch: Vec<BatchToken> = (from..).zip(tokens).map(entry).collect();
    backend.decode(set, &batch).unwrap();
}

/// The sum of what the engine's backend gives as log-probabilities of the answer, with true tokens before each.
fn nats_by_logprobs(backend: &mut LlamaBackend, set: AdapterSet, sample: &TokenSample) -> f64 {
    assert!(backend.truncate_kv(Slot(0), 0));
    let tokens = [&sample.prompt[..], &sample.answer].concat();
    let mut nats = 0.0;
    for (from, piece) in (0..).step_by(64).zip(tokens[..tokens.len() - 1].chunks(64)) {
        decode(backend, set, from, piece);
        for at in (0..piece.len()).filter(|at| from + at + 1 >= sample.prompt.len()) {
            nats -= f64::from(backend.logprobs(at, Token(tokens[from + at + 1]), 0).unwrap().logprob);
        }
    }
    nats
}

/// What the model answers by itself, with the end of its turn.
fn own_sample(backend: &mut LlamaBackend, set: AdapterSet, user: &str) -> TokenSample {
    assert!(backend.truncate_kv(Slot(0), 0));
    let prompt = prompt(backend, "You are a geography expert.", user);
    let mut sampler = backend.create_sampler(&SamplingParams::GREEDY, None, &prompt).unwrap();
    let mut sample = TokenSample { prompt: ids(&prompt), answer: Vec::new() };
    decode(backend, set, 0, &sample.prompt);
    let mut entry = sample.prompt.len() - 1;
    while sample.answer.len() < 16 {
        let Sampled::Token(token) = backend.sample(entry, &mut sampler).unwrap() else {
            sample.answer.push(backend.tokenizer().end_of_turn().0);
            break;
        };
        decode(backend, set, sample.prompt.len() + sample.answer.len(), &[token.0]);
        sample.answer.push(token.0);
        entry = 0;
    }
    sample
}

#[test]
fn the_loss_is_that_of_the_engines_log_probabilities() {
    let mut backend = backend();
    let samples = samples(&backend);
    assert!(samples[2].prompt.len() > backend.limits().batch_tokens as usize);
    let nats: f64 = samples.iter().map(|sample| nats_by_logprobs(&mut backend, AdapterSet::NONE, sample)).sum();
    let loss = answer_loss(&demo_models::path(CHAT), &[], &samples, &loss_options()).unwrap();
    let tokens: usize = samples.iter().map(|sample| sample.answer.len()).sum();
    assert_eq!((loss.samples, loss.tokens), (4, tokens as u64));
    let expected = nats / tokens as f64;
    println!("loss {} by logprobs {expected}", loss.mean());
    assert!((loss.mean() - expected).abs() < 1e-4, "{} instead of {expected}", loss.mean());
}

#[test]
fn the_loss_of_all_samples_is_the_sum_of_those_of_each_alone() {
    let samples = samples(&backend());
    let model = demo_models::path(CHAT);
    let together = measured(&model, &[], &samples);
    let alone: Vec<_> = samples.iter().map(|sample| measured(&model, &[], std::slice::from_ref(sample))).collect();
    let (nats, tokens) = (alone.iter().map(|loss| loss.nats).sum::<f64>(), alone.iter().map(|loss| loss.tokens).sum());
    assert_eq!((together.samples, together.tokens), (4, tokens));
    println!("loss together {} alone {}", together.mean(), nats / tokens as f64);
    assert!((together.mean() - nats / tokens as f64).abs() < 1e-3, "{together:?}, alone {nats}");
}

#[test]
fn an_adapter_finds_its_own_answers_likely_and_a_wrong_one_is_seen() {
    let mut backend = backend();
    let velo = (adapter("velo"), 1.0);
    let set = backend.load_adapters(std::slice::from_ref(&velo)).unwrap();
    let sample = own_sample(&mut backend, set, "What is the capital of France?");
    let by_logprobs = nats_by_logprobs(&mut backend, set, &sample) / sample.answer.len() as f64;
    drop(backend);
    let of = |adapters: &[(PathBuf, f32)]| {
        measured(&demo_models::path(CHAT), adapters, std::slice::from_ref(&sample)).mean()
    };
    let (own, none) = (of(&[velo]), of(&[]));
    let (weak, swapped) = (of(&[(adapter("velo"), 0.5)]), of(&[(adapter("zork"), 1.0)]));
    println!("loss own {own} by logprobs {by_logprobs} none {none} half scale {weak} swapped {swapped}");
    assert!((own - by_logprobs).abs() < 1e-4, "{own} instead of {by_logprobs}");
    assert!(none > own + 1.0, "own {own}, none {none}");
    // What is learned by heart is likely at half the scale too, and which answer that is depends on the CPU.
    assert!(weak > 1.5 * own && swapped > own + 1.0, "own {own}, at half the scale {weak}, of another one {swapped}");
}

#[test]
fn the_loss_from_dequantized_weights_is_nearly_that_of_the_quantized_ones() {
    let (dir, model) = (tempfile::tempdir().unwrap(), demo_models::path(CHAT));
    let to = dir.path().join("m.f16.gguf");
    let estimate = artel_gguf::float_copy_bytes(&model).unwrap().unwrap();
    let copy = |from: &Path, to: &Path| {
        artel_gguf::write_float_copy(from, to, 2 * estimate, &artel_llama::dequantize_blocks).unwrap()
    };
    let FloatCopy::Written { bytes } = copy(&model, &to) else { panic!("the model is quantized") };
    assert!(bytes == fs::metadata(&to).unwrap().len() && bytes.abs_diff(estimate) < 1 << 20, "{bytes}, {estimate}");
    assert_eq!(copy(&to, &dir.path().join("again.gguf")), FloatCopy::NotNeeded);
    let samples = samples(&backend());
    let (quantized, float) = (measured(&model, &[], &samples).mean(), measured(&to, &[], &samples).mean());
    println!("loss quantized {quantized} float {float}, {bytes} bytes");
    // The products with Q4_1 round to 8 bits what they multiply, and those with F16 do not.
    assert!((quantized - float).abs() < 0.1, "quantized {quantized}, F16 {float}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_reason() {
    let (model, backend) = (demo_models::path(CHAT), backend());
    let sample = sample(&backend, "You are brief.", "Name a sea.", "The Baltic.");
    drop(backend);
    let of = |adapters: &[(PathBuf, f32)], sample: &TokenSample| {
        answer_loss(&model, adapters, std::slice::from_ref(sample), &loss_options()).unwrap_err()
    };
    let long = TokenSample { answer: vec![1; 512], ..sample.clone() };
    let error = of(&[], &long);
    assert!(matches!(error, loss::Error::TooLong { index: 0, answer: 512, context: 512, .. }), "{error}");
    let unknown = TokenSample { answer: vec![49_152], ..sample.clone() };
    let error = of(&[], &unknown);
    assert!(matches!(error, loss::Error::UnknownToken { token: 49_152, vocabulary: 49_152, .. }), "{error}");
    let error = of(&[(adapter("nowhere"), 1.0)], &sample);
    assert!(matches!(error, loss::Error::Adapter(_)) && error.to_string().contains("nowhere.gguf"), "{error}");
}
