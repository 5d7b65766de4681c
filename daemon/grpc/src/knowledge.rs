//! `artel.v1.Knowledge`.

mod convert;
mod parse;

use std::sync::Arc;

use artel_actors::Viewer;
use artel_actors::knowledge::{Error, Retrieval};
use artel_proto::v1;
use artel_proto::v1::ErrorReason;
use artel_proto::v1::knowledge_server::Knowledge;
use artel_roles::Catalog;
use tonic::{Code, Request, Response, Status};

use crate::page::{self, PageFilters};
use crate::state::ServiceState;
use crate::status::{RpcResponse, internal, not_found, status};
use crate::viewer::viewer_of;

/// What the passages of one source take in an answer; clients take 4 MiB.
const MAX_SOURCE_BYTES: usize = 3 * 1024 * 1024;

#[tonic::async_trait]
impl Knowledge for ServiceState {
    async fn list(&self, _: Request<v1::ListKnowledgeRequest>) -> RpcResponse<v1::ListKnowledgeResponse> {
        let catalog = self.runtime.catalog();
        let Some(retrieval) = self.runtime.retrieval() else {
            return Ok(Response::new(v1::ListKnowledgeResponse::default()));
        };
        let states = retrieval.states(&catalog).await.map_err(|error| self.refused(error, &catalog))?;
        let knowledge = states.into_iter().map(convert::state).collect();
        Ok(Response::new(v1::ListKnowledgeResponse { knowledge }))
    }

    async fn search(&self, request: Request<v1::SearchKnowledgeRequest>) -> RpcResponse<v1::SearchKnowledgeResponse> {
        let viewer = viewer_of(&request);
        let (catalog, request) = (self.runtime.catalog(), request.into_inner());
        let knowledge = request.knowledge.clone();
        let request = parse::search(request, only(&viewer))?;
        let searched = self.runtime.search_knowledge(&catalog, request, &viewer).await;
        let answer = searched.map_err(|error| match error {
            artel_actors::SearchError::Runtime(error) => self.status_of(error),
            artel_actors::SearchError::Knowledge(error) => self.refused(error, &catalog),
        })?;
        Ok(Response::new(convert::answer(answer, &knowledge)))
    }

    async fn list_sources(&self, request: Request<v1::ListSourcesRequest>) -> RpcResponse<v1::ListSourcesResponse> {
        let viewer = viewer_of(&request);
        let v1::ListSourcesRequest { knowledge, page_size, page_token, only_failed } = request.into_inner();
        let (size, catalog) = (page::size(page_size)?, self.runtime.catalog());
        let records = self.retrieval()?.sources(&catalog, &knowledge, only(&viewer).as_ref()).await;
        let mut records = records.map_err(|error| self.refused(error, &catalog))?;
        records.retain(|record| !only_failed || record.entry.reason.is_some());
        let filters = PageFilters::of(&(&knowledge, only_failed, viewer.caller.as_str()));
        let (page, next_page_token) =
            page::slice_by_name(records, |record| record.source.clone(), size, &filters, &page_token)?;
        let sources = page.into_iter().map(convert::source).collect();
        Ok(Response::new(v1::ListSourcesResponse { sources, next_page_token }))
    }

    async fn get_source(&self, request: Request<v1::GetSourceRequest>) -> RpcResponse<v1::GetSourceResponse> {
        let viewer = viewer_of(&request);
        let v1::GetSourceRequest { knowledge, source } = request.into_inner();
        let catalog = self.runtime.catalog();
        let found = self.retrieval()?.source(&catalog, &knowledge, &source, only(&viewer).as_ref()).await;
        let (record, chunks) = found.map_err(|error| self.refused(error, &catalog))?;
        let mut left_bytes = MAX_SOURCE_BYTES;
        let mut passages = Vec::new();
        for (rank, chunk) in (1..).zip(chunks) {
            let passage = convert::passage(rank, &record.source, &knowledge, chunk);
            let bytes = prost::Message::encoded_len(&passage);
            if bytes > left_bytes {
                break;
            }
            left_bytes -= bytes;
            passages.push(passage);
        }
        Ok(Response::new(v1::GetSourceResponse { status: Some(convert::source(record)), passages }))
    }

    async fn add_text(&self, request: Request<v1::AddTextRequest>) -> RpcResponse<v1::AddTextResponse> {
        let viewer = viewer_of(&request);
        let (knowledge, text) = parse::text_of(request.into_inner(), viewer.caller)?;
        let catalog = self.runtime.catalog();
        let added = self.retrieval()?.add_text(&catalog, &knowledge, text).await;
        let added = added.map_err(|error| self.refused(error, &catalog))?;
        Ok(Response::new(v1::AddTextResponse { passages: added.passages, replaced: added.replaced }))
    }

    async fn remove_text(&self, request: Request<v1::RemoveTextRequest>) -> RpcResponse<v1::RemoveTextResponse> {
        let viewer = viewer_of(&request);
        let v1::RemoveTextRequest { knowledge, source } = request.into_inner();
        let catalog = self.runtime.catalog();
        let removed = self.retrieval()?.remove_text(&catalog, &knowledge, &source, &viewer.caller).await;
        removed.map_err(|error| self.refused(error, &catalog))?;
        Ok(Response::new(v1::RemoveTextResponse {}))
    }
}

/// The caller whose texts alone are seen beside files; `None` for one that sees all.
fn only(viewer: &Viewer) -> Option<artel_task::CallerName> {
    viewer.only().cloned()
}

impl ServiceState {
    fn retrieval(&self) -> Result<&Retrieval, Status> {
        let none = "the index of knowledge could not be opened: the daemon's log says why";
        self.runtime.retrieval().ok_or_else(|| status(Code::Unavailable, ErrorReason::KnowledgeNotReady, none))
    }

    fn refused(&self, error: Error, catalog: &Arc<Catalog>) -> Status {
        let message = error.to_string();
        match error {
            Error::NoKnowledge { name } => {
                let names = catalog.knowledge().keys().map(|name| name.as_str());
                not_found(ErrorReason::DefinitionNotFound, "knowledge", &name, &message, names)
            }
            Error::NoSource { source_name, .. } => {
                not_found(ErrorReason::SourceNotFound, "source", &source_name, &message, std::iter::empty())
            }
            Error::NotReady { .. } => status(Code::Unavailable, ErrorReason::KnowledgeNotReady, message),
            Error::Unreadable { .. } => status(Code::InvalidArgument, ErrorReason::BadRequest, message),
            Error::Model(error) if error.is_passing() => {
                status(Code::Unavailable, ErrorReason::ModelUnavailable, self.paths.hide(&message))
            }
            Error::Model(_) => {
                status(Code::FailedPrecondition, ErrorReason::ModelUnavailable, self.paths.hide(&message))
            }
            Error::Index(error) if error.is_of_request() => {
                status(Code::InvalidArgument, ErrorReason::BadRequest, error.to_string())
            }
            error => {
                tracing::error!(%error, "a call to the index of knowledge failed");
                internal()
            }
        }
    }
}
