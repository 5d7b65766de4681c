//! The picture of the crates in the book's page on internals, drawn from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::sources::root;

const PAGE: &str = "docs/book/src/internals.md";
const BEGIN: &str = "<!-- crates: begin -->\n";
const END: &str = "<!-- crates: end -->";

/// What these crates must not reach: they build and are tested without compiling C++.
const WITHOUT_LLAMA: [&str; 4] = ["artel-check", "artel-client", "artel-grpc", "artel-actors"];

/// The crates of the workspace.
struct Workspace {
    /// The directory of each crate, by name.
    dirs: BTreeMap<String, String>,
    /// What each crate names in `[dependencies]`.
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    fn read() -> Self {
        let root = root().unwrap();
        let arguments = ["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"];
        let output = Command::new(env!("CARGO")).args(arguments).current_dir(root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (mut dirs, mut uses) = (BTreeMap::new(), BTreeMap::new());
        for package in metadata["packages"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap().to_owned();
            let manifest = package["manifest_path"].as_str().unwrap();
            let dir = manifest.strip_prefix(&format!("{}/", root.display())).unwrap();
            dirs.insert(name.clone(), dir.trim_end_matches("/Cargo.toml").to_owned());
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            uses.insert(name, normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect());
        }
        Self { dirs, uses }
    }

    /// The crates of the workspace that a crate names.
    fn crates_of(&self, name: &str) -> Vec<&str> {
        self.uses[name].iter().map(String::as_str).filter(|used| self.dirs.contains_key(*used)).collect()
    }

    /// How many arrows lead from a crate down to one without any.
    fn level(&self, name: &str) -> usize {
        self.crates_of(name).into_iter().map(|used| self.level(used) + 1).max().unwrap_or(0)
    }

    /// Everything that a crate names, directly or by another crate of the workspace.
    fn reaches(&self, name: &str) -> BTreeSet<String> {
        let below = self.crates_of(name).into_iter().flat_map(|used| self.reaches(used));
        below.chain(self.uses[name].iter().cloned()).collect()
    }

    /// A line for each crate, the topmost first: its directory, and the crates that it uses.
    fn picture(&self) -> String {
        let short = |name: &str| name.strip_prefix("artel-").unwrap_or(name).to_owned();
        let width = self.dirs.values().map(String::len).max().unwrap_or(0);
        let top = self.dirs.keys().map(|name| self.level(name)).max().unwrap_or(0);
        let mut picture = String::from("```text\n");
        for level in (0..=top).rev() {
            for (name, dir) in self.dirs.iter().filter(|(name, _)| self.level(name) == level) {
                let used: Vec<String> = self.crates_of(name).into_iter().map(short).collect();
                let line =
                    format!("{level}  {dir:width$}  {} {}", if used.is_empty() { "" } else { "->" }, used.join(" "));
                writeln!(picture, "{}", line.trim_end()).unwrap();
            }
        }
        picture + "```\n"
    }
}

#[test]
fn the_page_on_internals_shows_the_crates_and_arrows_as_they_are() {
    let path = root().unwrap().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the mark before the picture");
    let (shown, after) = rest.split_once(END).expect("the page has the mark after the picture");
    let picture = Workspace::read().picture();
    if std::env::var_os("ARTEL_RECORD").is_some() {
        return std::fs::write(&path, format!("{before}{BEGIN}{picture}{END}{after}")).unwrap();
    }
    assert_eq!(shown, picture, "{PAGE} shows other crates: `ARTEL_RECORD=1 cargo test -p xtask` draws them anew");
}

#[test]
fn the_crates_behind_check_clients_and_grpc_reach_no_llama() {
    let workspace = Workspace::read();
    for name in WITHOUT_LLAMA {
        let reached = workspace.reaches(name);
        let llama: Vec<&String> = reached.iter().filter(|used| used.contains("llama")).collect();
        assert!(llama.is_empty(), "{name} reaches {llama:?}");
    }
    assert!(workspace.reaches("artel").contains("artel-llama"), "the walk finds what is there");
}

#[test]
fn nothing_that_serves_contains_the_bench_or_the_failpoints() {
    let reached = Workspace::read().reaches("artel");
    assert!(!reached.contains("artel-bench") && !reached.contains("artel-failpoints"), "{reached:?}");
}
