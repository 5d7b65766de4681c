//! Reads the reports of all engines.

use artel_actors::EngineReport;
use artel_placement::DeviceBytes;
use tonic::Status;

use crate::state::ServiceState;

impl ServiceState {
    pub(super) async fn reports(&self) -> Result<Vec<EngineReport>, Status> {
        self.runtime.engines().await.map_err(|e| self.status_of(e))
    }

    /// The ids of the loaded engines.
    pub(super) async fn loaded(&self) -> Result<Vec<String>, Status> {
        let reports = self.reports().await?;
        Ok(reports.into_iter().filter(|report| report.stats.is_some()).map(|report| report.id).collect())
    }

    /// The memory that our engines use on each device.
    pub(super) async fn taken(&self) -> Result<DeviceBytes, Status> {
        let mut taken = DeviceBytes::new();
        for (device, bytes) in self.reports().await?.into_iter().flat_map(|report| report.device_bytes) {
            *taken.entry(device).or_default() += bytes;
        }
        Ok(taken)
    }
}
