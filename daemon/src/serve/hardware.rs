//! The devices that there are: this machine's and those of RPC servers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use artel_placement::{DeviceBytes, Device, DeviceKind};
use tokio::sync::Mutex;

use crate::engine::probe::{self, Found};

/// How long what a GPU or an RPC server said of its memory is believed: others use them too.
const FRESH: Duration = Duration::from_secs(5);

/// What there is, as it was found last.
pub(crate) struct Hardware {
    servers: Vec<String>,
    /// Bytes that engines may take of a device at most.
    budgets: BTreeMap<String, u64>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    local: Option<Seen>,
    servers: BTreeMap<String, Seen>,
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    found: Result<Vec<Found>, String>,
}

/// A device, or an RPC server that is lost.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) name: String,
    /// None: it is lost.
    pub(crate) found: Option<Found>,
    /// Why it is lost.
    pub(crate) problem: String,
    /// The RPC server that it belongs to.
    pub(crate) server: Option<String>,
    /// What engines may use of it, and what would be free of that without them.
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Hardware {
    pub(super) fn new(servers: Vec<String>, budgets: BTreeMap<String, u64>) -> Self {
        Self { servers, budgets, known: Mutex::default() }
    }

    /// Everything, `taken` being what our engines take.
    pub(crate) async fn look(&self, taken: &DeviceBytes) -> Vec<Sight> {
        let mut known = self.known.lock().await;
        known.look(&self.servers).await;
        let mut sights = Vec::new();
        match &known.local {
            Some(Seen { found: Ok(found), .. }) => {
                sights.extend(found.iter().map(|found| self.sight(found, None, taken)));
            }
            // Whatever is wrong with the drivers: there is a processor.
            Some(Seen { found: Err(problem), .. }) => {
                tracing::error!(problem, "the devices of this machine cannot be listed");
                sights.push(self.sight(&processor(), None, taken));
            }
            None => {}
        }
        for (server, seen) in &known.servers {
            match &seen.found {
                Ok(found) => sights.extend(found.iter().map(|found| self.sight(found, Some(server), taken))),
                Err(problem) => sights.push(Sight {
                    name: format!("RPC[{server}]"),
                    found: None,
                    problem: problem.clone(),
                    server: Some(server.clone()),
                    total: 0,
                    free: 0,
                }),
            }
        }
        sights
    }

    /// What models can be put on.
    pub(crate) async fn devices(&self, taken: &DeviceBytes) -> Vec<Device> {
        let sights = self.look(taken).await;
        let device = |sight: Sight| {
            let kind = match sight.found?.kind {
                probe::Kind::Cpu => DeviceKind::Cpu,
                probe::Kind::Gpu => DeviceKind::Gpu,
                probe::Kind::IntegratedGpu => DeviceKind::IntegratedGpu,
                probe::Kind::Accelerator => DeviceKind::Accelerator,
                probe::Kind::Rpc => DeviceKind::Rpc,
            };
            Some(Device { name: sight.name, kind, total: sight.total, free: sight.free })
        };
        sights.into_iter().filter_map(device).collect()
    }

    /// The server that a device belongs to.
    pub(crate) fn server_of(&self, device: &str) -> Option<&String> {
        let address = device.strip_prefix("RPC[")?.split(']').next()?;
        self.servers.iter().find(|server| server.as_str() == address)
    }

    /// An engine has lost a server, or found it: look again.
    pub(crate) async fn doubt(&self) {
        *self.known.lock().await = Known::default();
    }

    fn sight(&self, found: &Found, server: Option<&String>, taken: &DeviceBytes) -> Sight {
        let (mut total, mut free) = (found.total, found.free);
        if found.kind == probe::Kind::Cpu {
            (total, free) = memory().unwrap_or((total, free));
        }
        let ours = taken.get(&found.name).copied().unwrap_or(0);
        free = free.saturating_add(ours).min(total);
        if let Some(budget) = self.budgets.get(&found.name) {
            (total, free) = (total.min(*budget), free.min(*budget));
        }
        let (name, server) = (found.name.clone(), server.cloned());
        Sight { name, found: Some(found.clone()), problem: String::new(), server, total, free }
    }
}

impl Known {
    async fn look(&mut self, servers: &[String]) {
        let is_fresh = |seen: &Seen| seen.at.elapsed() < FRESH;
        // The memory of a processor is asked of the kernel, each time.
        let changes = |found: &Found| !matches!(found.kind, probe::Kind::Cpu | probe::Kind::Accelerator);
        let local = self.local.as_ref().is_some_and(|seen| match &seen.found {
            Ok(found) => is_fresh(seen) || !found.iter().any(changes),
            Err(_) => is_fresh(seen),
        });
        if !local {
            self.local = Some(Seen { found: probe::devices(None).await, at: Instant::now() });
        }
        let stale = servers.iter().filter(|server| !self.servers.get(*server).is_some_and(is_fresh));
        let asked = stale.map(|server| async move { (server.clone(), probe::devices(Some(server)).await) });
        for (server, found) in futures::future::join_all(asked).await {
            self.servers.insert(server, Seen { found, at: Instant::now() });
        }
    }
}

fn processor() -> Found {
    let (total, free) = memory().unwrap_or_default();
    let (name, backend) = ("CPU".to_owned(), "CPU".to_owned());
    Found { name, description: String::new(), backend, kind: probe::Kind::Cpu, total, free, monitor: None }
}

/// All memory and what is free of it, for this process: of the machine, or of its control group if that is less.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let (total, free) = of_machine(&text)?;
    let group = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    Some(match (group("memory.max"), group("memory.current")) {
        (Some(most), Some(used)) => (total.min(most), free.min(most.saturating_sub(used))),
        _ => (total, free),
    })
}

/// Bytes of a process that are in memory and not in a file: what it takes of the machine by itself.
pub(crate) fn resident(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn of_machine(text: &str) -> Option<(u64, u64)> {
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
    fn memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       24572844 kB\nMemFree:         1000 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(of_machine(text), Some((24_572_844 * 1024, 20_000_000 * 1024)));
        assert_eq!(of_machine("MemTotal: much"), None);
        assert!(memory().unwrap().0 > 0);
    }

    #[test]
    fn budgets_bound_what_is_free() {
        let hardware = Hardware::new(vec!["box:1".to_owned()], BTreeMap::from([("CUDA0".to_owned(), 10)]));
        let found = Found { name: "CUDA0".to_owned(), kind: probe::Kind::Gpu, total: 24, free: 16, ..processor() };
        let sight = hardware.sight(&found, None, &DeviceBytes::from([("CUDA0".to_owned(), 4)]));
        assert_eq!((sight.total, sight.free), (10, 10));
        let sight = Hardware::new(Vec::new(), BTreeMap::new()).sight(&found, None, &DeviceBytes::new());
        assert_eq!((sight.total, sight.free), (24, 16));
        assert_eq!(hardware.server_of("RPC[box:1]#1").map(String::as_str), Some("box:1"));
        assert_eq!(hardware.server_of("RPC[other:1]"), None);
    }
}
