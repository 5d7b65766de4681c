//! How tokens are sampled, on the demo model: against references, and as a client sees it.

use std::collections::HashMap;
use std::path::PathBuf;

use artel_engine::backend::{Backend as _, BatchToken, Sampled, Slot};
use artel_engine::request::{DryParams, XtcParams};
use artel_engine::{
    AdapterSet, Chunk, DraftMode, EngineHandle, FinishSummary, LoadError, Request, SamplingParams, Token, TokenLogprob,
};
use artel_llama::{LlamaBackend, Options};

use crate::demo_models;
use crate::model::{ask, options};

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// All tokens of the demo model.
const VOCABULARY_TOKENS: i32 = 49_152;

/// A sequence that is decoded token by token, without an engine.
struct DecodedTokens {
    backend: LlamaBackend,
    vocabulary: Vec<Token>,
    tokens: Vec<Token>,
}

impl DecodedTokens {
    fn new(prompt: &str) -> Self {
        let mut backend = LlamaBackend::load(options(MODEL)).unwrap();
        let tokens = backend.tokenizer().tokenize_output(prompt).unwrap();
        let batch: Vec<BatchToken> = (0..).zip(&tokens).map(|(position, token)| entry(position, *token)).collect();
        backend.decode(AdapterSet::NONE, &batch).unwrap();
        let vocabulary = (0..VOCABULARY_TOKENS).map(Token).collect();
        Self { backend, vocabulary, tokens }
    }

    /// The index of the last token in the last batch.
    fn index(&self, is_first: bool) -> usize {
        if is_first { self.tokens.len() - 1 } else { 0 }
    }

    fn append(&mut self, token: Token) {
        let batch = [entry(self.tokens.len() as u32, token)];
        self.backend.decode(AdapterSet::NONE, &batch).unwrap();
        self.tokens.push(token);
    }
}

fn entry(position: u32, token: Token) -> BatchToken {
    BatchToken { slot: Slot(0), position, token, needs_logits: true }
}

/// Decodes greedily, and compares each token with the one whose logit is the greatest once a reference changed them all.
fn compare(
    prompt: &str,
    params: &SamplingParams,
    steps: usize,
    reference: impl Fn(&[Token], &mut [f32]),
) -> Vec<Token> {
    let mut sequence = DecodedTokens::new(prompt);
    let start = sequence.tokens.len();
    let mut sampler = sequence.backend.create_sampler(params, None, &sequence.tokens).unwrap();
    for step in 0..steps {
        let index = sequence.index(step == 0);
        let mut logits = sequence.backend.logits(index, &sequence.vocabulary).unwrap();
        reference(&sequence.tokens, &mut logits);
        let expected = (0..).zip(&logits).max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| Token(id));
        match sequence.backend.sample(index, &mut sampler).unwrap() {
            Sampled::Token(token) => {
                assert_eq!(Some(token), expected, "step {step}");
                sequence.append(token);
            }
            Sampled::End => break,
        }
    }
    sequence.tokens[start..].to_vec()
}

const LOOPING: &str = "red green blue, red green blue, red green blue, red";

#[test]
fn penalties_change_logits_as_a_reference_computes_them() {
    let plain = compare(LOOPING, &SamplingParams::GREEDY, 16, |_, _| {});
    for (repeat, presence, frequency, last_n) in
        [(1.3, 0.0, 0.0, 64), (1.0, 1.5, 0.0, 8), (1.0, 0.0, 0.75, 64), (1.1, 0.5, 0.25, 12)]
    {
        let params = SamplingParams {
            repeat_penalty: repeat,
            presence_penalty: presence,
            frequency_penalty: frequency,
            penalty_last_n: last_n,
            ..SamplingParams::GREEDY
        };
        let reference = |tokens: &[Token], logits: &mut [f32]| {
            let mut counts: HashMap<Token, u32> = HashMap::new();
            tokens.iter().rev().take(last_n as usize).for_each(|token| *counts.entry(*token).or_default() += 1);
            for (token, count) in counts {
                let logit = &mut logits[token.0 as usize];
                *logit = if *logit <= 0.0 { *logit * repeat } else { *logit / repeat };
                *logit -= count as f32 * frequency + presence;
            }
        };
        assert_ne!(compare(LOOPING, &params, 16, reference), plain, "{params:?} changes something");
    }
}

#[test]
fn dry_changes_logits_as_a_reference_computes_them() {
    let plain = compare(LOOPING, &SamplingParams::GREEDY, 16, |_, _| {});
    let dry = DryParams { multiplier: 3.0, base: 1.75, allowed_length: 2, last_n: Some(40), breakers: Vec::new() };
    let params = SamplingParams { dry: Some(dry), ..SamplingParams::GREEDY };
    let reference = |tokens: &[Token], logits: &mut [f32]| {
        let window = &tokens[tokens.len().saturating_sub(40)..];
        let mut longest: HashMap<Token, usize> = HashMap::new();
        for at in 1..window.len() {
            let ends = window[..at].iter().rev().zip(window.iter().rev());
            let length = ends.take_while(|(a, b)| a == b).count();
            let known = longest.entry(window[at]).or_default();
            *known = length.max(*known);
        }
        for (token, length) in longest.into_iter().filter(|(_, length)| *length >= 2) {
            logits[token.0 as usize] -= 3.0 * 1.75f32.powi(length as i32 - 2);
        }
    };
    assert_ne!(compare(LOOPING, &params, 16, reference), plain, "it changes something");
}

#[test]
fn the_probabilities_that_are_told_are_the_softmax_of_the_logits() {
    let mut sequence = DecodedTokens::new("The capital of France is");
    let index = sequence.index(true);
    let logits = sequence.backend.logits(index, &sequence.vocabulary).unwrap();
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = logits.iter().map(|logit| f64::from(*logit - most).exp()).sum::<f64>().ln() + f64::from(most);
    let greedy = (0..).zip(&logits).max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| Token(id)).unwrap();
    let told = sequence.backend.logprobs(index, greedy, 20).unwrap();
    assert_eq!((told.top.len(), &told.top[0].bytes, told.top[0].logprob), (20, &told.bytes, told.logprob));
    assert!((f64::from(told.logprob) - (f64::from(most) - sum)).abs() < 1e-4, "{told:?}");
    assert!(told.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
    let total: f64 = told.top.iter().map(|top| f64::from(top.logprob).exp()).sum();
    assert!((0.3..1.0).contains(&total), "{total}");
    let rare = sequence.backend.logprobs(index, Token(500), 0).unwrap();
    assert!((f64::from(rare.logprob) - (f64::from(logits[500]) - sum)).abs() < 1e-4, "{rare:?}");
}

async fn engine(draft_mode: DraftMode) -> EngineHandle {
    let load = || LlamaBackend::load(options(MODEL)).map_err(LoadError::from);
    let options = artel_engine::Options { draft_mode, ..artel_engine::Options::default() };
    EngineHandle::spawn("test", options, load).await.unwrap()
}

async fn answer(engine: &EngineHandle, request: Request) -> (String, Vec<TokenLogprob>, FinishSummary) {
    let mut stream = engine.generate(request).await.unwrap();
    let (mut all, mut tokens) = (String::new(), Vec::new());
    loop {
        match stream.recv().await.unwrap() {
            Chunk::Text { text, logprobs, .. } => {
                all.push_str(&text);
                tokens.extend(logprobs);
            }
            Chunk::Finished(finish) => return (all, tokens, finish),
            Chunk::Failed(error) => panic!("{error}"),
            Chunk::Reasoning { .. } | Chunk::Calls(_) => panic!("neither is asked for"),
            Chunk::Prefill { .. } | Chunk::Scores(_) => {}
        }
    }
}

fn capital(sampling: SamplingParams) -> Request {
    let request = ask("You are a geography expert.", "What is the capital of France?");
    Request { sampling, ..request }
}

fn warm(seed: u32) -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, seed: Some(seed), ..SamplingParams::default() }
}

#[tokio::test]
async fn a_bias_forbids_a_text_or_forces_it() {
    let engine = engine(DraftMode::Auto).await;
    let biased =
        |text: &str, bias| SamplingParams { logit_bias: vec![(text.to_owned(), bias)], ..SamplingParams::GREEDY };
    let plain = answer(&engine, capital(SamplingParams::GREEDY)).await.0;
    assert!(plain.contains("France"), "{plain}");
    let without = answer(&engine, capital(biased("France", -100.0))).await.0;
    assert!(!without.contains("France"), "{without}");
    let forced = Request { max_tokens: 6, ..capital(biased(" yes", 100.0)) };
    let forced = answer(&engine, forced).await.0;
    assert_eq!(forced.replace("yes", "").trim(), "", "nothing else comes: {forced}");
    assert_eq!(answer(&engine, capital(SamplingParams::GREEDY)).await.0, plain, "later requests are as before");
}

#[tokio::test]
async fn a_schema_that_a_bias_leaves_nothing_of_fails_the_request_alone() {
    let engine = engine(DraftMode::Auto).await;
    let schema = serde_json::json!({"enum": ["yes", "no"]});
    let logit_bias = ["yes", "no", "ye", "y", "n"].map(|text| (text.to_owned(), -100.0));
    let sampling = SamplingParams { logit_bias: logit_bias.to_vec(), ..SamplingParams::GREEDY };
    let request = Request { schema: Some(schema.into()), ..capital(sampling) };
    let mut stream = engine.generate(request).await.unwrap();
    let error = loop {
        match stream.recv().await.unwrap() {
            Chunk::Failed(error) => break error,
            Chunk::Finished(finish) => panic!("{finish:?}"),
            _ => {}
        }
    };
    assert_eq!(error.to_string(), "`logit_bias` forbids every token that may come");
    assert!(matches!(error, artel_engine::Error::InvalidRequest(_)), "the model is not at fault");
}

#[tokio::test]
async fn a_seed_gives_the_same_answer_beside_others_and_with_drafts() {
    let request = |seed| Request { max_tokens: 40, ..capital(warm(seed)) };
    let plain = engine(DraftMode::Never).await;
    let alone = answer(&plain, request(7)).await.0;
    assert_eq!(answer(&plain, request(7)).await.0, alone);
    assert_ne!(answer(&plain, request(8)).await.0, alone);
    let together = futures::future::join_all([7, 1, 7, 2].map(|seed| answer(&plain, request(seed)))).await;
    assert_eq!((&together[0].0, &together[2].0), (&alone, &alone));
    let drafting = engine(DraftMode::Always(4)).await;
    let copy = Request {
        max_tokens: 40,
        sampling: SamplingParams { temperature: 0.8, ..warm(7) },
        ..ask("You repeat.", "one two three one two three one two three one two three one two")
    };
    let (drafted, _, finish) = answer(&drafting, copy.clone()).await;
    assert!(finish.usage.drafted > 0, "{finish:?}");
    assert_eq!(answer(&plain, copy).await.0, drafted);
}

#[tokio::test]
async fn several_answers_compute_their_prompt_once_and_are_those_of_their_seeds() {
    let engine = engine(DraftMode::Never).await;
    let request = |seed| Request { shares_prompt: true, ..capital(warm(seed)) };
    let answers = futures::future::join_all((0..4).map(|seed| answer(&engine, request(seed)))).await;
    let prompt = answers[0].2.usage.prompt;
    let computed: u32 = answers.iter().map(|(_, _, finish)| finish.usage.computed).sum();
    assert_eq!(computed, prompt + 3);
    for (seed, (text, ..)) in (0..).zip(&answers) {
        let alone = Request { shares_prompt: false, ..request(seed) };
        assert_eq!(&answer(&engine, alone).await.0, text, "seed {seed}");
    }
}

#[tokio::test]
async fn typical_sampling_cuts_and_xtc_leaves_out_the_likeliest() {
    let engine = engine(DraftMode::Never).await;
    let typical = |seed| SamplingParams { typical_p: 0.01, temperature: 2.0, ..warm(seed) };
    let texts = futures::future::join_all((0..3).map(|seed| answer(&engine, capital(typical(seed))))).await;
    assert!(texts.iter().all(|(text, ..)| *text == texts[0].0), "one token is left at each place: {texts:?}");
    let xtc = |seed| SamplingParams { xtc: Some(XtcParams { probability: 1.0, threshold: 0.05 }), ..warm(seed) };
    let mut left_out = 0;
    for seed in 0..3 {
        let request = Request { logprobs: Some(2), ..capital(xtc(seed)) };
        for token in answer(&engine, request).await.1 {
            // Of two tokens above the threshold, the likelier one never comes.
            if token.top[1].logprob.exp() > 0.06 {
                assert_ne!(token.bytes, token.top[0].bytes, "{token:?}");
                left_out += 1;
            }
        }
    }
    assert!(left_out > 5, "{left_out}");
}

#[tokio::test]
async fn what_the_config_beside_a_model_states_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("model.gguf");
    std::os::unix::fs::symlink(demo_models::path(MODEL), &path).unwrap();
    let config = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20}"#;
    std::fs::write(dir.path().join("generation_config.json"), config).unwrap();
    let load = || LlamaBackend::load(Options { path, ..options(MODEL) }).map_err(LoadError::from);
    let engine = EngineHandle::spawn("test", artel_engine::Options::default(), load).await.unwrap();
    assert_eq!(engine.sampling_defaults().summary(), "temperature 0.6, top_k 20");
}
