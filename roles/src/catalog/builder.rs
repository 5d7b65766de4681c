//! Builds a catalog from documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use artel_model::{ContextOverflow, KvCacheType, ModelPurpose};
use artel_router::{CandidateProfile, RouterSettings};
use artel_task::{
    AdapterName, Graph, GraphName, KnowledgeName, ModelName, NodeName, RoleName, RouterName, TrainingName,
};
use artel_yaml::{CheckDeadline, Diagnostics, Problems, YamlNode, YamlValue};

use super::document::{Document, Documents};
use super::parts::CatalogParts;
use crate::adapter::{Adapter, DeclaredAdapters};
use crate::declared_names::DeclaredNames;
use crate::decode::MapReader;
use crate::definition::DefinitionKind;
use crate::graph::{self, CompiledNode, DeclaredDefinitions, GraphDraft};
use crate::knowledge::{Knowledge, NamedDefinitions, Reranker};
use crate::model::Model;
use crate::model_memory::CacheSetting;
use crate::network::NetworkRules;
use crate::role::{Role, RoleDraft};
use crate::sources::Sources;
use crate::training::Training;
use crate::{keys, routing};

/// A catalog that is being built. Each kind is read after the kinds that it refers to.
pub(super) struct CatalogBuilder<'s> {
    diagnostics: Vec<Diagnostics<'s>>,
    documents: Documents,
    declared: DeclaredNames,
    /// The models that could be read; the others are declared only.
    models: BTreeMap<ModelName, Arc<Model>>,
    adapters: BTreeMap<AdapterName, Arc<Adapter>>,
    knowledge: BTreeMap<KnowledgeName, Arc<Knowledge>>,
    trainings: BTreeMap<TrainingName, Arc<Training>>,
    roles: BTreeMap<RoleName, Arc<Role>>,
    graphs: BTreeMap<GraphName, Arc<Graph>>,
    compiled: BTreeMap<GraphName, BTreeMap<NodeName, CompiledNode>>,
    profiles: BTreeMap<GraphName, CandidateProfile>,
    routers: BTreeMap<RouterName, Arc<RouterSettings>>,
}

impl<'s> CatalogBuilder<'s> {
    pub(super) fn new(
        sources: &'s Sources,
        rules: Option<&'s NetworkRules>,
        deadline: Option<&'s CheckDeadline>,
    ) -> Self {
        let mut diagnostics = Vec::new();
        let documents = Documents::read(sources, rules, deadline, &mut diagnostics);
        Self {
            declared: documents.names(&diagnostics),
            diagnostics,
            documents,
            models: BTreeMap::new(),
            adapters: BTreeMap::new(),
            knowledge: BTreeMap::new(),
            trainings: BTreeMap::new(),
            roles: BTreeMap::new(),
            graphs: BTreeMap::new(),
            compiled: BTreeMap::new(),
            profiles: BTreeMap::new(),
            routers: BTreeMap::new(),
        }
    }

    /// What the documents define, if all of them are valid.
    pub(super) fn build(mut self) -> Result<CatalogParts, Problems> {
        self.models();
        self.adapters();
        self.routers();
        self.roles();
        self.knowledge();
        self.trainings();
        self.graphs();
        self.finish()
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

    fn trainings(&mut self) {
        for document in self.documents.of(DefinitionKind::Training) {
            let report = &mut self.diagnostics[document.source];
            let Ok(name) = TrainingName::parse(&document.name) else { continue };
            let Some(fields) = fields(document, report) else { continue };
            if let Some(training) = Training::decode(&name, fields, &self.declared, report) {
                self.trainings.insert(name, Arc::new(training));
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
            DefinitionKind::Training => {
                let role = self.trainings.get(name).map(|training| training.role.to_string());
                role.map(|role| (DefinitionKind::Role, role)).into_iter().collect()
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
        let Self { roles, models, adapters, knowledge, trainings, graphs, compiled, profiles, routers, .. } = self;
        Ok(CatalogParts {
            roles,
            models,
            adapters,
            knowledge,
            trainings,
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
        DefinitionKind::Training => &keys::TRAINING,
    };
    let mut fields = MapReader::open(&document.node, &what, keys, report)?.at(document.name_span);
    fields.get(document.kind.key());
    Some(fields)
}
