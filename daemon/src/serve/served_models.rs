//! The models that clients of OpenAI's API see: the roles and graphs of the catalog, and its models that embed or rerank.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use artel_actors::Runtime;
use artel_check::files;
use artel_gguf as gguf;
use artel_openai::{GRAPH_PREFIX, GraphFacts, ModelDirectory, RoleFacts, ServedKind, ServedModel};
use artel_roles::{Catalog, Model, ModelPurpose, Role};
use artel_task::graph::{Node, NodeKind};
use artel_task::{Graph, NodeName};
use tokio::task::block_in_place;

use super::loader::DEFAULT_CONTEXT_TOKENS;

/// The id of the default graph.
const AUTO: &str = "auto";
/// What an id begins with whose name stands for something else: a role before a graph, that before a model.
const ROLE_PREFIX: &str = "role:";
const MODEL_PREFIX: &str = "model:";

/// When a file was changed, and the context that its header names.
type TrainedContext = (Option<SystemTime>, Option<u32>);

/// The directory of a running daemon.
pub(super) struct ServedModels {
    runtime: Runtime,
    models_dir: PathBuf,
    /// What the headers of files say, by the time of their change.
    trained: Mutex<HashMap<PathBuf, TrainedContext>>,
    /// Seconds since 1970: definitions have no time of their own.
    started: u64,
}

impl ServedModels {
    pub(super) fn new(runtime: Runtime, models_dir: PathBuf) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { runtime, models_dir, trained: Mutex::default(), started }
    }

    /// The context of a model in tokens; none if that depends on a file that is not here.
    fn context_tokens(&self, model: &Model) -> Option<u32> {
        model.context.or_else(|| Some(self.trained_tokens(model)?.min(DEFAULT_CONTEXT_TOKENS)))
    }

    fn trained_tokens(&self, model: &Model) -> Option<u32> {
        let path = files::model_path(model, &self.models_dir).ok()?;
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let mut trained = self.trained.lock().unwrap_or_else(PoisonError::into_inner);
        match trained.get(&path) {
            Some((known, tokens)) if *known == changed => *tokens,
            _ => {
                let header = block_in_place(|| gguf::estimate_memory(&path)).ok();
                let tokens = header.map(|header| header.trained_context.unwrap_or(DEFAULT_CONTEXT_TOKENS));
                trained.insert(path, (changed, tokens));
                tokens
            }
        }
    }

    /// A definition of this name, whose id is the name itself unless that stands for something else.
    fn served(&self, name: &str, prefix: Option<&str>, kind: ServedKind, about: (&str, Option<u32>)) -> ServedModel {
        let (name, created) = (name.to_owned(), self.started);
        let id = format!("{}{name}", prefix.unwrap_or_default());
        ServedModel { id, name, kind, description: about.0.to_owned(), context_tokens: about.1, created }
    }

    fn role(&self, role: &Role, catalog: &Catalog) -> ServedModel {
        let facts = RoleFacts { max_tokens: role.sampling.max_tokens, is_sampling_fixed: role.sampling.fixed };
        let (name, context) =
            (role.name.as_str(), catalog.model_of(role).and_then(|model| self.context_tokens(&model)));
        let prefix = (name == AUTO).then_some(ROLE_PREFIX);
        self.served(name, prefix, ServedKind::Role(facts), (&role.description, context))
    }

    fn graph(&self, graph: &Graph, catalog: &Catalog) -> ServedModel {
        let facts = GraphFacts { answer_nodes: answer_nodes(graph) };
        let name = graph.name().as_str();
        let prefix = (name == AUTO || catalog.role(name).is_some()).then_some(GRAPH_PREFIX);
        self.served(name, prefix, ServedKind::Graph(facts), (graph.description(), None))
    }

    fn model(&self, model: &Model, catalog: &Catalog) -> Option<ServedModel> {
        let kind = match model.purpose {
            ModelPurpose::Chat => return None,
            ModelPurpose::Embedding => ServedKind::Embedding,
            ModelPurpose::Rerank => ServedKind::Reranker,
        };
        let (name, description) = (model.name.as_str(), model.description.as_deref().unwrap_or_default());
        let is_taken = name == AUTO || catalog.role(name).is_some() || catalog.graph(name).is_some();
        let prefix = is_taken.then_some(MODEL_PREFIX);
        Some(self.served(name, prefix, kind, (description, self.context_tokens(model))))
    }

    fn auto(&self) -> ServedModel {
        self.served(AUTO, None, ServedKind::Auto, ("The graph that runs where none is named.", None))
    }
}

impl ModelDirectory for ServedModels {
    fn list(&self) -> Vec<ServedModel> {
        let catalog = self.runtime.catalog();
        let roles = catalog.roles().values().map(|role| self.role(role, &catalog));
        let graphs = catalog.graphs().values().map(|graph| self.graph(graph, &catalog));
        let models = catalog.models().values().filter_map(|model| self.model(model, &catalog));
        [self.auto()].into_iter().chain(roles).chain(graphs).chain(models).collect()
    }

    fn find(&self, id: &str) -> Option<ServedModel> {
        if id == AUTO {
            return Some(self.auto());
        }
        let catalog = self.runtime.catalog();
        // An id that is a name is that of a role first; one with a prefix is of its kind alone.
        let name = |prefix: &str| id.strip_prefix(prefix).or(Some(id).filter(|id| !id.contains(':')));
        let role = || name(ROLE_PREFIX).and_then(|name| catalog.role(name)).map(|role| self.role(role, &catalog));
        let graph = || name(GRAPH_PREFIX).and_then(|name| catalog.graph(name)).map(|graph| self.graph(graph, &catalog));
        let model =
            || name(MODEL_PREFIX).and_then(|name| catalog.model(name)).and_then(|model| self.model(model, &catalog));
        role().or_else(graph).or_else(model)
    }
}

/// The nodes whose text is the result of the task as they write it: whichever of them runs, it runs once, and nothing follows it. None
/// if several may run.
fn answer_nodes(graph: &Graph) -> Vec<String> {
    let forks = |node: &Node| node.next.iter().filter(|edge| edge.when.is_none()).count() > 1;
    if graph.fallback().is_some() || graph.nodes().values().any(forks) {
        return Vec::new();
    }
    let is_result = |name: &NodeName| graph.result().is_none_or(|result| result == name);
    let ends = |node: &Node| {
        let is_last = node.next.iter().all(|edge| edge.to.is_none()) && node.on_failure.is_none();
        is_last && node.for_each.is_none() && matches!(node.kind, NodeKind::Role { .. })
    };
    let nodes = graph.nodes().iter().filter(|(name, node)| is_result(name) && ends(node));
    nodes.map(|(name, _)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(nodes: &str) -> Vec<String> {
        let yaml = format!(
            "model: m\nfile: m.gguf\n---\nrole: r\ndescription: D.\nmodel: m\nprompt: P\n---\ngraph: g\ndescription: D.\nstart: a\n{nodes}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("g.yaml"), yaml).unwrap();
        let catalog = Catalog::load(Some(dir.path())).unwrap();
        answer_nodes(catalog.graph("g").unwrap())
    }

    #[test]
    fn tokens_are_those_of_the_answer_where_one_node_alone_writes_it() {
        let pair = "nodes: {a: {role: r, next: b}, b: {role: r, next: done}}\n";
        assert_eq!(answering(pair), ["b"]);
        assert_eq!(answering(&format!("result: a\n{pair}")), [""; 0], "something follows it");
        let choice = "nodes: {a: {role: r, next: [{to: b, when: 'output == \"x\"'}, {to: c}]}, b: {role: r, next: done}, c: {role: r, next: done}}\n";
        assert_eq!(answering(choice), ["b", "c"]);
        let both = "nodes: {a: {role: r, next: [b, c]}, b: {role: r, next: done}, c: {role: r, next: done}}\n";
        assert_eq!(answering(both), [""; 0], "both run");
        assert_eq!(answering(&format!("fallback: Sorry.\n{pair}")), [""; 0], "another text may take its place");
    }
}
