//! Adapters as documents, and how roles name them.

use std::path::{Path, PathBuf};

use artel_model::PieceHashes;
use artel_roles::{Adapter, Catalog, DefinitionKind, Role, YamlSource, shipped};

const ADAPTERS: &str = "adapter: sailor-lora\ndescription: Talks like a sailor.\nfile: lora/sailor.gguf\nscale: 0.5\n\
                        version: 2 of May\nsha256: ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB\n---\n\
                        adapter: terse\nfile: hf:org/lora/terse.gguf\n";

fn parse(text: &str) -> Result<Catalog, String> {
    let own = YamlSource { path: "own.yaml".to_owned(), dir: Some("/etc/crew/roles".into()), text: text.to_owned() };
    let adapters =
        YamlSource { path: "a.yaml".to_owned(), dir: Some("/etc/crew/adapters".into()), text: ADAPTERS.to_owned() };
    Catalog::parse(vec![shipped::sources(), vec![own, adapters]]).map_err(|problems| problems.to_string())
}

/// The catalog with a role whose `adapter` is this.
fn with_role(adapter: &str) -> Catalog {
    let role = format!("role: r\ndescription: D.\nmodel: smollm2\nadapter: {adapter}\nprompt: P.\n");
    parse(&role).unwrap_or_else(|problems| panic!("{problems}"))
}

fn role(catalog: &Catalog) -> &Role {
    catalog.role("r").unwrap()
}

/// The name and the scale of each adapter of a role.
fn named(catalog: &Catalog) -> Vec<(Option<String>, f32)> {
    let named = |adapter: &Adapter| (adapter.name.as_ref().map(ToString::to_string), adapter.scale);
    role(catalog).adapters.iter().map(named).collect()
}

/// An adapter that is found by its name.
fn by_name(name: &str, scale: f32) -> (Option<String>, f32) {
    (Some(name.to_owned()), scale)
}

#[test]
fn an_adapter_is_a_document_that_no_role_needs_to_use() {
    let catalog = parse("").unwrap();
    let sailor = catalog.adapter("sailor-lora").unwrap();
    assert_eq!(sailor.scale, 0.5);
    assert_eq!(
        (sailor.version.as_deref(), sailor.description.as_deref()),
        (Some("2 of May"), Some("Talks like a sailor."))
    );
    assert_eq!(sailor.sha256, PieceHashes::new(vec!["ab".repeat(32)]));
    let places = ["/etc/crew/adapters/lora/sailor.gguf", "/models/lora/sailor.gguf"].map(PathBuf::from);
    assert_eq!(sailor.candidates(Path::new("/models")), places);
    assert_eq!(catalog.adapters().len(), 2);
    let definition = catalog.definition(DefinitionKind::Adapter, "sailor-lora").unwrap();
    assert_eq!((definition.description.as_deref(), definition.line), (Some("Talks like a sailor."), 1));
    assert!(definition.uses.is_empty());
}

#[test]
fn a_role_names_an_adapter_with_or_without_a_scale() {
    assert_eq!(named(&with_role("sailor-lora")), [by_name("sailor-lora", 0.5)]);
    assert_eq!(named(&with_role("{adapter: sailor-lora}")), [by_name("sailor-lora", 0.5)]);
    assert_eq!(named(&with_role("{adapter: sailor-lora, scale: -2}")), [by_name("sailor-lora", -2.0)]);
    let catalog = with_role("sailor-lora");
    assert_eq!(role(&catalog).adapters[0].sha256, PieceHashes::new(vec!["ab".repeat(32)]));
    let uses = &catalog.definition(DefinitionKind::Role, "r").unwrap().uses;
    let used = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(*uses, [used(DefinitionKind::Model, "smollm2"), used(DefinitionKind::Adapter, "sailor-lora")]);
}

#[test]
fn a_text_that_is_no_name_of_an_adapter_is_a_path() {
    for (text, missing) in [
        ("sailor", Some("sailor")),
        ("sailor-lora.gguf", None),
        ("lora/sailor-lora", None),
        ("{file: sailor-lora}", Some("sailor-lora")),
    ] {
        let catalog = with_role(text);
        assert_eq!(named(&catalog), [(None, 1.0)], "{text}");
        let adapter = &role(&catalog).adapters[0];
        assert_eq!(adapter.missing_name(), missing, "{text}");
        let place = adapter.candidates(Path::new("/models"));
        assert!(place[0].starts_with("/etc/crew/roles"), "{text}: {place:?}");
        assert!(adapter.homonyms(Path::new("/models")).is_empty(), "{text}");
    }
}

#[test]
fn a_plain_name_might_be_that_of_a_file_and_a_name_in_a_map_is_none() {
    let catalog = with_role("terse");
    let homonyms = role(&catalog).adapters[0].homonyms(Path::new("/models"));
    assert_eq!(homonyms, ["/etc/crew/roles/terse", "/models/terse"].map(PathBuf::from));
    let catalog = with_role("{adapter: terse}");
    assert!(role(&catalog).adapters[0].homonyms(Path::new("/models")).is_empty());
}

#[test]
fn a_role_has_several_adapters_at_once() {
    let catalog = with_role("[sailor-lora, {adapter: terse, scale: 2}, own.gguf, {file: sub/own.gguf, scale: 0.25}]");
    assert_eq!(named(&catalog), [by_name("sailor-lora", 0.5), by_name("terse", 2.0), (None, 1.0), (None, 0.25)]);
    let uses = &catalog.definition(DefinitionKind::Role, "r").unwrap().uses;
    assert_eq!(uses.iter().filter(|(kind, _)| *kind == DefinitionKind::Adapter).count(), 2);
}

#[test]
fn an_adapter_that_cannot_be_read_is_reported_once() {
    let problems =
        parse("adapter: torn\nfile: 5\n---\nrole: r\ndescription: D.\nmodel: smollm2\nadapter: torn\nprompt: P.\n");
    let problems = problems.unwrap_err();
    assert_eq!(problems.matches("own.yaml:").count(), 1, "{problems}");
}
