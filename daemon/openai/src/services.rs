//! What the routes call and are told: the services of gRPC, and the models that are served.

use artel_proto::v1::knowledge_server::Knowledge;
use artel_proto::v1::models_server::Models;
use artel_proto::v1::tasks_server::Tasks;

/// What an id begins with that names a graph, also if a role has the same name.
pub const GRAPH_PREFIX: &str = "graph:";

/// The services of the daemon, called in its own process.
pub trait Services: Tasks + Models + Knowledge + Clone + Send + Sync + 'static {}

impl<S: Tasks + Models + Knowledge + Clone + Send + Sync + 'static> Services for S {}

/// What a client may name as its `model`.
pub trait ModelDirectory: Send + Sync + 'static {
    /// All of them, in the order in which they are listed.
    fn list(&self) -> Vec<ServedModel>;

    /// The one with this id, which may have [`GRAPH_PREFIX`] also where it is not listed so.
    fn find(&self, id: &str) -> Option<ServedModel>;
}

/// Something that answers under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// What is listed and asked for: the name, with a prefix if something else has the same name, or `auto`.
    pub id: String,
    /// The name of the role, graph or model in the catalog.
    pub name: String,
    /// What it is.
    pub kind: ServedKind,
    /// What it is for; may be empty.
    pub description: String,
    /// The tokens of its context, if they are known.
    pub context_tokens: Option<u32>,
    /// When its catalog was read, in seconds since 1970.
    pub created: u64,
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedKind {
    /// The default graph, or the one that the router chooses.
    Auto,
    /// A graph.
    Graph(GraphFacts),
    /// A single role.
    Role(RoleFacts),
    /// A model that embeds texts.
    Embedding,
    /// A model that ranks documents.
    Reranker,
}

/// What the routes have to know of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphFacts {
    /// The nodes whose text is the result of the task if they run: their tokens alone are streamed.
    pub answer_nodes: Vec<String>,
}

/// What the routes have to know of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFacts {
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Whether callers choose nothing of its sampling but length, ends, seed, number and logprobs.
    pub is_sampling_fixed: bool,
}

impl ServedKind {
    /// The word for it in the list of models.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Graph(_) => "graph",
            Self::Role(_) => "role",
            Self::Embedding => "embedding",
            Self::Reranker => "reranker",
        }
    }
}
