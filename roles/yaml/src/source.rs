//! Reading YAML files: the text of one, and the files of a directory, within limits.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use artel_model::open_regular_file;

use crate::problem::{Problem, Problems};
use crate::yaml_source::YamlSource;

/// The largest file: a role with a long prompt has some kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The most files of one directory: more than a catalog that people write.
pub const MAX_FILES: usize = 10_000;
/// The largest sum of all files of one directory: they are held in memory and stored in the journal.
pub const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// The deepest directory: deeper than a catalog is organized, and an end for links in a circle.
const MAX_DIR_DEPTH: usize = 16;

impl YamlSource {
    /// A file of this machine: a regular file of at most [`MAX_FILE_BYTES`].
    ///
    /// # Errors
    /// It cannot be read, is too large or not UTF-8 text.
    pub fn read(path: &Path, dir: Option<PathBuf>) -> Result<Self, Problems> {
        let shown = path.to_string_lossy().into_owned();
        match read(path) {
            Ok(text) => Ok(Self { path: shown, dir, text }),
            Err(problem) => Err(Problem { file: shown, ..*problem }.into()),
        }
    }

    /// A file from its bytes.
    ///
    /// # Errors
    /// It is too large or not UTF-8 text.
    pub fn of_bytes(path: impl Into<String>, dir: Option<PathBuf>, bytes: Vec<u8>) -> Result<Self, Problems> {
        let path = path.into();
        let text =
            if bytes.len() as u64 > MAX_FILE_BYTES { Err(too_large(bytes.len() as u64).into()) } else { decode(bytes) };
        match text {
            Ok(text) => Ok(Self { path, dir, text }),
            Err(problem) => Err(Problem { file: path, ..*problem }.into()),
        }
    }
}

/// Reads the `*.yaml` and `*.yml` files below a directory, sorted by path; names that begin with a dot are skipped.
pub fn read_dir(dir: &Path) -> Result<Vec<YamlSource>, Problems> {
    let mut walk = DirectoryWalk::default();
    match (dir.to_str(), std::path::absolute(dir)) {
        (None, _) => walk.refuse(dir, "the directory's path is not UTF-8"),
        (_, Err(e)) => walk.refuse(dir, format!("the directory cannot be found: {e}")),
        (Some(_), Ok(_)) if !dir.is_dir() => walk.refuse(dir, "there is no such directory"),
        (Some(_), Ok(absolute)) => walk.dir(dir, &absolute, 0),
    }
    if walk.problems.is_empty() { Ok(walk.sources) } else { Err(Problems::new(walk.problems, 0)) }
}

#[derive(Default)]
struct DirectoryWalk {
    sources: Vec<YamlSource>,
    problems: Vec<Problem>,
    seen: BTreeSet<PathBuf>,
    total: u64,
    is_full: bool,
}

impl DirectoryWalk {
    fn refuse(&mut self, path: &Path, message: impl Into<String>) {
        self.problems.push(Problem::file(path.to_string_lossy(), message));
    }

    fn dir(&mut self, shown: &Path, real: &Path, depth: usize) {
        // A link may point back to a directory above.
        if !fs::canonicalize(real).is_ok_and(|path| self.seen.insert(path)) {
            return;
        }
        if depth > MAX_DIR_DEPTH {
            return self.refuse(shown, format!("directories nest deeper than {MAX_DIR_DEPTH}"));
        }
        let entries = match fs::read_dir(real) {
            Ok(entries) => entries,
            Err(e) => return self.refuse(shown, format!("the directory cannot be read: {e}")),
        };
        let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        names.sort();
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") || self.is_full {
                continue;
            }
            let (shown, path) = (shown.join(&name), real.join(&name));
            let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.dir(&shown, &path, depth + 1),
                Ok(meta) if is_yaml && !meta.is_file() => self.refuse(&shown, "this is not a regular file"),
                Ok(_) if is_yaml => self.file(&shown, &path, real),
                Err(e) if is_yaml => self.refuse(&shown, format!("the file cannot be read: {e}")),
                _ => {}
            }
        }
    }

    fn file(&mut self, shown: &Path, path: &Path, dir: &Path) {
        if self.sources.len() + self.problems.len() >= MAX_FILES {
            self.is_full = true;
            return self.refuse(shown, format!("there are more than {MAX_FILES} files"));
        }
        match read(path) {
            Ok(text) if self.total + text.len() as u64 > MAX_TOTAL_BYTES => {
                self.is_full = true;
                self.refuse(
                    shown,
                    format!("with this file, all files together have more than {MAX_TOTAL_BYTES} bytes"),
                );
            }
            Ok(text) => {
                self.total += text.len() as u64;
                let path = shown.to_string_lossy().into_owned();
                self.sources.push(YamlSource { path, dir: Some(dir.to_owned()), text });
            }
            Err(problem) => self.problems.push(Problem { file: shown.to_string_lossy().into_owned(), ..*problem }),
        }
    }
}

fn read(path: &Path) -> Result<String, Box<Problem>> {
    decode(read_bytes(path)?)
}

/// The bytes of a regular file of at most [`MAX_FILE_BYTES`]. A problem with it names no file.
fn read_bytes(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    let fail = |e: io::Error| Box::new(Problem::file("", format!("the file cannot be read: {e}")));
    let file = open_regular_file(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut bytes = Vec::new();
    // The file may grow while it is read, so its size alone is no limit.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    let size = size.max(bytes.len() as u64);
    if size > MAX_FILE_BYTES { Err(too_large(size).into()) } else { Ok(bytes) }
}

fn too_large(size: u64) -> Problem {
    Problem::file("", format!("the file has {size} bytes, the limit is {MAX_FILE_BYTES} (1 MiB)"))
}

fn decode(bytes: Vec<u8>) -> Result<String, Box<Problem>> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Problem::file("", "the file is UTF-16 text").hint("save it as UTF-8").into());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let message = format!("the file is not UTF-8 text from byte {at} on");
        let problem = after(&String::from_utf8_lossy(&e.as_bytes()[..at]), message);
        problem.hint("catalogs are written in UTF-8; is this a binary file?")
    })?;
    if let Some(at) = text.bytes().position(|b| b == 0) {
        return Err(after(&text[..at], format!("the file is binary: byte {at} is zero")).into());
    }
    // An editor's byte order mark would shift the first line's columns.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// An error at the character after this part of a file.
fn after(before: &str, message: String) -> Problem {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    Problem { line, column, ..Problem::file("", message) }
}
