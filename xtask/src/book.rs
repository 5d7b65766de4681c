//! `cargo xtask book`: builds the book.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;
use crate::tools::{self, MDBOOK};

/// Builds `docs/book` into the cache and says where it is. A page that SUMMARY.md does not list is an error: mdBook
/// leaves it out without a word.
pub(crate) fn run(cache: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/book");
    let listed = std::fs::read_to_string(source.join("src/SUMMARY.md"))?;
    let pages = pages(&source.join("src"))?;
    let missing: Vec<_> = pages.iter().filter(|page| !listed.contains(&format!("({page})"))).collect();
    if !missing.is_empty() {
        bail!("docs/book/src/SUMMARY.md does not list {missing:?}");
    }
    let target = cache.join("book");
    shell::run(Command::new(tools::get(cache, &MDBOOK)?).arg("build").arg(&source).arg("--dest-dir").arg(&target))?;
    eprintln!("xtask: the book has {} pages: {}", pages.len(), target.join("index.html").display());
    Ok(())
}

/// The Markdown files below a directory, by their paths from it, without SUMMARY.md.
fn pages(root: &Path) -> Result<Vec<String>> {
    let mut pages = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let page = path.strip_prefix(root)?.to_string_lossy().into_owned();
                pages.push(page);
            }
        }
    }
    pages.retain(|page| page != "SUMMARY.md");
    Ok(pages)
}
