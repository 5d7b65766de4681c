//! Everything that YAML defines, validated as a whole.

mod builder;
mod document;
mod parts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use artel_model::{GpuLayers, ModelPurpose};
use artel_router::{CandidateProfile, RouterSettings};
use artel_task::{
    AdapterName, CatalogVersion, Graph, GraphName, KnowledgeName, ModelName, RoleName, RouterName, TrainingName,
};
use artel_yaml::{CheckDeadline, Problem, Problems, YamlSource};

use crate::adapter::Adapter;
use crate::definition::{Definition, DefinitionKind};
use crate::knowledge::Knowledge;
use crate::model::{Model, PlacementSetting};
use crate::network::NetworkRules;
use crate::role::Role;
use crate::schema::Schema;
use crate::sources::Sources;
use crate::template::Template;
use crate::training::Training;
use crate::{routing, shipped};
use builder::CatalogBuilder;
use parts::CatalogParts;

/// Roles, models and graphs that fit together. It never changes: a reload builds another one.
#[derive(Debug, Clone)]
pub struct Catalog {
    version: CatalogVersion,
    parts: CatalogParts,
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
        let parts = CatalogBuilder::new(&sources, rules, deadline).build()?;
        Ok(Self { version: sources.version(), parts, sources })
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
        &self.parts.warnings
    }

    /// The files that it was built from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// All roles by name.
    pub fn roles(&self) -> &BTreeMap<RoleName, Arc<Role>> {
        &self.parts.roles
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.parts.roles.get(name)
    }

    /// All models by name.
    pub fn models(&self) -> &BTreeMap<ModelName, Arc<Model>> {
        &self.parts.models
    }

    /// A model.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.parts.models.get(name)
    }

    /// All adapters by name; those of which a role names the file are not among them.
    pub fn adapters(&self) -> &BTreeMap<AdapterName, Arc<Adapter>> {
        &self.parts.adapters
    }

    /// An adapter.
    pub fn adapter(&self, name: &str) -> Option<&Arc<Adapter>> {
        self.parts.adapters.get(name)
    }

    /// All knowledge by name.
    pub fn knowledge(&self) -> &BTreeMap<KnowledgeName, Arc<Knowledge>> {
        &self.parts.knowledge
    }

    /// A training.
    pub fn training(&self, name: &str) -> Option<&Arc<Training>> {
        self.parts.trainings.get(name)
    }

    /// All trainings by name.
    pub fn trainings(&self) -> &BTreeMap<TrainingName, Arc<Training>> {
        &self.parts.trainings
    }

    /// The model that embeds the passages of a knowledge; none if they are found by their words alone.
    pub fn embedding_model_of(&self, knowledge: &Knowledge) -> Option<&Arc<Model>> {
        let named = knowledge.embedding.as_ref().and_then(|name| self.model(name.as_str()));
        named.or_else(|| self.embedding_model()).filter(|_| knowledge.has_vectors())
    }

    /// All models by the names of their engines: a model that a role has on its own devices is one more, `name@device`.
    pub fn engines(&self) -> BTreeMap<String, Arc<Model>> {
        let own = self.parts.models.values().map(|model| (model.name.to_string(), model.clone()));
        let of_roles = self.parts.roles.values().filter_map(|role| self.model_of(role));
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
        let model = self.parts.models.get(&role.model)?;
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
        self.parts.models.get(&model.name) == Some(model) || self.parts.roles.values().any(of_role)
    }

    /// The model with which routers compare texts: the first by name that has `use: embedding`, the user's own before the
    /// shipped ones. There is one wherever a graph has a router.
    pub fn embedding_model(&self) -> Option<&Arc<Model>> {
        let candidates = self.parts.models.values().filter(|model| model.purpose == ModelPurpose::Embedding);
        candidates.min_by_key(|model| (model.dir.is_none(), &model.name))
    }

    /// All graphs by name.
    pub fn graphs(&self) -> &BTreeMap<GraphName, Arc<Graph>> {
        &self.parts.graphs
    }

    /// A graph.
    pub fn graph(&self, name: &str) -> Option<&Arc<Graph>> {
        self.parts.graphs.get(name)
    }

    /// The message of a node; without one, its role's message holds.
    pub fn message(&self, graph: &str, node: &str) -> Option<&Template> {
        self.parts.compiled.get(graph)?.get(node)?.message.as_ref()
    }

    /// The schema that the answer to a node's question must satisfy; without one, any text will do.
    pub fn answer_schema(&self, graph: &str, node: &str) -> Option<&Schema> {
        self.parts.compiled.get(graph)?.get(node)?.answer.as_ref()
    }

    /// The texts by which a router that chooses among graphs knows a graph.
    pub fn profile(&self, graph: &str) -> Option<&CandidateProfile> {
        self.parts.profiles.get(graph)
    }

    /// The settings of a router; the shipped ones for a catalog that was stored before there were any.
    pub fn router_settings(&self, name: Option<&RouterName>) -> Arc<RouterSettings> {
        let settings = self.parts.routers.get(name.map_or(routing::DEFAULT_ROUTER, RouterName::as_str));
        settings.cloned().unwrap_or_else(shipped_router_settings)
    }

    /// Every definition with its YAML, by kind and name.
    pub fn definitions(&self) -> &[Definition] {
        &self.parts.definitions
    }

    /// What has this name and is of none of these kinds, each with its place: `a role (own.yaml:3)`. None if nothing is.
    pub fn other_kinds(&self, name: &str, kinds: &[DefinitionKind]) -> Option<String> {
        let others = self.parts.definitions.iter().filter(|d| d.name == name && !kinds.contains(&d.kind));
        let others: Vec<String> =
            others.map(|d| format!("{} ({}:{})", d.kind.with_article(), d.file, d.line)).collect();
        (!others.is_empty()).then(|| others.join(" and "))
    }

    /// A definition with its YAML.
    pub fn definition(&self, kind: DefinitionKind, name: &str) -> Option<&Definition> {
        self.parts.definitions.iter().find(|d| d.kind == kind && d.name == name)
    }
}

/// The settings of the shipped router.
fn shipped_router_settings() -> Arc<RouterSettings> {
    static SHIPPED: OnceLock<Arc<RouterSettings>> = OnceLock::new();
    SHIPPED.get_or_init(|| Catalog::shipped().router_settings(None)).clone()
}
