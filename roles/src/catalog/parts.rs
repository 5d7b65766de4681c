//! What the documents of a catalog define.

use std::collections::BTreeMap;
use std::sync::Arc;

use artel_router::{CandidateProfile, RouterSettings};
use artel_task::{
    AdapterName, Graph, GraphName, KnowledgeName, ModelName, NodeName, RoleName, RouterName, TrainingName,
};
use artel_yaml::Problems;

use crate::adapter::Adapter;
use crate::definition::Definition;
use crate::graph::CompiledNode;
use crate::knowledge::Knowledge;
use crate::model::Model;
use crate::role::Role;
use crate::training::Training;

/// What the documents define.
#[derive(Debug, Clone)]
pub(super) struct CatalogParts {
    pub(super) roles: BTreeMap<RoleName, Arc<Role>>,
    pub(super) models: BTreeMap<ModelName, Arc<Model>>,
    pub(super) adapters: BTreeMap<AdapterName, Arc<Adapter>>,
    pub(super) knowledge: BTreeMap<KnowledgeName, Arc<Knowledge>>,
    pub(super) trainings: BTreeMap<TrainingName, Arc<Training>>,
    pub(super) graphs: BTreeMap<GraphName, Arc<Graph>>,
    pub(super) compiled: BTreeMap<GraphName, BTreeMap<NodeName, CompiledNode>>,
    pub(super) profiles: BTreeMap<GraphName, CandidateProfile>,
    pub(super) routers: BTreeMap<RouterName, Arc<RouterSettings>>,
    pub(super) definitions: Vec<Definition>,
    pub(super) warnings: Problems,
}
