//! `artel.v1.Fleet`.

mod engine;
mod placement;

use artel_actors::{EngineReport, EngineState};
use artel_placement::DeviceBytes;
use artel_proto::v1;
use artel_proto::v1::fleet_server::Fleet;
use tonic::{Code, Request, Response, Status};

use super::Served;
use super::page::{self, Filters};
use super::status::status;
use crate::engine::monitor::Reading;
use crate::engine::probe::Kind;
use crate::serve::hardware::Sight;

#[tonic::async_trait]
impl Fleet for Served {
    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        let v1::ListDevicesRequest { page_size, page_token } = request.into_inner();
        let taken = self.taken().await?;
        let sights = self.loader.hardware().look(&taken).await;
        let all = sights.into_iter().map(|sight| device(sight, &taken)).collect();
        let filters = Filters::of(&"devices");
        let (devices, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListDevicesResponse { devices, next_page_token }))
    }

    async fn list_engines(
        &self,
        request: Request<v1::ListEnginesRequest>,
    ) -> Result<Response<v1::ListEnginesResponse>, Status> {
        let v1::ListEnginesRequest { page_size, page_token, model } = request.into_inner();
        let reports = self.reports().await?;
        let wanted =
            |report: &EngineReport| model.is_empty() || report.id == model || report.model.name.as_str() == model;
        let all = reports.into_iter().filter(wanted).filter_map(engine::engine).collect();
        let filters = Filters::of(&("engines", &model));
        let (engines, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListEnginesResponse { engines, next_page_token }))
    }

    async fn get_placement(
        &self,
        request: Request<v1::GetPlacementRequest>,
    ) -> Result<Response<v1::Placement>, Status> {
        let models = request.into_inner().models;
        self.placement(&models).await.map(Response::new)
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> Result<Response<v1::LoadResponse>, Status> {
        let model = request.into_inner().model;
        let (crew, before) = (self.crew.clone(), self.loaded().await?);
        // If the call is given up, the loading goes on.
        let loaded = tokio::spawn(async move { crew.load(&model).await }).await;
        let loaded = loaded.map_err(|_| status(Code::Internal, v1::ErrorReason::Internal, "loading stopped"))?;
        let report = loaded.map_err(|e| match e {
            artel_actors::Error::Failed(failure) => {
                status(Code::FailedPrecondition, v1::ErrorReason::ModelUnavailable, failure.message)
            }
            other => self.refuse(other),
        })?;
        let after = self.loaded().await?;
        let unloaded = before.into_iter().filter(|model| !after.contains(model)).collect();
        Ok(Response::new(v1::LoadResponse { engine: engine::engine(report), unloaded }))
    }

    async fn unload(&self, request: Request<v1::UnloadRequest>) -> Result<Response<v1::UnloadResponse>, Status> {
        let v1::UnloadRequest { model, interrupt } = request.into_inner();
        let reports = self.reports().await?;
        let report = reports.iter().find(|report| report.id == model);
        let busy = |message: String| Err(status(Code::FailedPrecondition, v1::ErrorReason::EngineBusy, message));
        let there = report.filter(|report| report.stats.is_some());
        if report.is_some_and(|report| matches!(report.state, EngineState::Loading(_)) && report.placement.is_some()) {
            return busy(format!("model `{model}` is being loaded; ask again when it is there"));
        }
        if let Some(report) = there.filter(|report| !interrupt && report.active_steps > 0) {
            return busy(format!("steps run on model `{model}`: {}; `interrupt` ends them", report.active_steps));
        }
        let freed_bytes = there.map_or(0, |report| report.device_bytes.values().sum());
        self.crew.unload(&model, interrupt).await.map_err(|e| self.refuse(e))?;
        Ok(Response::new(v1::UnloadResponse { freed_bytes }))
    }
}

impl Served {
    async fn reports(&self) -> Result<Vec<EngineReport>, Status> {
        self.crew.engines().await.map_err(|e| self.refuse(e))
    }

    /// The models that are loaded.
    async fn loaded(&self) -> Result<Vec<String>, Status> {
        let reports = self.reports().await?;
        Ok(reports.into_iter().filter(|report| report.stats.is_some()).map(|report| report.id).collect())
    }

    /// What our engines take of each device.
    async fn taken(&self) -> Result<DeviceBytes, Status> {
        let mut taken = DeviceBytes::new();
        for (device, bytes) in self.reports().await?.into_iter().flat_map(|report| report.device_bytes) {
            *taken.entry(device).or_default() += bytes;
        }
        Ok(taken)
    }
}

fn device(sight: Sight, taken: &DeviceBytes) -> v1::Device {
    let used_bytes = taken.get(&sight.name).copied().unwrap_or(0);
    let kind = match sight.found.as_ref().map(|found| found.kind) {
        Some(Kind::Cpu) => v1::DeviceKind::Cpu,
        Some(Kind::Accelerator) => v1::DeviceKind::Accelerator,
        Some(Kind::IntegratedGpu) => v1::DeviceKind::IntegratedGpu,
        Some(Kind::Gpu | Kind::Rpc) | None => v1::DeviceKind::Gpu,
    };
    let (description, backend, monitor) = match sight.found {
        Some(found) => (found.description, found.backend, found.monitor),
        None => (String::new(), "RPC".to_owned(), None),
    };
    v1::Device {
        name: sight.name,
        description,
        backend,
        kind: kind.into(),
        total_bytes: sight.total,
        free_bytes: sight.free.saturating_sub(used_bytes),
        used_bytes,
        available: sight.problem.is_empty(),
        problem: sight.problem,
        rpc_address: sight.server.unwrap_or_default(),
        monitor: monitor.as_ref().map(Reading::as_proto),
    }
}
