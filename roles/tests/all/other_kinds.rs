//! Names that are those of another kind than the one that is needed: the message says what they are, and where.

use artel_roles::{Catalog, DefinitionKind, Severity, YamlSource, shipped};

/// One definition of each kind.
const DEFINITIONS: &str = "model: engine\nfile: engine.gguf\n---\nadapter: tuning\nfile: tuning.gguf\n---\n\
                           role: helper\ndescription: D.\nmodel: engine\nprompt: P.\n---\n\
                           graph: story\ndescription: D.\nstart: a\nnodes:\n  a: {role: helper, next: done}\n---\n\
                           router: scores\nsignals:\n  embedding: {weight: 1}\n";

fn parse(text: &str) -> Result<Catalog, String> {
    let source = |path: &str, text: &str| YamlSource {
        path: path.to_owned(),
        dir: Some("/etc/crew".into()),
        text: text.to_owned(),
    };
    let own = vec![source("all.yaml", DEFINITIONS), source("own.yaml", text)];
    Catalog::parse(vec![shipped::sources(), own]).map_err(|problems| problems.to_string())
}

fn role_with(line: &str) -> String {
    format!("role: r\ndescription: D.\nmodel: engine\n{line}\nprompt: P.\n")
}

fn node(line: &str) -> String {
    format!("graph: g\ndescription: D.\nstart: a\nnodes:\n  a: {{{line}, next: done}}\n")
}

#[test]
fn a_name_of_another_kind_is_told_as_what_it_is() {
    parse("").unwrap();
    for (text, message, hint) in [
        (
            role_with("adapter: {adapter: engine}"),
            "own.yaml:4:20: there is no adapter `engine`, but a model (all.yaml:1) of this name",
            "the adapters are `tuning`",
        ),
        (
            role_with("adapter: {adapter: story}"),
            "there is no adapter `story`, but a graph (all.yaml:12) of this name",
            "the adapters are `tuning`",
        ),
        (
            role_with("adapter: {adapter: helper}"),
            "there is no adapter `helper`, but a role (all.yaml:7) of this name",
            "the adapters are `tuning`",
        ),
        (
            "role: r\ndescription: D.\nmodel: tuning\nprompt: P.\n".to_owned(),
            "own.yaml:3:8: there is no model `tuning`, but an adapter (all.yaml:4) of this name",
            "the models are `engine`, `minilm` and `smollm2`",
        ),
        (
            node("role: story"),
            "there is no role `story`, but a graph (all.yaml:12) of this name",
            "the roles are `critic`, `deepspeed`, `gguf`, `gpu`, `helper`, `librarian`, `lora`, `pathfinder` and 3 more",
        ),
        (
            node("graph: helper"),
            "there is no graph `helper`, but a role (all.yaml:7) of this name",
            "the graphs are `council`, `g`, `library`, `mentor`, `path` and `story`",
        ),
        (
            node("router: {roles: [helper], settings: helper}"),
            "there is no router `helper`, but a role (all.yaml:7) of this name",
            "the routers are `default` and `scores`",
        ),
        (
            "router: own\nsignals:\n  label: {model: helper}\n".to_owned(),
            "own.yaml:3:18: there is no model `helper`, but a role (all.yaml:7) of this name",
            "the models are `engine`, `minilm` and `smollm2`",
        ),
    ] {
        let problems = parse(&text).unwrap_err();
        assert!(problems.contains(message) && problems.contains(hint), "{message}: {problems}");
    }
}

#[test]
fn several_things_of_a_name_are_all_told_and_a_near_name_is_meant() {
    let text = "model: tunin\nfile: m.gguf\n---\ngraph: tunin\ndescription: D.\nstart: a\nnodes:\n  \
                a: {role: helper, next: done}\n---\n"
        .to_owned()
        + &role_with("adapter: {adapter: tunin}");
    let problems = parse(&text).unwrap_err();
    let message = "there is no adapter `tunin`, but a model (own.yaml:1) and a graph (own.yaml:4) of this name";
    assert!(problems.contains(message) && problems.contains("did you mean `tuning`?"), "{problems}");
}

#[test]
fn a_plain_text_that_is_a_name_of_another_kind_is_a_path_with_a_warning() {
    let catalog = parse(&role_with("adapter: engine")).unwrap();
    let warnings: Vec<_> = catalog.warnings().iter().collect();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!((warning.severity, warning.line, warning.column), (Severity::Warning, 4, 10));
    let message =
        "there is no adapter `engine`, but a model (all.yaml:1) of this name, and so this is the path of a file";
    assert_eq!(warning.message, message);
    let hint = "for a file of this name, write `{file: engine}`; the adapters are `tuning`";
    assert_eq!(warning.hint.as_deref(), Some(hint));
    assert_eq!(catalog.role("r").unwrap().adapters[0].missing_name(), Some("engine"));
    for silent in ["adapter: {file: engine}", "adapter: engine.gguf", "adapter: some/engine", "adapter: unheard"] {
        assert_eq!(parse(&role_with(silent)).unwrap().warnings().iter().count(), 0, "{silent}");
    }
}

#[test]
fn a_catalog_says_what_else_has_a_name() {
    let catalog = parse("").unwrap();
    assert_eq!(catalog.other_kinds("engine", &[DefinitionKind::Adapter]).as_deref(), Some("a model (all.yaml:1)"));
    assert_eq!(catalog.other_kinds("engine", &[DefinitionKind::Model]), None);
    assert_eq!(catalog.other_kinds("unheard", &[]), None);
}
