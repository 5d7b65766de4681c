//! The daemon's own settings: one YAML file, one map.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_task::GraphName;

use crate::decode::{Fields, boolean, choice, duration, integer, items, name, text, wrong};
use crate::node::Node;
use crate::problem::{Problem, Problems, Report, shown};
use crate::source::Source;
use crate::yaml;

/// The words of `engines`.
const ENGINES: [(&str, Engines); 2] = [("processes", Engines::Processes), ("inside", Engines::Inside)];

/// What a settings file says; what it does not say is for the daemon to choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `listen`: where to listen, such as `127.0.0.1:7430`.
    pub listen: Option<SocketAddr>,
    /// `data`: the directory of the journal.
    pub data: Option<PathBuf>,
    /// `catalog`: the directory of the user's roles, graphs and models.
    pub catalog: Option<PathBuf>,
    /// `models`: where GGUF files lie that are not beside the YAML that names them.
    pub models: Option<PathBuf>,
    /// `graph`: what runs when a client names neither graph nor role.
    pub graph: Option<GraphName>,
    /// `tasks`: how many may be open at once.
    pub tasks: Option<u32>,
    /// `threads`: threads of the CPU that engines may use.
    pub threads: Option<u32>,
    /// `engines`: where engines run.
    pub engines: Option<Engines>,
    /// `rpc`: addresses, `host:port`, of llama.cpp's RPC servers whose devices may be used.
    pub rpc: Vec<String>,
    /// `memory`: MiB that engines may take of a device at most, by its name.
    pub memory_mib: BTreeMap<String, u32>,
    /// `watch`: whether the catalog is read again when its directory changes.
    pub watch: Option<bool>,
    /// `offline`: nothing is fetched.
    pub offline: bool,
    /// `gap`: the gap between tokens to aim at while prompts are read beside running answers.
    pub gap: Option<Duration>,
    /// `prefixes.memory`: MiB of host memory, for each model, for what roles say before every question.
    pub prefix_memory_mib: Option<u32>,
    /// `prefixes.disk`: MiB on disk for the same, for all models together.
    pub prefix_disk_mib: Option<u32>,
    /// `grace`: how long running tasks may go on when the daemon is asked to stop.
    pub grace: Option<Duration>,
    /// `retention.tasks`: ended tasks to keep at most.
    pub keep_tasks: Option<u32>,
    /// `retention.age`: how long ended tasks are kept.
    pub keep_age: Option<Duration>,
    /// `retention.size`: MiB that the journal may have; ended tasks make room.
    pub keep_mib: Option<u32>,
}

/// Where engines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engines {
    /// Each in a process of its own: one that dies takes nobody along.
    #[default]
    Processes,
    /// All inside of the daemon.
    Inside,
}

impl Settings {
    /// Reads a settings file; paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let bytes = std::fs::read(path)
            .map_err(|e| Problem::file(path.to_string_lossy(), format!("the settings cannot be read: {e}")))?;
        let dir = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        Self::parse(&Source::of_bytes(path.to_string_lossy(), dir, bytes)?)
    }

    /// Reads settings; an empty file says nothing.
    pub fn parse(source: &Source) -> Result<Self, Problems> {
        let mut report = Report::new(source);
        let documents = yaml::parse(&mut report).documents;
        let settings = documents.first().map(|node| Self::decode(node, &mut report)).unwrap_or_default();
        if let Some(second) = documents.get(1) {
            report.add(second.span, "settings are one document");
        }
        if report.problems.is_empty() { Ok(settings) } else { Err(Problems::new(report.problems, report.omitted)) }
    }

    fn decode(node: &Node, report: &mut Report<'_>) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        let Some(mut f) = Fields::open(node, "the settings file", report) else { return Self::default() };
        let dir = report.source.dir.clone();
        let mut path = |key: &'static str, report: &mut Report<'_>| {
            let path = f.get(key).and_then(|n| text(n, &format!("`{key}`"), 1..=4096, report));
            path.map(|path| dir.as_deref().unwrap_or(Path::new("")).join(path))
        };
        let (data, catalog, models) = (path("data", report), path("catalog", report), path("models", report));
        let settings = Self {
            listen: f.get("listen").and_then(|n| listen(n, report)),
            data,
            catalog,
            models,
            graph: f.get("graph").and_then(|n| name(n, "a graph", GraphName::parse, report)),
            tasks: f.get("tasks").and_then(|n| integer(n, "`tasks`", 1..=1_000_000, report)),
            threads: f.get("threads").and_then(|n| integer(n, "`threads`", 1..=1024, report)),
            engines: f.get("engines").and_then(|n| choice(n, "`engines`", &ENGINES, report)),
            rpc: f.get("rpc").map(|n| servers(n, report)).unwrap_or_default(),
            memory_mib: f.get("memory").map(|n| budgets(n, report)).unwrap_or_default(),
            watch: f.get("watch").and_then(|n| boolean(n, "`watch`", report)),
            offline: f.get("offline").and_then(|n| boolean(n, "`offline`", report)).unwrap_or_default(),
            gap: f.get("gap").and_then(|n| duration(n, "`gap`", Duration::from_millis(1)..=DAY, report)),
            grace: f.get("grace").and_then(|n| duration(n, "`grace`", Duration::ZERO..=DAY, report)),
            prefix_memory_mib: None,
            prefix_disk_mib: None,
            keep_tasks: None,
            keep_age: None,
            keep_mib: None,
        };
        let settings = match f.get("prefixes").and_then(|n| Fields::open(n, "`prefixes`", report)) {
            Some(mut f) => {
                let mut mib = |key: &'static str, report: &mut Report<'_>| {
                    f.get(key).and_then(|n| integer(n, &format!("`{key}` in MiB"), 0..=1_048_576, report))
                };
                let (prefix_memory_mib, prefix_disk_mib) = (mib("memory", report), mib("disk", report));
                f.finish(&[], report);
                Self { prefix_memory_mib, prefix_disk_mib, ..settings }
            }
            None => settings,
        };
        let retention = f.get("retention").and_then(|n| Fields::open(n, "`retention`", report));
        f.finish(&[("age", "retention")], report);
        let Some(mut f) = retention else { return settings };
        let keep_tasks = f.get("tasks").and_then(|n| integer(n, "`tasks`", 0..=100_000_000, report));
        let keep_age = f.get("age").and_then(|n| duration(n, "`age`", Duration::ZERO..=DAY * 3650, report));
        let keep_mib = f.get("size").and_then(|n| integer(n, "`size` in MiB", 1..=1_048_576, report));
        f.finish(&[], report);
        Self { keep_tasks, keep_age, keep_mib, ..settings }
    }
}

fn listen(node: &Node, report: &mut Report<'_>) -> Option<SocketAddr> {
    let address = text(node, "`listen`", 1..=200, report)?;
    let parsed = address.parse().ok();
    if parsed.is_none() {
        let message = format!("`listen` is an address and a port, not `{}`", shown(&address));
        report.add_with(node.span, message, "write `127.0.0.1:7430`, or `0.0.0.0:7430` for every network");
    }
    parsed
}

/// Addresses of RPC servers.
fn servers(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    // llama.cpp knows 16.
    let nodes = items(node, "`rpc`", 16, report).unwrap_or_default();
    let address = |node: &Node, report: &mut Report<'_>| {
        let address = text(node, "an RPC server", 1..=260, report)?;
        let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if parts.and_then(|(_, port)| port.parse::<u16>().ok()).is_some_and(|port| port > 0) {
            return Some(address);
        }
        report.add_with(
            node.span,
            format!("an RPC server is a host and a port, not `{}`", shown(&address)),
            "write `192.168.1.20:50052`",
        );
        None
    };
    nodes.iter().filter_map(|node| address(node, report)).collect()
}

/// MiB by device.
fn budgets(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, u32> {
    let crate::node::Value::Map(entries) = &node.value else {
        wrong(node, "`memory` is a map from devices to MiB", report);
        return BTreeMap::new();
    };
    let budget = |entry: &crate::node::Entry, report: &mut Report<'_>| {
        let mib = integer(&entry.value, "`memory` of a device in MiB", 1..=16_777_216, report)?;
        Some((entry.key.clone(), mib))
    };
    entries.iter().filter_map(|entry| budget(entry, report)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let source = Source { path: "artel.yaml".to_owned(), dir: Some("/etc/artel".into()), text: text.to_owned() };
        Settings::parse(&source).map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings_say_what_they_say() {
        let settings = parse(
            "listen: 127.0.0.1:7430\ndata: /var/lib/artel\ncatalog: catalog\ngraph: mentor\ntasks: 5\ngrace: 30s\n\
             retention: {tasks: 10, age: 30d, size: 64}\nprefixes: {memory: 64, disk: 0}\n",
        );
        let settings = settings.unwrap();
        assert_eq!(settings.catalog.as_deref(), Some(Path::new("/etc/artel/catalog")));
        assert_eq!(settings.data.as_deref(), Some(Path::new("/var/lib/artel")));
        assert_eq!((settings.tasks, settings.grace), (Some(5), Some(Duration::from_secs(30))));
        assert_eq!((settings.keep_tasks, settings.keep_age), (Some(10), Some(Duration::from_secs(30 * 86_400))));
        assert_eq!(settings.keep_mib, Some(64));
        assert_eq!((settings.prefix_memory_mib, settings.prefix_disk_mib), (Some(64), Some(0)));
        assert_eq!(parse("# nothing\n").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let problems = parse("listen: here\ngrac: 30s\nretention: {tasks: -1}\n").unwrap_err();
        for part in ["artel.yaml:1:9", "artel.yaml:2:1", "grace", "artel.yaml:3:20"] {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }
}
