//! A collection and its points.

use std::collections::{BTreeMap, BTreeSet};

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    Distance, Filter, PointId, PointStruct, RetrievedPoint, ScoredPoint, VectorParams, VectorsConfig,
};
use tonic::Status;
use uuid::Uuid;

use crate::filter;
use crate::payload::Payload;
use crate::vectors;

/// A point of a collection, for a test to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedPoint {
    /// Its id: a UUID, or a number in decimal.
    pub id: String,
    /// Its vector, of length one.
    pub vector: Vec<f32>,
    /// Its payload.
    pub payload: serde_json::Value,
}

/// An id, in the order of Qdrant: numbers before UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id {
    Number(u64),
    Uuid(Uuid),
}

impl Id {
    pub(crate) fn read(id: Option<PointId>) -> Result<Self, Status> {
        match id.and_then(|id| id.point_id_options) {
            Some(PointIdOptions::Num(number)) => Ok(Self::Number(number)),
            Some(PointIdOptions::Uuid(text)) => {
                let uuid = Uuid::try_parse(&text);
                uuid.map(Self::Uuid).map_err(|_| Status::invalid_argument(format!("Unable to parse UUID: {text}")))
            }
            None => Err(Status::invalid_argument("Empty ID is provided")),
        }
    }

    fn message(self) -> PointId {
        let options = match self {
            Self::Number(number) => PointIdOptions::Num(number),
            Self::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
        };
        PointId { point_id_options: Some(options) }
    }
}

#[derive(Debug)]
struct Point {
    vector: Vec<f32>,
    payload: Payload,
}

/// A page of points, and the id with which the next one begins.
pub(crate) type Page = (Vec<RetrievedPoint>, Option<PointId>);

#[derive(Debug)]
pub(crate) struct ServedCollection {
    config: VectorsConfig,
    indexed_fields: BTreeSet<String>,
    points: BTreeMap<Id, Point>,
}

impl ServedCollection {
    pub(crate) fn new(config: VectorsConfig) -> Self {
        Self { config, indexed_fields: BTreeSet::new(), points: BTreeMap::new() }
    }

    pub(crate) fn config(&self) -> VectorsConfig {
        self.config.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn indexed_fields(&self) -> Vec<String> {
        self.indexed_fields.iter().cloned().collect()
    }

    pub(crate) fn add_index(&mut self, field: String) {
        self.indexed_fields.insert(field);
    }

    pub(crate) fn served_points(&self) -> Vec<ServedPoint> {
        let served = |(id, point): (&Id, &Point)| ServedPoint {
            id: match id {
                Id::Number(number) => number.to_string(),
                Id::Uuid(uuid) => uuid.to_string(),
            },
            vector: point.vector.clone(),
            payload: qdrant_client::Payload::from(point.payload.clone()).into(),
        };
        self.points.iter().map(served).collect()
    }

    /// All of them, or none if one is at fault.
    pub(crate) fn upsert(&mut self, points: Vec<PointStruct>) -> Result<(), Status> {
        let params = self.cosine_params()?;
        let read = |point: PointStruct| {
            let vector = vectors::unit(vectors::unnamed(point.vectors)?, params.size)?;
            Ok((Id::read(point.id)?, Point { vector, payload: point.payload }))
        };
        let points: Vec<(Id, Point)> = points.into_iter().map(read).collect::<Result<_, Status>>()?;
        self.points.extend(points);
        Ok(())
    }

    pub(crate) fn delete(&mut self, ids: Vec<PointId>) -> Result<(), Status> {
        let ids: Vec<Id> = ids.into_iter().map(|id| Id::read(Some(id))).collect::<Result<_, _>>()?;
        for id in ids {
            self.points.remove(&id);
        }
        Ok(())
    }

    /// At most `limit` points from an id on, in the order of their ids.
    pub(crate) fn scroll(
        &self,
        filter: &Filter,
        from: Option<PointId>,
        limit: usize,
        with_payload: bool,
    ) -> Result<Page, Status> {
        let from = from.map_or(Ok(Id::Number(0)), |id| Id::read(Some(id)))?;
        let mut page = Vec::new();
        for (id, point) in self.points.range(from..) {
            if !filter::matches(filter, &point.payload)? {
                continue;
            }
            if page.len() == limit {
                return Ok((page, Some(id.message())));
            }
            let payload = if with_payload { point.payload.clone() } else { Payload::new() };
            page.push(RetrievedPoint { id: Some(id.message()), payload, ..RetrievedPoint::default() });
        }
        Ok((page, None))
    }

    /// The points nearest to a vector, the nearest first.
    pub(crate) fn search(
        &self,
        vector: Vec<f32>,
        filter: &Filter,
        limit: usize,
        with_payload: bool,
    ) -> Result<Vec<ScoredPoint>, Status> {
        let vector = vectors::unit(vector, self.cosine_params()?.size)?;
        let mut found = Vec::new();
        for (id, point) in &self.points {
            if filter::matches(filter, &point.payload)? {
                found.push((vectors::dot(&vector, &point.vector), id, point));
            }
        }
        found.sort_by(|(one, ..), (other, ..)| other.total_cmp(one));
        let scored = |(score, id, point): (f32, &Id, &Point)| {
            let payload = if with_payload { point.payload.clone() } else { Payload::new() };
            ScoredPoint { id: Some(id.message()), score, payload, ..ScoredPoint::default() }
        };
        Ok(found.into_iter().take(limit).map(scored).collect())
    }

    fn cosine_params(&self) -> Result<VectorParams, Status> {
        match &self.config.config {
            Some(Config::Params(params)) if params.distance() == Distance::Cosine => Ok(*params),
            _ => Err(Status::unimplemented("only one unnamed vector compared by cosine is served here")),
        }
    }
}
