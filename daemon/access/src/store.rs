//! The tokens: in memory, and in a file of the data directory.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use artel_task::event::Timestamp;
use artel_task::{CallerName, Clock};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::call_meter::CallMeter;
use crate::error::Error;
use crate::private_file;
use crate::scope::ScopeSet;
use crate::secret::{Secret, SecretHash};
use crate::token::{AccessToken, TokenLimits};

/// The file in the data directory.
const FILE_NAME: &str = "tokens.json";
/// The form of the file that this version writes.
const FORMAT_VERSION: u32 = 1;
/// More tokens than one daemon has callers.
const MAX_TOKENS: usize = 10_000;
/// A token takes at most some hundred bytes of the file.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The tokens of a data directory. Clones share them. What changes them blocks on the disk.
#[derive(Clone)]
pub struct TokenStore(Arc<SharedTokens>);

struct SharedTokens {
    path: PathBuf,
    clock: Clock,
    table: RwLock<TokenTable>,
    /// Held while the file is written, so that no change is lost and calls do not wait for the disk.
    writing: Mutex<()>,
}

#[derive(Default, Clone)]
struct TokenTable {
    by_name: BTreeMap<CallerName, Arc<ActiveToken>>,
    /// By the first bytes of the hash.
    by_prefix: HashMap<[u8; 8], Vec<Arc<ActiveToken>>>,
}

/// A token that can be presented.
pub(crate) struct ActiveToken {
    pub(crate) token: AccessToken,
    pub(crate) meter: CallMeter,
    /// Cancelled when it is revoked.
    pub(crate) revoked: CancellationToken,
    hash: SecretHash,
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The name of the caller.
    pub name: CallerName,
    /// What the caller may do.
    pub scopes: ScopeSet,
    /// How long; `None`: until it is revoked.
    pub lifetime: Option<Duration>,
    /// How much the caller may ask for.
    pub limits: TokenLimits,
}

#[derive(Serialize, Deserialize)]
struct TokenFile {
    version: u32,
    tokens: Vec<TokenRecord>,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    #[serde(flatten)]
    token: AccessToken,
    sha256: SecretHash,
}

impl TokenStore {
    /// Opens `tokens.json` in the data directory, which the journal keeps for one daemon; no file is no token.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold tokens.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, Error> {
        let path = dir.join(FILE_NAME);
        let table = read(&path)?;
        Ok(Self(Arc::new(SharedTokens { path, clock, table: RwLock::new(table), writing: Mutex::default() })))
    }

    /// Makes a token; it is on disk when this returns. Its secret is nowhere but in the result. One of the same name that has
    /// expired makes room.
    ///
    /// # Errors
    /// The token is not possible, or the file cannot be written.
    pub fn create(&self, new: NewToken) -> Result<(AccessToken, Secret), Error> {
        let _writing = self.begin_write();
        let mut table = self.table();
        let now = self.0.clock.now();
        check(&new, &table, now)?;
        let NewToken { name, scopes, lifetime, limits } = new;
        let end = |lifetime: Duration| {
            Timestamp(now.0.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)))
        };
        let token = AccessToken { name, scopes, created: now, expires: lifetime.map(end), limits };
        let secret = Secret::random();
        drop(table.remove(token.name.as_str()));
        table.insert(ActiveToken::new(token.clone(), secret.hash()));
        write(&self.0.path, &mut table)?;
        self.replace_table(table);
        Ok((token, secret))
    }

    /// Revokes a token: from now on it is unknown, and its streams end.
    ///
    /// # Errors
    /// There is no such token, or the file cannot be written; then it is revoked until the next start.
    pub fn revoke(&self, name: &str) -> Result<AccessToken, Error> {
        let _writing = self.begin_write();
        let mut table = self.table();
        let Some(revoked) = table.remove(name) else {
            return Err(Error::NoToken(name.to_owned()));
        };
        self.replace_table(table.clone());
        revoked.revoked.cancel();
        let token = revoked.token.clone();
        match write(&self.0.path, &mut table) {
            Ok(()) => Ok(token),
            Err(error) => {
                // Listed again, so that it can be revoked again; presented, it stays unknown.
                table.by_name.insert(token.name.clone(), revoked);
                self.replace_table(table);
                Err(Error::NotDurable { name: token.name, source: Box::new(error) })
            }
        }
    }

    /// All tokens by name, those that have expired among them, and whether each is revoked while the file does not say so yet.
    pub fn list(&self) -> Vec<(AccessToken, bool)> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_name.values().map(|active| (active.token.clone(), active.revoked.is_cancelled())).collect()
    }

    /// The token with this hash.
    pub(crate) fn with_hash(&self, hash: &SecretHash) -> Option<Arc<ActiveToken>> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_prefix.get(&hash.prefix())?.iter().find(|active| active.hash.is(hash)).cloned()
    }

    /// The token with this name.
    pub(crate) fn with_name(&self, name: &str) -> Option<Arc<ActiveToken>> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_name.get(name).filter(|active| !active.revoked.is_cancelled()).cloned()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn begin_write(&self) -> MutexGuard<'_, ()> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy to change. Nothing panics while it is read or replaced.
    fn table(&self) -> TokenTable {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace_table(&self, table: TokenTable) {
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}

fn check(new: &NewToken, table: &TokenTable, now: Timestamp) -> Result<(), Error> {
    if new.name == CallerName::owner() {
        return Err(Error::ReservedName(new.name.clone()));
    }
    let same = table.by_name.get(&new.name);
    if same.is_some_and(|active| !active.token.has_expired(now) && !active.revoked.is_cancelled()) {
        return Err(Error::NameTaken(new.name.clone()));
    }
    if new.scopes.is_empty() {
        return Err(Error::NoScopes);
    }
    if new.lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
        return Err(Error::NoLifetime);
    }
    if same.is_none() && table.by_name.len() >= MAX_TOKENS {
        return Err(Error::TooManyTokens(MAX_TOKENS));
    }
    Ok(())
}

impl ActiveToken {
    fn new(token: AccessToken, hash: SecretHash) -> Arc<Self> {
        let (meter, revoked) = (CallMeter::new(token.limits), CancellationToken::new());
        Arc::new(Self { token, meter, revoked, hash })
    }
}

impl TokenTable {
    fn insert(&mut self, active: Arc<ActiveToken>) {
        self.by_prefix.entry(active.hash.prefix()).or_default().push(active.clone());
        self.by_name.insert(active.token.name.clone(), active);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<ActiveToken>> {
        let removed = self.by_name.remove(name)?;
        let prefix = removed.hash.prefix();
        if let Some(same) = self.by_prefix.get_mut(&prefix) {
            same.retain(|other| !Arc::ptr_eq(other, &removed));
            if same.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
        Some(removed)
    }
}

fn read(path: &Path) -> Result<TokenTable, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let damaged = |cause: String| Error::Damaged { path: path.to_owned(), cause };
    let mut table = TokenTable::default();
    let Some(found) = private_file::read(path, MAX_FILE_BYTES).map_err(failed)? else { return Ok(table) };
    if found.is_foreign {
        let cause = "other users could have written it; make sure that every token in it is yours (`sha256` and `scopes`), then \
                     make it yours alone (chown, chmod 600)";
        return Err(damaged(cause.to_owned()));
    }
    if found.is_exposed {
        tracing::warn!(path = %path.display(), "other users could read the file of tokens, which has no secrets; its mode is now 0600");
        private_file::close_to_others(path).map_err(failed)?;
    }
    let text = found.text.ok_or_else(|| damaged("it is too long or not UTF-8 text".to_owned()))?;
    let file: TokenFile = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if file.version != FORMAT_VERSION {
        return Err(damaged(format!("it has version {}, this program knows {FORMAT_VERSION}", file.version)));
    }
    for TokenRecord { token, sha256 } in file.tokens {
        if token.name == CallerName::owner() || table.by_name.contains_key(&token.name) {
            return Err(damaged(format!("a token cannot be named `{}`", token.name)));
        }
        table.insert(ActiveToken::new(token, sha256));
    }
    Ok(table)
}

/// Writes the file, and forgets what was revoked while it could not be written.
fn write(path: &Path, table: &mut TokenTable) -> Result<(), Error> {
    table.by_name.retain(|_, active| !active.revoked.is_cancelled());
    let record = |active: &Arc<ActiveToken>| TokenRecord { token: active.token.clone(), sha256: active.hash };
    let file = TokenFile { version: FORMAT_VERSION, tokens: table.by_name.values().map(record).collect() };
    let text = serde_json::to_string_pretty(&file).expect("its keys are texts");
    private_file::write(path, &text).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::num::NonZeroU32;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::scope::AccessScope;

    fn new(name: &str) -> NewToken {
        let scopes = [AccessScope::Read].into_iter().collect();
        NewToken { name: CallerName::parse(name).unwrap(), scopes, lifetime: None, limits: TokenLimits::default() }
    }

    fn open(dir: &Path) -> TokenStore {
        TokenStore::open(dir, Clock::default()).unwrap()
    }

    fn found(store: &TokenStore, secret: &Secret) -> Option<String> {
        store.with_hash(&secret.hash()).map(|active| active.token.name.to_string())
    }

    #[tokio::test]
    async fn a_token_is_found_by_its_secret_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let limits = TokenLimits {
            calls_per_minute: NonZeroU32::new(5),
            open_tasks: NonZeroU32::new(2),
            ..TokenLimits::default()
        };
        let (token, secret) = store.create(NewToken { limits, ..new("ci") }).unwrap();
        let (_, other) = store.create(new("other")).unwrap();
        assert_eq!((found(&store, &secret).as_deref(), found(&store, &other).as_deref()), (Some("ci"), Some("other")));
        assert!(found(&store, &Secret::random()).is_none());
        let again = open(dir.path());
        assert_eq!(again.list()[0], (token, false));
        assert_eq!(found(&again, &secret).as_deref(), Some("ci"));
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert!(!text.contains(secret.expose()) && !text.contains(&secret.expose()[6..]), "only hashes are at rest");
        assert_eq!(fs::metadata(dir.path().join(FILE_NAME)).unwrap().mode() & 0o7777, 0o600);
    }

    #[tokio::test]
    async fn a_revoked_token_is_unknown_at_once_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (_, secret) = store.create(new("ci")).unwrap();
        let active = store.with_hash(&secret.hash()).unwrap();
        store.revoke("ci").unwrap();
        assert!(active.revoked.is_cancelled() && found(&store, &secret).is_none() && store.with_name("ci").is_none());
        assert!(matches!(store.revoke("ci"), Err(Error::NoToken(_))));
        assert!(found(&open(dir.path()), &secret).is_none());
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_taken_from_the_disk_is_revoked_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let store = open(&data);
        let (_, secret) = store.create(new("ci")).unwrap();
        fs::rename(&data, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(store.revoke("ci"), Err(Error::NotDurable { .. })));
        assert!(found(&store, &secret).is_none() && store.with_name("ci").is_none());
        assert!(store.list()[0].1, "it is listed as revoked");
        assert!(matches!(store.create(new("other")), Err(Error::File { .. })));
        fs::rename(dir.path().join("elsewhere"), &data).unwrap();
        store.revoke("ci").unwrap();
        assert!(open(&data).list().is_empty());
    }

    #[tokio::test]
    async fn impossible_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.create(new("ci")).unwrap();
        assert!(matches!(store.create(new("ci")), Err(Error::NameTaken(_))));
        assert!(matches!(store.create(new("owner")), Err(Error::ReservedName(_))));
        assert!(matches!(store.create(NewToken { scopes: ScopeSet::default(), ..new("x") }), Err(Error::NoScopes)));
        let lifetime = Some(Duration::ZERO);
        assert!(matches!(store.create(NewToken { lifetime, ..new("x") }), Err(Error::NoLifetime)));
        store.create(NewToken { lifetime: Some(Duration::MAX), ..new("x") }).unwrap();
        assert_eq!(open(dir.path()).list()[1].0.expires, Some(Timestamp(u64::MAX)));
    }

    #[tokio::test]
    async fn an_expired_token_makes_room_for_one_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(1_000));
        let read = now.clone();
        let store = TokenStore::open(dir.path(), Clock::new(move || Timestamp(read.load(Ordering::SeqCst)))).unwrap();
        let (token, old) = store.create(NewToken { lifetime: Some(Duration::from_secs(1)), ..new("ci") }).unwrap();
        assert_eq!((token.expires, token.has_expired(Timestamp(1_999))), (Some(Timestamp(2_000)), false));
        now.store(2_000, Ordering::SeqCst);
        assert!(token.has_expired(store.now()));
        let (_, new) = store.create(new("ci")).unwrap();
        assert_eq!((found(&store, &old), found(&store, &new).as_deref()), (None, Some("ci")));
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_in_words_and_an_open_one_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        open(dir.path()).create(new("ci")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open(dir.path()).list().len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o662)).unwrap();
        let foreign = TokenStore::open(dir.path(), Clock::default()).err().expect("others could write it").to_string();
        assert!(foreign.contains("other users could have written it"), "{foreign}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let mut twice: serde_json::Value = serde_json::from_str(&whole).unwrap();
        let token = twice["tokens"][0].clone();
        twice["tokens"].as_array_mut().unwrap().push(token);
        let (cut, newer) = (&whole[..whole.len() / 2], whole.replace("\"version\": 1", "\"version\": 2"));
        for damage in [cut, &newer, &whole.replace("read", "rule"), &twice.to_string()] {
            fs::write(&path, damage).unwrap();
            let error = TokenStore::open(dir.path(), Clock::default()).err().expect("it is damaged").to_string();
            assert!(error.contains("does not hold tokens") && error.contains(FILE_NAME), "{error}");
        }
    }
}
