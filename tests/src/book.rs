//! The commands of the book and of README, run as a reader would run them.
//!
//! A page's `sh` blocks are one shell session, in an empty home directory with the demo models where `cargo xtask demo`
//! puts them. A `yaml` block whose first line is a comment with a path is that file. `artel serve` goes to the background
//! and listens on a free port, which the commands after it use. A block that cannot run here says why in its tag:
//! `sh,skip-REASON`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::prerequisites::{artel, models};

/// Why a block is not run, by the word in its tag.
pub const REASONS: [(&str, &str); 5] = [
    ("gpu", "needs a GPU, or a build for one"),
    ("hub", "needs the Hugging Face hub"),
    ("machines", "needs a second machine"),
    ("setup", "installs or builds for minutes; CI runs it as a stage of its own"),
    ("peer", "needs another program to compare with"),
];

/// One fenced block of a page.
pub struct Block {
    /// The word after the fence, such as `sh` or `yaml`.
    pub language: String,
    /// The reason of `skip-REASON`, if it has that tag.
    pub skip: Option<String>,
    /// Its lines.
    pub text: String,
}

impl Block {
    /// The path that the first line of a YAML block names.
    fn file(&self) -> Option<&str> {
        let path = self.text.lines().next()?.strip_prefix("# ")?.trim();
        let is_path = (path.ends_with(".yaml") || path.ends_with(".yml")) && !path.contains(' ');
        (self.language == "yaml" && is_path).then_some(path)
    }

    fn runs(&self) -> bool {
        self.language == "sh" && self.skip.is_none()
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page, by its path from the repository's root: README and the book.
pub fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md")];
    let mut dirs = vec![PathBuf::from("docs/book/src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The fenced blocks of a page, in their order.
pub fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let mut words = info.split(',').map(str::trim);
                let language = words.next().unwrap_or_default().to_owned();
                let skip = words.find_map(|word| word.strip_prefix("skip-")).map(str::to_owned);
                open = Some(Block { language, skip, text: String::new() });
            }
            (None, Some(block)) => writeln!(block.text, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a fence is not closed", page.display());
    blocks
}

/// How many blocks of commands run, and how many are skipped for each reason.
pub fn count() -> (usize, BTreeMap<String, usize>) {
    let all: Vec<Block> = pages().iter().flat_map(|page| blocks(page)).filter(|block| block.language == "sh").collect();
    let mut skipped = BTreeMap::new();
    for reason in all.iter().filter_map(|block| block.skip.clone()) {
        *skipped.entry(reason).or_insert(0) += 1;
    }
    (all.iter().filter(|block| block.runs()).count(), skipped)
}

/// The shell session of a page: files are written and commands run in the page's order.
fn script(page: &Path) -> String {
    let mut script = include_str!("book.sh").to_owned();
    for block in blocks(page) {
        if let Some(file) = block.file() {
            let file = file.strip_prefix("~/").map_or_else(|| file.to_owned(), |rest| format!("$HOME/{rest}"));
            write!(
                script,
                "mkdir -p \"$(dirname \"{file}\")\"\ncat > \"{file}\" <<'END_OF_FILE'\n{}END_OF_FILE\n",
                block.text
            )
            .unwrap();
        } else if block.runs() {
            writeln!(script, "{}", block.text).unwrap();
        }
    }
    script
}

/// Runs the commands of a page and gives what the shell said, or nothing if the page has none.
pub fn run(page: &Path) -> Option<Output> {
    blocks(page).iter().any(Block::runs).then(|| {
        let home = TempDir::new().unwrap();
        fs::create_dir_all(home.path().join(".cache/artel")).unwrap();
        std::os::unix::fs::symlink(models(), home.path().join(".cache/artel/models")).unwrap();
        // What a page says of the repository, such as an example's directory, is found from where the reader stands.
        std::os::unix::fs::symlink(root().join("docs").canonicalize().unwrap(), home.path().join("docs")).unwrap();
        std::os::unix::fs::symlink(root().join("tests").canonicalize().unwrap(), home.path().join("tests")).unwrap();
        let program = artel().canonicalize().unwrap();
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let file = home.path().join("page.sh");
        fs::write(&file, script(page)).unwrap();
        let mut command = Command::new("bash");
        command.arg(&file).current_dir(home.path()).env("HOME", home.path()).env("PATH", path);
        for name in [
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "ARTEL_ADDRESS",
            "ARTEL_CONFIG",
            "ARTEL_DATA",
            "ARTEL_TOKEN",
            "ARTEL_TOKEN_FILE",
        ] {
            command.env_remove(name);
        }
        command.output().unwrap()
    })
}
