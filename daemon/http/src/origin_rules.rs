//! The pages that may call a daemon from a browser, and what their browsers are told.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use crate::refusal::{Refusal, shown};

/// The methods that pages may use.
const METHODS: &str = "GET, POST, OPTIONS";
/// The headers that pages may send: those of gRPC-Web, of tokens, of traces, and of clients of OpenAI's API.
const REQUEST_HEADERS: &str = "authorization, content-type, grpc-timeout, traceparent, tracestate, x-grpc-web, x-user-agent, \
                               idempotency-key, x-artel-detach, x-artel-events, openai-beta, openai-organization, openai-project";
/// What the clients of OpenAI say of themselves, in headers that change with their versions.
const CLIENT_HEADER_PREFIX: &str = "x-stainless-";
/// The most of these headers that are listed: the clients send some ten.
const MAX_CLIENT_HEADER_ITEMS: usize = 32;
/// The headers that pages may read.
const RESPONSE_HEADERS: &str =
    "grpc-status, grpc-message, grpc-status-details-bin, retry-after, x-artel-task, x-artel-not-taken";
/// How long a browser may remember the answer: ten minutes, in seconds. After a change of the settings it asks again soon.
const PREFLIGHT_MAX_AGE: &str = "600";
/// A page of the public internet asks whether it may reach a private address.
const PRIVATE_NETWORK_QUESTION: &str = "access-control-request-private-network";
const PRIVATE_NETWORK_ANSWER: &str = "access-control-allow-private-network";
/// What a browser says of the relation between a page and the server that it calls.
const FETCH_SITE: &str = "sec-fetch-site";
/// What a browser says of the use of a response.
const FETCH_DESTINATION: &str = "sec-fetch-dest";
/// Its value for a page that takes the place of the one before. A page in a frame of another one has another value.
const TOP_PAGE: &[u8] = b"document";

/// A text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an origin, which is a scheme, a host, and a port unless it is that of the scheme: `https://desk.example`"
)]
pub struct InvalidOrigin(String);

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct OriginRules {
    origins: Arc<[String]>,
}

/// What is known of the page that a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageOrigin {
    /// There is none, or it is the daemon's own.
    Own,
    /// A page of another origin, which may call.
    Listed(HeaderValue),
}

impl OriginRules {
    /// With these origins, as browsers write them.
    ///
    /// # Errors
    /// A text is not an origin.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Result<Self, InvalidOrigin> {
        let origins: Result<Vec<String>, InvalidOrigin> = origins.into_iter().map(|origin| parse(&origin)).collect();
        Ok(Self { origins: origins?.into() })
    }

    /// Checks where a request comes from. Its host was checked before, so that a page of that host is the daemon's own.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<PageOrigin, Refusal> {
        let Some(origin) = request.headers().get(ORIGIN) else { return check_site(request.headers()) };
        let text = String::from_utf8_lossy(origin.as_bytes());
        if self.origins.iter().any(|listed| *listed == text) {
            return Ok(PageOrigin::Listed(origin.clone()));
        }
        if is_own(&text, request) {
            return Ok(PageOrigin::Own);
        }
        Err(Refusal::ForeignOrigin(shown(&text)))
    }
}

/// A request without an origin: a browser says so if another page made it, unless that page was left for this one.
fn check_site(headers: &HeaderMap) -> Result<PageOrigin, Refusal> {
    let value = |name: &str| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let is_foreign = matches!(value(FETCH_SITE), b"cross-site" | b"same-site");
    if is_foreign && value(FETCH_DESTINATION) != TOP_PAGE {
        return Err(Refusal::ForeignOrigin("another site".to_owned()));
    }
    Ok(PageOrigin::Own)
}

/// Whether an origin is the host that the request names.
fn is_own<B>(origin: &str, request: &Request<B>) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let named = target.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes));
    host.zip(named).is_some_and(|(host, named)| host.as_bytes().eq_ignore_ascii_case(named))
}

/// An origin in the form that browsers send.
fn parse(text: &str) -> Result<String, InvalidOrigin> {
    let invalid = || InvalidOrigin(shown(text));
    let uri: Uri = text.parse().map_err(|_| invalid())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(invalid()) };
    let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
    let has_default_port = matches!((scheme, authority.port_u16()), ("http", Some(80)) | ("https", Some(443)));
    if authority.as_str().contains('@') || has_default_port || !text.eq_ignore_ascii_case(&origin) {
        return Err(invalid());
    }
    Ok(origin)
}

/// Whether a browser asks what a page may do.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a browser that asks what a listed page may do.
pub(crate) fn preflight(request: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE));
    if request.contains_key(PRIVATE_NETWORK_QUESTION) {
        headers.insert(PRIVATE_NETWORK_ANSWER, HeaderValue::from_static("true"));
    }
    response
}

/// The headers that a page may send, of which its browser names those that it wants to.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok()).unwrap_or_default();
    let of_client = asked.split(',').map(str::trim).filter(|name| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        name.len() < 64 && name.starts_with(CLIENT_HEADER_PREFIX) && name.bytes().all(is_name)
    });
    let all: Vec<&str> = [REQUEST_HEADERS].into_iter().chain(of_client.take(MAX_CLIENT_HEADER_ITEMS)).collect();
    HeaderValue::try_from(all.join(", ")).unwrap_or(HeaderValue::from_static(REQUEST_HEADERS))
}

impl PageOrigin {
    /// Lets the page read a response.
    pub(crate) fn allow<B>(&self, mut response: Response<B>) -> Response<B> {
        if let Self::Listed(origin) = self {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)]) -> Result<PageOrigin, Refusal> {
        let rules = OriginRules::new(["https://Desk.example".to_owned(), "http://127.0.0.1:5173".to_owned()]).unwrap();
        let mut request = Request::builder().uri("/").header(HOST, "localhost:7430");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        rules.check(&request.body(()).unwrap())
    }

    #[test]
    fn programs_and_the_own_and_listed_pages_may_call() {
        assert_eq!(check(&[]), Ok(PageOrigin::Own));
        assert_eq!(check(&[("origin", "http://localhost:7430")]), Ok(PageOrigin::Own));
        assert_eq!(check(&[("sec-fetch-site", "same-origin")]), Ok(PageOrigin::Own));
        assert_eq!(check(&[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")]), Ok(PageOrigin::Own));
        for listed in ["https://desk.example", "http://127.0.0.1:5173"] {
            assert_eq!(check(&[("origin", listed)]), Ok(PageOrigin::Listed(listed.try_into().unwrap())));
        }
    }

    #[test]
    fn the_headers_of_clients_are_allowed_and_no_others() {
        let asked = "x-stainless-os,authorization, x-stainless-lang,x-evil,x-stainless-a b";
        let request = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(asked))]);
        let allowed = allowed_headers(&request);
        assert_eq!(allowed, format!("{REQUEST_HEADERS}, x-stainless-os, x-stainless-lang"));
        assert_eq!(allowed_headers(&HeaderMap::new()), REQUEST_HEADERS);
    }

    #[test]
    fn other_pages_may_not() {
        for origin in
            ["https://evil.example", "null", "http://desk.example", "http://localhost", "https://desk.example.evil", ""]
        {
            assert!(check(&[("origin", origin)]).is_err(), "{origin}");
        }
        for destination in ["image", "empty", "iframe", ""] {
            let request = [("sec-fetch-site", "cross-site"), ("sec-fetch-dest", destination)];
            assert!(check(&request).is_err(), "{destination}");
        }
        assert!(check(&[("sec-fetch-site", "same-site")]).is_err(), "another port of the loopback");
    }

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for text in
            ["https://a.example/", "a.example", "https://u@a.example", "https://a.example:443", "*", "null", "/"]
        {
            assert!(OriginRules::new([text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listed_page_may_read_the_response_and_others_are_told_nothing() {
        let origin = HeaderValue::from_static("https://desk.example");
        let response = PageOrigin::Listed(origin.clone()).allow(Response::new(()));
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        assert!(PageOrigin::Own.allow(Response::new(())).headers().is_empty());
    }
}
