//! Keys under the names that they had in version 0.1: read in this version, with a warning.

use std::collections::BTreeSet;
use std::time::Duration;

use artel_roles::{Catalog, Problem, Settings, Severity, YamlSource, keys, shipped};

/// Every renamed key of a catalog: the line and column of each, its former name and its present one.
const RENAMED: [(u32, u32, &str, &str); 6] = [
    (6, 1, "class", "priority"),
    (12, 1, "shares", "tensor_split"),
    (20, 15, "at_most", "count"),
    (20, 27, "pause", "delay"),
    (20, 38, "longest", "max_delay"),
    (22, 36, "at_most", "count"),
];

const FORMER: &str = "\
role: writer
description: Writes.
model: big
prompt: You write.
limits: {retries: 1}
class: batch
---
model: big
file: big.gguf
devices: [CUDA0, CUDA1]
split: row
shares: [3, 1]
---
graph: release
description: Writes twice.
start: first
nodes:
  first:
    role: writer
    retries: {at_most: 4, pause: 2s, longest: 1m}
    next: second
  second: {role: writer, retries: {at_most: 1}, next: {to: third, at_most: 2}}
  third: {role: writer, for_each: {list: '[1]', at_most: 3}, next: done}
";

const FORMER_SETTINGS: &str = "grace: 5s\ngap: 50ms\nprefixes: {memory: 64, disk: 0}\n";

fn source(text: &str) -> YamlSource {
    YamlSource { path: "own.yaml".to_owned(), dir: None, text: text.to_owned() }
}

fn over_shipped(text: &str) -> Catalog {
    Catalog::parse(vec![shipped::sources(), vec![source(text)]]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn present() -> String {
    let renamed = FORMER.replace("class: batch", "priority: batch").replace("shares: [", "tensor_split: [");
    let renamed = renamed.replace("{at_most: 4, pause: 2s, longest: 1m}", "{count: 4, delay: 2s, max_delay: 1m}");
    renamed.replace("retries: {at_most: 1}", "retries: {count: 1}")
}

fn warning((line, column, former, name): (u32, u32, &str, &str), problem: &Problem) {
    assert_eq!((problem.severity, problem.file.as_str()), (Severity::Warning, "own.yaml"));
    assert_eq!((problem.line, problem.column), (line, column), "{problem}");
    assert_eq!(problem.message, format!("the key `{former}` is now `{name}`"));
    let hint = format!("write `{name}`; `{former}` is read in this version only");
    assert_eq!(problem.hint.as_deref(), Some(hint.as_str()));
    assert_eq!(problem.snippet.as_ref().unwrap().width, former.len());
}

#[test]
fn former_keys_give_the_same_catalog_and_a_warning_each() {
    let (former, present) = (over_shipped(FORMER), over_shipped(&present()));
    assert!(present.warnings().is_empty(), "{}", present.warnings());
    assert_eq!(former.warnings().len(), RENAMED.len(), "{}", former.warnings());
    RENAMED.into_iter().zip(former.warnings().iter()).for_each(|(renamed, problem)| warning(renamed, problem));
    assert_eq!(former.roles(), present.roles());
    assert_eq!(former.models(), present.models());
    assert_eq!(former.graphs(), present.graphs());
    assert_eq!(former.model("big").unwrap().placement.tensor_split, [3, 1]);
}

#[test]
fn former_settings_give_the_same_settings_and_a_warning_each() {
    let parse = |text: &str| Settings::parse(&source(text)).unwrap_or_else(|problems| panic!("{problems}"));
    let former = parse(FORMER_SETTINGS);
    let present = parse(&FORMER_SETTINGS.replace("gap", "target_itl").replace("prefixes", "prefix_cache"));
    assert!(present.warnings.is_empty() && former.warnings.len() == 2);
    warning((2, 1, "gap", "target_itl"), &former.warnings[0]);
    warning((3, 1, "prefixes", "prefix_cache"), &former.warnings[1]);
    assert_eq!(present.target_itl, Some(Duration::from_millis(50)));
    assert_eq!(Settings { warnings: present.warnings.clone(), ..former }, present);
}

#[test]
fn every_former_key_is_tested_here() {
    let table: BTreeSet<&str> = keys().iter().flat_map(|set| set.keys).filter_map(|key| key.former_name).collect();
    let tested = RENAMED.iter().map(|(_, _, former, _)| *former).chain(["gap", "prefixes"]);
    assert_eq!(table, tested.collect());
}

#[test]
fn a_stored_catalog_with_former_keys_is_restored() {
    let catalog = over_shipped(FORMER);
    let restored = Catalog::restore(&catalog.sources().to_json(), None).unwrap();
    assert_eq!((restored.version(), restored.graphs()), (catalog.version(), catalog.graphs()));
}

#[test]
fn a_warning_is_marked_in_its_text() {
    let warnings = over_shipped("role: r\ndescription: D.\nmodel: smollm2\nprompt: P.\nclass: batch\n");
    let text = "own.yaml:5:1: warning: the key `class` is now `priority`\n  5 | class: batch\n    | ^^^^^\n  \
                help: write `priority`; `class` is read in this version only";
    assert_eq!(warnings.warnings().to_string(), text);
}

fn problems(text: &str) -> String {
    Catalog::parse(vec![shipped::sources(), vec![source(text)]]).unwrap_err().to_string()
}

const ROLE: &str = "role: r\ndescription: D.\nmodel: smollm2\nprompt: P.\n";

#[test]
fn both_names_of_a_key_at_once_are_an_error() {
    for keys in ["class: batch\npriority: batch\n", "priority: batch\nclass: batch\n"] {
        let text = problems(&format!("{ROLE}{keys}"));
        assert!(text.contains("`class` is the former name of `priority`, and both are given"), "{text}");
        assert!(text.contains("help: remove `class`") && !text.contains("warning"), "{text}");
    }
    let both = Settings::parse(&source("gap: 1s\ntarget_itl: 1s\n")).unwrap_err().to_string();
    assert!(both.contains("own.yaml:1:1: `gap` is the former name of `target_itl`"), "{both}");
}

#[test]
fn warnings_are_listed_beside_errors() {
    let text = problems(&format!("{ROLE}class: batch\nsamplng: {{}}\n"));
    assert!(text.contains("own.yaml:5:1: warning: ") && text.contains("own.yaml:6:1: unknown key `samplng`"), "{text}");
}

#[test]
fn a_misspelt_key_leads_to_the_present_name() {
    for (given, name) in [("prioritty: batch", "priority"), ("clas: batch", "priority")] {
        let text = problems(&format!("{ROLE}{given}\n"));
        assert!(text.contains(&format!("did you mean `{name}`?")), "{text}");
    }
}
