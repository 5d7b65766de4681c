//! Interpreters of Python: which are there, and which of them fit.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::installed_package::InstalledPackage;
use crate::tool;
use crate::variables::Variables;

/// The oldest and the newest minor version of Python 3 for which every package of the lock has a wheel.
const MINORS: std::ops::RangeInclusive<u32> = 11..=13;
/// Where an interpreter is looked for on the path, in this order.
const NAMES: [&str; 4] = ["python3.13", "python3.12", "python3.11", "python3"];
/// The most interpreters that are asked: a path of hundreds of directories is a mistake.
const MAX_CANDIDATES: usize = 32;
/// The time for an interpreter to say its version, on a slow disk that sleeps.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Says the implementation, the version, the bits of an address, whether a virtual environment can have pip, and the path
/// behind links and wrappers.
const QUESTION: &str = "import sys, importlib.util as u
print(sys.implementation.name, '.'.join(map(str, sys.version_info[:3])), sys.maxsize.bit_length() + 1, int(bool(u.find_spec('ensurepip'))))
print(sys.executable)";

/// Says the version of each package that it has of those that are named.
const PACKAGES_QUESTION: &str = "import sys, importlib.metadata as m
for name in sys.argv[1:]:
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass";

/// A version of Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PythonVersion {
    /// 3.
    pub major: u32,
    /// The 11 of 3.11.7.
    pub minor: u32,
    /// The 7 of 3.11.7.
    pub patch: u32,
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text that is no version of Python.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no version of Python such as 3.11.7")]
pub struct InvalidPythonVersion(String);

impl FromStr for PythonVersion {
    type Err = InvalidPythonVersion;

    fn from_str(text: &str) -> Result<Self, InvalidPythonVersion> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, patch]) => Ok(Self { major, minor, patch }),
            _ => Err(InvalidPythonVersion(text.to_owned())),
        }
    }
}

impl From<PythonVersion> for String {
    fn from(version: PythonVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for PythonVersion {
    type Error = InvalidPythonVersion;

    fn try_from(text: String) -> Result<Self, InvalidPythonVersion> {
        text.parse()
    }
}

/// An interpreter that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundPython {
    pub(crate) path: PathBuf,
    pub(crate) version: PythonVersion,
    /// Whether it can make a virtual environment with pip. Debian has this in a package of its own.
    pub(crate) has_pip: bool,
}

/// Finds the first interpreter on the path that fits.
///
/// # Errors
/// None fits; what each said of itself.
pub(crate) async fn find(variables: &Variables) -> Result<FoundPython, Vec<String>> {
    let mut refusals = Vec::new();
    for candidate in candidates(variables) {
        match ask(&candidate, variables).await {
            Ok(found) => return Ok(found),
            Err(why) => refusals.push(format!("{}: {why}", candidate.display())),
        }
    }
    Err(refusals)
}

/// The interpreters on the path. A name may be there several times, and the first may be a wrapper without an interpreter.
fn candidates(variables: &Variables) -> Vec<PathBuf> {
    let path = variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let dirs: Vec<PathBuf> =
        std::env::split_paths(path.unwrap_or(OsStr::new(""))).filter(|dir| dir.is_absolute()).collect();
    let all = NAMES.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    all.filter(|path| path.is_file()).take(MAX_CANDIDATES).collect()
}

/// Why an interpreter does not fit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PythonRefusal {
    #[error("it cannot be started: {0}")]
    Start(std::io::Error),
    #[error("it does not say its version")]
    NoAnswer,
    #[error("it is {implementation}, not CPython")]
    Implementation { implementation: String },
    #[error("it is Python {0}")]
    Version(PythonVersion),
    #[error("it is a program of {0} bits")]
    Bits(String),
    #[error("it does not say which packages it has")]
    NoPackages,
}

/// Which of these packages an interpreter has, in their order. It sees what these variables tell it of.
///
/// # Errors
/// It does not answer.
pub(crate) async fn packages(
    python: &Path,
    names: &[String],
    variables: &Variables,
) -> Result<Vec<InstalledPackage>, PythonRefusal> {
    let mut command = Command::new(python);
    command.args(["-c", PACKAGES_QUESTION]).args(names);
    command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    let answer = tool::ask(command, ANSWER_TIMEOUT).await.map_err(PythonRefusal::Start)?;
    let package = |line: &str| {
        let (name, version) = line.split_once(' ')?;
        Some(InstalledPackage { name: name.to_owned(), version: version.to_owned() })
    };
    Ok(answer.ok_or(PythonRefusal::NoPackages)?.lines().filter_map(package).collect())
}

/// Asks an interpreter what it is.
///
/// # Errors
/// It does not answer, or does not fit.
pub(crate) async fn ask(python: &Path, variables: &Variables) -> Result<FoundPython, PythonRefusal> {
    let mut command = Command::new(python);
    command.args(["-I", "-c", QUESTION]).env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    let answer = tool::ask(command, ANSWER_TIMEOUT).await.map_err(PythonRefusal::Start)?;
    fitting(python, &answer.unwrap_or_default())
}

fn fitting(python: &Path, answer: &str) -> Result<FoundPython, PythonRefusal> {
    let mut lines = answer.lines();
    let facts: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [implementation, version, bits, has_pip] = facts[..] else { return Err(PythonRefusal::NoAnswer) };
    let version: PythonVersion = version.parse().map_err(|_| PythonRefusal::NoAnswer)?;
    if implementation != "cpython" {
        return Err(PythonRefusal::Implementation { implementation: implementation.to_owned() });
    }
    if version.major != 3 || !MINORS.contains(&version.minor) {
        return Err(PythonRefusal::Version(version));
    }
    if bits != "64" {
        return Err(PythonRefusal::Bits(bits.to_owned()));
    }
    let path = lines.next().filter(|path| path.starts_with('/')).map_or_else(|| python.to_owned(), PathBuf::from);
    Ok(FoundPython { path, version, has_pip: has_pip == "1" })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_answer_fits_or_says_what_does_not() {
        let of = |answer: &str| fitting(Path::new("/p"), answer).map_err(|e| e.to_string());
        let found = of("cpython 3.12.1 64 1\n/usr/bin/python3.12\n").unwrap();
        assert_eq!(
            (found.path, found.version.to_string(), found.has_pip),
            ("/usr/bin/python3.12".into(), "3.12.1".into(), true)
        );
        assert!(!of("cpython 3.11.0 64 0\n").unwrap().has_pip);
        for (answer, why) in [
            ("", "it does not say its version"),
            ("pypy 3.11.1 64 1\n/p", "it is pypy, not CPython"),
            ("cpython 3.10.13 64 1\n/p", "it is Python 3.10.13"),
            ("cpython 3.14.0 64 1\n/p", "it is Python 3.14.0"),
            ("cpython 2.12.0 64 1\n/p", "it is Python 2.12.0"),
            ("cpython 3.11.0 32 1\n/p", "it is a program of 32 bits"),
        ] {
            assert_eq!(of(answer).unwrap_err(), why, "{answer}");
        }
    }

    fn stand_in(dir: &Path, name: &str, script: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_newest_that_fits_is_found_behind_wrappers_without_an_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let [shims, programs] = ["shims", "programs"].map(|name| dir.path().join(name));
        stand_in(&shims, "python3.13", "echo 'not installed' >&2; exit 127");
        stand_in(&programs, "python3", "echo cpython 3.11.2 64 1; echo /real/python3.11");
        let path = format!("{}:relative:{}", shims.display(), programs.display());
        let variables = vec![("PATH".into(), path.into())];
        let found = find(&variables).await.unwrap();
        assert_eq!(found.path, Path::new("/real/python3.11"));
        stand_in(&programs, "python3.12", "echo cpython 3.12.2 64 1; echo /real/python3.12");
        assert_eq!(find(&variables).await.unwrap().path, Path::new("/real/python3.12"));
        let refusals = find(&vec![("PATH".into(), shims.clone().into())]).await.unwrap_err();
        assert_eq!(refusals, [format!("{}/python3.13: it does not say its version", shims.display())]);
        assert_eq!(find(&Variables::new()).await.unwrap_err(), [""; 0]);
    }
}
