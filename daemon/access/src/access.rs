//! The decision on each call: its caller, and whether that caller may make it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artel_accept::Peer;
use artel_task::Clock;
use nix::unistd::geteuid;
use tokio::sync::OwnedSemaphorePermit;

use crate::caller::Caller;
use crate::error::Error;
use crate::owner_token;
use crate::refusal::AccessRefusal;
use crate::refusal_log::RefusalLog;
use crate::routes::{Route, RouteNeed};
use crate::secret::SecretHash;
use crate::store::{ActiveToken, TokenStore};

/// The user `root`, to whom all of the daemon is open anyway.
const ROOT_USER_ID: u32 = 0;
/// A header that is longer is not hashed: a token has 70 bytes.
const MAX_HEADER_BYTES: usize = 256;

/// Decides on calls. Clones share the state.
#[derive(Clone)]
pub struct Access(Arc<SharedAccess>);

struct SharedAccess {
    tokens: TokenStore,
    owner: SecretHash,
    user_id: u32,
    refusals: RefusalLog,
}

/// What a call says about its caller.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// What its connection tells; without it, nothing is known of the peer.
    pub peer: Option<&'a Peer>,
    /// The header `authorization`.
    pub authorization: Option<&'a [u8]>,
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A call that may be made.
#[derive(Debug)]
pub struct AdmittedCall {
    /// The method or route.
    pub route: &'static Route,
    /// Its caller; `None` for a stranger.
    pub caller: Option<Caller>,
    /// Held until the call has ended.
    pub grant: CallGrant,
}

/// The right to go on with a call.
#[derive(Default)]
pub struct CallGrant {
    /// `None` for the owner and for strangers, whose calls end by themselves.
    token: Option<(Arc<ActiveToken>, TokenStore)>,
    _stream: Option<OwnedSemaphorePermit>,
}

impl Access {
    /// Opens the tokens of the data directory, and makes the owner's if there is none. The journal of the same directory must be
    /// open: its lock keeps other writers out. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be read or written, or does not hold tokens.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, Error> {
        let (tokens, owner) = (TokenStore::open(dir, clock)?, owner_token::open(dir)?);
        let user_id = geteuid().as_raw();
        Ok(Self(Arc::new(SharedAccess { tokens, owner, user_id, refusals: RefusalLog::default() })))
    }

    /// The tokens.
    pub fn tokens(&self) -> &TokenStore {
        &self.0.tokens
    }

    /// Decides on a call.
    ///
    /// # Errors
    /// It is refused; the log says so now and then.
    pub fn admit(&self, method: &str, path: &str, credentials: Credentials<'_>) -> Result<AdmittedCall, AccessRefusal> {
        let decided = self.decide(method, path, credentials);
        if let Err(refusal) = &decided {
            self.0.refusals.note(refusal, credentials.peer);
        }
        decided
    }

    /// Logs the calls that were refused and only counted. To be called now and then.
    pub fn log_pending_refusals(&self) {
        self.0.refusals.write_pending();
    }

    fn decide(&self, method: &str, path: &str, credentials: Credentials<'_>) -> Result<AdmittedCall, AccessRefusal> {
        let route = Route::find(method, path);
        if let Some(route) = route.filter(|route| route.need == RouteNeed::Nothing) {
            return Ok(AdmittedCall { route, caller: None, grant: CallGrant::default() });
        }
        // A stranger does not learn which routes there are.
        let (caller, token) = self.identify(credentials)?;
        let route = route.ok_or(AccessRefusal::UnknownRoute)?;
        if let RouteNeed::Scope(scope) = route.need
            && !caller.may(scope)
        {
            return Err(AccessRefusal::MissingScope { caller: caller.name, scope });
        }
        let grant = match token {
            Some(token) => self.grant(token, route)?,
            None => CallGrant::default(),
        };
        Ok(AdmittedCall { route, caller: Some(caller), grant })
    }

    /// A token that is presented decides, also if it may less than the peer might otherwise.
    fn identify(&self, credentials: Credentials<'_>) -> Result<(Caller, Option<Arc<ActiveToken>>), AccessRefusal> {
        let token = match (credentials.authorization, credentials.peer) {
            (Some(header), _) => {
                let hash = bearer(header).map(SecretHash::of).ok_or(AccessRefusal::InvalidHeader)?;
                if hash.is(&self.0.owner) {
                    return Ok((Caller::owner(), None));
                }
                self.0.tokens.with_hash(&hash).ok_or(AccessRefusal::UnknownToken)?
            }
            (None, Some(Peer::Unix { user_id })) if [ROOT_USER_ID, self.0.user_id].contains(user_id) => {
                return Ok((Caller::owner(), None));
            }
            (None, Some(Peer::Unix { user_id })) => return Err(AccessRefusal::ForeignUser(*user_id)),
            (None, Some(Peer::Tcp { certificate_name: Some(name), .. })) => {
                self.0.tokens.with_name(name).ok_or(AccessRefusal::UnknownCertificate)?
            }
            (None, Some(Peer::Tcp { certificate_name: None, .. }) | None) => return Err(AccessRefusal::NoToken),
        };
        let found = &token.token;
        if found.has_expired(self.0.tokens.now()) {
            return Err(AccessRefusal::ExpiredToken(found.name.clone()));
        }
        Ok((Caller { name: found.name.clone(), scopes: found.scopes, limits: found.limits }, Some(token)))
    }

    fn grant(&self, token: Arc<ActiveToken>, route: &Route) -> Result<CallGrant, AccessRefusal> {
        let (limits, caller) = (token.token.limits, || token.token.name.clone());
        if let Some(calls_per_minute) = limits.calls_per_minute {
            let excess = |delay| AccessRefusal::TooManyCalls { caller: caller(), calls_per_minute, delay };
            token.meter.begin_call().map_err(excess)?;
        }
        let stream = match limits.streams.filter(|_| route.is_stream) {
            Some(streams) => {
                let excess = |_| AccessRefusal::TooManyStreams { caller: caller(), streams };
                token.meter.begin_stream().map_err(excess)?
            }
            None => None,
        };
        Ok(CallGrant { token: Some((token, self.0.tokens.clone())), _stream: stream })
    }
}

/// The token in the header; the name of the scheme is in any case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"bearer ".len()).filter(|_| header.len() <= MAX_HEADER_BYTES)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

impl CallGrant {
    /// Whether the right may end before the call does.
    pub fn can_end(&self) -> bool {
        self.token.is_some()
    }

    /// Resolves when the token is revoked or has expired, with the words for that; never for the owner and for strangers.
    pub async fn ended(self) -> AccessRefusal {
        let Some((token, tokens)) = &self.token else { return std::future::pending().await };
        let expired = async {
            let Some(end) = token.token.expires else { return std::future::pending().await };
            // The wall time may be set while this waits.
            while let Some(left) = end.0.checked_sub(tokens.now().0).filter(|left| *left > 0) {
                tokio::time::sleep(Duration::from_millis(left).min(MAX_WAIT_INTERVAL)).await;
            }
        };
        tokio::select! {
            () = token.revoked.cancelled() => AccessRefusal::UnknownToken,
            () = expired => AccessRefusal::ExpiredToken(token.token.name.clone()),
        }
    }
}

/// How long an open stream may outlive its token if the wall time is set forward.
const MAX_WAIT_INTERVAL: Duration = Duration::from_secs(60);

impl std::fmt::Debug for CallGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallGrant").field("can_end", &self.can_end()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
