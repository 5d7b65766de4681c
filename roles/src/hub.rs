//! Addresses of files on a hub of models: `hf:org/repo/file.gguf`, `hf:org/repo@revision/folder/file.gguf`.

use std::fmt;
use std::path::PathBuf;

/// What stands before an address.
pub(crate) const SCHEME: &str = "hf:";
/// The revision of those that name none.
const MAIN: &str = "main";
/// Bytes of one part of an address: names of files have no more.
const LONGEST: usize = 255;

/// Where a file lies on a hub. Every part of it is the name of a file or a directory, and no more than that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    org: String,
    repo: String,
    revision: Option<String>,
    file: Vec<String>,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow a place in a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "an `hf:` address is written `hf:org/repo/file.gguf` or `hf:org/repo@revision/file.gguf`";
        let rest = text.strip_prefix(SCHEME).ok_or(FORM)?;
        let mut parts = rest.split('/');
        let (Some(org), Some(repo)) = (parts.next(), parts.next()) else { return Err(FORM.to_owned()) };
        let file: Vec<String> = parts.map(str::to_owned).collect();
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision.to_owned())),
            None => (repo, None),
        };
        let Some(name) = file.last() else { return Err(FORM.to_owned()) };
        for (part, what) in
            [(org, "organisation"), (repo, "repository"), (revision.as_deref().unwrap_or(MAIN), "revision")]
        {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if !is_name(part) || !part.chars().all(plain) {
                return Err(format!("the {what} of an `hf:` address has letters, digits, `.`, `_` and `-`; {FORM}"));
            }
        }
        if !file.iter().all(|part| is_name(part)) {
            return Err(format!("the path of the file is no path within the repository; {FORM}"));
        }
        let name = name.to_lowercase();
        if !name.ends_with(".gguf") {
            return Err("an `hf:` address names one file, and its name ends with `.gguf`".to_owned());
        }
        if is_piece(&name) {
            return Err("this is one of several pieces of a model, which cannot be fetched as one".to_owned());
        }
        Ok(Self { org: org.to_owned(), repo: repo.to_owned(), revision, file })
    }

    /// Where it lies in a directory of models: `hf/org/repo/revision/file`.
    pub fn path(&self) -> PathBuf {
        ["hf", &self.org, &self.repo, self.revision()].into_iter().chain(self.file.iter().map(String::as_str)).collect()
    }

    /// The organisation or person.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The repository, within its organisation.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit; `main` if the address names none.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The file's path in the repository, name by name.
    pub fn file(&self) -> impl Iterator<Item = &str> {
        self.file.iter().map(String::as_str)
    }
}

/// As YAML writes it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { org, repo, revision, file } = self;
        write!(f, "{SCHEME}{org}/{repo}")?;
        revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))?;
        write!(f, "/{}", file.join("/"))
    }
}

/// Whether it can be the name of a file, and cannot lead out of a directory.
fn is_name(part: &str) -> bool {
    let known = |c: char| !c.is_control() && c != '\\';
    !matches!(part, "" | "." | "..") && part.len() <= LONGEST && part.chars().all(known)
}

/// Whether it is named like `model-00001-of-00003.gguf`.
fn is_piece(name: &str) -> bool {
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let stem = name.trim_end_matches(".gguf");
    let Some((rest, all)) = stem.rsplit_once("-of-") else { return false };
    let Some((_, number)) = rest.rsplit_once('-') else { return false };
    digits(all) && digits(number) && all.bytes().any(|b| b != b'0') && all != "00001"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_place_of_its_own() {
        let address = Address::parse("hf:org/Repo-1.5/a b/m.gguf").unwrap();
        assert_eq!((address.org(), address.repo(), address.revision()), ("org", "Repo-1.5", "main"));
        assert_eq!(address.path(), PathBuf::from("hf/org/Repo-1.5/main/a b/m.gguf"));
        let pinned = Address::parse("hf:org/repo@v2/m.GGUF").unwrap();
        assert_eq!(pinned.path(), PathBuf::from("hf/org/repo/v2/m.GGUF"));
        assert_eq!(pinned.to_string(), "hf:org/repo@v2/m.GGUF");
        assert_eq!(address.file().collect::<Vec<_>>(), ["a b", "m.gguf"]);
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        for text in [
            "hf:org/repo",
            "hf:m.gguf",
            "hf:org/repo/",
            "hf:../repo/m.gguf",
            "hf:org/../m.gguf",
            "hf:org/repo@../m.gguf",
            "hf:org/repo@/m.gguf",
            "hf:org/repo/../m.gguf",
            "hf:org/repo//m.gguf",
            "hf:org/repo/a\\m.gguf",
            "hf:org/re po/m.gguf",
            "hf:org/repo/m.bin",
            "hf:org/repo/m-00001-of-00003.gguf",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse("hf:org/repo/m-00001-of-00001.gguf").is_ok());
    }
}
