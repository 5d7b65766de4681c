//! `artel.v1.Fleet`.

use artel_actors::{EngineReport, EngineState};
use artel_llama::devices;
use artel_proto::v1;
use artel_proto::v1::fleet_server::Fleet;
use tonic::{Code, Request, Response, Status};

use super::Served;
use super::page::{self, Filters};
use super::status::{status, unimplemented};

#[tonic::async_trait]
impl Fleet for Served {
    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        let v1::ListDevicesRequest { page_size, page_token } = request.into_inner();
        // Asking drivers may take a moment.
        let found = tokio::task::spawn_blocking(devices).await;
        let found = found.map_err(|_| status(Code::Internal, v1::ErrorReason::Internal, "failed to list devices"))?;
        let all = found.into_iter().map(device).collect();
        let filters = Filters::of(&"devices");
        let (devices, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListDevicesResponse { devices, next_page_token }))
    }

    async fn list_engines(
        &self,
        request: Request<v1::ListEnginesRequest>,
    ) -> Result<Response<v1::ListEnginesResponse>, Status> {
        let v1::ListEnginesRequest { page_size, page_token, model } = request.into_inner();
        let reports = self.crew.engines().await.map_err(|e| self.refuse(e))?;
        let wanted = |report: &EngineReport| model.is_empty() || report.model.name.as_str() == model;
        let all = reports.into_iter().filter(wanted).filter_map(engine).collect();
        let filters = Filters::of(&("engines", &model));
        let (engines, next_page_token) = page::slice(all, page::size(page_size)?, &filters, &page_token, "")?;
        Ok(Response::new(v1::ListEnginesResponse { engines, next_page_token }))
    }

    async fn get_placement(&self, _: Request<v1::GetPlacementRequest>) -> Result<Response<v1::Placement>, Status> {
        Err(unimplemented("plan placements"))
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> Result<Response<v1::LoadResponse>, Status> {
        let model = request.into_inner().model;
        let crew = self.crew.clone();
        // If the call is given up, the loading goes on.
        let loaded = tokio::spawn(async move { crew.load(&model).await }).await;
        let loaded = loaded.map_err(|_| status(Code::Internal, v1::ErrorReason::Internal, "loading stopped"))?;
        let report = loaded.map_err(|e| match e {
            artel_actors::Error::Failed(failure) => {
                status(Code::FailedPrecondition, v1::ErrorReason::ModelUnavailable, failure.message)
            }
            other => self.refuse(other),
        })?;
        Ok(Response::new(v1::LoadResponse { engine: engine(report), unloaded: Vec::new() }))
    }

    async fn unload(&self, request: Request<v1::UnloadRequest>) -> Result<Response<v1::UnloadResponse>, Status> {
        let v1::UnloadRequest { model, interrupt } = request.into_inner();
        let reports = self.crew.engines().await.map_err(|e| self.refuse(e))?;
        let stats = reports.iter().find(|report| report.model.name.as_str() == model).and_then(|report| report.stats);
        if let Some(stats) = stats.filter(|stats| !interrupt && stats.busy + stats.queued > 0) {
            let message = format!("{} steps run on model `{model}`; `interrupt` ends them", stats.busy + stats.queued);
            return Err(status(Code::FailedPrecondition, v1::ErrorReason::EngineBusy, message));
        }
        self.crew.unload(&model, interrupt).await.map_err(|e| self.refuse(e))?;
        Ok(Response::new(v1::UnloadResponse { freed_bytes: stats.map_or(0, |_| self.weights(&model)) }))
    }
}

impl Served {
    /// The size of a model's file, which is what its weights take.
    fn weights(&self, model: &str) -> u64 {
        let catalog = self.crew.catalog();
        let path =
            catalog.model(model).and_then(|model| crate::serve::files::find(&model.candidates(&self.models)).ok());
        path.and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len())
    }
}

fn device(device: artel_llama::Device) -> v1::Device {
    let kind = match device.backend.as_str() {
        "CPU" => v1::DeviceKind::Cpu,
        "BLAS" => v1::DeviceKind::Accelerator,
        _ => v1::DeviceKind::Gpu,
    };
    v1::Device {
        name: device.name,
        description: device.description,
        backend: device.backend,
        kind: kind.into(),
        total_bytes: device.memory_total,
        free_bytes: device.memory_free,
        used_bytes: 0,
        available: true,
        problem: String::new(),
        rpc_address: String::new(),
        monitor: None,
    }
}

/// Where llama.cpp puts a model that is not pinned: on all accelerators, or else on the CPU.
fn usual_devices() -> Vec<String> {
    let all = devices();
    let is_cpu = |device: &artel_llama::Device| matches!(device.backend.as_str(), "CPU" | "BLAS");
    let mut names: Vec<String> = all.iter().filter(|d| !is_cpu(d)).map(|d| d.name.clone()).collect();
    if names.is_empty() {
        names.extend(all.into_iter().find(|d| d.backend == "CPU").map(|d| d.name));
    }
    names
}

/// None for a model that is not loaded.
fn engine(report: EngineReport) -> Option<v1::Engine> {
    let (state, problem) = match report.state {
        EngineState::Empty => return None,
        EngineState::Loading => (v1::EngineState::Loading, String::new()),
        EngineState::Ready => (v1::EngineState::Ready, String::new()),
        EngineState::Broken(reason) => (v1::EngineState::Failed, reason),
    };
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let (stats, limits) = (report.stats.unwrap_or_default(), report.limits);
    let name = report.model.name.to_string();
    Some(v1::Engine {
        id: name.clone(),
        model: name,
        devices: usual_devices(),
        split: v1::SplitMode::None.into(),
        state: state.into(),
        loaded_fraction: if state == v1::EngineState::Ready { 1.0 } else { 0.0 },
        sequences: limits.map_or(report.model.sequences, |limits| limits.sequences),
        active_sequences: number(stats.busy),
        queued_sequences: number(stats.queued),
        context_tokens: limits.map_or(0, |limits| limits.context),
        problem,
        totals: report.stats.map(|stats| v1::EngineTotals {
            sequences: stats.finished + stats.cancelled + stats.failed,
            computed_tokens: stats.prompt,
            shared_tokens: stats.shared,
            output_tokens: stats.output,
            busy: None,
        }),
        ..v1::Engine::default()
    })
}
