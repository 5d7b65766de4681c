//! What a model says of its memory.

use std::time::Duration;

use artel_model::{CacheSize, ExpertPlacement, GpuLayers, KeepLoaded, KvCacheType};
use artel_roles::{CacheSetting, Catalog, YamlSource, shipped};

fn catalog(text: &str) -> Catalog {
    let source = YamlSource { path: "own.yaml".to_owned(), dir: Some("/etc/crew".into()), text: text.to_owned() };
    Catalog::parse(vec![shipped::sources(), vec![source]]).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn a_cache_has_a_type_a_size_or_both() {
    let cache = |text: &str| {
        let catalog = catalog(&format!("model: m\nfile: m.gguf\ncache: {text}\n"));
        let model = catalog.model("m").unwrap();
        (model.cache, model.cache_size)
    };
    let q8 = CacheSetting::Fixed(KvCacheType::Q8_0);
    assert_eq!(cache("auto"), (CacheSetting::Auto, CacheSize::Fitting));
    assert_eq!(cache("q8_0"), (q8, CacheSize::Fitting));
    assert_eq!(cache("{}"), (CacheSetting::Auto, CacheSize::Fitting));
    assert_eq!(cache("{type: q8_0}"), (q8, CacheSize::Fitting));
    assert_eq!(cache("{tokens: 16384, type: q8_0}"), (q8, CacheSize::Tokens(16_384)));
    assert_eq!(cache("{share: 50%}"), (CacheSetting::Auto, CacheSize::Percent(50)));
    assert_eq!(cache("{share: 1%, type: auto}"), (CacheSetting::Auto, CacheSize::Percent(1)));
}

#[test]
fn layers_experts_and_the_time_of_an_idle_model_are_read_as_written() {
    let catalog = catalog(
        "model: m\nfile: m.gguf\ngpu_layers: 20\nexperts: cpu\nkeep: 10m\nsequences: 2\n---\n\
         model: n\nfile: n.gguf\ngpu_layers: auto\nexperts: auto\nkeep: forever\n---\nmodel: o\nfile: o.gguf\n",
    );
    let [m, n, o] = ["m", "n", "o"].map(|name| catalog.model(name).unwrap());
    assert_eq!((m.gpu_layers, m.experts), (GpuLayers::Count(20), ExpertPlacement::Cpu));
    assert_eq!(m.keep, KeepLoaded::For(Duration::from_secs(600)));
    assert_eq!((n.gpu_layers, n.experts, n.keep), (GpuLayers::Auto, ExpertPlacement::Auto, KeepLoaded::Forever));
    assert_eq!(o.keep, KeepLoaded::UntilNeeded);
    // What is not written is no promise.
    assert_eq!([m.sequences, o.sequences], [Some(2), None]);
    assert_eq!([m.sequences(), o.sequences()], [2, 8]);
}

#[test]
fn no_layers_are_on_gpus_for_a_role_on_the_cpu() {
    let catalog = catalog(
        "model: m\nfile: m.gguf\ngpu_layers: 20\n---\n\
         role: one\ndescription: D.\nmodel: m\ndevices: [CPU]\nprompt: P.\n---\n\
         role: two\ndescription: D.\nmodel: m\ndevices: [CUDA1]\nprompt: P.\n",
    );
    let layers = |role: &str| catalog.model_of(catalog.role(role).unwrap()).unwrap().gpu_layers;
    assert_eq!([layers("one"), layers("two")], [GpuLayers::Auto, GpuLayers::Count(20)]);
    // None on GPUs is what the CPU alone does.
    self::catalog("model: m\nfile: m.gguf\ngpu_layers: 0\ndevices: [CPU]\n");
}

#[test]
fn a_role_on_a_gpu_has_the_layers_there_that_its_model_keeps_on_the_cpu_elsewhere() {
    let catalog = catalog(
        "model: m\nfile: m.gguf\ngpu_layers: 0\n---\n\
         role: one\ndescription: D.\nmodel: m\ndevices: [CUDA1]\nprompt: P.\n---\n\
         role: two\ndescription: D.\nmodel: m\nprompt: P.\n",
    );
    let layers = |role: &str| catalog.model_of(catalog.role(role).unwrap()).unwrap().gpu_layers;
    assert_eq!([layers("one"), layers("two")], [GpuLayers::Auto, GpuLayers::Count(0)]);
}
