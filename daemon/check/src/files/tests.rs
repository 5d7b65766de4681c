//! Files of adapters that are something else, and names that are.

use std::fs;

use artel_roles::YamlSource;

use super::*;

/// A GGUF file without tensors, with these texts as its metadata and these numbers (type 2, of 16 bits).
fn gguf(texts: &[(&str, &str)], numbers: &[(&str, u16)]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let count = (texts.len() + numbers.len()) as u64;
    let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &count.to_le_bytes()].concat();
    for (key, text) in texts {
        bytes.extend([string(key), 8u32.to_le_bytes().to_vec(), string(text)].concat());
    }
    for (key, number) in numbers {
        bytes.extend([string(key), 2u32.to_le_bytes().to_vec(), number.to_le_bytes().to_vec()].concat());
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

/// What is wrong with the adapter `tuning`, whose file has these bytes.
fn problem(bytes: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tuning.gguf"), bytes).unwrap();
    let catalog = catalog("adapter: tuning\nfile: tuning.gguf\n", dir.path());
    named_adapter(catalog.adapter("tuning").unwrap(), dir.path()).err().map(|problem| problem.to_string())
}

fn catalog(text: &str, dir: &Path) -> Catalog {
    let source = YamlSource { path: "own.yaml".to_owned(), dir: Some(dir.to_owned()), text: text.to_owned() };
    Catalog::parse(vec![artel_roles::shipped::sources(), vec![source]]).unwrap_or_else(|problems| panic!("{problems}"))
}

const LLAMA: (&str, &str) = ("general.architecture", "llama");

#[test]
fn only_an_adapter_is_an_adapter() {
    let adapter = ("general.type", "adapter");
    assert_eq!(problem(&gguf(&[LLAMA, adapter], &[])), None);
    let model = problem(&gguf(&[LLAMA, ("general.type", "model")], &[])).unwrap();
    assert!(model.contains("tuning.gguf: not an adapter: ") && model.contains("architecture `llama`"), "{model}");
    // A piece of a model under the name of a whole file.
    let piece = problem(&gguf(&[LLAMA], &[("split.count", 3), ("split.no", 1)])).unwrap();
    assert!(piece.contains("not an adapter"), "{piece}");
    let part = problem(&gguf(&[LLAMA, adapter], &[("split.count", 3), ("split.no", 1)])).unwrap();
    assert!(part.contains("an adapter is one file, and this is a piece of one"), "{part}");
    let text = problem(b"text").unwrap();
    assert!(text.contains("not a GGUF file"), "{text}");
}

#[test]
fn a_text_that_names_something_else_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = "model: engine\nfile: engine.gguf\n---\nadapter: tuning\nfile: tuning.gguf\n---\n\
                role: r\ndescription: D.\nmodel: engine\nadapter: engine\nprompt: P.\n";
    let catalog = catalog(text, dir.path());
    let role = catalog.role("r").unwrap();
    let problem = adapter(role, &role.adapters[0], &catalog, dir.path()).unwrap_err().to_string();
    let expected = format!(
        "no such file: {}; and there is no adapter `engine`, but a model (own.yaml:1) of this name",
        dir.path().join("engine").display()
    );
    assert_eq!(problem, expected);
}
