//! Scopes: what a caller may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A right of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessScope {
    /// Submit tasks, and control one's own.
    Submit,
    /// Read one's own tasks, the catalog, and the state of the daemon.
    Read,
    /// Read everybody's tasks, too.
    ReadAll,
    /// Answer steps that wait for a person.
    Answer,
    /// Validate and replace the catalog.
    Apply,
    /// Everything: load and unload models, control everybody's tasks, make and revoke tokens.
    Admin,
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope `{text}`; the scopes are {}", AccessScope::ALL.map(AccessScope::as_str).join(", "))]
pub struct UnknownScope {
    text: String,
}

/// The longest text of an error: a scope is shorter.
const MAX_SHOWN_CHARS: usize = 32;

impl AccessScope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::Submit, Self::Read, Self::ReadAll, Self::Answer, Self::Apply, Self::Admin];

    /// The scope as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::ReadAll => "read:all",
            Self::Answer => "answer",
            Self::Apply => "apply",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for AccessScope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        let text = || text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect();
        found.ok_or_else(|| UnknownScope { text: text() })
    }
}

impl fmt::Display for AccessScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The scopes of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// Every scope: those of the owner.
    pub fn all() -> Self {
        AccessScope::ALL.into_iter().collect()
    }

    /// The set of the scopes that these texts name.
    ///
    /// # Errors
    /// One of them is no scope.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownScope> {
        texts.into_iter().map(AccessScope::from_str).collect()
    }

    /// Whether a caller with these scopes has this right: `admin` includes every other one, `read:all` includes `read`.
    pub fn allows(self, scope: AccessScope) -> bool {
        let has = |scope: AccessScope| self.0 & scope.bit() != 0;
        has(AccessScope::Admin) || has(scope) || scope == AccessScope::Read && has(AccessScope::ReadAll)
    }

    /// The scopes in the set, without those that they imply.
    pub fn iter(self) -> impl Iterator<Item = AccessScope> {
        AccessScope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<AccessScope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = AccessScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl TryFrom<Vec<String>> for ScopeSet {
    type Error = UnknownScope;

    fn try_from(texts: Vec<String>) -> Result<Self, UnknownScope> {
        Self::parse(texts.iter().map(String::as_str))
    }
}

impl From<ScopeSet> for Vec<String> {
    fn from(set: ScopeSet) -> Self {
        set.iter().map(|scope| scope.to_string()).collect()
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Vec::from(*self).join(","))
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_what_it_implies() {
        let allowed = |text: &str| -> Vec<&str> {
            let set = ScopeSet::parse([text]).unwrap();
            AccessScope::ALL.into_iter().filter(|scope| set.allows(*scope)).map(AccessScope::as_str).collect()
        };
        for alone in ["submit", "read", "answer", "apply"] {
            assert_eq!(allowed(alone), [alone]);
        }
        assert_eq!(allowed("read:all"), ["read", "read:all"]);
        assert_eq!(allowed("admin"), AccessScope::ALL.map(AccessScope::as_str));
        assert!(AccessScope::ALL.into_iter().all(|scope| !ScopeSet::default().allows(scope)));
    }

    #[test]
    fn a_set_is_a_list_of_names_in_json() {
        let set = ScopeSet::parse(["read", "submit", "read"]).unwrap();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!((json.as_str(), set.to_string().as_str()), (r#"["submit","read"]"#, "submit,read"));
        assert_eq!(serde_json::from_str::<ScopeSet>(&json).unwrap(), set);
        let error = ScopeSet::parse(["submit", "write\u{7}"]).unwrap_err().to_string();
        assert_eq!(error, "there is no scope `write`; the scopes are submit, read, read:all, answer, apply, admin");
    }
}
