//! What the README says of YAML is so.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use artel_roles::{Catalog, Sampling};

const SHORT: &str = "role: short\ndescription: D.\nmodel: few\nprompt: P.\n---\nmodel: few\nfile: few.gguf\n";

#[test]
fn every_key_stands_there_with_what_holds_without_it() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, rest) = readme.split_once("### Every key").unwrap();
    let yaml = rest.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keys.yaml"), yaml).unwrap();
    fs::write(dir.path().join("short.yaml"), SHORT).unwrap();
    let catalog = Catalog::load(Some(dir.path())).unwrap_or_else(|problems| panic!("{problems}"));
    let (told, silent) = (catalog.role("sailor").unwrap(), catalog.role("short").unwrap());
    let seedless = Sampling { seed: None, ..told.sampling.clone() };
    assert_eq!((seedless, told.limits), (silent.sampling.clone(), silent.limits));
    assert_eq!((told.overflow, told.class), (silent.overflow, silent.class));
    assert_eq!(told.adapter.as_ref().unwrap().scale, 1.0);
    let (told, silent) = (catalog.model("talker").unwrap(), catalog.model("few").unwrap());
    assert_eq!((told.use_, told.sequences, told.cache), (silent.use_, silent.sequences, silent.cache));
    assert_eq!(
        (told.weights, told.speculation, told.pins.split),
        (silent.weights, silent.speculation, silent.pins.split)
    );
}
