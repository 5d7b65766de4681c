//! Decisions on calls.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use artel_task::CallerName;
use artel_task::event::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::scope::{AccessScope, ScopeSet};
use crate::secret::Secret;
use crate::store::NewToken;
use crate::token::TokenLimits;

const GET: &str = "/artel.v1.Tasks/Get";
const SUBMIT: &str = "/artel.v1.Tasks/Submit";
const WATCH: &str = "/artel.v1.Tasks/Watch";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// A user that is neither root nor the one that runs the tests.
const OTHER_USER_ID: u32 = 61_234;

struct AccessFixture {
    access: Access,
    owner: String,
    now: Arc<AtomicU64>,
    _dir: TempDir,
}

fn world() -> AccessFixture {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_000));
    let read = now.clone();
    let access = Access::open(dir.path(), Clock::new(move || Timestamp(read.load(Ordering::SeqCst)))).unwrap();
    let owner = std::fs::read_to_string(dir.path().join(owner_token::OWNER_FILE)).unwrap();
    AccessFixture { access, owner, now, _dir: dir }
}

impl AccessFixture {
    fn create(&self, name: &str, scopes: &str, lifetime: Option<Duration>, limits: TokenLimits) -> Secret {
        let scopes = ScopeSet::parse(scopes.split(',')).unwrap();
        let new = NewToken { name: CallerName::parse(name).unwrap(), scopes, lifetime, limits };
        self.access.tokens().create(new).unwrap().1
    }

    fn token(&self, name: &str, scopes: &str) -> Secret {
        self.create(name, scopes, None, TokenLimits::default())
    }

    fn call(&self, path: &str, peer: Option<&Peer>, header: Option<&str>) -> Result<AdmittedCall, AccessRefusal> {
        let credentials = Credentials { peer, authorization: header.map(str::as_bytes) };
        self.access.admit("POST", path, credentials)
    }

    /// The name of the caller.
    fn caller(&self, path: &str, peer: Option<&Peer>, header: Option<&str>) -> Result<String, AccessRefusal> {
        self.call(path, peer, header).map(|call| call.caller.map_or_else(String::new, |caller| caller.name.to_string()))
    }
}

fn bearer_header(secret: &Secret) -> String {
    format!("Bearer {}", secret.expose())
}

fn tcp(certificate: Option<&str>) -> Peer {
    let certificate_name = certificate.map(str::to_owned);
    Peer::Tcp { address: ([127, 0, 0, 1], 9).into(), is_encrypted: certificate.is_some(), certificate_name }
}

#[tokio::test]
async fn a_stranger_gets_health_and_nothing_else() {
    let world = world();
    assert_eq!(world.caller(HEALTH, Some(&tcp(None)), None), Ok(String::new()));
    assert_eq!(world.caller(HEALTH, None, Some("Bearer wrong")), Ok(String::new()));
    for path in [GET, SUBMIT, "/no.such.Service/Method", "/", ""] {
        assert_eq!(world.caller(path, Some(&tcp(None)), None), Err(AccessRefusal::NoToken), "{path}");
        assert_eq!(world.caller(path, None, Some("Bearer wrong")), Err(AccessRefusal::UnknownToken), "{path}");
    }
}

#[tokio::test]
async fn the_owner_is_known_by_the_socket_and_by_the_token() {
    let world = world();
    let own = Peer::Unix { user_id: geteuid().as_raw() };
    for peer in [own.clone(), Peer::Unix { user_id: ROOT_USER_ID }] {
        assert_eq!(world.caller(SUBMIT, Some(&peer), None), Ok("owner".to_owned()));
    }
    let other = Peer::Unix { user_id: OTHER_USER_ID };
    assert_eq!(world.caller(SUBMIT, Some(&other), None), Err(AccessRefusal::ForeignUser(OTHER_USER_ID)));
    let header = format!("bearer {}", world.owner);
    for peer in [Some(&other), Some(&tcp(None)), None] {
        assert_eq!(world.caller(SUBMIT, peer, Some(&header)), Ok("owner".to_owned()));
    }
    assert_eq!(world.caller("/no.such.Service/Method", None, Some(&header)), Err(AccessRefusal::UnknownRoute));
    let reader = bearer_header(&world.token("reader", "read"));
    let refusal =
        AccessRefusal::MissingScope { caller: CallerName::parse("reader").unwrap(), scope: AccessScope::Submit };
    assert_eq!(world.caller(SUBMIT, Some(&own), Some(&reader)), Err(refusal), "a token that is presented decides");
    assert_eq!(world.caller(SUBMIT, Some(&own), Some("Bearer wrong")), Err(AccessRefusal::UnknownToken));
}

#[tokio::test]
async fn a_token_may_what_its_scopes_say() {
    let world = world();
    let (reader, submitter) = (world.token("reader", "read"), world.token("submitter", "submit"));
    let (reader, submitter) = (bearer_header(&reader), bearer_header(&submitter));
    assert_eq!(world.caller(GET, None, Some(&reader)), Ok("reader".to_owned()));
    assert_eq!(world.caller(SUBMIT, None, Some(&submitter)), Ok("submitter".to_owned()));
    let lacks =
        |caller: &str, scope| Err(AccessRefusal::MissingScope { caller: CallerName::parse(caller).unwrap(), scope });
    assert_eq!(world.caller(SUBMIT, None, Some(&reader)), lacks("reader", AccessScope::Submit));
    assert_eq!(world.caller(GET, None, Some(&submitter)), lacks("submitter", AccessScope::Read));
    for header in [&reader[7..], "Basic eDp5", "Bearer", "Bearer ", &format!("Bearer {}", "x".repeat(300))] {
        assert_eq!(world.caller(GET, None, Some(header)), Err(AccessRefusal::InvalidHeader), "{header}");
    }
}

#[tokio::test]
async fn a_certificate_stands_for_the_token_of_its_name() {
    let world = world();
    let secret = world.token("fridge", "read");
    assert_eq!(world.caller(GET, Some(&tcp(Some("fridge"))), None), Ok("fridge".to_owned()));
    for name in ["toaster", "owner", ""] {
        assert_eq!(world.caller(GET, Some(&tcp(Some(name))), None), Err(AccessRefusal::UnknownCertificate), "{name}");
    }
    world.access.tokens().revoke("fridge").unwrap();
    assert_eq!(world.caller(GET, Some(&tcp(Some("fridge"))), None), Err(AccessRefusal::UnknownCertificate));
    assert_eq!(world.caller(GET, None, Some(&bearer_header(&secret))), Err(AccessRefusal::UnknownToken));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_token() {
    let world = world();
    let limits = TokenLimits::default();
    let revoked = bearer_header(&world.token("revoked", "read"));
    let expiring = bearer_header(&world.create("expiring", "read", Some(Duration::from_secs(1)), limits));
    let calls = [&revoked, &expiring].map(|header| world.call(WATCH, None, Some(header)).unwrap());
    let [first, second] = calls.map(|call| tokio::spawn(call.grant.ended()));
    let owner = world.call(WATCH, None, Some(&format!("Bearer {}", world.owner))).unwrap();
    assert!(!owner.grant.can_end());
    world.access.tokens().revoke("revoked").unwrap();
    assert_eq!(first.await.unwrap(), AccessRefusal::UnknownToken);
    assert!(!second.is_finished());
    world.now.store(2_000, Ordering::SeqCst);
    let expired = AccessRefusal::ExpiredToken(CallerName::parse("expiring").unwrap());
    assert_eq!(second.await.unwrap(), expired);
    assert_eq!(world.caller(GET, None, Some(&expiring)), Err(expired));
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_token_are_its_own() {
    let world = world();
    let (calls_per_minute, streams) = (NonZeroU32::new(60), NonZeroU32::new(1));
    let limits = TokenLimits { calls_per_minute, streams, ..TokenLimits::default() };
    let limited = bearer_header(&world.create("limited", "read", None, limits));
    let other = bearer_header(&world.create("other", "read", None, limits));
    let stream = world.call(WATCH, None, Some(&limited)).unwrap();
    assert!(matches!(world.call(WATCH, None, Some(&limited)), Err(AccessRefusal::TooManyStreams { .. })));
    drop(stream);
    let calls = (0..100).filter(|_| world.call(WATCH, None, Some(&limited)).is_ok()).count();
    assert_eq!(calls, 58, "60 calls a minute, two of them above");
    let refusal = world.call(GET, None, Some(&limited)).unwrap_err();
    assert!(
        matches!(refusal, AccessRefusal::TooManyCalls { delay, .. } if delay == Duration::from_secs(1)),
        "{refusal:?}"
    );
    world.call(GET, None, Some(&other)).unwrap();
}

proptest! {
    #[test]
    fn no_other_text_is_a_token(header in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..77_usize) {
        let world = world();
        let mut near = bearer_header(&world.token("ci", "read")).into_bytes();
        near[cut] ^= 0x40;
        for header in [&header[..], &near[..], &near[..cut]] {
            let credentials = Credentials { peer: None, authorization: Some(header) };
            prop_assert!(world.access.admit("POST", GET, credentials).is_err());
        }
    }
}
