//! The place of a task in a trace: the trace context of the W3C, as its callers send it and as it is journalled.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of `traceparent` that is written; later ones begin like it.
const VERSION: &str = "00";
/// The flag by which a caller says that its part of the trace is recorded.
const SAMPLED_MODE: u8 = 1;
/// The bytes of a `traceparent` of version 00; later ones may go on after another dash.
const TRACEPARENT_BYTES: usize = 55;
/// The longest `tracestate` that is kept: what the W3C asks for at least. A longer one is left out.
const MAX_STATE_BYTES: usize = 512;

/// The id of a trace: sixteen bytes, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The id of a span within its trace: eight bytes, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// The id with these bytes; `None` if all of them are 0.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// The id with these bytes; `None` if all of them are 0.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// A span of a trace that is recorded, as the parent of others.
///
/// It displays, and is journalled, as the `traceparent` of the W3C, followed by a space and the `tracestate` if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// What tracing systems add to a trace for themselves (`tracestate`); it is passed on and not interpreted.
    pub state: Option<String>,
}

/// A text that is no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no trace context: `00-`, 32 and 16 hexadecimal digits, and flags")]
pub struct InvalidTraceContext;

/// What a caller says of the trace of its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerTrace {
    /// The caller records its part of the trace, and so does what it calls.
    Sampled(TraceContext),
    /// It does not.
    Unsampled,
}

impl CallerTrace {
    /// Reads the headers `traceparent` and `tracestate`; `None` if the first one is not valid: it then counts as absent, as the
    /// W3C wants it.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let (trace, span, flags) = parse_parent(traceparent)?;
        if flags & SAMPLED_MODE == 0 {
            return Some(Self::Unsampled);
        }
        let is_kept = |state: &&str| {
            let is_text = state.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            is_text && !state.is_empty() && state.len() <= MAX_STATE_BYTES
        };
        let state = tracestate.map(str::trim).filter(is_kept).map(str::to_owned);
        Some(Self::Sampled(TraceContext { trace, span, state }))
    }
}

fn parse_parent(text: &str) -> Option<(TraceId, SpanId, u8)> {
    let known = text.get(..TRACEPARENT_BYTES)?;
    let rest = &text[TRACEPARENT_BYTES..];
    let mut parts = known.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version_byte] = hex(version)?;
    let is_whole = if version == VERSION { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version_byte == u8::MAX || !is_whole || parts.next().is_some() {
        return None;
    }
    let [flags] = hex(flags)?;
    Some((TraceId::new(hex(trace)?)?, SpanId::new(hex(span)?)?, flags))
}

/// The bytes of `2 * N` hexadecimal digits, which are in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{}-{}-{SAMPLED_MODE:02x}", self.trace, self.span)?;
        self.state.as_ref().map_or(Ok(()), |state| write!(f, " {state}"))
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> String {
        context.to_string()
    }
}

impl TryFrom<String> for TraceContext {
    type Error = InvalidTraceContext;

    fn try_from(text: String) -> Result<Self, InvalidTraceContext> {
        let (parent, state) =
            text.split_once(' ').map_or((text.as_str(), None), |(parent, state)| (parent, Some(state)));
        match CallerTrace::parse(parent, state) {
            Some(CallerTrace::Sampled(context)) => Ok(context),
            _ => Err(InvalidTraceContext),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sampled(parent: &str, state: Option<&str>) -> TraceContext {
        match CallerTrace::parse(parent, state) {
            Some(CallerTrace::Sampled(context)) => context,
            other => panic!("{parent}: {other:?}"),
        }
    }

    #[test]
    fn the_headers_of_a_caller_are_read() {
        let context = sampled(PARENT, Some("vendor=t61rcWkgMzE,other=1"));
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span.to_string(), "00f067aa0ba902b7");
        assert_eq!(context.state.as_deref(), Some("vendor=t61rcWkgMzE,other=1"));
        for (flags, is_sampled) in [("00", false), ("02", false), ("03", true)] {
            let parent = format!("{}{flags}", &PARENT[..53]);
            let parsed = CallerTrace::parse(&parent, None).unwrap();
            assert_eq!(matches!(parsed, CallerTrace::Sampled(_)), is_sampled, "{parent}");
        }
        sampled(&PARENT.replacen("00-", "cc-", 1), None);
        sampled(&format!("{}-later", PARENT.replacen("00-", "cc-", 1)), None);
    }

    #[test]
    fn what_is_not_valid_counts_as_absent() {
        for parent in [
            "",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &format!("{PARENT}-more"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
            &PARENT.replace("4bf9", "4bg9"),
            &PARENT.replace('-', "_"),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(CallerTrace::parse(parent, None), None, "{parent}");
        }
        for state in ["", "  ", "a=\u{7f}", "a=é", &"x".repeat(MAX_STATE_BYTES + 1)] {
            assert_eq!(sampled(PARENT, Some(state)).state, None, "{state}");
        }
    }

    #[test]
    fn a_context_is_journalled_as_text() {
        for state in [None, Some("a=1, b=2")] {
            let context = sampled(PARENT, state);
            let json = serde_json::to_string(&context).unwrap();
            assert_eq!(json, format!("\"{PARENT}{}\"", state.map(|state| format!(" {state}")).unwrap_or_default()));
            assert_eq!(serde_json::from_str::<TraceContext>(&json).unwrap(), context);
        }
        assert!(serde_json::from_str::<TraceContext>("\"00-1-2-01\"").is_err());
    }
}
