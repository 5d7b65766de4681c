//! Everything that YAML defines, validated as a whole.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use artel_model::{ContextOverflow, GpuLayers, KvCacheType, ModelPurpose};
use artel_router::{CandidateProfile, RouterSettings};
use artel_task::{
    AdapterName, CatalogVersion, Graph, GraphName, KnowledgeName, ModelName, NodeName, RoleName, RouterName,
};
use artel_yaml::{CheckDeadline, Diagnostics, Problem, Problems, YamlNode, YamlSource, YamlValue};

use crate::adapter::{Adapter, DeclaredAdapters};
use crate::declared_names::DeclaredNames;
use crate::decode::MapReader;
use crate::definition::{Definition, DefinitionKind};
use crate::graph::{self, CompiledNode, DeclaredDefinitions, GraphDraft};
use crate::keys;
use crate::knowledge::{Knowledge, NamedDefinitions, Reranker};
use crate::model::{Model, PlacementSetting};
use crate::model_memory::CacheSetting;
use crate::network::NetworkRules;
use crate::role::{Role, RoleDraft};
use crate::schema::Schema;
use crate::sources::Sources;
use crate::template::Template;
use crate::{routing, shipped};
use document::{Document, Documents};

/// Roles, models and graphs that fit together. It never changes: a reload builds another one.
#[derive(Debug, Clone)]
pub struct Catalog {
    version: CatalogVersion,
    roles: BTreeMap<RoleName, Arc<Role>>,
    models: BTreeMap<ModelName, Arc<Model>>,
    adapters: BTreeMap<AdapterName, Arc<Adapter>>,
    knowledge: BTreeMap<KnowledgeName, Arc<Knowledge>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    compiled: BTreeMap<GraphName, BTreeMap<NodeName, CompiledNode>>,
    profiles: BTreeMap<GraphName, CandidateProfile>,
    routers: BTreeMap<RouterName, Arc<RouterSettings>>,
    definitions: Vec<Definition>,
    warnings: Problems,
    sources: Sources,
}

impl Catalog {
    /// The catalog that ships, alone.
    pub fn shipped() -> Self {
        Self::parse(vec![shipped::sources()]).expect("the shipped catalog is tested to be valid")
    }

    /// A directory laid over the shipped catalog; without one, the shipped catalog alone. Reads files.
    pub fn load(dir: Option<&Path>) -> Result<Self, Problems> {
        let mut layers = vec![shipped::sources()];
        if let Some(dir) = dir {
            layers.push(artel_yaml::source::read_dir(dir)?);
        }
        Self::parse(layers)
    }

    /// The catalog of these layers, the lowest first: a definition replaces one of the same kind and name below it.
    pub fn parse(layers: Vec<Vec<YamlSource>>) -> Result<Self, Problems> {
        Self::parse_under(Sources { layers, from_client: false }, None, None)
    }

    /// The catalog of a client's files over the shipped ones. Each file has a directory, to which names in it are relative.
    ///
    /// # Errors
    /// As for any catalog; and a file names what the rules do not allow, which is a [refusal](Problem::is_refusal); and the check
    /// is over its deadline, soon after which it ends. Asks the file system whether a file is below a directory.
    pub fn parse_from_client(
        files: Vec<YamlSource>,
        rules: &NetworkRules,
        deadline: &CheckDeadline,
    ) -> Result<Self, Problems> {
        if let Some(file) = files.iter().find(|file| file.dir.is_none()) {
            return Err(Problem::file(&file.path, "the file has no directory").into());
        }
        let sources = Sources { layers: vec![shipped::sources(), files], from_client: true };
        Self::parse_under(sources, Some(rules), Some(deadline))
    }

    fn parse_under(
        sources: Sources,
        rules: Option<&NetworkRules>,
        deadline: Option<&CheckDeadline>,
    ) -> Result<Self, Problems> {
        let mut builder = CatalogBuilder::new(&sources, rules, deadline);
        builder.models();
        builder.adapters();
        builder.routers();
        builder.roles();
        builder.knowledge();
        builder.graphs();
        let parts = builder.finish()?;
        let version = sources.version();
        let CatalogParts {
            roles,
            models,
            adapters,
            knowledge,
            graphs,
            compiled,
            profiles,
            routers,
            definitions,
            warnings,
        } = parts;
        Ok(Self {
            version,
            roles,
            models,
            adapters,
            knowledge,
            graphs,
            compiled,
            profiles,
            routers,
            definitions,
            warnings,
            sources,
        })
    }

    /// The catalog that [`Sources::to_json`] stored. It may fail if the language has changed since, or if a client sent its files and
    /// they name what the rules do not allow any more.
    pub fn restore(json: &str, rules: Option<&NetworkRules>) -> Result<Self, Problems> {
        let sources: Sources = serde_json::from_str(json)
            .map_err(|e| Problem::file("stored catalog", format!("these are not the sources of a catalog: {e}")))?;
        let rules = rules.filter(|_| sources.from_client);
        Self::parse_under(sources, rules, None)
    }

    /// The content hash.
    pub fn version(&self) -> &CatalogVersion {
        &self.version
    }

    /// What is wrong with its YAML and does not make it invalid, such as former names of keys.
    pub fn warnings(&self) -> &Problems {
        &self.warnings
    }

    /// The files that it was built from.
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

    /// All adapters by name; those of which a role names the file are not among them.
    pub fn adapters(&self) -> &BTreeMap<AdapterName, Arc<Adapter>> {
        &self.adapters
    }

    /// An adapter.
    pub fn adapter(&self, name: &str) -> Option<&Arc<Adapter>> {
        self.adapters.get(name)
    }

    /// All knowledge by name.
    pub fn knowledge(&self) -> &BTreeMap<KnowledgeName, Arc<Knowledge>> {
        &self.knowledge
    }

    /// The model that embeds the passages of a knowledge; none if they are found by their words alone.
    pub fn embedding_model_of(&self, knowledge: &Knowledge) -> Option<&Arc<Model>> {
        let named = knowledge.embedding.as_ref().and_then(|name| self.model(name.as_str()));
        named.or_else(|| self.embedding_model()).filter(|_| knowledge.has_vectors())
    }

    /// All models by the names of their engines: a model that a role has on its own devices is one more, `name@device`.
    pub fn engines(&self) -> BTreeMap<String, Arc<Model>> {
        let own = self.models.values().map(|model| (model.name.to_string(), model.clone()));
        let of_roles = self.roles.values().filter_map(|role| self.model_of(role));
        of_roles.map(|model| (self.engine_name(&model), model)).chain(own).collect()
    }

    /// The name of a model's engine.
    pub fn engine_name(&self, model: &Model) -> String {
        let base = self.model(model.name.as_str());
        if model.placement.devices.is_empty() || base.is_some_and(|base| base.placement == model.placement) {
            return model.name.to_string();
        }
        format!("{}@{}", model.name, model.placement.devices.join("+"))
    }

    /// The model of a role, on the role's own devices if it has some.
    pub fn model_of(&self, role: &Role) -> Option<Arc<Model>> {
        let model = self.models.get(&role.model)?;
        if role.devices.is_empty() || role.devices == model.placement.devices {
            return Some(model.clone());
        }
        let placement =
            PlacementSetting { devices: role.devices.clone(), split: model.placement.split, tensor_split: Vec::new() };
        // A number of layers that the devices of the role cannot have is said of the model elsewhere: some are on GPUs, and there are
        // none; or none are, and the role wants one.
        let gpu_layers = match model.gpu_layers {
            GpuLayers::Count(1..) if !placement.names_cpu() => model.gpu_layers,
            GpuLayers::Auto | GpuLayers::Count(_) => GpuLayers::Auto,
        };
        Some(Arc::new(Model { placement, gpu_layers, ..Model::clone(model) }))
    }

    /// Whether a request may still need this model, as it is.
    pub fn uses_model(&self, model: &Arc<Model>) -> bool {
        let of_role = |role: &Arc<Role>| role.model == model.name && self.model_of(role).as_ref() == Some(model);
        self.models.get(&model.name) == Some(model) || self.roles.values().any(of_role)
    }

    /// The model with which routers compare texts: the first by name that has `use: embedding`, the user's own before the
    /// shipped ones. There is one wherever a graph has a router.
    pub fn embedding_model(&self) -> Option<&Arc<Model>> {
        let candidates = self.models.values().filter(|model| model.purpose == ModelPurpose::Embedding);
        candidates.min_by_key(|model| (model.dir.is_none(), &model.name))
    }

    /// All graphs by name.
    pub fn graphs(&self) -> &BTreeMap<GraphName, Arc<Graph>> {
        &self.graphs
    }

    /// A graph.
    pub fn graph(&self, name: &str) -> Option<&Arc<Graph>> {
        self.graphs.get(name)
    }

    /// The message of a node; without one, its role's message holds.
    pub fn message(&self, graph: &str, node: &str) -> Option<&Template> {
        self.compiled.get(graph)?.get(node)?.message.as_ref()
    }

    /// The schema that the answer to a node's question must satisfy; without one, any text will do.
    pub fn answer_schema(&self, graph: &str, node: &str) -> Option<&Schema> {
        self.compiled.get(graph)?.get(node)?.answer.as_ref()
    }

    /// The texts by which a router that chooses among graphs knows a graph.
    pub fn profile(&self, graph: &str) -> Option<&CandidateProfile> {
        self.profiles.get(graph)
    }

    /// The settings of a router; the shipped ones for a catalog that was stored before there were any.
    pub fn router_settings(&self, name: Option<&RouterName>) -> Arc<RouterSettings> {
        let settings = self.routers.get(name.map_or(routing::DEFAULT_ROUTER, RouterName::as_str));
        settings.cloned().unwrap_or_else(shipped_router_settings)
    }

    /// Every definition with its YAML, by kind and name.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// What has this name and is of none of these kinds, each with its place: `a role (own.yaml:3)`. None if nothing is.
    pub fn other_kinds(&self, name: &str, kinds: &[DefinitionKind]) -> Option<String> {
        let others = self.definitions.iter().filter(|d| d.name == name && !kinds.contains(&d.kind));
        let others: Vec<String> =
            others.map(|d| format!("{} ({}:{})", d.kind.with_article(), d.file, d.line)).collect();
        (!others.is_empty()).then(|| others.join(" and "))
    }

    /// A definition with its YAML.
    pub fn definition(&self, kind: DefinitionKind, name: &str) -> Option<&Definition> {
        self.definitions.iter().find(|d| d.kind == kind && d.name == name)
    }
}

/// The settings of the shipped router.
fn shipped_router_settings() -> Arc<RouterSettings> {
    static SHIPPED: OnceLock<Arc<RouterSettings>> = OnceLock::new();
    SHIPPED.get_or_init(|| Catalog::shipped().router_settings(None)).clone()
}

struct CatalogParts {
    roles: BTreeMap<RoleName, Arc<Role>>,
    models: BTreeMap<ModelName, Arc<Model>>,
    adapters: BTreeMap<AdapterName, Arc<Adapter>>,
    knowledge: BTreeMap<KnowledgeName, Arc<Knowledge>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    compiled: BTreeMap<GraphName, BTreeMap<NodeName, CompiledNode>>,
    profiles: BTreeMap<GraphName, CandidateProfile>,
    routers: BTreeMap<RouterName, Arc<RouterSettings>>,
    definitions: Vec<Definition>,
    warnings: Problems,
}

/// A catalog that is being built. Each kind is read after the kinds that it refers to.
struct CatalogBuilder<'s> {
    diagnostics: Vec<Diagnostics<'s>>,
    documents: Documents,
    declared: DeclaredNames,
    /// The models that could be read; the others are declared only.
    models: BTreeMap<ModelName, Arc<Model>>,
    adapters: BTreeMap<AdapterName, Arc<Adapter>>,
    knowledge: BTreeMap<KnowledgeName, Arc<Knowledge>>,
    roles: BTreeMap<RoleName, Arc<Role>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    compiled: BTreeMap<GraphName, BTreeMap<NodeName, CompiledNode>>,
    profiles: BTreeMap<GraphName, CandidateProfile>,
    routers: BTreeMap<RouterName, Arc<RouterSettings>>,
}

impl<'s> CatalogBuilder<'s> {
    fn new(sources: &'s Sources, rules: Option<&'s NetworkRules>, deadline: Option<&'s CheckDeadline>) -> Self {
        let mut diagnostics = Vec::new();
        let documents = Documents::read(sources, rules, deadline, &mut diagnostics);
        Self {
            declared: documents.names(&diagnostics),
            diagnostics,
            documents,
            models: BTreeMap::new(),
            adapters: BTreeMap::new(),
            knowledge: BTreeMap::new(),
            roles: BTreeMap::new(),
            graphs: BTreeMap::new(),
            compiled: BTreeMap::new(),
            profiles: BTreeMap::new(),
            routers: BTreeMap::new(),
        }
    }

    fn models(&mut self) {
        for document in self.documents.of(DefinitionKind::Model) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = ModelName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            if let Some(model) = Model::decode(&name, fields, report) {
                self.models.insert(name, Arc::new(model));
            }
        }
    }

    fn adapters(&mut self) {
        for document in self.documents.of(DefinitionKind::Adapter) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = AdapterName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            if let Some(adapter) = Adapter::decode(&name, fields, report) {
                self.adapters.insert(name, Arc::new(adapter));
            }
        }
    }

    /// After the models, since a chat model may be named.
    fn routers(&mut self) {
        for document in self.documents.of(DefinitionKind::Router) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = RouterName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            // One that could not be read has its own errors.
            let is_chat_model =
                |model: &str| self.models.get(model).is_none_or(|model| model.purpose == ModelPurpose::Chat);
            if let Some(settings) = routing::decode(fields, &self.declared, is_chat_model, report) {
                self.routers.insert(name, Arc::new(settings));
            }
        }
    }

    /// After the models and the roles, of which one may order what is found.
    fn knowledge(&mut self) {
        // A model that could not be read may be the embedding model.
        let has_embedding_model = self.declared.of(DefinitionKind::Model).count() > self.models.len()
            || self.models.values().any(|model| model.purpose == ModelPurpose::Embedding);
        for document in self.documents.of(DefinitionKind::Knowledge) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = KnowledgeName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let named = NamedDefinitions { declared: &self.declared, models: &self.models, roles: &self.roles };
            let Some(knowledge) = Knowledge::decode(&name, fields, &named, report) else { continue };
            if knowledge.has_vectors() && knowledge.embedding.is_none() && !has_embedding_model {
                report.error_with_hint(
                    document.name_span,
                    format!("knowledge `{name}` needs a model with `use: embedding`, and the catalog has none"),
                    "define one, or take `search: {mode: keyword}`",
                );
            }
            self.knowledge.insert(name, Arc::new(knowledge));
        }
    }

    fn roles(&mut self) {
        let adapters = DeclaredAdapters { read: &self.adapters, names: &self.declared };
        for document in self.documents.of(DefinitionKind::Role) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = RoleName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let draft = Role::decode(&name, fields, &adapters, &self.declared, report);
            let Some(RoleDraft { role, model_span }) = draft else { continue };
            match self.models.get_mut(&role.model) {
                Some(model) if model.purpose != ModelPurpose::Chat => {
                    let purpose = match model.purpose {
                        ModelPurpose::Rerank => "reranking",
                        _ => "embedding",
                    };
                    let message = format!("model `{}` is for {purpose}, and a role needs one for chat", role.model);
                    report.error(model_span, message);
                }
                Some(model)
                    if model.cache == CacheSetting::Fixed(KvCacheType::Bf16)
                        && role.overflow == ContextOverflow::Shift =>
                {
                    let model = &role.model;
                    let message = format!(
                        "`overflow: shift` moves the cells of a KV cache, and those of `cache: bf16` in model `{model}` cannot be moved: take `f16`, or `overflow: truncate`"
                    );
                    report.error(model_span, message);
                }
                Some(model) if model.cache == CacheSetting::Auto && role.overflow == ContextOverflow::Shift => {
                    Arc::make_mut(model).cache = CacheSetting::Fixed(KvCacheType::F16);
                }
                Some(_) => {}
                None => {
                    self.declared.report_missing(DefinitionKind::Model, role.model.as_str(), model_span, report);
                }
            }
            self.roles.insert(name, Arc::new(role));
        }
    }

    fn graphs(&mut self) {
        let role_count = self.declared.of(DefinitionKind::Role).filter(|name| RoleName::parse(name).is_ok()).count();
        let with_examples: Vec<RoleName> =
            self.roles.values().filter(|role| !role.examples.is_empty()).map(|role| role.name.clone()).collect();
        // A model that could not be read may be the embedding model.
        let has_invalid_model = self.declared.of(DefinitionKind::Model).count() > self.models.len();
        let inner_graphs: BTreeMap<String, BTreeSet<String>> = self
            .documents
            .of(DefinitionKind::Graph)
            .map(|document| (document.name.clone(), inner_graphs_of(document)))
            .collect();
        let has_all_roles = self.roles.len() == role_count;
        let has_embedding_model =
            has_invalid_model || self.models.values().any(|model| model.purpose == ModelPurpose::Embedding);
        let mut built: BTreeMap<GraphName, Arc<Graph>> = BTreeMap::new();
        for document in inner_first(self.documents.of(DefinitionKind::Graph).collect(), &inner_graphs) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = GraphName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            let declared = DeclaredDefinitions {
                names: &self.declared,
                with_examples: &with_examples,
                has_all_roles,
                has_embedding_model,
                graphs: &built,
                inner_graphs: &inner_graphs,
            };
            let draft = graph::decode(&name, fields, &declared, report);
            if let Some(GraphDraft { graph, compiled, profile }) = draft {
                self.profiles.insert(name.clone(), profile);
                built.insert(name.clone(), Arc::new(graph));
                self.compiled.insert(name, compiled);
            }
        }
        self.graphs = built;
    }

    /// The definitions that a definition refers to, as far as it could be read.
    fn uses(&self, kind: DefinitionKind, name: &str) -> BTreeSet<(DefinitionKind, String)> {
        match kind {
            DefinitionKind::Model | DefinitionKind::Adapter => BTreeSet::new(),
            DefinitionKind::Knowledge => {
                let Some(knowledge) = self.knowledge.get(name) else { return BTreeSet::new() };
                let reranker = knowledge.search.rerank.as_ref().map(|reranker| match reranker {
                    Reranker::Model(model) => (DefinitionKind::Model, model.to_string()),
                    Reranker::Role(role) => (DefinitionKind::Role, role.to_string()),
                });
                let embedding = knowledge.embedding.iter().map(|model| (DefinitionKind::Model, model.to_string()));
                embedding.chain(reranker).collect()
            }
            DefinitionKind::Router => {
                let label = self.routers.get(name).and_then(|settings| settings.label_model.as_ref());
                label.map(|model| (DefinitionKind::Model, model.to_string())).into_iter().collect()
            }
            DefinitionKind::Role => {
                let Some(role) = self.roles.get(name) else { return BTreeSet::new() };
                let adapters = role.adapters.iter().filter_map(|adapter| adapter.name.as_ref());
                let adapters = adapters.map(|name| (DefinitionKind::Adapter, name.to_string()));
                let knowledge = role.knowledge.iter().map(|name| (DefinitionKind::Knowledge, name.to_string()));
                adapters.chain(knowledge).chain([(DefinitionKind::Model, role.model.to_string())]).collect()
            }
            DefinitionKind::Graph => {
                let nodes = self.graphs.get(name).into_iter().flat_map(|graph| graph.nodes().values());
                let used = nodes.flat_map(|node| graph::uses(&node.kind));
                // Without such a document, the shipped settings hold.
                used.filter(|(kind, name)| *kind != DefinitionKind::Router || self.routers.contains_key(name.as_str()))
                    .collect()
            }
        }
    }

    fn finish(self) -> Result<CatalogParts, Problems> {
        let definitions = self.documents.definitions(&self.diagnostics, |kind, name| self.uses(kind, name));
        let warnings = Problems::warnings(self.diagnostics)?;
        let Self { roles, models, adapters, knowledge, graphs, compiled, profiles, routers, .. } = self;
        Ok(CatalogParts {
            roles,
            models,
            adapters,
            knowledge,
            graphs,
            compiled,
            profiles,
            routers,
            definitions,
            warnings,
        })
    }
}

/// The graphs that a graph's nodes run, as written.
fn inner_graphs_of(document: &Document) -> BTreeSet<String> {
    let Some(YamlNode { value: YamlValue::Map(nodes), .. }) = document.node.get("nodes") else {
        return BTreeSet::new();
    };
    let named = nodes.iter().filter_map(|entry| match &entry.value.get("graph")?.value {
        YamlValue::Str(name, _) => Some(name.clone()),
        _ => None,
    });
    named.collect()
}

/// Graphs in an order in which inner graphs come first; graphs that run each other in a circle come last.
fn inner_first<'d>(
    mut remaining: Vec<&'d Document>,
    inner_graphs: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<&'d Document> {
    let mut ordered = Vec::with_capacity(remaining.len());
    loop {
        let names: BTreeSet<&str> = remaining.iter().map(|document| document.name.as_str()).collect();
        let is_blocked = |document: &&Document| {
            inner_graphs.get(&document.name).is_some_and(|inner| inner.iter().any(|name| names.contains(name.as_str())))
        };
        let (next, rest): (Vec<_>, Vec<_>) = remaining.iter().partition(|document| !is_blocked(document));
        if next.is_empty() {
            ordered.extend(rest);
            return ordered;
        }
        ordered.extend(next);
        remaining = rest;
    }
}

fn fields<'d>(document: &'d Document, report: &mut Diagnostics<'_>) -> Option<MapReader<'d>> {
    if report.is_over_time(document.name_span) {
        return None;
    }
    let what = format!("{} `{}`", document.kind, document.name);
    let keys = match document.kind {
        DefinitionKind::Role => &keys::ROLE,
        DefinitionKind::Model => &keys::MODEL,
        DefinitionKind::Adapter => &keys::ADAPTER,
        DefinitionKind::Knowledge => &keys::KNOWLEDGE,
        DefinitionKind::Graph => &keys::GRAPH,
        DefinitionKind::Router => &keys::ROUTER,
    };
    let mut fields = MapReader::open(&document.node, &what, keys, report)?.at(document.name_span);
    fields.get(document.kind.key());
    Some(fields)
}
