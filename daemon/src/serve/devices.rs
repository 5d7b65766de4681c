//! The available devices: those of this machine and those of RPC servers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use artel_grpc::DeviceStatus;
use artel_model::DeviceKind;
use artel_placement::{Device, DeviceBytes};
use tokio::sync::Mutex;

use crate::engine::probe::{self, ProbedDevice};
use crate::host;

/// How long the memory readings of a GPU or an RPC server are reused. Other programs use them too, so that readings go stale.
const MAX_SCAN_AGE: Duration = Duration::from_secs(5);

/// The devices, as last scanned.
pub(crate) struct DeviceInventory {
    servers: Vec<String>,
    /// The most bytes that engines may use of a device.
    budgets: BTreeMap<String, u64>,
    scans: Mutex<DeviceScans>,
}

#[derive(Default)]
struct DeviceScans {
    local: Option<DeviceScan>,
    servers: BTreeMap<String, DeviceScan>,
}

struct DeviceScan {
    at: Instant,
    result: Result<Vec<ProbedDevice>, probe::Error>,
}

impl DeviceInventory {
    pub(super) fn new(servers: Vec<String>, budgets: BTreeMap<String, u64>) -> Self {
        Self { servers, budgets, scans: Mutex::default() }
    }

    /// All devices, and the RPC servers that do not answer. `taken` is the memory that our engines use.
    pub(crate) async fn statuses(&self, taken: &DeviceBytes) -> Vec<DeviceStatus> {
        let mut scans = self.scans.lock().await;
        scans.refresh(&self.servers).await;
        let mut statuses = Vec::new();
        match &scans.local {
            Some(DeviceScan { result: Ok(found), .. }) => {
                statuses.extend(found.iter().map(|found| self.status(found, None, taken)));
            }
            // The CPU is available even if the drivers fail.
            Some(DeviceScan { result: Err(error), .. }) => {
                tracing::error!(%error, "failed to list the devices of this machine; only the CPU is used");
                statuses.push(self.status(&cpu(), None, taken));
            }
            None => {}
        }
        for (server, scan) in &scans.servers {
            match &scan.result {
                Ok(found) => statuses.extend(found.iter().map(|found| self.status(found, Some(server), taken))),
                Err(error) => statuses.push(DeviceStatus {
                    name: format!("RPC[{server}]"),
                    kind: DeviceKind::Rpc,
                    description: String::new(),
                    backend: "RPC".to_owned(),
                    problem: Some(error.to_string()),
                    rpc_address: Some(server.clone()),
                    total: 0,
                    free: 0,
                    reading: None,
                }),
            }
        }
        statuses
    }

    /// The devices on which models can be placed.
    pub(crate) async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        self.statuses(taken).await.iter().filter_map(DeviceStatus::to_placeable).collect()
    }

    /// The RPC server of a device.
    pub(crate) fn server_of(&self, device: &str) -> Option<&String> {
        let address = device.strip_prefix("RPC[")?.split(']').next()?;
        self.servers.iter().find(|server| server.as_str() == address)
    }

    /// Discards the scans, such as after an engine has lost an RPC server.
    pub(crate) async fn invalidate(&self) {
        *self.scans.lock().await = DeviceScans::default();
    }

    fn status(&self, found: &ProbedDevice, server: Option<&String>, taken: &DeviceBytes) -> DeviceStatus {
        let (mut total, mut free) = (found.total, found.free);
        if found.kind == DeviceKind::Cpu {
            (total, free) = host::memory().unwrap_or((total, free));
        }
        let ours = taken.get(&found.name).copied().unwrap_or(0);
        free = free.saturating_add(ours).min(total);
        if let Some(budget) = self.budgets.get(&found.name) {
            (total, free) = (total.min(*budget), free.min(*budget));
        }
        DeviceStatus {
            name: found.name.clone(),
            kind: found.kind,
            description: found.description.clone(),
            backend: found.backend.clone(),
            problem: None,
            rpc_address: server.cloned(),
            total,
            free,
            reading: found.monitor.clone(),
        }
    }
}

impl DeviceScans {
    async fn refresh(&mut self, servers: &[String]) {
        let is_fresh = |scan: &DeviceScan| scan.at.elapsed() < MAX_SCAN_AGE;
        // The free memory of the CPU is read from the kernel each time.
        let goes_stale = |found: &ProbedDevice| !matches!(found.kind, DeviceKind::Cpu | DeviceKind::Accelerator);
        let is_local_fresh = self.local.as_ref().is_some_and(|scan| match &scan.result {
            Ok(found) => is_fresh(scan) || !found.iter().any(goes_stale),
            Err(_) => is_fresh(scan),
        });
        if !is_local_fresh {
            self.local = Some(DeviceScan { result: probe::devices(None).await, at: Instant::now() });
        }
        let stale = servers.iter().filter(|server| !self.servers.get(*server).is_some_and(is_fresh));
        let probes = stale.map(|server| async move { (server.clone(), probe::devices(Some(server)).await) });
        for (server, result) in futures::future::join_all(probes).await {
            self.servers.insert(server, DeviceScan { result, at: Instant::now() });
        }
    }
}

fn cpu() -> ProbedDevice {
    let (total, free) = host::memory().unwrap_or_default();
    let (name, backend) = ("CPU".to_owned(), "CPU".to_owned());
    ProbedDevice { name, description: String::new(), backend, kind: DeviceKind::Cpu, total, free, monitor: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_limit_total_and_free_memory() {
        let inventory = DeviceInventory::new(vec!["box:1".to_owned()], BTreeMap::from([("CUDA0".to_owned(), 10)]));
        let found = ProbedDevice { name: "CUDA0".to_owned(), kind: DeviceKind::Gpu, total: 24, free: 16, ..cpu() };
        let status = inventory.status(&found, None, &DeviceBytes::from([("CUDA0".to_owned(), 4)]));
        assert_eq!((status.total, status.free), (10, 10));
        let status = DeviceInventory::new(Vec::new(), BTreeMap::new()).status(&found, None, &DeviceBytes::new());
        assert_eq!((status.total, status.free), (24, 16));
        assert_eq!(inventory.server_of("RPC[box:1]#1").map(String::as_str), Some("box:1"));
        assert_eq!(inventory.server_of("RPC[other:1]"), None);
    }
}
