//! Which calls are told as spans, and what they are children of.

use std::collections::HashSet;
use std::sync::Arc;

use artel_task::{CallerTrace, TraceContext};
use artel_traces::{CallSpan, Tracer};
use tonic::Request;
use tonic::codegen::http::HeaderMap;

/// What the traced methods begin with: those of the daemon, not of its health.
const TRACED_PREFIX: &str = "artel.v1.";
/// The methods that begin a task or give work to a model, and so begin a trace, without a word of their caller.
const WORK_METHODS: [&str; 5] = [
    "artel.v1.Tasks/Submit",
    "artel.v1.Tasks/Run",
    "artel.v1.Tasks/Fork",
    "artel.v1.Models/Embed",
    "artel.v1.Models/Rerank",
];

/// Begins the spans of calls.
#[derive(Clone)]
pub(crate) struct CallTracer {
    tracer: Tracer,
    methods: Arc<HashSet<String>>,
}

impl CallTracer {
    /// Those of these methods that are the daemon's own are traced; no client makes up new ones.
    pub(crate) fn new(tracer: Tracer, methods: &[String]) -> Self {
        let methods = methods.iter().filter(|method| method.starts_with(TRACED_PREFIX)).cloned().collect();
        Self { tracer, methods: Arc::new(methods) }
    }

    /// The span of a call with these headers, if it is traced.
    pub(crate) fn begin(&self, method: &str, headers: &HeaderMap) -> Option<CallSpan> {
        let method = self.methods.get(method)?;
        self.tracer.call(method, caller(headers), WORK_METHODS.contains(&method.as_str()))
    }
}

/// What the headers say of the caller's trace. Several `traceparent` say nothing, and several `tracestate` are one.
pub(crate) fn caller(headers: &HeaderMap) -> Option<CallerTrace> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states: Vec<&str> = headers.get_all("tracestate").iter().filter_map(|state| state.to_str().ok()).collect();
    CallerTrace::parse(parent, Some(states.join(",")).as_deref())
}

/// The span of a call, as the parent of what it begins.
pub(crate) fn trace_of<T>(request: &Request<T>) -> Option<TraceContext> {
    request.extensions().get::<TraceContext>().cloned()
}

#[cfg(test)]
mod tests {
    use artel_metrics::TraceMetrics;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn begin(method: &str, headers: &[(&'static str, &str)]) -> Option<TraceContext> {
        let methods = ["artel.v1.Tasks/Submit", "artel.v1.Tasks/Get", "grpc.health.v1.Health/Check"];
        let tracer = CallTracer::new(Tracer::new(1.0, TraceMetrics::default()), &methods.map(str::to_owned));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        tracer.begin(method, &map).map(|span| span.place().clone())
    }

    #[test]
    fn a_call_is_traced_if_it_begins_a_task_or_its_caller_says_so() {
        assert!(begin("artel.v1.Tasks/Submit", &[]).is_some());
        assert!(begin("artel.v1.Tasks/Get", &[]).is_none());
        let parent = ("traceparent", PARENT);
        assert!(begin("artel.v1.Tasks/Get", &[parent]).is_some());
        assert!(begin("grpc.health.v1.Health/Check", &[parent]).is_none());
        assert!(begin("made/up", &[parent]).is_none());
        let place = begin("artel.v1.Tasks/Submit", &[parent, ("tracestate", "a=1"), ("tracestate", "b=2")]).unwrap();
        assert_eq!((place.trace.to_string(), place.state.as_deref()), (PARENT[3..35].to_owned(), Some("a=1,b=2")));
        let place = begin("artel.v1.Tasks/Submit", &[parent, parent]).unwrap();
        assert_ne!(place.trace.to_string(), PARENT[3..35], "two parents are none");
    }
}
