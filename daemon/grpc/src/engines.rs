//! `artel.v1.Engines`.

mod device;
mod engine;
mod placement;
mod reports;

use artel_actors::{EngineReport, EngineState};
use artel_proto::v1;
use artel_proto::v1::engines_server::Engines;
use tonic::{Code, Request, Response};

use crate::audit::CallObject;
use crate::page::{self, PageFilters};
use crate::state::ServiceState;
use crate::status::{RpcResponse, failed_load, status};

#[tonic::async_trait]
impl Engines for ServiceState {
    async fn list_devices(&self, request: Request<v1::ListDevicesRequest>) -> RpcResponse<v1::ListDevicesResponse> {
        let v1::ListDevicesRequest { page_size, page_token } = request.into_inner();
        let taken = self.taken().await?;
        let statuses = self.machine.device_statuses(&taken).await;
        let all = statuses.into_iter().map(|status| device::device(status, &taken)).collect();
        let filters = PageFilters::of(&"devices");
        let (devices, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListDevicesResponse { devices, next_page_token }))
    }

    async fn list_engines(&self, request: Request<v1::ListEnginesRequest>) -> RpcResponse<v1::ListEnginesResponse> {
        let v1::ListEnginesRequest { page_size, page_token, model } = request.into_inner();
        let reports = self.reports().await?;
        let wanted =
            |report: &EngineReport| model.is_empty() || report.id == model || report.model.name.as_str() == model;
        let engine = |report| engine::engine(report, self.runtime.clock(), &self.paths);
        let all = reports.into_iter().filter(wanted).filter_map(engine).collect();
        let filters = PageFilters::of(&("engines", &model));
        // A space is before all that names have.
        let name = |engine: &v1::Engine| format!("{} {}", engine.model, engine.id);
        let (engines, next_page_token) = page::slice_by_name(all, name, page::size(page_size)?, &filters, &page_token)?;
        Ok(Response::new(v1::ListEnginesResponse { engines, next_page_token }))
    }

    async fn get_placement(&self, request: Request<v1::GetPlacementRequest>) -> RpcResponse<v1::Placement> {
        let models = request.into_inner().models;
        self.placement(&models).await.map(Response::new)
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> RpcResponse<v1::LoadResponse> {
        CallObject::of(&request).name(&request.get_ref().model);
        let model = request.into_inner().model;
        let (runtime, before) = (self.runtime.clone(), self.loaded().await?);
        // If the call is cancelled, loading continues.
        let loaded = tokio::spawn(async move { runtime.load(&model).await }).await;
        let loaded =
            loaded.map_err(|_| status(Code::Internal, v1::ErrorReason::Internal, "loading the model panicked"))?;
        let report = loaded.map_err(|e| match e {
            artel_actors::Error::Failed(failure) => failed_load(&failure, &self.paths),
            other => self.status_of(other),
        })?;
        let after = self.loaded().await?;
        let unloaded = before.into_iter().filter(|model| !after.contains(model)).collect();
        Ok(Response::new(v1::LoadResponse {
            engine: engine::engine(report, self.runtime.clock(), &self.paths),
            unloaded,
        }))
    }

    async fn unload(&self, request: Request<v1::UnloadRequest>) -> RpcResponse<v1::UnloadResponse> {
        CallObject::of(&request).name(&request.get_ref().model);
        let v1::UnloadRequest { model, interrupt } = request.into_inner();
        let reports = self.reports().await?;
        let report = reports.iter().find(|report| report.id == model);
        let busy = |message: String| Err(status(Code::FailedPrecondition, v1::ErrorReason::EngineBusy, message));
        let loaded = report.filter(|report| report.stats.is_some());
        if report.is_some_and(|report| matches!(report.state, EngineState::Loading(_)) && report.placement.is_some()) {
            return busy(format!("model `{model}` is being loaded; retry when it is ready"));
        }
        if let Some(report) = loaded.filter(|report| !interrupt && report.active_steps > 0) {
            return busy(format!(
                "running steps use model `{model}`: {}; set `interrupt` to interrupt them",
                report.active_steps
            ));
        }
        let freed_bytes = loaded.map_or(0, |report| report.device_bytes.values().sum());
        self.runtime.unload(&model, interrupt).await.map_err(|e| self.status_of(e))?;
        Ok(Response::new(v1::UnloadResponse { freed_bytes }))
    }
}
