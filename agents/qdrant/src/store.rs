//! A collection on a server, and what is done with it.

use std::collections::BTreeSet;

use crate::batches::batches;
use crate::connection::{Collections, Connection, Points};
use crate::error::Error;
use crate::filter::{self, INDEXED_FIELDS};
use crate::operation::Operation;
use crate::point::{PointId, StoredPoint};
use crate::search::{ScoredPoint, SearchPoints};
use crate::settings::QdrantSettings;
use crate::shape::{self, CollectionShape};
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::{
    CollectionInfo, CreateCollection, CreateFieldIndexCollection, DeletePoints, FieldType, GetCollectionInfoRequest,
    PointStruct, PointsIdsList, PointsOperationResponse, PointsSelector, ScrollPoints, UpdateStatus, UpsertPoints,
};

/// The most points of a knowledge that are listed: their ids take some 100 MB.
pub const MAX_POINTS: usize = 4_000_000;
/// The ids of an answer: 50 kB, so that a server needs little memory and time for each.
const PAGE_POINTS: u32 = 1_000;
/// The ids of a message that deletes.
const DELETE_BATCH_POINTS: usize = 1_000;

/// A collection on a server. Cheap to clone; clones share a connection.
#[derive(Debug, Clone)]
pub struct QdrantStore {
    connection: Connection,
}

impl QdrantStore {
    /// Sets up the connection, which is made with the first call. Needs a runtime of tokio.
    ///
    /// # Errors
    /// [`Error::Tls`] if the address has `https://` and this system has no certificates.
    pub fn new(settings: QdrantSettings) -> Result<Self, Error> {
        Connection::new(settings).map(|connection| Self { connection })
    }

    /// Creates the collection for vectors of this many dimensions, unless it is there, and the indexes of its payloads.
    ///
    /// Several processes may do so at once. A server that refuses an index is only logged: searches are as right without, but
    /// slower.
    ///
    /// # Errors
    /// [`Error::CollectionDiffers`] if it is there with other vectors, else why a call failed.
    pub async fn prepare(&self, dimensions: u32) -> Result<(), Error> {
        let info = match self.describe().await {
            Err(Error::NoCollection { .. }) => self.create(dimensions).await?,
            described => described?,
        };
        let is_missing = |field: &&str| !info.payload_schema.contains_key(*field);
        let missing: Vec<&str> = INDEXED_FIELDS.into_iter().filter(is_missing).collect();
        let (found, needed) = (CollectionShape::of_answer(info), CollectionShape::cosine(dimensions));
        if found != needed {
            return Err(self.connection.differs(found, needed));
        }
        for field in missing {
            self.create_field_index(field).await?;
        }
        Ok(())
    }

    async fn describe(&self) -> Result<CollectionInfo, Error> {
        let message = GetCollectionInfoRequest { collection_name: self.collection_name() };
        let send = async |mut client: Collections, request| client.get(request).await;
        let answer = self.connection.collections(Operation::Describe, message, send).await?;
        answer.result.ok_or_else(|| self.connection.refused(Operation::Describe, "its answer is empty"))
    }

    /// Another process may create it at the same time, then its collection is as good.
    async fn create(&self, dimensions: u32) -> Result<CollectionInfo, Error> {
        let message = CreateCollection {
            collection_name: self.collection_name(),
            vectors_config: Some(shape::cosine_config(dimensions)),
            ..CreateCollection::default()
        };
        let send = async |mut client: Collections, request| client.create(request).await;
        let created = self.connection.collections(Operation::Create, message, send).await;
        match (created, self.describe().await) {
            (Err(refusal), Err(Error::NoCollection { .. })) => Err(refusal),
            (_, described) => described,
        }
    }

    async fn create_field_index(&self, field: &str) -> Result<(), Error> {
        let message = CreateFieldIndexCollection {
            collection_name: self.collection_name(),
            // A large collection takes longer than a call may; searches are right meanwhile.
            wait: Some(false),
            field_name: field.to_owned(),
            field_type: Some(FieldType::Keyword.into()),
            ..CreateFieldIndexCollection::default()
        };
        let send = async |mut client: Points, request| client.create_field_index(request).await;
        match self.connection.points(Operation::CreateFieldIndex, message, send).await {
            Err(error @ (Error::Refused { .. } | Error::Unauthenticated { .. })) => {
                tracing::warn!(field, "searches are slower without an index: {error}");
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    /// The ids of a knowledge's points. Points of others, whose ids are numbers, are left out.
    ///
    /// # Errors
    /// [`Error::TooManyPoints`] beyond [`MAX_POINTS`], else why a call failed.
    pub async fn points(&self, knowledge: &str) -> Result<BTreeSet<PointId>, Error> {
        let mut found = BTreeSet::new();
        let mut message = ScrollPoints {
            collection_name: self.collection_name(),
            filter: Some(filter::of_knowledge(knowledge)),
            limit: Some(PAGE_POINTS),
            with_payload: Some(false.into()),
            with_vectors: Some(false.into()),
            ..ScrollPoints::default()
        };
        for _ in 0..MAX_POINTS.div_ceil(PAGE_POINTS as usize) {
            let send = async |mut client: Points, request| client.scroll(request).await;
            let page = self.connection.points(Operation::List, message.clone(), send).await?;
            found.extend(page.result.into_iter().filter_map(|point| PointId::of_answer(point.id)));
            message.offset = page.next_page_offset;
            if message.offset.is_none() {
                return Ok(found);
            }
        }
        Err(self.connection.too_many_points(knowledge, MAX_POINTS))
    }

    /// Writes points, in several messages, and waits until they are found by searches.
    ///
    /// # Errors
    /// Why a message failed; those before it are applied.
    pub async fn upsert(&self, points: Vec<StoredPoint>) -> Result<(), Error> {
        for points in batches(points.into_iter().map(PointStruct::from)) {
            let message = UpsertPoints {
                collection_name: self.collection_name(),
                wait: Some(true),
                points,
                ..UpsertPoints::default()
            };
            let send = async |mut client: Points, request| client.upsert(request).await;
            let answer = self.connection.points(Operation::Write, message, send).await?;
            self.check_applied(Operation::Write, &answer)?;
        }
        Ok(())
    }

    /// Deletes points, in several messages, and waits until no search finds them. Ids that are not there do no harm.
    ///
    /// # Errors
    /// Why a message failed; those before it are applied.
    pub async fn delete(&self, ids: &[PointId]) -> Result<(), Error> {
        for ids in ids.chunks(DELETE_BATCH_POINTS) {
            let ids = PointsIdsList { ids: ids.iter().copied().map(Into::into).collect() };
            let message = DeletePoints {
                collection_name: self.collection_name(),
                wait: Some(true),
                points: Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(ids)) }),
                ..DeletePoints::default()
            };
            let send = async |mut client: Points, request| client.delete(request).await;
            let answer = self.connection.points(Operation::Delete, message, send).await?;
            self.check_applied(Operation::Delete, &answer)?;
        }
        Ok(())
    }

    /// The points nearest to a vector, the nearest first. All that pass the filter are compared, without an approximate index.
    ///
    /// # Errors
    /// [`Error::LabelName`] for a label that no filter can name, else why the call failed.
    pub async fn search(&self, search: SearchPoints) -> Result<Vec<ScoredPoint>, Error> {
        if search.top == 0 {
            return Ok(Vec::new());
        }
        let message = search.into_message(&self.connection.settings().collection)?;
        let send = async |mut client: Points, request| client.query(request).await;
        let answer = self.connection.points(Operation::Search, message, send).await?;
        Ok(answer.result.into_iter().filter_map(ScoredPoint::of_answer).collect())
    }

    /// A change that was waited for is applied; but a cluster that repairs itself may only have written it down, which is as
    /// durable.
    fn check_applied(&self, operation: Operation, answer: &PointsOperationResponse) -> Result<(), Error> {
        match answer.result.as_ref().map(|result| result.status()) {
            Some(UpdateStatus::Completed | UpdateStatus::Acknowledged) => Ok(()),
            Some(UpdateStatus::WaitTimeout) => Err(self.connection.timed_out(operation)),
            status => Err(self.connection.refused(operation, &format!("the status of the change is {status:?}"))),
        }
    }

    fn collection_name(&self) -> String {
        self.connection.settings().collection.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qdrant_client::qdrant::UpdateResult;

    use super::*;

    #[tokio::test]
    async fn a_change_that_is_not_applied_is_an_error() {
        let settings = QdrantSettings {
            address: "http://127.0.0.1:6334".parse().unwrap(),
            collection: "artel".parse().unwrap(),
            api_key: None,
            timeout: Duration::from_secs(1),
        };
        let store = QdrantStore::new(settings).unwrap();
        let check = |result: Option<UpdateStatus>| {
            let result = result.map(|status| UpdateResult { status: status.into(), ..UpdateResult::default() });
            store.check_applied(Operation::Write, &PointsOperationResponse { result, ..Default::default() })
        };
        check(Some(UpdateStatus::Completed)).unwrap();
        check(Some(UpdateStatus::Acknowledged)).unwrap();
        assert!(check(Some(UpdateStatus::WaitTimeout)).unwrap_err().is_passing());
        assert!(matches!(check(Some(UpdateStatus::ClockRejected)), Err(Error::Refused { .. })));
        assert!(matches!(check(None), Err(Error::Refused { .. })));
    }
}
