//! What is searched for, and what is found.

use std::collections::BTreeMap;

use qdrant_client::qdrant::query::Variant;
use qdrant_client::qdrant::{self, DenseVector, Query, QueryPoints, SearchParams, VectorInput, vector_input};

use crate::collection_name::CollectionName;
use crate::error::Error;
use crate::filter;
use crate::point::PointId;

/// A search for the points of a knowledge whose vectors are nearest to one. An empty filter lets all pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchPoints {
    /// The knowledge.
    pub knowledge: String,
    /// The vector, of any length but zero.
    pub vector: Vec<f32>,
    /// How many points to find.
    pub top: u32,
    /// Of any of these sources, compared whole.
    pub sources: Vec<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Of any of these owners.
    pub owners: Vec<String>,
}

/// A point that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredPoint {
    /// Its id.
    pub id: PointId,
    /// The cosine between its vector and that of the search, from -1 to 1.
    pub score: f32,
}

impl SearchPoints {
    pub(crate) fn into_message(self, collection: &CollectionName) -> Result<QueryPoints, Error> {
        let filter = filter::of_search(&self.knowledge, &self.sources, &self.owners, &self.labels)?;
        let nearest = VectorInput { variant: Some(vector_input::Variant::Dense(DenseVector { data: self.vector })) };
        Ok(QueryPoints {
            collection_name: collection.as_str().to_owned(),
            query: Some(Query { variant: Some(Variant::Nearest(nearest)) }),
            filter: Some(filter),
            // Every vector that passes the filter is compared, as a scan of the index does.
            params: Some(SearchParams { exact: Some(true), ..SearchParams::default() }),
            limit: Some(u64::from(self.top)),
            with_payload: Some(false.into()),
            with_vectors: Some(false.into()),
            ..QueryPoints::default()
        })
    }
}

impl ScoredPoint {
    /// `None` for a point of others.
    pub(crate) fn of_answer(point: qdrant::ScoredPoint) -> Option<Self> {
        PointId::of_answer(point.id).map(|id| Self { id, score: point.score })
    }
}
