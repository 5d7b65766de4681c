//! Everything that YAML defines, validated as a whole.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use artel_task::{CatalogVersion, Graph, GraphName, ModelName, NodeName, RoleName, RouterName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Pins;
use crate::decode::Fields;
use crate::graph::{self, Known, Words};
use crate::model::{Cache, Model, Use};
use crate::node::{Node, Value};
use crate::problem::{Problem, Problems, Report, did_you_mean};
use crate::role::{self, Overflow, Role};
use crate::routing::{Routing, Topic};
use crate::schema::Schema;
use crate::source::{self, Source};
use crate::template::Template;
use document::{Document, Documents};

pub use document::{Definition, Kind};

/// Roles, models and graphs that fit together. It never changes: a reload builds another one.
#[derive(Debug, Clone)]
pub struct Catalog {
    version: CatalogVersion,
    roles: BTreeMap<RoleName, Arc<Role>>,
    models: BTreeMap<ModelName, Arc<Model>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    words: BTreeMap<GraphName, BTreeMap<NodeName, Words>>,
    topics: BTreeMap<GraphName, Topic>,
    routings: BTreeMap<RouterName, Arc<Routing>>,
    definitions: Vec<Definition>,
    sources: Sources,
}

/// What a catalog was built from, layer over layer; it can be kept and built again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The lowest layer first.
    pub layers: Vec<Vec<Source>>,
}

impl Sources {
    /// As [`Catalog::restore`] takes it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("paths that are not UTF-8 were refused when they were read")
    }

    /// The content hash: which files lie where, and what is in them. Line ends don't count.
    fn version(&self) -> CatalogVersion {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for layer in &self.layers {
            field(&(layer.len() as u64).to_le_bytes());
            for source in layer {
                // How the path was written (relative or not) does not matter, where relative files are looked for does.
                let dir = source.dir.as_deref().map(Path::as_os_str).unwrap_or_default();
                let file = Path::new(&source.path).file_name().unwrap_or_default();
                field(dir.as_encoded_bytes());
                field(file.as_encoded_bytes());
                field(source.text.replace("\r\n", "\n").as_bytes());
            }
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        CatalogVersion::new(hex)
    }
}

impl Catalog {
    /// The catalog that ships, alone.
    pub fn shipped() -> Self {
        Self::parse(vec![crate::shipped::sources()]).expect("the shipped catalog is tested to be valid")
    }

    /// A directory laid over the shipped catalog; without one, the shipped catalog alone. Reads files.
    pub fn load(dir: Option<&Path>) -> Result<Self, Problems> {
        let mut layers = vec![crate::shipped::sources()];
        if let Some(dir) = dir {
            layers.push(source::read_dir(dir)?);
        }
        Self::parse(layers)
    }

    /// The catalog of these layers, the lowest first: a definition replaces one of the same kind and name below it.
    pub fn parse(layers: Vec<Vec<Source>>) -> Result<Self, Problems> {
        let sources = Sources { layers };
        let mut builder = Builder::new(&sources);
        builder.models();
        builder.routings();
        builder.roles();
        builder.graphs();
        let parts = builder.finish()?;
        let version = sources.version();
        let Parts { roles, models, graphs, words, topics, routings, definitions } = parts;
        Ok(Self { version, roles, models, graphs, words, topics, routings, definitions, sources })
    }

    /// The catalog that [`Sources::to_json`] kept. It may fail if the language has changed since.
    pub fn restore(json: &str) -> Result<Self, Problems> {
        let sources: Sources = serde_json::from_str(json)
            .map_err(|e| Problem::file("kept catalog", format!("these are no sources of a catalog: {e}")))?;
        Self::parse(sources.layers)
    }

    /// The content hash.
    pub fn version(&self) -> &CatalogVersion {
        &self.version
    }

    /// What it was built from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// All roles by name.
    pub fn roles(&self) -> &BTreeMap<RoleName, Arc<Role>> {
        &self.roles
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.get(name)
    }

    /// All models by name.
    pub fn models(&self) -> &BTreeMap<ModelName, Arc<Model>> {
        &self.models
    }

    /// A model.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    /// All models by the names of their engines: one that a role has on devices of its own is one more, `name@device`.
    pub fn engines(&self) -> BTreeMap<String, Arc<Model>> {
        let own = self.models.values().map(|model| (model.name.to_string(), model.clone()));
        let of_roles = self.roles.values().filter_map(|role| self.model_of(role));
        of_roles.map(|model| (self.engine_of(&model), model)).chain(own).collect()
    }

    /// The name of a model's engine.
    pub fn engine_of(&self, model: &Model) -> String {
        let base = self.model(model.name.as_str());
        if model.pins.devices.is_empty() || base.is_some_and(|base| base.pins == model.pins) {
            return model.name.to_string();
        }
        format!("{}@{}", model.name, model.pins.devices.join("+"))
    }

    /// The model of a role, on the role's own devices if it has some.
    pub fn model_of(&self, role: &Role) -> Option<Arc<Model>> {
        let model = self.models.get(&role.model)?;
        if role.devices.is_empty() || role.devices == model.pins.devices {
            return Some(model.clone());
        }
        let pins = Pins { devices: role.devices.clone(), split: model.pins.split, shares: Vec::new() };
        Some(Arc::new(Model { pins, ..Model::clone(model) }))
    }

    /// Whether somebody may still ask for this model, as it is.
    pub fn needs(&self, model: &Arc<Model>) -> bool {
        let of_role = |role: &Arc<Role>| role.model == model.name && self.model_of(role).as_ref() == Some(model);
        self.models.get(&model.name) == Some(model) || self.roles.values().any(of_role)
    }

    /// The model that routers compare texts with: the first by name that has `use: embedding`, one of the user's own
    /// before one that ships. There is one wherever a graph has a router.
    pub fn embedding_model(&self) -> Option<&Arc<Model>> {
        let fit = self.models.values().filter(|model| model.use_ == Use::Embedding);
        fit.min_by_key(|model| (model.dir.is_none(), &model.name))
    }

    /// All graphs by name.
    pub fn graphs(&self) -> &BTreeMap<GraphName, Arc<Graph>> {
        &self.graphs
    }

    /// A graph.
    pub fn graph(&self, name: &str) -> Option<&Arc<Graph>> {
        self.graphs.get(name)
    }

    /// The message that a node states itself; without one, its role's message holds.
    pub fn message(&self, graph: &str, node: &str) -> Option<&Template> {
        self.words.get(graph)?.get(node)?.message.as_ref()
    }

    /// The shape that the answer to a node's question must have; without one, any text will do.
    pub fn answer(&self, graph: &str, node: &str) -> Option<&Schema> {
        self.words.get(graph)?.get(node)?.schema.as_ref()
    }

    /// What a graph is known by to a router that chooses among graphs.
    pub fn topic(&self, graph: &str) -> Option<&Topic> {
        self.topics.get(graph)
    }

    /// The settings of a router; those that ship in a catalog that was kept before there were any.
    pub fn routing(&self, name: Option<&RouterName>) -> Arc<Routing> {
        let found = self.routings.get(name.map_or(crate::routing::DEFAULT, RouterName::as_str));
        found.cloned().unwrap_or_else(crate::shipped::routing)
    }

    /// Every definition with its YAML, by kind and name.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// A definition with its YAML.
    pub fn definition(&self, kind: Kind, name: &str) -> Option<&Definition> {
        self.definitions.iter().find(|d| d.kind == kind && d.name == name)
    }
}

struct Parts {
    roles: BTreeMap<RoleName, Arc<Role>>,
    models: BTreeMap<ModelName, Arc<Model>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    words: BTreeMap<GraphName, BTreeMap<NodeName, Words>>,
    topics: BTreeMap<GraphName, Topic>,
    routings: BTreeMap<RouterName, Arc<Routing>>,
    definitions: Vec<Definition>,
}

/// A catalog that is being built. Each kind is read when what it refers to is known.
struct Builder<'s> {
    reports: Vec<Report<'s>>,
    documents: Documents,
    /// Models that could be read; those that could not are declared but not here.
    models: BTreeMap<ModelName, Arc<Model>>,
    roles: BTreeMap<RoleName, Arc<Role>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    words: BTreeMap<GraphName, BTreeMap<NodeName, Words>>,
    topics: BTreeMap<GraphName, Topic>,
    routings: BTreeMap<RouterName, Arc<Routing>>,
}

impl<'s> Builder<'s> {
    fn new(sources: &'s Sources) -> Self {
        let mut reports = Vec::new();
        let documents = Documents::read(sources, &mut reports);
        Self {
            reports,
            documents,
            models: BTreeMap::new(),
            roles: BTreeMap::new(),
            graphs: BTreeMap::new(),
            words: BTreeMap::new(),
            topics: BTreeMap::new(),
            routings: BTreeMap::new(),
        }
    }

    fn models(&mut self) {
        for document in self.documents.of(Kind::Model) {
            let report = &mut self.reports[document.source];
            let Ok(name) = ModelName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            if let Some(model) = Model::decode(&name, fields, report) {
                self.models.insert(name, Arc::new(model));
            }
        }
    }

    /// After the models, since a chat model may be named.
    fn routings(&mut self) {
        for document in self.documents.of(Kind::Router) {
            let report = &mut self.reports[document.source];
            let Ok(name) = RouterName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let declared = self.documents.names(Kind::Model);
            let known = |model: &str| match self.models.get(model) {
                Some(model) => Some(model.use_ == Use::Chat),
                None => declared.contains(model).then_some(true),
            };
            if let Some(routing) = Routing::decode(fields, known, report) {
                self.routings.insert(name, Arc::new(routing));
            }
        }
    }

    fn roles(&mut self) {
        for document in self.documents.of(Kind::Role) {
            let report = &mut self.reports[document.source];
            let Ok(name) = RoleName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let Some(role::Draft { role, model_span }) = Role::decode(&name, fields, report) else { continue };
            let declared = self.documents.names(Kind::Model);
            match self.models.get_mut(&role.model) {
                Some(model) if model.use_ == Use::Embedding => {
                    let message = format!("model `{}` is for embedding, and a role needs one for chat", role.model);
                    report.add(model_span, message);
                }
                Some(model) if model.cache == Cache::Bf16 && role.overflow == Overflow::Shift => {
                    let model = &role.model;
                    let message = format!(
                        "`overflow: shift` moves the cells of a cache, and those of `cache: bf16` in model `{model}` cannot be moved: take `f16`, or `overflow: truncate`"
                    );
                    report.add(model_span, message);
                }
                Some(model) if model.cache == Cache::Auto && role.overflow == Overflow::Shift => {
                    Arc::make_mut(model).cache = Cache::F16;
                }
                None if !declared.contains(role.model.as_str()) => {
                    let hint = did_you_mean(role.model.as_str(), declared.iter().map(String::as_str));
                    report.push(model_span, format!("there is no model `{}`", role.model), hint);
                }
                _ => {}
            }
            self.roles.insert(name, Arc::new(role));
        }
    }

    fn graphs(&mut self) {
        let declared = self.documents.names(Kind::Role);
        let roles: BTreeSet<RoleName> = declared.iter().filter_map(|name| RoleName::parse(name).ok()).collect();
        let with_examples: Vec<RoleName> =
            self.roles.values().filter(|role| !role.examples.is_empty()).map(|role| role.name.clone()).collect();
        // A model that could not be read may well be the one that routers need.
        let unread = self.documents.names(Kind::Model).len() > self.models.len();
        let runs: BTreeMap<String, BTreeSet<String>> =
            self.documents.of(Kind::Graph).map(|document| (document.name.clone(), inner_graphs(document))).collect();
        let routers = self.documents.names(Kind::Router);
        let declared_graphs = self.documents.names(Kind::Graph);
        let complete = self.roles.len() == roles.len();
        let embedding = unread || self.models.values().any(|model| model.use_ == Use::Embedding);
        let mut built: BTreeMap<GraphName, Arc<Graph>> = BTreeMap::new();
        for document in inner_first(self.documents.of(Kind::Graph).collect(), &runs) {
            let report = &mut self.reports[document.source];
            let Ok(name) = GraphName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let known = Known {
                roles: &roles,
                routers: &routers,
                with_examples: &with_examples,
                complete,
                embedding,
                declared: &declared_graphs,
                graphs: &built,
                runs: &runs,
            };
            let draft = graph::decode(&name, fields, &known, report);
            if let Some(graph::Draft { graph, words, topic }) = draft {
                self.topics.insert(name.clone(), topic);
                built.insert(name.clone(), Arc::new(graph));
                self.words.insert(name, words);
            }
        }
        self.graphs = built;
    }

    /// What a definition refers to, as far as it could be read.
    fn uses(&self, kind: Kind, name: &str) -> BTreeSet<(Kind, String)> {
        match kind {
            Kind::Model => BTreeSet::new(),
            Kind::Router => {
                let label = self.routings.get(name).and_then(|routing| routing.label_model.as_ref());
                label.map(|model| (Kind::Model, model.to_string())).into_iter().collect()
            }
            Kind::Role => self.roles.get(name).map(|role| (Kind::Model, role.model.to_string())).into_iter().collect(),
            Kind::Graph => {
                let nodes = self.graphs.get(name).into_iter().flat_map(|graph| graph.nodes().values());
                let used = nodes.flat_map(|node| graph::uses(&node.kind));
                // Without such a document, a router listens as the shipped one does.
                used.filter(|(kind, name)| *kind != Kind::Router || self.routings.contains_key(name.as_str())).collect()
            }
        }
    }

    fn finish(self) -> Result<Parts, Problems> {
        let omitted = self.reports.iter().map(|r| r.omitted).sum();
        let definitions = self.documents.definitions(&self.reports, |kind, name| self.uses(kind, name));
        let problems: Vec<Problem> = self.reports.into_iter().flat_map(|r| r.problems).collect();
        if !problems.is_empty() {
            return Err(Problems::new(problems, omitted));
        }
        let Self { roles, models, graphs, words, topics, routings, .. } = self;
        Ok(Parts { roles, models, graphs, words, topics, routings, definitions })
    }
}

/// The graphs that a graph's nodes run, as written.
fn inner_graphs(document: &Document) -> BTreeSet<String> {
    let Some(Node { value: Value::Map(nodes), .. }) = document.node.get("nodes") else { return BTreeSet::new() };
    let named = nodes.iter().filter_map(|entry| match &entry.value.get("graph")?.value {
        Value::Str(name, _) => Some(name.clone()),
        _ => None,
    });
    named.collect()
}

/// Graphs in an order in which those inside of others come first; those that run in a circle come last.
fn inner_first<'d>(mut left: Vec<&'d Document>, runs: &BTreeMap<String, BTreeSet<String>>) -> Vec<&'d Document> {
    let mut ordered = Vec::with_capacity(left.len());
    loop {
        let waiting: BTreeSet<&str> = left.iter().map(|document| document.name.as_str()).collect();
        let waits = |document: &&Document| {
            runs.get(&document.name).is_some_and(|inner| inner.iter().any(|name| waiting.contains(name.as_str())))
        };
        let (next, rest): (Vec<_>, Vec<_>) = left.iter().partition(|document| !waits(document));
        if next.is_empty() {
            ordered.extend(rest);
            return ordered;
        }
        ordered.extend(next);
        left = rest;
    }
}

fn fields<'d>(document: &'d Document, report: &mut Report<'_>) -> Option<Fields<'d>> {
    let what = format!("{} `{}`", document.kind, document.name);
    let mut fields = Fields::open(&document.node, &what, report)?.at(document.name_span);
    fields.get(document.kind.key());
    Some(fields)
}
