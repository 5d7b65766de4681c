//! What a setup writes last: that it is whole, and of what.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use artel_files::whole_file;
use serde::{Deserialize, Serialize};

use crate::installed_package::InstalledPackage;
use crate::python::PythonVersion;

/// Counts up when the layout of an environment changes; one of another format is made anew.
const FORMAT_VERSION: u32 = 1;

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    format: u32,
    /// The hash of the files that decide which packages are installed.
    pub(crate) requirements: String,
    /// The hash of the whole source.
    pub(crate) source: String,
    pub(crate) python: PythonVersion,
    pub(crate) packages: Vec<InstalledPackage>,
    pub(crate) bytes: u64,
}

impl Stamp {
    pub(crate) fn new(
        requirements: String,
        source: String,
        python: PythonVersion,
        packages: Vec<InstalledPackage>,
        bytes: u64,
    ) -> Self {
        Self { format: FORMAT_VERSION, requirements, source, python, packages, bytes }
    }

    /// The stamp in a file; none if there is none that this version understands.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let stamp: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (stamp.format == FORMAT_VERSION).then_some(stamp)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        whole_file::write(path, |file| file.write_all(text.as_bytes()))
    }
}

/// The packages below the prefix of an interpreter, in the order of their names.
pub(crate) fn installed_packages(prefix: &Path) -> Vec<InstalledPackage> {
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_of_python = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
    let libraries = names(&prefix.join("lib")).filter(|path| is_of_python(path));
    let entries = libraries.flat_map(|library| names(&library.join("site-packages")).collect::<Vec<_>>());
    let mut packages: Vec<InstalledPackage> = entries.filter_map(|path| package_of(&path)).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// The package that a directory such as `torch-2.15.0.dist-info` is of.
fn package_of(path: &Path) -> Option<InstalledPackage> {
    let (name, version) = path.file_name()?.to_str()?.strip_suffix(".dist-info")?.rsplit_once('-')?;
    Some(InstalledPackage { name: name.to_owned(), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_those_with_their_own_directory_of_facts() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("lib/python3.11/site-packages");
        for name in ["torch-2.15.0+cpu.dist-info", "torch", "nvidia_nccl_cu13-2.29.dist-info", "odd.dist-info"] {
            fs::create_dir_all(site.join(name)).unwrap();
        }
        let packages: Vec<String> =
            installed_packages(dir.path()).iter().map(|p| format!("{} {}", p.name, p.version)).collect();
        assert_eq!(packages, ["nvidia_nccl_cu13 2.29", "torch 2.15.0+cpu"]);
    }

    #[test]
    fn a_stamp_of_another_format_or_half_a_stamp_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp.json");
        let stamp = Stamp::new("r".into(), "s".into(), "3.11.7".parse().unwrap(), Vec::new(), 7);
        stamp.write(&path).unwrap();
        assert_eq!(Stamp::read(&path), Some(stamp));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert_eq!(Stamp::read(&path), None);
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(Stamp::read(&path), None);
    }
}
