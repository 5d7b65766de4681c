//! The available devices: those of this machine and those of RPC servers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use artel_placement::{Device, DeviceBytes, DeviceKind};
use tokio::sync::Mutex;

use crate::engine::probe::{self, ProbedDevice};

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

#[derive(Clone)]
struct DeviceScan {
    at: Instant,
    result: Result<Vec<ProbedDevice>, String>,
}

/// A device, or an unreachable RPC server.
#[derive(Debug, Clone)]
pub(crate) struct DeviceStatus {
    pub(crate) name: String,
    /// The device; none if it is unreachable.
    pub(crate) device: Option<ProbedDevice>,
    /// Why it is unreachable. Empty if it is not.
    pub(crate) problem: String,
    /// The RPC server of the device.
    pub(crate) server: Option<String>,
    /// Bytes that engines may use.
    pub(crate) total: u64,
    /// Bytes of `total` that would be free without our engines.
    pub(crate) free: u64,
}

impl DeviceInventory {
    pub(super) fn new(servers: Vec<String>, budgets: BTreeMap<String, u64>) -> Self {
        Self { servers, budgets, scans: Mutex::default() }
    }

    /// All devices. `taken` is the memory that our engines use.
    pub(crate) async fn statuses(&self, taken: &DeviceBytes) -> Vec<DeviceStatus> {
        let mut scans = self.scans.lock().await;
        scans.refresh(&self.servers).await;
        let mut statuses = Vec::new();
        match &scans.local {
            Some(DeviceScan { result: Ok(found), .. }) => {
                statuses.extend(found.iter().map(|found| self.status(found, None, taken)));
            }
            // The CPU is available even if the drivers fail.
            Some(DeviceScan { result: Err(problem), .. }) => {
                tracing::error!(problem, "failed to list the devices of this machine; only the CPU is used");
                statuses.push(self.status(&cpu(), None, taken));
            }
            None => {}
        }
        for (server, scan) in &scans.servers {
            match &scan.result {
                Ok(found) => statuses.extend(found.iter().map(|found| self.status(found, Some(server), taken))),
                Err(problem) => statuses.push(DeviceStatus {
                    name: format!("RPC[{server}]"),
                    device: None,
                    problem: problem.clone(),
                    server: Some(server.clone()),
                    total: 0,
                    free: 0,
                }),
            }
        }
        statuses
    }

    /// The devices on which models can be placed.
    pub(crate) async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        let statuses = self.statuses(taken).await;
        let device = |status: DeviceStatus| {
            let kind = match status.device?.kind {
                probe::ProbedDeviceKind::Cpu => DeviceKind::Cpu,
                probe::ProbedDeviceKind::Gpu => DeviceKind::Gpu,
                probe::ProbedDeviceKind::IntegratedGpu => DeviceKind::IntegratedGpu,
                probe::ProbedDeviceKind::Accelerator => DeviceKind::Accelerator,
                probe::ProbedDeviceKind::Rpc => DeviceKind::Rpc,
            };
            Some(Device { name: status.name, kind, total: status.total, free: status.free })
        };
        statuses.into_iter().filter_map(device).collect()
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
        if found.kind == probe::ProbedDeviceKind::Cpu {
            (total, free) = host_memory().unwrap_or((total, free));
        }
        let ours = taken.get(&found.name).copied().unwrap_or(0);
        free = free.saturating_add(ours).min(total);
        if let Some(budget) = self.budgets.get(&found.name) {
            (total, free) = (total.min(*budget), free.min(*budget));
        }
        let (name, server) = (found.name.clone(), server.cloned());
        DeviceStatus { name, device: Some(found.clone()), problem: String::new(), server, total, free }
    }
}

impl DeviceScans {
    async fn refresh(&mut self, servers: &[String]) {
        let is_fresh = |scan: &DeviceScan| scan.at.elapsed() < MAX_SCAN_AGE;
        // The free memory of the CPU is read from the kernel each time.
        let goes_stale = |found: &ProbedDevice| {
            !matches!(found.kind, probe::ProbedDeviceKind::Cpu | probe::ProbedDeviceKind::Accelerator)
        };
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
    let (total, free) = host_memory().unwrap_or_default();
    let (name, backend) = ("CPU".to_owned(), "CPU".to_owned());
    ProbedDevice {
        name,
        description: String::new(),
        backend,
        kind: probe::ProbedDeviceKind::Cpu,
        total,
        free,
        monitor: None,
    }
}

/// Total and free memory for this process in bytes: of the machine, or of its control group if that is less.
pub(crate) fn host_memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let (total, free) = parse_meminfo(&text)?;
    let group = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    Some(match (group("memory.max"), group("memory.current")) {
        (Some(limit), Some(used)) => (total.min(limit), free.min(limit.saturating_sub(used))),
        _ => (total, free),
    })
}

/// Resident bytes of a process that are not backed by a file.
pub(crate) fn resident_bytes(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_parsed() {
        let text = "MemTotal:       24572844 kB\nMemFree:         1000 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(parse_meminfo(text), Some((24_572_844 * 1024, 20_000_000 * 1024)));
        assert_eq!(parse_meminfo("MemTotal: much"), None);
        assert!(host_memory().unwrap().0 > 0);
    }

    #[test]
    fn budgets_limit_total_and_free_memory() {
        let inventory = DeviceInventory::new(vec!["box:1".to_owned()], BTreeMap::from([("CUDA0".to_owned(), 10)]));
        let found =
            ProbedDevice { name: "CUDA0".to_owned(), kind: probe::ProbedDeviceKind::Gpu, total: 24, free: 16, ..cpu() };
        let status = inventory.status(&found, None, &DeviceBytes::from([("CUDA0".to_owned(), 4)]));
        assert_eq!((status.total, status.free), (10, 10));
        let status = DeviceInventory::new(Vec::new(), BTreeMap::new()).status(&found, None, &DeviceBytes::new());
        assert_eq!((status.total, status.free), (24, 16));
        assert_eq!(inventory.server_of("RPC[box:1]#1").map(String::as_str), Some("box:1"));
        assert_eq!(inventory.server_of("RPC[other:1]"), None);
    }
}
