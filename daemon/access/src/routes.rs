//! What each call needs: the one table of all methods and routes.

use crate::scope::AccessScope::{self, Admin, Answer, Apply, Read, Submit};

/// What a path ends in that has a part of the client's choice there.
const ID_PART: &str = "{id}";

/// A gRPC method or an HTTP route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path; one that ends in `{id}` is that of all paths that have one more part in its place.
    pub path: &'static str,
    /// What a caller needs for it.
    pub need: RouteNeed,
    /// Whether the log has the caller and the outcome of each call.
    pub is_audited: bool,
    /// Whether its answer may go on for as long as the caller likes.
    pub is_stream: bool,
}

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteNeed {
    /// Nothing: strangers may call it.
    Nothing,
    /// This scope.
    Scope(AccessScope),
}

impl Route {
    /// The route of a request; `HEAD` is `GET` without the body.
    pub fn find(method: &str, path: &str) -> Option<&'static Self> {
        let method = if method == "HEAD" { "GET" } else { method };
        ROUTES.iter().find(|route| route.is_of(path) && route.method == method)
    }

    fn is_of(&self, path: &str) -> bool {
        match self.path.strip_suffix(ID_PART) {
            Some(before) => path.strip_prefix(before).is_some_and(|id| !id.is_empty() && !id.contains('/')),
            None => self.path == path,
        }
    }

    const fn rpc(path: &'static str, scope: AccessScope) -> Self {
        Self { method: "POST", path, need: RouteNeed::Scope(scope), is_audited: false, is_stream: false }
    }

    const fn post(path: &'static str, scope: AccessScope) -> Self {
        Self::rpc(path, scope)
    }

    const fn get(path: &'static str, need: RouteNeed) -> Self {
        Self { method: "GET", path, need, is_audited: false, is_stream: false }
    }

    const fn public(self) -> Self {
        Self { need: RouteNeed::Nothing, ..self }
    }

    const fn audited(self) -> Self {
        Self { is_audited: true, ..self }
    }

    const fn stream(self) -> Self {
        Self { is_stream: true, ..self }
    }
}

/// Every method and route. What is not in it is refused, and a test compares it with the protos.
///
/// A scope here is what a caller needs at least. That the tasks of others need `read:all`, or `admin` to change them, is decided
/// where the task is known.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    Route::rpc("/artel.v1.Tasks/Submit", Submit),
    Route::rpc("/artel.v1.Tasks/Run", Submit).stream(),
    Route::rpc("/artel.v1.Tasks/Watch", Read).stream(),
    Route::rpc("/artel.v1.Tasks/Get", Read),
    Route::rpc("/artel.v1.Tasks/List", Read),
    Route::rpc("/artel.v1.Tasks/Cancel", Submit).audited(),
    Route::rpc("/artel.v1.Tasks/Resume", Submit).audited(),
    Route::rpc("/artel.v1.Tasks/Answer", Answer).audited(),
    Route::rpc("/artel.v1.Tasks/Fork", Submit),
    Route::rpc("/artel.v1.Tasks/Feedback", Submit),
    Route::rpc("/artel.v1.Tasks/Rate", Submit),
    // Of one's own tasks; those of others need `admin`.
    Route::rpc("/artel.v1.Tasks/Erase", Submit).audited(),
    Route::rpc("/artel.v1.Catalog/List", Read),
    Route::rpc("/artel.v1.Catalog/Get", Read),
    // It keeps a core busy for seconds, and says which files the machine has.
    Route::rpc("/artel.v1.Catalog/Validate", Apply),
    Route::rpc("/artel.v1.Catalog/Apply", Apply).audited(),
    Route::rpc("/artel.v1.Router/Preview", Read),
    // Of one's own tasks; that of others needs `read:all`.
    Route::rpc("/artel.v1.Router/ListFeedback", Read),
    // It is work for a model, as a task is.
    Route::rpc("/artel.v1.Models/Embed", Submit),
    Route::rpc("/artel.v1.Models/Rerank", Submit),
    Route::rpc("/artel.v1.Knowledge/List", Read),
    Route::rpc("/artel.v1.Knowledge/ListSources", Read),
    Route::rpc("/artel.v1.Knowledge/GetSource", Read),
    Route::rpc("/artel.v1.Knowledge/Search", Submit),
    Route::rpc("/artel.v1.Knowledge/AddText", Submit).audited(),
    Route::rpc("/artel.v1.Knowledge/RemoveText", Submit).audited(),
    // Samples have texts of all callers.
    Route::rpc("/artel.v1.Training/ListSamples", Admin).stream(),
    Route::rpc("/artel.v1.Training/LintData", Admin),
    Route::rpc("/artel.v1.Training/GetTrainer", Admin),
    Route::rpc("/artel.v1.Training/SetUpTrainer", Admin).audited().stream(),
    Route::rpc("/artel.v1.Training/StartRun", Admin).audited(),
    Route::rpc("/artel.v1.Training/ListRuns", Admin),
    Route::rpc("/artel.v1.Training/GetRun", Admin),
    Route::rpc("/artel.v1.Training/WatchRun", Admin).stream(),
    Route::rpc("/artel.v1.Training/StopRun", Admin).audited(),
    // An adapter has learned from texts of all callers.
    Route::rpc("/artel.v1.Training/ExportRun", Admin).audited().stream(),
    Route::rpc("/artel.v1.Training/DeleteRun", Admin).audited(),
    Route::rpc("/artel.v1.Engines/ListDevices", Read),
    Route::rpc("/artel.v1.Engines/ListEngines", Read),
    Route::rpc("/artel.v1.Engines/GetPlacement", Read),
    Route::rpc("/artel.v1.Engines/Load", Admin).audited(),
    Route::rpc("/artel.v1.Engines/Unload", Admin).audited(),
    Route::rpc("/artel.v1.Access/CreateToken", Admin).audited(),
    Route::rpc("/artel.v1.Access/ListTokens", Admin),
    Route::rpc("/artel.v1.Access/RevokeToken", Admin).audited(),
    Route::rpc("/artel.v1.Admin/GetLogLevel", Admin),
    Route::rpc("/artel.v1.Admin/SetLogLevel", Admin).audited(),
    Route::rpc("/grpc.health.v1.Health/Check", Read).public(),
    Route::rpc("/grpc.health.v1.Health/Watch", Read).public().stream(),
    Route::rpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Read).stream(),
    Route::rpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Read).stream(),
    Route::get("/v1/models", RouteNeed::Scope(Read)),
    Route::get("/v1/models/{id}", RouteNeed::Scope(Read)),
    Route::post("/v1/chat/completions", Submit).stream(),
    Route::post("/v1/completions", Submit).stream(),
    Route::post("/v1/responses", Submit).stream(),
    Route::post("/v1/embeddings", Submit),
    Route::post("/v1/rerank", Submit),
    Route::post("/v1/search", Submit),
    Route::get("/healthz", RouteNeed::Nothing),
    Route::get("/readyz", RouteNeed::Nothing),
    Route::get("/metrics", RouteNeed::Scope(Read)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_method_and_path() {
        assert_eq!(Route::find("POST", "/artel.v1.Tasks/Get").map(|route| route.need), Some(RouteNeed::Scope(Read)));
        assert_eq!(Route::find("HEAD", "/healthz").map(|route| route.need), Some(RouteNeed::Nothing));
        assert_eq!(Route::find("GET", "/v1/models/shop").map(|route| route.path), Some("/v1/models/{id}"));
        for (method, path) in [
            ("GET", "/artel.v1.Tasks/Get"),
            ("POST", "/metrics"),
            ("POST", "/artel.v1.Tasks/Get/"),
            ("GET", "/v1/models/"),
            ("GET", "/v1/models/a/b"),
            ("GET", ""),
        ] {
            assert_eq!(Route::find(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn strangers_learn_of_health_alone() {
        let public: Vec<&str> =
            ROUTES.iter().filter(|route| route.need == RouteNeed::Nothing).map(|route| route.path).collect();
        assert_eq!(public, ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/healthz", "/readyz"]);
    }

    #[test]
    fn a_route_stands_in_the_table_once() {
        for (at, route) in ROUTES.iter().enumerate() {
            assert_eq!(
                ROUTES.iter().position(|other| (other.method, other.path) == (route.method, route.path)),
                Some(at)
            );
        }
    }
}
