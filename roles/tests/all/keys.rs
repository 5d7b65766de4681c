//! The table agrees with the decoder: what is required, and what holds by default.

use std::collections::BTreeSet;

use artel_task::RouterName;
use artel_task::event::Signal;

use artel_keys::{KeyDefault, KeySet, MODEL, RETRIES, SIGNALS, keys};
use artel_roles::{Catalog, LabelledQuestion, Problems, Settings, YamlSource};

const BASE: &str = "{model: m, file: m.gguf}\n---\n{model: e, file: e.gguf, use: embedding}\n---\n\
                    {knowledge: k}\n---\n{role: r, description: D., model: m, prompt: P.}\n---\n";

/// The smallest content of a map.
fn minimal(set: &KeySet) -> Vec<(&'static str, &'static str)> {
    match set.name {
        "role" => vec![("role", "x"), ("description", "D."), ("model", "m"), ("prompt", "P.")],
        "role.adapter" => vec![("file", "a.gguf")],
        "role.sampling.dry" => vec![("multiplier", "0.8")],
        "role.sampling.xtc" => vec![("probability", "0.5")],
        "model" => vec![("model", "x"), ("file", "x.gguf")],
        "adapter" => vec![("adapter", "x"), ("file", "x.gguf")],
        "knowledge" => vec![("knowledge", "x")],
        "training" => vec![("training", "x"), ("role", "r"), ("data", "chats.jsonl")],
        "knowledge.sources" => vec![("path", "docs")],
        "knowledge.store" => vec![("qdrant", "'http://localhost:6334'")],
        "knowledge.store.key" => vec![("file", "key")],
        "graph" => {
            vec![("graph", "x"), ("description", "D."), ("start", "a"), ("nodes", "{a: {role: r, next: done}}")]
        }
        "node" => vec![("role", "r"), ("next", "done")],
        "node.role" => vec![("from", "p")],
        "node.router" => vec![("roles", "[r]")],
        "node.ask" => vec![("message", "'Yes?'")],
        "node.search" => vec![("knowledge", "k")],
        "node.for_each" => vec![("list", "'[1]'")],
        "node.join" => vec![("quorum", "1")],
        "node.retries" => vec![("count", "1")],
        "edge" => vec![("to", "done")],
        "router" => vec![("router", "x"), ("signals", "{keyword: {}}")],
        "router.signals.label" => vec![("model", "m")],
        "router.signals.*.alone" => vec![("weight", "2"), ("bias", "1")],
        "labelled question" => vec![("text", "Why?")],
        "settings.tls" => vec![("certificate", "c.pem"), ("key", "k.pem")],
        _ => vec![],
    }
}

/// A document with this content of the map.
fn document(set: &KeySet, entries: &[(&str, &str)]) -> String {
    let map = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ");
    let map = format!("{{{map}}}");
    let role = |key: &str| format!("{{role: x, description: D., model: m, prompt: P., {key}: {map}}}");
    let sampling =
        |key: &str| format!("{{role: x, description: D., model: m, prompt: P., sampling: {{{key}: {map}}}}}");
    let graph = |nodes: String| format!("{{graph: x, description: D., start: p, nodes: {{{nodes}}}}}");
    let node = |key: &str| graph(format!("p: {{role: r, {key}: {map}, next: done}}"));
    let training = |key: String| format!("{{training: x, role: r, data: chats.jsonl, {key}}}");
    let signal = |signal: String| format!("{{router: x, signals: {{{signal}}}}}");
    match set.name {
        "role.reasoning" => role("reasoning"),
        "role.sampling" => role("sampling"),
        "role.sampling.dry" => sampling("dry"),
        "role.sampling.xtc" => sampling("xtc"),
        "role.limits" => role("limits"),
        "role.adapter" => role("adapter"),
        "model.cache" => format!("{{model: x, file: x.gguf, cache: {map}}}"),
        "model.prefixes" => format!("{{model: x, file: x.gguf, use: embedding, prefixes: {map}}}"),
        "knowledge.sources" => format!("{{knowledge: x, sources: [{map}]}}"),
        "knowledge.chunk" => format!("{{knowledge: x, chunk: {map}}}"),
        "knowledge.store" => format!("{{knowledge: x, store: {map}}}"),
        "knowledge.store.key" => {
            format!("{{knowledge: x, store: {{qdrant: 'http://localhost:6334', key: {map}}}}}")
        }
        "training.method" => training(format!("method: {map}")),
        "training.method.lora" => training(format!("method: {{lora: {map}}}")),
        "training.schedule" => training(format!("schedule: {map}")),
        "knowledge.search" => format!("{{knowledge: x, search: {map}}}"),
        "graph.limits" => {
            format!("{{graph: x, description: D., start: p, nodes: {{p: {{role: r, next: done}}}}, limits: {map}}}")
        }
        "node" => graph(format!("p: {map}")),
        "node.role" => graph(format!("p: {{router: {{roles: [r]}}, next: a}}, a: {{role: {map}, next: done}}")),
        "node.router" => graph(format!("p: {{router: {map}, next: done}}")),
        "node.ask" => graph(format!("p: {{ask: {map}, next: done}}")),
        "node.search" => graph(format!("p: {{search: {map}, next: done}}")),
        "node.for_each" => node("for_each"),
        "node.retries" => node("retries"),
        "node.join" => graph(format!(
            "p: {{role: r, next: [a, b]}}, a: {{role: r, next: c}}, b: {{role: r, next: c}}, \
             c: {{role: r, join: {map}, next: done}}"
        )),
        "edge" => graph(format!("p: {{role: r, next: {map}}}")),
        "router.signals" => format!("{{router: x, signals: {map}}}"),
        "router.signals.*" => signal(format!("keyword: {map}")),
        "router.signals.label" => signal(format!("label: {map}")),
        "router.signals.*.alone" => signal(format!("keyword: {{alone: {map}}}")),
        "labelled question" => format!("- {map}"),
        "settings.prefix_cache" => format!("prefix_cache: {map}"),
        "settings.retention" => format!("retention: {map}"),
        "settings.network" => format!("network: {map}"),
        "settings.connections" => format!("connections: {map}"),
        "settings.log" => format!("log: {map}"),
        "settings.traces" => format!("traces: {map}"),
        "settings.http" => format!("http: {map}"),
        "settings.tls" => format!("tls: {map}"),
        _ => map,
    }
}

/// What is read of a document.
fn read(set: &KeySet, entries: &[(&str, &str)]) -> Result<String, Problems> {
    let text = document(set, entries);
    let source = |text: String| YamlSource { path: "x.yaml".to_owned(), dir: Some("/crew".into()), text };
    match set.page {
        "settings" => Settings::parse(&source(text)).map(|settings| format!("{settings:?}")),
        _ if set.name == "labelled question" => {
            LabelledQuestion::parse(&source(text)).map(|questions| format!("{questions:?}"))
        }
        _ => Catalog::parse(vec![vec![source(BASE.to_owned() + &text)]]).map(|catalog| {
            let router = RouterName::parse("x").map(|name| catalog.router_settings(Some(&name))).ok();
            let (roles, models, adapters) = (catalog.roles(), catalog.models(), catalog.adapters());
            let (knowledge, graphs, trainings) = (catalog.knowledge(), catalog.graphs(), catalog.trainings());
            format!("{roles:?} {models:?} {adapters:?} {knowledge:?} {graphs:?} {trainings:?} {router:?}")
        }),
    }
}

#[test]
fn a_required_key_is_required() {
    for set in keys() {
        let whole = minimal(set);
        assert!(read(set, &whole).is_ok(), "{}: {:?}", set.name, read(set, &whole));
        for key in set.keys.iter().filter(|key| key.default == KeyDefault::Required) {
            let rest: Vec<_> = whole.iter().copied().filter(|(name, _)| *name != key.name).collect();
            assert_eq!(rest.len() + 1, whole.len(), "{}.{} is in the minimal document", set.name, key.name);
            assert!(read(set, &rest).is_err(), "{}.{}", set.name, key.name);
        }
    }
}

#[test]
fn a_key_with_its_default_changes_nothing() {
    for set in keys() {
        let whole = minimal(set);
        for key in set.keys {
            let KeyDefault::Value(value) = key.default else { continue };
            let explicit = [whole.as_slice(), &[(key.name, value)]].concat();
            assert_eq!(read(set, &explicit), read(set, &whole), "{}.{}", set.name, key.name);
        }
    }
}

#[test]
fn every_key_is_documented_once() {
    for set in keys() {
        let former = set.keys.iter().filter_map(|key| key.former_name);
        let names: Vec<&str> = set.names().chain(former).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{}", set.name);
        for key in set.keys {
            let one_line = key.description.ends_with('.') && !key.description.contains('\n');
            assert!(one_line && !key.default.text().is_empty(), "{}.{}", set.name, key.name);
        }
    }
    let sets: BTreeSet<&str> = keys().iter().map(|set| set.name).collect();
    assert_eq!(sets.len(), keys().len());
}

#[test]
fn every_signal_but_rules_has_a_weight() {
    let signals = Signal::ALL.into_iter().filter(|signal| *signal != Signal::Rule).map(Signal::as_str);
    assert_eq!(SIGNALS.names().collect::<BTreeSet<_>>(), signals.collect());
}

#[test]
fn a_slip_in_a_former_name_leads_to_the_present_one() {
    assert_eq!(RETRIES.nearest("at_mots"), Some("count"));
    assert_eq!(RETRIES.nearest("max_dely"), Some("max_delay"));
    assert_eq!(MODEL.nearest("tensor-split"), Some("tensor_split"));
    assert_eq!(MODEL.nearest("colour"), None);
}
