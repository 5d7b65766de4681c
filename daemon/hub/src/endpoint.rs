//! HTTP requests to the hub: redirects, resumed downloads and error responses.

use std::time::Duration;
use std::{env, io};

use artel_roles::hf_uri::HfUri;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, LOCATION, RANGE,
};
use ureq::http::{HeaderMap, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::Url;

use crate::commit::RepoCommit;
use crate::error::{Error, MissingPart};
use crate::interruption::Interruption;
use crate::partial_file::{FileValidators, PartialFile};
use crate::statement::FileStatement;
use crate::token::HubTokenSource;

/// The hub of `hf:` addresses, unless `HF_ENDPOINT` names a mirror.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// To resolve a host name, to connect and to send the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For the response headers and for each read: a connection without data for longer is considered dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// More redirects are considered a loop.
const MAX_REDIRECTS: usize = 10;
/// In which the hub names the commit that a file is from.
const COMMIT_HEADER: &str = "x-repo-commit";
/// The longest delay that a `Retry-After` header can request.
const MAX_SERVER_DELAY: Duration = Duration::from_secs(60);

/// The hub from which files are downloaded.
pub(crate) struct HfEndpoint {
    agent: Agent,
    base_url: Url,
    /// Sent only to the endpoint, and never logged.
    token: Option<String>,
    /// The delay after the first failed attempt.
    pub(crate) retry_delay: Duration,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum AttemptFault {
    /// The download ends: a retry would not help.
    Final(Error),
    /// A retry may succeed; with the delay that the server requested.
    Interrupted(Interruption, Option<Duration>),
}

impl From<Error> for AttemptFault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<Interruption> for AttemptFault {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption, None)
    }
}

/// The response to a request for a file.
pub(crate) struct FileResponse {
    /// The requested bytes; none if the partial file is complete.
    pub(crate) body: Option<Body>,
    /// True if the bytes continue the partial file; false if they are the whole file.
    pub(crate) resumes: bool,
    /// Of the whole file.
    pub(crate) stated: FileStatement,
}

impl HfEndpoint {
    /// The hub of `HF_ENDPOINT`, with the token from this place.
    pub(crate) fn from_env(token: Option<&HubTokenSource>) -> Result<Self, Error> {
        let set = |name: &str| env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let token = token.map(HubTokenSource::read).transpose()?.flatten();
        Self::new(set("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT), token, Duration::from_secs(1))
    }

    pub(crate) fn new(endpoint: &str, token: Option<String>, retry_delay: Duration) -> Result<Self, Error> {
        let parsed = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base_url = parsed.ok_or_else(|| Error::InvalidEndpoint(endpoint.to_owned()))?;
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::InvalidToken);
        }
        let agent = Agent::config_builder()
            .user_agent(concat!("artel/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Redirects are followed here: the token must not leave the hub, and headers of the hub's responses are needed.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_send_request(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            // The certificates of the system, so that a private mirror works as in other programs.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Ok(Self { agent: agent.into(), base_url, token, retry_delay })
    }

    /// Requests a file, or the rest of a partial file: of this commit, if one is named, whatever the revision of the address means now.
    pub(crate) fn request(
        &self,
        address: &HfUri,
        commit: Option<&RepoCommit>,
        part: &PartialFile,
    ) -> Result<FileResponse, AttemptFault> {
        let mut url = self.url(address, commit)?;
        let (mut linked, mut total_bytes, mut of_commit) = (None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            let at_hub = url.origin() == self.base_url.origin();
            let response = self.send(&url, at_hub, part, linked.as_deref())?;
            let headers = response.headers();
            if at_hub {
                linked = linked.or_else(|| tag(text(headers, "x-linked-etag")?));
                total_bytes = total_bytes.or_else(|| text(headers, "x-linked-size")?.parse().ok());
                of_commit = of_commit.or_else(|| RepoCommit::parse(text(headers, COMMIT_HEADER)?));
            }
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirect_target(&url, headers)?,
                200 | 206 | 416 => {
                    let mut answer = file_response(response, part, linked, total_bytes);
                    answer.stated.commit = of_commit;
                    return Ok(answer);
                }
                status => return Err(self.response_fault(status, headers, address, &url)),
            }
        }
        Err(Error::TooManyRedirects(Box::new(address.clone())).into())
    }

    fn url(&self, address: &HfUri, commit: Option<&RepoCommit>) -> Result<Url, Error> {
        let mut url = self.base_url.clone();
        let invalid = |()| Error::InvalidEndpoint(self.base_url.to_string());
        let revision = commit.map_or(address.revision(), RepoCommit::as_str);
        let names = [address.org(), address.repo(), "resolve", revision];
        url.path_segments_mut().map_err(invalid)?.pop_if_empty().extend(names).extend(address.file());
        Ok(url)
    }

    fn send(
        &self,
        url: &Url,
        at_hub: bool,
        part: &PartialFile,
        linked: Option<&str>,
    ) -> Result<Response<Body>, AttemptFault> {
        let mut request = self.agent.get(url.as_str()).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(condition) = resume_condition(part, linked) {
            request = request.header(RANGE, format!("bytes={}-", part.len()));
            if let Some(etag) = condition {
                request = request.header(IF_RANGE, etag);
            }
        }
        request.call().map_err(|error| call_fault(url, &error))
    }

    /// Asks for what the hub states of a file, of this commit if one is named, and for none of its bytes.
    pub(crate) fn statement(
        &self,
        address: &HfUri,
        commit: Option<&RepoCommit>,
    ) -> Result<FileStatement, AttemptFault> {
        let mut url = self.url(address, commit)?;
        let mut stated = FileStatement::default();
        for _ in 0..=MAX_REDIRECTS {
            let at_hub = url.origin() == self.base_url.origin();
            let mut request = self.agent.head(url.as_str()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| call_fault(&url, &error))?;
            let headers = response.headers();
            let number = |name: &str| text(headers, name)?.trim().parse::<u64>().ok();
            if at_hub {
                let linked = || tag(text(headers, "x-linked-etag")?);
                stated.validators.linked = stated.validators.linked.or_else(linked);
                stated.size_bytes = stated.size_bytes.or_else(|| number("x-linked-size"));
                stated.commit = stated.commit.or_else(|| RepoCommit::parse(text(headers, COMMIT_HEADER)?));
            }
            match response.status().as_u16() {
                // A large file is elsewhere, and the hub states its size.
                301 | 302 | 303 | 307 | 308 if stated.size_bytes.is_some() => return Ok(stated),
                301 | 302 | 303 | 307 | 308 => url = redirect_target(&url, headers)?,
                200 => {
                    // Some servers answer a question with the length of their empty answer.
                    let length = || number(CONTENT_LENGTH.as_str()).filter(|bytes| *bytes > 0);
                    stated.size_bytes = stated.size_bytes.or_else(length);
                    stated.validators.etag = text(headers, ETAG.as_str()).map(str::to_owned);
                    return Ok(stated);
                }
                status => return Err(self.response_fault(status, headers, address, &url)),
            }
        }
        Err(Error::TooManyRedirects(Box::new(address.clone())).into())
    }

    /// The error of a response without a file.
    fn response_fault(&self, status: u16, headers: &HeaderMap, address: &HfUri, url: &Url) -> AttemptFault {
        let (server, address) = (host(url), Box::new(address.clone()));
        let error = match (status, text(headers, "x-error-code").unwrap_or_default()) {
            (408 | 429 | 500..=599, _) => {
                let delay = text(headers, "retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
                let delay = delay.map(|delay| delay.min(MAX_SERVER_DELAY));
                return AttemptFault::Interrupted(Interruption::Status { server, status }, delay);
            }
            (401 | 403, _) => Error::Forbidden { address, status, has_token: self.token.is_some() },
            (404 | 410, "RevisionNotFound") => Error::NotFound { address, part: MissingPart::Revision },
            (404 | 410, "RepoNotFound") => Error::NotFound { address, part: MissingPart::Repository },
            (404 | 410, _) => Error::NotFound { address, part: MissingPart::File },
            _ => Error::Rejected { address, server, status },
        };
        error.into()
    }
}

/// The fault of a request without a response.
fn call_fault(url: &Url, error: &ureq::Error) -> AttemptFault {
    let (server, cause) = (host(url), error.to_string());
    if is_tls_error(error) {
        return Error::Untrusted { server, cause }.into();
    }
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Io(_) => {
            Interruption::Unreachable { server, cause }.into()
        }
        _ => Interruption::NoAnswer { server, cause }.into(),
    }
}

/// The name of a server. The URL may contain a signature, so that errors show no more of it.
fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The target of a redirect.
fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let to = text(headers, LOCATION.as_str()).and_then(|to| from.join(to).ok());
    let to = to.filter(|url| matches!(url.scheme(), "http" | "https"));
    let to = to.ok_or_else(|| Error::InvalidRedirect { server: host(from) })?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(Error::UnsafeRedirect { server: host(from) });
    }
    Ok(to)
}

/// Whether the certificate of the server is invalid, or the server does not speak TLS. After the handshake, the library reports
/// such errors as invalid data.
fn is_tls_error(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Interprets a response with a file, or with a part of one.
fn file_response(
    response: Response<Body>,
    part: &PartialFile,
    linked: Option<String>,
    total_bytes: Option<u64>,
) -> FileResponse {
    let headers = response.headers();
    let number = |header: &str| text(headers, header)?.trim().parse::<u64>().ok();
    let range = text(headers, CONTENT_RANGE.as_str()).and_then(range);
    let etag = text(headers, ETAG.as_str()).map(str::to_owned);
    let (status, length) = (response.status().as_u16(), number(CONTENT_LENGTH.as_str()));
    let of = |size_bytes, validators| FileStatement { size_bytes, validators, commit: None };
    match (status, range) {
        (200, _) => {
            let stated = of(total_bytes.or(length), FileValidators { linked, etag });
            FileResponse { body: Some(response.into_body()), resumes: false, stated }
        }
        (206, Some((Some(from), all))) if from == part.len() => {
            let before = part.validators().clone();
            let validators = FileValidators { linked: linked.or(before.linked), etag: etag.or(before.etag) };
            let stated = of(total_bytes.or(all), validators);
            FileResponse { body: Some(response.into_body()), resumes: true, stated }
        }
        // The partial file is complete.
        (416, Some((None, Some(all)))) if all == part.len() => {
            let stated = of(total_bytes.or(Some(all)), part.validators().clone());
            FileResponse { body: None, resumes: true, stated }
        }
        _ => FileResponse { body: None, resumes: false, stated: FileStatement::default() },
    }
}

/// None: the whole file must be requested. Otherwise the rest can be, with an `If-Range` condition where one is needed.
fn resume_condition(part: &PartialFile, linked: Option<&str>) -> Option<Option<String>> {
    let validators = part.validators();
    if part.len() == 0 || linked.is_some_and(|linked| validators.linked.as_deref() != Some(linked)) {
        return None;
    }
    match &validators.etag {
        // A weak ETag does not guarantee identical bytes.
        Some(etag) if !etag.starts_with("W/") => Some(Some(etag.clone())),
        _ => validators.linked.is_some().then_some(None),
    }
}

/// Parses `bytes 5-9/10` or `bytes */10`: the first byte, and the size of the whole file.
fn range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (part, all) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = part.split_once('-').and_then(|(from, _)| from.parse().ok());
    Some((from, all.parse().ok()))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An ETag without quotes.
fn tag(text: &str) -> Option<String> {
    let tag = text.trim_start_matches("W/").trim_matches('"');
    (!tag.is_empty()).then(|| tag.to_owned())
}
