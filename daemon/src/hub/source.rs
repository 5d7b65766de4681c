//! The hub itself: requests, redirects, and what its answers mean.

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

use super::part::{Marks, Part};

/// The hub that `hf:` means, unless `HF_ENDPOINT` names a mirror.
const ENDPOINT: &str = "https://huggingface.co";
/// To find and reach a server.
const CONNECT: Duration = Duration::from_secs(30);
/// For an answer to begin, and for the next bytes of one: longer silence is a connection that is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// From one server to the next: more is a circle.
const REDIRECTS: usize = 10;
/// A server that is busy may ask for so long a pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where files come from.
pub(super) struct Source {
    agent: Agent,
    endpoint: Url,
    /// Sent to the endpoint, to nobody else, and never shown.
    token: Option<String>,
    /// The first pause after an attempt that failed.
    pub(super) pause: Duration,
}

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum Fault {
    /// Asking again will not help.
    Lasting(String),
    /// It may work later; perhaps the server said when.
    Passing(String, Option<Duration>),
}

/// A file begins to come.
pub(super) struct Answer {
    /// Its bytes from the end of what was held; none if that is all of it.
    pub(super) body: Option<Body>,
    /// Whether the bytes go on where what is held ends. Otherwise they are those of the whole file.
    pub(super) goes_on: bool,
    /// Bytes of the whole file.
    pub(super) size: Option<u64>,
    pub(super) marks: Marks,
}

impl Source {
    /// What `HF_ENDPOINT` and `HF_TOKEN` say.
    pub(super) fn of_environment() -> Result<Self, String> {
        let set = |name: &str| env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self::new(set("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT), set("HF_TOKEN"), Duration::from_secs(1))
    }

    pub(super) fn new(endpoint: &str, token: Option<String>, pause: Duration) -> Result<Self, String> {
        let parsed = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = parsed.ok_or_else(|| format!("HF_ENDPOINT is no http address: {endpoint}"))?;
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err("HF_TOKEN has characters that no token has".to_owned());
        }
        let agent = Agent::config_builder()
            .user_agent(concat!("artel/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Followed here, because of the token and of what the hub says on the way.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            // Those of the system, so that a company's mirror works as it does for other programs.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Ok(Self { agent: agent.into(), endpoint, token, pause })
    }

    /// Asks for a file, or for the rest of it.
    pub(super) fn ask(&self, address: &HfUri, held: &Part) -> Result<Answer, Fault> {
        let mut url = self.url(address)?;
        let (mut linked, mut size) = (None, None);
        for _ in 0..=REDIRECTS {
            let at_hub = url.origin() == self.endpoint.origin();
            let response = self.send(&url, at_hub, held, linked.as_deref())?;
            let headers = response.headers();
            if at_hub {
                linked = linked.or_else(|| tag(text(headers, "x-linked-etag")?));
                size = size.or_else(|| text(headers, "x-linked-size")?.parse().ok());
            }
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => url = self.next(&url, headers)?,
                200 | 206 | 416 => return begin(response, held, linked, size),
                status => return Err(self.refusal(status, headers, address, &url)),
            }
        }
        Err(Fault::Lasting(format!("{address}: the hub leads from one server to the next without end")))
    }

    fn url(&self, address: &HfUri) -> Result<Url, Fault> {
        let mut url = self.endpoint.clone();
        let wrong = |()| Fault::Lasting("HF_ENDPOINT is no address that has paths".to_owned());
        let names = [address.org(), address.repo(), "resolve", address.revision()];
        url.path_segments_mut().map_err(wrong)?.pop_if_empty().extend(names).extend(address.file());
        Ok(url)
    }

    fn send(&self, url: &Url, at_hub: bool, held: &Part, linked: Option<&str>) -> Result<Response<Body>, Fault> {
        let mut request = self.agent.get(url.as_str()).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(condition) = goes_on(held, linked) {
            request = request.header(RANGE, format!("bytes={}-", held.len()));
            if let Some(etag) = condition {
                request = request.header(IF_RANGE, etag);
            }
        }
        request.call().map_err(|error| {
            let server = url.host_str().unwrap_or_default();
            if is_of_tls(&error) {
                let advice = "are the package ca-certificates and the clock of this machine right?";
                return Fault::Lasting(format!("{server} cannot be trusted: {error}; {advice}"));
            }
            let advice = match &error {
                ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Io(_) => {
                    "; without a network, fetch the file elsewhere and set `offline`; HF_ENDPOINT names a mirror"
                }
                _ => "",
            };
            Fault::Passing(format!("{server} cannot be reached: {error}{advice}"), None)
        })
    }

    /// Where a redirect leads.
    fn next(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Fault> {
        let to = text(headers, LOCATION.as_str()).and_then(|to| from.join(to).ok());
        let to = to.filter(|url| matches!(url.scheme(), "http" | "https"));
        // The address may hold a signature: the server alone is named.
        let server = from.host_str().unwrap_or_default();
        let to = to.ok_or_else(|| Fault::Lasting(format!("{server} leads to nowhere")))?;
        if from.scheme() == "https" && to.scheme() == "http" {
            return Err(Fault::Lasting(format!("{server} leads from https to http, which is not followed")));
        }
        Ok(to)
    }

    /// What an answer without a file means.
    fn refusal(&self, status: u16, headers: &HeaderMap, address: &HfUri, url: &Url) -> Fault {
        let server = url.host_str().unwrap_or_default();
        let repository = format!("{}/{}", address.org(), address.repo());
        let code = text(headers, "x-error-code").unwrap_or_default();
        let lasting = |what: String| Fault::Lasting(format!("{address}: {what}"));
        match (status, code) {
            (408 | 429 | 500..=599, _) => {
                let pause = text(headers, "retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
                let pause = pause.map(|pause| pause.min(LONGEST_PAUSE));
                Fault::Passing(format!("{server} answers {status}"), pause)
            }
            (401 | 403, _) if self.token.is_some() => lasting(format!(
                "the hub answers {status}: {repository} is gated, private or not there, and the token of HF_TOKEN may not \
                 read it; ask for access on its page"
            )),
            (401 | 403, _) => lasting(format!(
                "the hub answers {status}: {repository} is gated, private or not there; what is gated or private needs a \
                 token: set HF_TOKEN"
            )),
            (404 | 410, "RevisionNotFound") => {
                lasting(format!("{repository} has no revision `{}`", address.revision()))
            }
            (404 | 410, "RepoNotFound") => lasting(format!("the hub has no repository {repository}")),
            (404 | 410, _) => {
                let file: Vec<&str> = address.file().collect();
                let (file, revision) = (file.join("/"), address.revision());
                lasting(format!("there is no file `{file}` in {repository}, revision `{revision}`"))
            }
            _ => lasting(format!("{server} answers {status}")),
        }
    }
}

/// Whether whoever answered could not show who he is, or did not speak TLS at all. Where a connection reads and writes, the
/// library says so as bad data.
fn is_of_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// What an answer with a file, or with part of one, is good for.
fn begin(response: Response<Body>, held: &Part, linked: Option<String>, size: Option<u64>) -> Result<Answer, Fault> {
    let headers = response.headers();
    let number = |header: &str| text(headers, header)?.trim().parse::<u64>().ok();
    let range = text(headers, CONTENT_RANGE.as_str()).and_then(range);
    let etag = text(headers, ETAG.as_str()).map(str::to_owned);
    let (status, length) = (response.status().as_u16(), number(CONTENT_LENGTH.as_str()));
    match (status, range) {
        (200, _) => {
            let marks = Marks { linked, etag };
            Ok(Answer { size: size.or(length), body: Some(response.into_body()), goes_on: false, marks })
        }
        (206, Some((Some(from), all))) if from == held.len() => {
            let before = held.marks().clone();
            let marks = Marks { linked: linked.or(before.linked), etag: etag.or(before.etag) };
            Ok(Answer { size: size.or(all), body: Some(response.into_body()), goes_on: true, marks })
        }
        // There is no more: all of it was held already.
        (416, Some((None, Some(all)))) if all == held.len() => {
            Ok(Answer { size: size.or(Some(all)), body: None, goes_on: true, marks: held.marks().clone() })
        }
        _ => Ok(Answer { size: None, body: None, goes_on: false, marks: Marks::default() }),
    }
}

/// Whether the rest of a file can be asked for, and the condition on which it is of the same file, where that must be said.
fn goes_on(held: &Part, linked: Option<&str>) -> Option<Option<String>> {
    let marks = held.marks();
    if held.len() == 0 || linked.is_some_and(|linked| marks.linked.as_deref() != Some(linked)) {
        return None;
    }
    match &marks.etag {
        // A weak tag does not tell bytes apart.
        Some(etag) if !etag.starts_with("W/") => Some(Some(etag.clone())),
        _ => marks.linked.is_some().then_some(None),
    }
}

/// `bytes 5-9/10` or `bytes */10`: where it begins, and the bytes of the whole.
fn range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (part, all) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = part.split_once('-').and_then(|(from, _)| from.parse().ok());
    Some((from, all.parse().ok()))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A tag without its quotes.
fn tag(text: &str) -> Option<String> {
    let tag = text.trim_start_matches("W/").trim_matches('"');
    (!tag.is_empty()).then(|| tag.to_owned())
}
