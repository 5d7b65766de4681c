//! The messages about invalid catalogs, as a person sees them.

use std::fs;
use std::path::{Path, PathBuf};

use artel_roles::{Catalog, Problems};

fn problems(dir: &Path) -> Problems {
    Catalog::load(Some(dir)).expect_err("the catalog is broken")
}

/// The report, with paths below the directory.
fn report(dir: &Path) -> String {
    problems(dir).to_string().replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), "DIR")
}

fn broken() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut dirs: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    dirs
}

#[test]
fn every_broken_catalog_is_reported_precisely() {
    let dirs = broken();
    assert!(dirs.len() >= 20, "there are {} broken catalogs", dirs.len());
    for dir in dirs {
        insta::assert_snapshot!(dir.file_name().unwrap().to_str().unwrap(), report(&dir));
    }
}

/// A catalog of one file that is not fit to be committed.
fn generated(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    report(dir.path())
}

#[test]
fn files_that_are_not_text_are_refused() {
    insta::assert_snapshot!("generated_binary", generated("junk.yaml", b"role: x\n\xc3\x28\x00\x01\x02"));
    insta::assert_snapshot!("generated_zero", generated("zero.yml", b"role: x\0\n"));
    insta::assert_snapshot!("generated_utf16", generated("wide.yaml", b"\xff\xfer\0o\0l\0e\0"));
}

#[test]
fn a_large_file_is_refused_by_its_size() {
    let role = b"role: x\ndescription: y\nmodel: smollm2\nprompt: |\n";
    let bytes = [role.as_slice(), b"  text text text text\n".repeat(500_000).as_slice()].concat();
    assert!(bytes.len() > 10_000_000);
    insta::assert_snapshot!("generated_large", generated("large.yaml", &bytes));
}

#[test]
fn nesting_deeper_than_any_stack_is_refused() {
    let bytes = format!("role: x\nexamples: {}", "[".repeat(500_000));
    insta::assert_snapshot!("generated_deep_flow", generated("deep.yaml", bytes.as_bytes()));
    let bytes = format!("role: x\nexamples:\n  {}", "- ".repeat(500_000));
    insta::assert_snapshot!("generated_deep_block", generated("deep.yaml", bytes.as_bytes()));
    let bytes = format!("role: x\ndescription: y\nmodel: smollm2\nprompt: '{{{{ {} }}}}'\n", "(".repeat(200_000));
    insta::assert_snapshot!("generated_deep_template", generated("deep.yaml", bytes.as_bytes()));
}

#[test]
fn many_problems_are_counted_but_not_all_listed() {
    let keys: String = (0..5000).map(|i| format!("k{i}: 1\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("many.yaml"), format!("role: x\ndescription: y\nmodel: smollm2\nprompt: z\n{keys}"))
        .unwrap();
    let problems = problems(dir.path());
    assert_eq!(problems.len() + problems.omitted(), 5000);
    assert_eq!(problems.len(), artel_roles::MAX_PROBLEMS);
    assert!(problems.to_string().ends_with("... and 4900 more"));
}

#[test]
fn anchors_inside_anchors_cost_no_more_than_the_budget() {
    let open: String = (0..50).map(|i| format!("&a{i} [")).collect();
    let bytes = format!("role: x\nexamples: {open}{}{}\n", "x,".repeat(150_000), "]".repeat(50));
    assert!(!generated("anchors.yaml", bytes.as_bytes()).is_empty());
}

#[test]
fn a_missing_directory_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(
        "generated_missing",
        report(&dir.path().join("nowhere")).replace(&dir.path().display().to_string(), "TMP")
    );
}
