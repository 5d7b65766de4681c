//! A model that does not fit is refused with figures and with advice. Each piece of advice is applied as it is printed: then the
//! model loads and answers; with a little more than advised it is still refused.
//!
//! Devices are the CPU and RPC servers on the loopback, with limits of their memory.

use artel_proto::v1;
use artel_tests::random_models::RandomModel;
use artel_tests::{Daemon, RpcServer, daemon, task_request};

const MIB_BYTES: u64 = 1 << 20;
/// The context of a model that writes none.
const DEFAULT_CONTEXT_TOKENS: u64 = 4096;
/// llama.cpp rounds contexts up to a multiple of this.
const CONTEXT_STEP_TOKENS: u64 = 256;

/// The weights of a model.
#[derive(Clone)]
enum AdvisedWeights {
    Demo(&'static str),
    Random(RandomModel),
}

/// A model as its document says it.
#[derive(Clone)]
struct AdvisedModel {
    weights: AdvisedWeights,
    /// `key: value`.
    keys: Vec<String>,
}

fn key(line: &str) -> &str {
    line.split(':').next().unwrap()
}

impl AdvisedModel {
    fn new(weights: AdvisedWeights, keys: &[&str]) -> Self {
        Self { weights, keys: keys.iter().map(ToString::to_string).collect() }
    }

    fn without(mut self, name: &str) -> Self {
        self.keys.retain(|line| key(line) != name);
        self
    }

    fn with(self, line: &str) -> Self {
        let mut changed = self.without(key(line));
        changed.keys.push(line.to_owned());
        changed
    }

    /// The document of the model, and of a role of it.
    fn document(&self, name: &str) -> String {
        let file = match &self.weights {
            AdvisedWeights::Demo(file) => (*file).to_owned(),
            AdvisedWeights::Random(model) => model.file().display().to_string(),
        };
        format!(
            "---\nmodel: {name}\nfile: {file}\n{}\n---\nrole: of-{name}\ndescription: D.\nmodel: {name}\n\
             prompt: You answer briefly.\nsampling: {{temperature: 0, max_tokens: 8}}\nlimits: {{retries: 0}}\n",
            self.keys.join("\n")
        )
    }

    /// With a piece of advice as it is printed: what is in backquotes is YAML.
    fn advised(&self, remedy: &str) -> Self {
        let (changes, _) = remedy.split_once(": then it takes ").unwrap();
        if let Some((_, quantization)) = changes.split_once("the same model as ") {
            let AdvisedWeights::Random(model) = &self.weights else { panic!("{remedy}") };
            let (name, _) = quantization.split_once(',').unwrap();
            let weights = AdvisedWeights::Random(model.clone().with("--quant", &name.to_lowercase()));
            return Self { weights, ..self.clone() };
        }
        let mut changed = self.clone();
        let parts: Vec<&str> = changes.split('`').collect();
        for (before, quoted) in parts.iter().step_by(2).zip(parts.iter().skip(1).step_by(2)) {
            changed = if before.ends_with("no ") { changed.without(quoted) } else { changed.with(quoted) };
        }
        changed
    }
}

/// The number behind `name` in a piece of advice.
fn number(text: &str, name: &str) -> Option<u64> {
    let digits: String = text.split_once(name)?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// With the next larger value than the last one that is advised, if its values have an order.
fn beyond(refused: &AdvisedModel, remedy: &str) -> Option<AdvisedModel> {
    let advised = refused.advised(remedy);
    let snippet = remedy.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains(": ")).last()?;
    let (value, instead) = (snippet.split_once(": ")?.1, remedy.split_once("instead of ").map_or("", |(_, text)| text));
    let line = match key(snippet) {
        "sequences" => format!("sequences: {}", number(snippet, ": ")? + 1),
        "context" => format!("context: {}", number(snippet, ": ")? + CONTEXT_STEP_TOKENS),
        "gpu_layers" => format!("gpu_layers: {}", number(snippet, ": ")? + 1),
        "cache" if value.contains("share: ") => {
            let share = number(value, "share: ")?;
            format!("cache: {}", value.replace(&format!("share: {share}"), &format!("share: {}", share - 1)))
        }
        "cache" if value.contains("tokens: ") && number(instead, "tokens: ") != number(value, "tokens: ") => {
            let (tokens, was) = (number(value, "tokens: ")?, number(instead, "tokens: ")?);
            let sequences = number(remedy, "a cache of ")?;
            let next = match tokens / sequences {
                _ if tokens > was => tokens - 1,
                DEFAULT_CONTEXT_TOKENS => tokens + DEFAULT_CONTEXT_TOKENS,
                context => (context + CONTEXT_STEP_TOKENS) * sequences,
            };
            format!("cache: {}", value.replace(&format!("tokens: {tokens}"), &format!("tokens: {next}")))
        }
        _ => return None,
    };
    Some(advised.with(&line))
}

/// Where models would be placed, each as if no other were loaded.
async fn placement(daemon: &Daemon, model: &str) -> v1::Placement {
    let request = v1::GetPlacementRequest { models: vec![model.to_owned()] };
    daemon.engines().get_placement(request).await.unwrap().into_inner()
}

async fn refusal(daemon: &Daemon, model: &str) -> v1::UnplacedModel {
    let placement = placement(daemon, model).await;
    assert!(placement.placed.is_empty(), "{placement:?}");
    placement.unplaced.into_iter().next().unwrap()
}

async fn answer(daemon: &Daemon, model: &str) -> String {
    let task = task_request("What is the capital of France?").with_role(&format!("of-{model}"));
    daemon.run(task).await.end().await.text()
}

/// Takes every piece of advice on models that are refused under these settings; returns all of it, the names of devices replaced
/// by letters.
async fn advice_is_true(refused: &[(&str, AdvisedModel)], settings: &str, servers: &[&RpcServer]) -> Vec<String> {
    let documents: String = refused.iter().map(|(name, model)| model.document(name)).collect();
    let first = daemon().with_yaml(&documents).with_settings(settings).start().await;
    let (mut advised, mut beyond_advice) = (Vec::new(), Vec::new());
    for (name, model) in refused {
        let refusal = refusal(&first, name).await;
        assert!(!refusal.remedies.is_empty(), "{refusal:?}");
        for (at, remedy) in refusal.remedies.iter().enumerate() {
            let variant = format!("{name}-{at}");
            beyond_advice
                .extend(beyond(model, remedy).map(|model| (format!("{variant}-beyond"), remedy.clone(), model)));
            advised.push((variant, remedy.clone(), model.advised(remedy)));
        }
    }
    let all = advised.iter().chain(&beyond_advice);
    let documents: String = all.map(|(name, _, model)| model.document(name)).collect();
    let second = daemon().with_yaml(&documents).with_settings(settings).start().await;
    for (name, remedy, model) in &beyond_advice {
        let placement = placement(&second, name).await;
        assert!(placement.placed.is_empty(), "more than {remedy} fits: {:?}: {placement:?}", model.keys);
    }
    for (name, remedy, model) in &advised {
        let placement = placement(&second, name).await;
        assert!(placement.unplaced.is_empty(), "{remedy}: {:?}: {placement:?}", model.keys);
    }
    for (name, remedy, model) in &advised {
        assert!(!answer(&second, name).await.is_empty(), "{remedy}: {:?}", model.keys);
    }
    let shown = |remedy: String| {
        let changes = remedy.split(": then it takes ").next().unwrap().to_owned();
        let named = servers.iter().zip('a'..);
        named.fold(changes, |text, (server, letter)| text.replace(&server.device_name(), &letter.to_string()))
    };
    advised.into_iter().map(|(name, remedy, _)| format!("{name}: {}", shown(remedy))).collect()
}

/// A model of 14 MiB, and of 3 KiB of cache for each token.
fn small() -> AdvisedWeights {
    AdvisedWeights::Random(RandomModel::new("llama").with("--quant", "f16"))
}

/// A model of 84 MiB, of which the output has 48 and each of six layers 6, and of 12 KiB of cache for each token.
fn large() -> AdvisedWeights {
    AdvisedWeights::Random(RandomModel::new("llama").with("--width", "512").with("--quant", "f16"))
}

/// Beside weights and cache, a process takes 42 MiB and buffers take 64: the limits leave 52 MiB for a cache.
#[tokio::test(flavor = "multi_thread")]
async fn advice_on_sequences_context_cache_and_quantization_is_true() {
    let of = |weights, keys: &[&str]| AdvisedModel::new(weights, keys).with("devices: [CPU]");
    let refused = [
        ("written", of(small(), &["context: 4096", "sequences: 8"])),
        ("tokens", of(small(), &["cache: {tokens: 32768, type: f32}"])),
        ("share", of(small(), &["cache: {share: 3%}"])),
        ("few", of(small(), &["cache: {tokens: 2048}", "sequences: 4"])),
        ("file", of(large(), &["context: 512", "sequences: 1"])),
    ];
    let advice = advice_is_true(&refused, "memory: {CPU: 172}\n", &[]).await;
    let expected = [
        "written-0: `cache: q8_0` instead of auto",
        "written-1: `sequences: 4` instead of 8",
        "written-2: `context: 2048` instead of 4096",
        "tokens-0: `cache: {tokens: 32768, type: q8_0}` instead of {tokens: 32768, type: f32}",
        "tokens-1: `cache: {tokens: 8192, type: f32}` instead of {tokens: 32768, type: f32}",
        "share-0: `cache: {share: 3%, type: q8_0}` instead of {share: 3%}",
        "share-1: `cache: {share: 5%}` instead of {share: 3%}",
        "few-0: `cache: {tokens: 3072}` instead of {tokens: 2048}",
        "few-1: `sequences: 2` instead of 4",
        "file-0: the same model as Q8_0, which has about 46.8 MB",
    ];
    assert_eq!(advice, expected);
}

/// The limit leaves 4 MiB for a cache.
#[tokio::test(flavor = "multi_thread")]
async fn advice_that_combines_changes_of_a_cache_is_true() {
    let keys = ["cache: {tokens: 32768, type: f32}", "devices: [CPU]"];
    let refused = [("both", AdvisedModel::new(small(), &keys))];
    let advice = advice_is_true(&refused, "memory: {CPU: 124}\n", &[]).await;
    assert_eq!(advice, ["both-0: `cache: {tokens: 2304, type: q8_0}` instead of {tokens: 32768, type: f32}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_on_weights_that_are_dequantized_is_true() {
    let keys = ["weights: bf16", "context: 512", "sequences: 1", "devices: [CPU]"];
    let refused = [("half", AdvisedModel::new(AdvisedWeights::Demo("SmolLM2-135M-Instruct.Q4_1.gguf"), &keys))];
    let advice = advice_is_true(&refused, "memory: {CPU: 250}\n", &[]).await;
    assert_eq!(advice, ["half-0: `weights: file`"]);
}

/// Takes the advice on a model that is pinned to the first of these servers, or to the first two. Two servers lend 198 MiB each, and
/// a third 400. A layer takes 15 MiB, the output 72, and buffers some 98: what is measured at a load may be more than this guess. So
/// each model has weights of its own, and no load of another one says what is to be expected.
async fn device_advice(name: &str, seed: &str, pins: usize, more: &str) -> Vec<String> {
    let servers = [RpcServer::start().await, RpcServer::start().await, RpcServer::start().await];
    let names = servers.each_ref().map(RpcServer::device_name);
    let weights = RandomModel::new("llama").with("--width", "768").with("--quant", "f16").with("--seed", seed);
    let devices = format!("devices: ['{}']", names[..pins].join("', '"));
    let keys = ["context: 512", "sequences: 1", "gpu_layers: 7", &devices, more];
    let refused = [(name, AdvisedModel::new(AdvisedWeights::Random(weights), &keys))];
    let settings = format!(
        "rpc: ['{}']\nmemory: {{'{}': 198, '{}': 198, '{}': 400}}\n",
        servers.each_ref().map(|server| server.address.clone()).join("', '"),
        names[0],
        names[1],
        names[2]
    );
    advice_is_true(&refused, &settings, &servers.each_ref()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_on_layers_and_more_devices_is_true() {
    let expected = [
        "layers-0: `gpu_layers: 2` instead of 7",
        "layers-1: the same model as Q8_0, which has about 85.3 MB",
        "layers-2: `devices: ['a', 'c']`",
        "layers-3: `devices: auto`",
    ];
    assert_eq!(device_advice("layers", "1", 1, "split: layer").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_on_written_shares_of_devices_is_true() {
    let expected = [
        "shares-0: `gpu_layers: 3` instead of 7",
        "shares-1: the same model as Q8_0, which has about 85.3 MB",
        "shares-2: `devices: ['a', 'b', 'c']` and no `tensor_split`",
        "shares-3: `devices: auto` and no `tensor_split`",
    ];
    assert_eq!(device_advice("shares", "2", 2, "tensor_split: [1, 3]").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_on_a_model_that_is_not_split_is_true() {
    let expected = [
        "one-0: `gpu_layers: 2` instead of 7",
        "one-1: the same model as Q8_0, which has about 85.3 MB",
        "one-2: `split: layer` instead of none",
        "one-3: `devices: auto`",
    ];
    assert_eq!(device_advice("one", "3", 2, "split: none").await, expected);
}

/// One model has half of a device; a mixture of experts fits there without it, or beside it with less on the device.
#[tokio::test(flavor = "multi_thread")]
async fn advice_on_a_model_beside_another_is_true() {
    let server = RpcServer::start().await;
    let device = server.device_name();
    let pinned = |weights, keys: &[&str]| AdvisedModel::new(weights, keys).with(&format!("devices: ['{device}']"));
    let first = pinned(small(), &["context: 4096", "sequences: 12"]);
    let experts = AdvisedWeights::Random(RandomModel::new("qwen3moe").with("--width", "512").with("--experts", "16"));
    let second = pinned(experts, &["context: 512", "sequences: 1"]);
    let settings = format!("rpc: ['{}']\nmemory: {{'{device}': 430}}\n", server.address);
    let with_second = |second: &AdvisedModel| {
        let documents = first.document("first") + &second.document("second");
        daemon().with_yaml(&documents).with_settings(&settings).start()
    };
    let both = async |daemon: &Daemon| {
        let request = v1::GetPlacementRequest { models: vec!["first".to_owned(), "second".to_owned()] };
        daemon.engines().get_placement(request).await.unwrap().into_inner()
    };
    let refused = both(&with_second(&second).await).await.unplaced.remove(0);
    let beside = "second does not fit beside first: it needs ";
    assert!(refused.reason.starts_with(beside), "{}", refused.reason);
    assert!(refused.reason.ends_with("and they are swapped"), "{}", refused.reason);
    let mut kinds = Vec::new();
    // Files of fewer bits than these experts have are not made here.
    for remedy in refused.remedies.iter().filter(|remedy| !remedy.starts_with("the same model as ")) {
        let daemon = with_second(&second.advised(remedy)).await;
        let placement = both(&daemon).await;
        assert_eq!(placement.placed.len(), 2, "{remedy}: {placement:?}");
        for model in ["first", "second"] {
            assert!(!answer(&daemon, model).await.is_empty(), "{model} with {remedy}");
        }
        let request = v1::ListEnginesRequest::default();
        let engines = daemon.engines().list_engines(request).await.unwrap().into_inner().engines;
        let is_ready = |engine: &&v1::Engine| engine.model != "minilm" && engine.state() == v1::EngineState::Ready;
        assert_eq!(
            engines.iter().filter(is_ready).count(),
            2,
            "{remedy}: none was unloaded for the other: {engines:?}"
        );
        kinds.push(remedy.split(" instead of ").next().unwrap().split(": then").next().unwrap().to_owned());
        if let Some(beyond) = beyond(&second, remedy) {
            let placement = both(&with_second(&beyond).await).await;
            assert_eq!(placement.placed.len(), 1, "more than {remedy} fits: {placement:?}");
        }
    }
    assert_eq!(kinds, ["`experts: cpu`", "`gpu_layers: 6`", "`devices: auto`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_that_are_missing_are_those_that_are_missing() {
    let limit = 172;
    let keys = ["context: 4096", "sequences: 8", "devices: [CPU]"];
    let document = AdvisedModel::new(small(), &keys).document("large");
    let with_mib =
        |limit: u64| daemon().with_yaml(&document).with_settings(&format!("memory: {{CPU: {limit}}}\n")).start();
    let refused = refusal(&with_mib(limit).await, "large").await;
    assert_eq!(refused.device, "CPU");
    let missing = refused.missing_bytes.div_ceil(MIB_BYTES);
    let enough = placement(&with_mib(limit + missing).await, "large").await;
    assert_eq!(enough.placed.len(), 1, "{refused:?} {enough:?}");
    refusal(&with_mib(limit + missing - 1).await, "large").await;
}
