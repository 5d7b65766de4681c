//! `cargo xtask structure`: the rules of size and direction that a program can check.
//!
//! A file imports another one if it names an item that is defined there, by `use` or by path; `pub use` and `mod` do not
//! count, and neither do tests. A circle is a set of files of a crate that import each other, directly or not.

mod circles;
mod tokens;

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::sources::{self, SourceFile};
use circles::circles;
use tokens::{Modules, Tokens, untyped_errors};

/// So that a crate can be read in a day.
const MAX_CRATE_LINES: usize = 8000;
/// So that a file has one subject.
const MAX_FILE_LINES: usize = 600;
/// Results whose error is a text, which nothing above them can tell apart.
const MAX_UNTYPED_ERRORS: usize = 10;

/// Checks every crate; prints the figures.
pub(crate) fn run() -> Result<()> {
    let files = sources::read()?;
    let mut broken = Vec::new();
    let (largest, lines) = crate_lines(&files).into_iter().max_by_key(|(_, lines)| *lines).unwrap_or_default();
    if lines > MAX_CRATE_LINES {
        broken.push(format!("the crate in {largest} has {lines} lines: split it by what depends on what"));
    }
    let file_lines = files.iter().map(|file| (file.path.as_str(), file.text.lines().count()));
    let (longest, file_lines) = file_lines.max_by_key(|(_, lines)| *lines).unwrap_or_default();
    if file_lines > MAX_FILE_LINES {
        broken.push(format!("{longest} has {file_lines} lines: a new noun gets a file of its own"));
    }
    let parsed = parse(&files)?;
    let (mut circle_count, mut untyped_count) = (0, 0);
    for (dir, modules) in &parsed {
        for circle in circles(modules) {
            circle_count += 1;
            broken.push(format!("{dir}: these files import each other: {circle}"));
        }
        for (module, tokens) in modules {
            let count = untyped_errors(tokens);
            untyped_count += count;
            if count > 0 {
                println!("{dir} {}: {count} of Result<_, String>", circles::name(module));
            }
        }
    }
    if untyped_count > MAX_UNTYPED_ERRORS {
        broken.push(format!("{untyped_count} results have a text as their error: give them an enum"));
    }
    println!(
        "the largest crate has {lines} lines ({largest}, at most {MAX_CRATE_LINES}), the largest file {file_lines} \
         ({longest}, at most {MAX_FILE_LINES}); {circle_count} import circles (at most 0), {untyped_count} results with \
         a text as error (at most {MAX_UNTYPED_ERRORS})"
    );
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// The crates by directory, each with its modules that are not for tests.
fn parse(files: &[SourceFile]) -> Result<BTreeMap<String, Modules>> {
    let mut crates: BTreeMap<String, Modules> = BTreeMap::new();
    for file in files {
        let Some((dir, module)) = place(&file.path) else { continue };
        if module.iter().any(|part| part == "tests") {
            continue;
        }
        let modules = crates.entry(dir.to_owned()).or_default();
        // A crate with a library and a binary: the library is the root, and comes first.
        if module.is_empty() && modules.contains_key(&module) {
            continue;
        }
        modules.insert(module, Tokens::parse(&file.text, &file.path)?);
    }
    Ok(crates)
}

/// The crate's directory and the module's path of a source file; `None` for what lies outside of `src`.
fn place(path: &str) -> Option<(&str, Vec<String>)> {
    let (dir, file) = path.split_once("/src/")?;
    let parts: Vec<String> = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    let is_root = matches!(parts.as_slice(), [one] if one == "lib" || one == "main");
    Some((dir, if is_root { Vec::new() } else { parts }))
}

/// The lines of each crate's `src`, tests among them.
fn crate_lines(files: &[SourceFile]) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for file in files {
        if let Some((dir, _)) = file.path.split_once("/src/") {
            *lines.entry(dir).or_default() += file.text.lines().count();
        }
    }
    lines
}
