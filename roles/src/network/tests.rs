//! Every key has a reach, and what reaches out of a client's document is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::{Catalog, CheckDeadline, Problems, YamlSource, keys};

#[test]
fn every_key_has_a_reach() {
    let all = keys().iter().flat_map(|set| set.keys.iter().map(move |key| (set.name, key.name)));
    let without: Vec<_> = all.filter(|(set, key)| reach(set, key).is_none()).collect();
    assert!(without.is_empty(), "give each of these keys a reach, in network.rs: {without:?}");
}

#[test]
fn a_key_that_names_a_file_in_its_description_reaches_a_file() {
    for set in keys().iter().filter(|set| set.page != "settings") {
        for key in set.keys {
            let names_files = key.description.contains("GGUF file") || key.description.contains("`hf:`");
            assert_eq!(names_files, reach(set.name, key.name) == Some(KeyReach::File), "{}.{}", set.name, key.name);
        }
    }
}

#[test]
fn an_unknown_key_is_refused() {
    let dir = TempDir::new().unwrap();
    let value = YamlNode { span: Default::default(), value: YamlValue::Null };
    assert_eq!(rules(&dir).check("webhook", "url", &value, dir.path()), Err(NetworkRefusal::Key));
    assert_eq!(rules(&dir).check("settings", "models", &value, dir.path()), Err(NetworkRefusal::Key));
}

/// The directories `models`, `catalog`, `shared` and `secret`, each with the file `m.gguf`; `shared` is allowed by the settings.
fn directories() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in ["models", "catalog", "shared", "secret"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("m.gguf"), "root:$6$salt").unwrap();
    }
    dir
}

fn rules(dir: &TempDir) -> NetworkRules {
    let [models, catalog, shared] = ["models", "catalog", "shared"].map(|name| dir.path().join(name));
    NetworkRules::new(models, Some(catalog), vec![shared], Vec::new())
}

/// The catalog of one document of a client, in the catalog's directory.
fn parse(yaml: &str, dir: &TempDir, rules: &NetworkRules) -> Result<Catalog, Problems> {
    let source = YamlSource {
        path: "roles/x.yaml".to_owned(),
        dir: Some(dir.path().join("catalog/roles")),
        text: yaml.to_owned(),
    };
    Catalog::parse_from_client(vec![source], rules, &CheckDeadline::after(Duration::from_secs(600)))
}

fn model(file: &Path) -> String {
    format!("model: m\nfile: {}\n", file.display())
}

#[track_caller]
fn assert_refused(yaml: &str, dir: &TempDir) -> String {
    let problems = parse(yaml, dir, &rules(dir)).expect_err(yaml);
    assert!(problems.iter().all(|problem| problem.is_refusal), "{problems}");
    assert!(!problems.to_string().contains("salt"), "{problems}");
    problems.to_string()
}

#[test]
fn files_of_the_allowed_directories_are_allowed_whether_they_exist_or_not() {
    let dir = directories();
    for name in ["m.gguf", "gone.gguf", "sub/gone.gguf"] {
        for file in
            [Path::new(name).to_owned(), dir.path().join("models").join(name), dir.path().join("shared").join(name)]
        {
            parse(&model(&file), &dir, &rules(&dir)).unwrap();
        }
    }
    symlink(dir.path().join("models"), dir.path().join("link")).unwrap();
    parse(&model(&dir.path().join("link/m.gguf")), &dir, &rules(&dir)).unwrap();
    let other_root = NetworkRules::new(dir.path().join("link"), None, Vec::new(), Vec::new());
    parse(&model(&dir.path().join("models/m.gguf")), &dir, &other_root).unwrap();
}

#[test]
fn another_file_is_refused_in_the_same_words_whether_it_exists_or_not() {
    let dir = directories();
    let refused =
        |name: &str| assert_refused(&model(&dir.path().join("secret").join(name)), &dir).replace(name, "NAME");
    let message = refused("m.gguf");
    assert_eq!(message, refused("n.gguf"));
    for part in ["roles/x.yaml:2:7", "`file` of model `m`", "network: {files: [DIR]}"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    for name in ["../../secret/m.gguf", "../../secret/n.gguf", "../models/m.gguf"] {
        assert_refused(&model(Path::new(name)), &dir);
    }
    let adapter = |value: String| format!("role: r\ndescription: D.\nmodel: smollm2\nprompt: P.\nadapter: {value}\n");
    let secret = dir.path().join("secret/m.gguf");
    assert_refused(&adapter(secret.display().to_string()), &dir);
    let message = assert_refused(&adapter(format!("{{file: {}, scale: 2}}", secret.display())), &dir);
    assert!(message.contains("roles/x.yaml:5:"), "{message}");
}

#[test]
fn a_link_that_leads_out_of_an_allowed_directory_is_refused() {
    let dir = directories();
    let models = dir.path().join("models");
    symlink(dir.path().join("secret/m.gguf"), models.join("file.gguf")).unwrap();
    symlink(dir.path().join("secret/gone.gguf"), models.join("dangling.gguf")).unwrap();
    symlink(dir.path().join("secret"), models.join("dir")).unwrap();
    symlink(models.join("loop.gguf"), models.join("loop.gguf")).unwrap();
    for name in ["file.gguf", "dangling.gguf", "dir/m.gguf", "dir/gone.gguf", "loop.gguf"] {
        assert_refused(&model(Path::new(name)), &dir);
        assert_refused(&model(&models.join(name)), &dir);
    }
}

#[test]
fn a_file_of_a_hub_is_allowed_once_it_is_fetched_or_if_the_settings_list_the_hub() {
    let dir = directories();
    let yaml = "model: m\nfile: hf:org/repo/q4/m.gguf\n";
    let message = assert_refused(yaml, &dir);
    assert!(message.contains("network: {hubs: [hf]}"), "{message}");
    let open = NetworkRules::new(dir.path().join("models"), None, Vec::new(), vec![ModelHub::HuggingFace]);
    parse(yaml, &dir, &open).unwrap();
    let fetched = dir.path().join("models/hf/org/repo/main/q4");
    fs::create_dir_all(&fetched).unwrap();
    symlink(dir.path().join("secret/m.gguf"), fetched.join("m.gguf")).unwrap();
    assert_refused(yaml, &dir);
    fs::remove_file(fetched.join("m.gguf")).unwrap();
    fs::write(fetched.join("m.gguf"), "GGUF").unwrap();
    parse(yaml, &dir, &rules(&dir)).unwrap();
}

#[test]
fn documents_of_the_daemons_own_disk_may_name_any_file() {
    let dir = directories();
    let text = model(&dir.path().join("secret/m.gguf"));
    let source = YamlSource { path: "x.yaml".to_owned(), dir: Some(dir.path().join("catalog")), text };
    Catalog::parse(vec![crate::shipped::sources(), vec![source]]).unwrap();
}

#[test]
fn a_stored_catalog_is_checked_again_if_a_client_sent_it() {
    let dir = directories();
    let text = model(&dir.path().join("shared/m.gguf"));
    let stored = parse(&text, &dir, &rules(&dir)).unwrap().sources().to_json();
    Catalog::restore(&stored, Some(&rules(&dir))).unwrap();
    let tightened = NetworkRules::new(dir.path().join("models"), None, Vec::new(), Vec::new());
    let problems = Catalog::restore(&stored, Some(&tightened)).unwrap_err();
    assert!(problems.iter().all(|problem| problem.is_refusal), "{problems}");
    assert!(problems.to_string().contains("`file` of model `m`"), "{problems}");
    // What the daemon read from its own disk is the owner's.
    let source = YamlSource { path: "x.yaml".to_owned(), dir: Some(dir.path().join("catalog")), text };
    let own = Catalog::parse(vec![crate::shipped::sources(), vec![source]]).unwrap();
    Catalog::restore(&own.sources().to_json(), Some(&tightened)).unwrap();
}

#[test]
fn a_link_that_leads_out_is_refused_in_any_piece() {
    let dir = directories();
    let named = dir.path().join("models/big-00001-of-00002.gguf");
    let other = dir.path().join("models/big-00002-of-00002.gguf");
    fs::write(&named, "GGUF").unwrap();
    parse(&model(&named), &dir, &rules(&dir)).unwrap();
    symlink(dir.path().join("secret/m.gguf"), &other).unwrap();
    assert_refused(&model(&named), &dir);
    assert_refused(&model(&other), &dir);
}

#[test]
fn a_model_in_pieces_from_a_hub_is_allowed_once_all_are_here() {
    let dir = directories();
    let place = dir.path().join("models/hf/org/big/main");
    fs::create_dir_all(&place).unwrap();
    let yaml = model(Path::new("hf:org/big/m-00002-of-00002.gguf"));
    fs::write(place.join("m-00001-of-00002.gguf"), "GGUF").unwrap();
    assert_refused(&yaml, &dir);
    fs::write(place.join("m-00002-of-00002.gguf"), "GGUF").unwrap();
    parse(&yaml, &dir, &rules(&dir)).unwrap();
}
