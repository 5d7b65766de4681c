//! `artel.v1.Engines`.

mod engine;
mod placement;

use artel_actors::{EngineReport, EngineState};
use artel_placement::DeviceBytes;
use artel_proto::v1;
use artel_proto::v1::engines_server::Engines;
use tonic::{Code, Request, Response, Status};

use super::page::{self, PageFilters};
use super::status::status;
use super::{RpcResponse, ServiceState};
use crate::engine::monitor::GpuReading;
use crate::engine::probe::ProbedDeviceKind;
use crate::serve::devices::DeviceStatus;

#[tonic::async_trait]
impl Engines for ServiceState {
    async fn list_devices(&self, request: Request<v1::ListDevicesRequest>) -> RpcResponse<v1::ListDevicesResponse> {
        let v1::ListDevicesRequest { page_size, page_token } = request.into_inner();
        let taken = self.taken().await?;
        let statuses = self.loader.inventory().statuses(&taken).await;
        let all = statuses.into_iter().map(|status| device(status, &taken)).collect();
        let filters = PageFilters::of(&"devices");
        let (devices, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListDevicesResponse { devices, next_page_token }))
    }

    async fn list_engines(&self, request: Request<v1::ListEnginesRequest>) -> RpcResponse<v1::ListEnginesResponse> {
        let v1::ListEnginesRequest { page_size, page_token, model } = request.into_inner();
        let reports = self.reports().await?;
        let wanted =
            |report: &EngineReport| model.is_empty() || report.id == model || report.model.name.as_str() == model;
        let all = reports.into_iter().filter(wanted).filter_map(engine::engine).collect();
        let filters = PageFilters::of(&("engines", &model));
        let (engines, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListEnginesResponse { engines, next_page_token }))
    }

    async fn get_placement(&self, request: Request<v1::GetPlacementRequest>) -> RpcResponse<v1::Placement> {
        let models = request.into_inner().models;
        self.placement(&models).await.map(Response::new)
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> RpcResponse<v1::LoadResponse> {
        let model = request.into_inner().model;
        let (runtime, before) = (self.runtime.clone(), self.loaded().await?);
        // If the call is cancelled, loading continues.
        let loaded = tokio::spawn(async move { runtime.load(&model).await }).await;
        let loaded =
            loaded.map_err(|_| status(Code::Internal, v1::ErrorReason::Internal, "loading the model panicked"))?;
        let report = loaded.map_err(|e| match e {
            artel_actors::Error::Failed(failure) => {
                status(Code::FailedPrecondition, v1::ErrorReason::ModelUnavailable, failure.message)
            }
            other => self.status_of(other),
        })?;
        let after = self.loaded().await?;
        let unloaded = before.into_iter().filter(|model| !after.contains(model)).collect();
        Ok(Response::new(v1::LoadResponse { engine: engine::engine(report), unloaded }))
    }

    async fn unload(&self, request: Request<v1::UnloadRequest>) -> RpcResponse<v1::UnloadResponse> {
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

impl ServiceState {
    async fn reports(&self) -> Result<Vec<EngineReport>, Status> {
        self.runtime.engines().await.map_err(|e| self.status_of(e))
    }

    /// The ids of the loaded engines.
    async fn loaded(&self) -> Result<Vec<String>, Status> {
        let reports = self.reports().await?;
        Ok(reports.into_iter().filter(|report| report.stats.is_some()).map(|report| report.id).collect())
    }

    /// The memory that our engines use on each device.
    async fn taken(&self) -> Result<DeviceBytes, Status> {
        let mut taken = DeviceBytes::new();
        for (device, bytes) in self.reports().await?.into_iter().flat_map(|report| report.device_bytes) {
            *taken.entry(device).or_default() += bytes;
        }
        Ok(taken)
    }
}

fn device(status: DeviceStatus, taken: &DeviceBytes) -> v1::Device {
    let used_bytes = taken.get(&status.name).copied().unwrap_or(0);
    let kind = match status.device.as_ref().map(|found| found.kind) {
        Some(ProbedDeviceKind::Cpu) => v1::DeviceKind::Cpu,
        Some(ProbedDeviceKind::Accelerator) => v1::DeviceKind::Accelerator,
        Some(ProbedDeviceKind::IntegratedGpu) => v1::DeviceKind::IntegratedGpu,
        Some(ProbedDeviceKind::Gpu | ProbedDeviceKind::Rpc) | None => v1::DeviceKind::Gpu,
    };
    let (description, backend, monitor) = match status.device {
        Some(found) => (found.description, found.backend, found.monitor),
        None => (String::new(), "RPC".to_owned(), None),
    };
    v1::Device {
        name: status.name,
        description,
        backend,
        kind: kind.into(),
        total_bytes: status.total,
        free_bytes: status.free.saturating_sub(used_bytes),
        used_bytes,
        available: status.problem.is_empty(),
        problem: status.problem,
        rpc_address: status.server.unwrap_or_default(),
        monitor: monitor.as_ref().map(GpuReading::as_proto),
    }
}
