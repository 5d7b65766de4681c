//! The calls that concern collections.

use std::sync::Arc;

use qdrant_client::qdrant::collections_server::Collections;
use qdrant_client::qdrant::{
    CollectionConfig, CollectionExists, CollectionExistsRequest, CollectionExistsResponse, CollectionInfo,
    CollectionOperationResponse, CollectionParams, CollectionStatus, CreateCollection, DeleteCollection,
    GetCollectionInfoRequest, GetCollectionInfoResponse, HnswConfigDiff, OptimizerStatus, OptimizersConfigDiff,
    PayloadSchemaInfo, PayloadSchemaType, WalConfigDiff,
};
use tonic::{Request, Response, Status};

use crate::collection::ServedCollection;
use crate::state::SharedState;
use crate::unsupported::unsupported;

pub(crate) struct CollectionCalls {
    state: Arc<SharedState>,
}

impl CollectionCalls {
    pub(crate) fn new(state: Arc<SharedState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl Collections for CollectionCalls {
    async fn get(
        &self,
        request: Request<GetCollectionInfoRequest>,
    ) -> Result<Response<GetCollectionInfoResponse>, Status> {
        self.state.enter("Collections/Get", 0).await?;
        let name = request.into_inner().collection_name;
        let info = self.state.with_collection(&name, |collection| Ok(info(collection)))?;
        Ok(Response::new(GetCollectionInfoResponse { result: Some(info), ..Default::default() }))
    }

    async fn collection_exists(
        &self,
        request: Request<CollectionExistsRequest>,
    ) -> Result<Response<CollectionExistsResponse>, Status> {
        self.state.enter("Collections/CollectionExists", 0).await?;
        let name = request.into_inner().collection_name;
        let exists = self.state.with_collections(|collections| collections.contains_key(&name));
        let result = Some(CollectionExists { exists });
        Ok(Response::new(CollectionExistsResponse { result, ..Default::default() }))
    }

    async fn create(
        &self,
        request: Request<CreateCollection>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        self.state.enter("Collections/Create", 0).await?;
        let CreateCollection { collection_name: name, vectors_config, .. } = request.into_inner();
        self.state.with_collections(|collections| {
            if collections.contains_key(&name) {
                return Err(Status::already_exists(format!("Wrong input: Collection `{name}` already exists!")));
            }
            collections.insert(name, ServedCollection::new(vectors_config.unwrap_or_default()));
            Ok(Response::new(CollectionOperationResponse { result: true, ..Default::default() }))
        })
    }

    async fn delete(
        &self,
        request: Request<DeleteCollection>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        self.state.enter("Collections/Delete", 0).await?;
        let name = request.into_inner().collection_name;
        let result = self.state.with_collections(|collections| collections.remove(&name).is_some());
        Ok(Response::new(CollectionOperationResponse { result, ..Default::default() }))
    }

    unsupported! {
        list(ListCollectionsRequest) -> ListCollectionsResponse;
        update(UpdateCollection) -> CollectionOperationResponse;
        update_aliases(ChangeAliases) -> CollectionOperationResponse;
        list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
        update_collection_cluster_setup(UpdateCollectionClusterSetupRequest) -> UpdateCollectionClusterSetupResponse;
        create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
        delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
        list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
    }
}

/// What a collection has that was created without settings of its own; a client may need each of these.
fn default_config() -> CollectionConfig {
    CollectionConfig {
        hnsw_config: Some(HnswConfigDiff {
            m: Some(16),
            ef_construct: Some(100),
            full_scan_threshold: Some(10_000),
            ..Default::default()
        }),
        optimizer_config: Some(OptimizersConfigDiff {
            deleted_threshold: Some(0.2),
            vacuum_min_vector_number: Some(1000),
            default_segment_number: Some(0),
            indexing_threshold: Some(10_000),
            flush_interval_sec: Some(5),
            ..Default::default()
        }),
        wal_config: Some(WalConfigDiff {
            wal_capacity_mb: Some(32),
            wal_segments_ahead: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn info(collection: &ServedCollection) -> CollectionInfo {
    let params = CollectionParams { vectors_config: Some(collection.config()), ..Default::default() };
    let schema = PayloadSchemaInfo { data_type: PayloadSchemaType::Keyword.into(), ..Default::default() };
    let fields = collection.indexed_fields().into_iter();
    CollectionInfo {
        status: CollectionStatus::Green.into(),
        optimizer_status: Some(OptimizerStatus { ok: true, ..Default::default() }),
        segments_count: 1,
        config: Some(CollectionConfig { params: Some(params), ..default_config() }),
        payload_schema: fields.map(|field| (field, schema.clone())).collect(),
        points_count: Some(collection.len() as u64),
        ..Default::default()
    }
}
