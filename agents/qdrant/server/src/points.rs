//! The calls that concern points.

use std::sync::Arc;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::query::Variant;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    CreateFieldIndexCollection, DeletePoints, PointsIdsList, PointsOperationResponse, Query, QueryPoints,
    QueryResponse, ScrollPoints, ScrollResponse, UpdateResult, UpdateStatus, UpsertPoints, VectorInput,
    WithPayloadSelector, vector_input,
};
use tonic::{Request, Response, Status};

use crate::state::SharedState;
use crate::unsupported::unsupported;

/// What Qdrant takes for a limit that is not given.
const DEFAULT_TOP_POINTS: u32 = 10;

pub(crate) struct PointCalls {
    state: Arc<SharedState>,
}

impl PointCalls {
    pub(crate) fn new(state: Arc<SharedState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl Points for PointCalls {
    async fn upsert(&self, request: Request<UpsertPoints>) -> Result<Response<PointsOperationResponse>, Status> {
        let UpsertPoints { collection_name, points, wait, .. } = request.into_inner();
        self.state.enter("Points/Upsert", points.len()).await?;
        self.state.with_collection(&collection_name, |collection| collection.upsert(points))?;
        Ok(applied(wait))
    }

    async fn delete(&self, request: Request<DeletePoints>) -> Result<Response<PointsOperationResponse>, Status> {
        let DeletePoints { collection_name, points, wait, .. } = request.into_inner();
        let Some(PointsSelectorOneOf::Points(PointsIdsList { ids })) =
            points.and_then(|points| points.points_selector_one_of)
        else {
            return Err(Status::unimplemented("points are deleted by their ids alone here"));
        };
        self.state.enter("Points/Delete", ids.len()).await?;
        self.state.with_collection(&collection_name, |collection| collection.delete(ids))?;
        Ok(applied(wait))
    }

    async fn scroll(&self, request: Request<ScrollPoints>) -> Result<Response<ScrollResponse>, Status> {
        let ScrollPoints { collection_name, filter, offset, limit, with_payload, .. } = request.into_inner();
        let limit = limit.unwrap_or(DEFAULT_TOP_POINTS) as usize;
        self.state.enter("Points/Scroll", limit).await?;
        let filter = filter.unwrap_or_default();
        let (result, next_page_offset) = self.state.with_collection(&collection_name, |collection| {
            collection.scroll(&filter, offset, limit, is_wanted(with_payload))
        })?;
        Ok(Response::new(ScrollResponse { result, next_page_offset, ..Default::default() }))
    }

    async fn query(&self, request: Request<QueryPoints>) -> Result<Response<QueryResponse>, Status> {
        let QueryPoints { collection_name, query, filter, limit, with_payload, .. } = request.into_inner();
        let limit = limit.unwrap_or(u64::from(DEFAULT_TOP_POINTS)) as usize;
        self.state.enter("Points/Query", limit).await?;
        let (vector, filter) = (nearest(query)?, filter.unwrap_or_default());
        let result = self.state.with_collection(&collection_name, |collection| {
            collection.search(vector, &filter, limit, is_wanted(with_payload))
        })?;
        Ok(Response::new(QueryResponse { result, ..Default::default() }))
    }

    async fn create_field_index(
        &self,
        request: Request<CreateFieldIndexCollection>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        let CreateFieldIndexCollection { collection_name, field_name, wait, .. } = request.into_inner();
        self.state.enter("Points/CreateFieldIndex", 0).await?;
        if self.state.refuses_indexes() {
            return Err(Status::invalid_argument("Wrong input: the collection has as many indexes as it may"));
        }
        self.state.with_collection(&collection_name, |collection| {
            collection.add_index(field_name);
            Ok(())
        })?;
        Ok(applied(wait))
    }

    unsupported! {
        get(GetPoints) -> GetResponse;
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        set_payload(SetPayloadPoints) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        count(CountPoints) -> CountResponse;
        update_batch(UpdateBatchPoints) -> UpdateBatchResponse;
        query_batch(QueryBatchPoints) -> QueryBatchResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        facet(FacetCounts) -> FacetResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
    }
}

/// All changes are applied at once here; a client that does not wait is told that its change is only noted.
fn applied(wait: Option<bool>) -> Response<PointsOperationResponse> {
    let status = if wait == Some(true) { UpdateStatus::Completed } else { UpdateStatus::Acknowledged };
    let result = UpdateResult { status: status.into(), ..Default::default() };
    Response::new(PointsOperationResponse { result: Some(result), ..Default::default() })
}

fn nearest(query: Option<Query>) -> Result<Vec<f32>, Status> {
    match query.and_then(|query| query.variant) {
        Some(Variant::Nearest(VectorInput { variant: Some(vector_input::Variant::Dense(dense)) })) => Ok(dense.data),
        _ => Err(Status::unimplemented("only the points nearest to a dense vector are searched here")),
    }
}

/// Parts of payloads are not served here: a client that asks for some is given all.
fn is_wanted(payload: Option<WithPayloadSelector>) -> bool {
    !matches!(payload.and_then(|payload| payload.selector_options), None | Some(SelectorOptions::Enable(false)))
}
