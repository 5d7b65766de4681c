//! The keys and defaults in the README are those of the decoder.

use std::fs;
use std::path::Path;

use artel_roles::{Catalog, Sampling};

const SHORT: &str = "role: short\ndescription: D.\nmodel: few\nprompt: P.\n---\nmodel: few\nfile: few.gguf\n";

#[test]
fn every_key_is_listed_with_its_default() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, rest) = readme.split_once("### Every key").unwrap();
    let yaml = rest.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keys.yaml"), yaml).unwrap();
    fs::write(dir.path().join("short.yaml"), SHORT).unwrap();
    let catalog = Catalog::load(Some(dir.path())).unwrap_or_else(|problems| panic!("{problems}"));
    let (explicit, minimal) = (catalog.role("sailor").unwrap(), catalog.role("short").unwrap());
    let seedless = Sampling { seed: None, ..explicit.sampling.clone() };
    assert_eq!((seedless, explicit.limits), (minimal.sampling.clone(), minimal.limits));
    assert_eq!((explicit.overflow, explicit.priority), (minimal.overflow, minimal.priority));
    assert_eq!(explicit.adapter.as_ref().unwrap().scale, 1.0);
    let (explicit, minimal) = (catalog.model("talker").unwrap(), catalog.model("few").unwrap());
    assert_eq!(
        (explicit.purpose, explicit.sequences, explicit.cache),
        (minimal.purpose, minimal.sequences, minimal.cache)
    );
    assert_eq!(
        (explicit.weights, explicit.speculation, explicit.placement.split),
        (minimal.weights, minimal.speculation, minimal.placement.split)
    );
}
