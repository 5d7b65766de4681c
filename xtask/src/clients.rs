//! The packages of programs that speak OpenAI's API, for the tests of the daemon's front.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{venv, web};

/// Packages for Python and for Node.js in a directory of their own, with the version of each.
struct PackageSet {
    /// The directory below the cache.
    name: &'static str,
    /// A file of pip, with each package that is installed.
    requirements: &'static str,
    /// The files of npm.
    manifest: &'static str,
    lock: &'static str,
}

/// OpenAI's own packages, which take seconds: a part of every test run.
const OPENAI: PackageSet = PackageSet {
    name: "clients-openai",
    requirements: include_str!("../../tests/scripts/openai/requirements.txt"),
    manifest: include_str!("../../tests/scripts/openai/package.json"),
    lock: include_str!("../../tests/scripts/openai/package-lock.json"),
};
/// LangChain, its Qdrant, LangGraph, LiteLLM and the AI SDK: most of a minute, and half a gigabyte.
const FRAMEWORKS: PackageSet = PackageSet {
    name: "clients-frameworks",
    requirements: include_str!("../../tests/scripts/openai/frameworks/requirements.txt"),
    manifest: include_str!("../../tests/scripts/openai/frameworks/package.json"),
    lock: include_str!("../../tests/scripts/openai/frameworks/package-lock.json"),
};

impl PackageSet {
    fn install(&self, cache: &Path) -> Result<()> {
        let dir = cache.join(self.name);
        venv::prepare(&dir.join("python"), &requirements(self.requirements))?;
        web::packages(&dir, &web::node(cache)?, self.manifest, self.lock)
    }
}

/// Installs what every test run needs.
pub(crate) fn fetch(cache: &Path) -> Result<()> {
    OPENAI.install(cache)
}

/// Installs the rest, and returns their Python.
pub(crate) fn fetch_frameworks(cache: &Path) -> Result<PathBuf> {
    FRAMEWORKS.install(cache)?;
    Ok(cache.join(FRAMEWORKS.name).join("python/bin/python"))
}

/// The requirements of a file of pip, without its comments.
fn requirements(file: &str) -> Vec<&str> {
    let lines = file.lines().map(|line| line.split_once(" #").map_or(line, |(before, _)| before).trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::{FRAMEWORKS, OPENAI, requirements};

    #[test]
    fn comments_are_no_requirements() {
        assert_eq!(
            requirements("# All of\na==1  # MIT\n\nb==2 ; python_version < '3.11'\n"),
            ["a==1", "b==2 ; python_version < '3.11'"]
        );
    }

    #[test]
    fn every_package_has_one_version() {
        for set in [OPENAI, FRAMEWORKS] {
            let requirements = requirements(set.requirements);
            assert!(!requirements.is_empty());
            assert!(requirements.iter().all(|line| line.contains("==")), "{}: {requirements:?}", set.name);
        }
    }
}
