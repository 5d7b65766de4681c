//! The daemon's settings: one YAML file, one map.

mod port;
mod traces;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artel_task::GraphName;
use artel_yaml::{Diagnostics, Problems, YamlNode, YamlSource, shown};

use crate::decode::{MapReader, boolean, choice, duration, integer, items, name, text, texts, wrong};
use crate::keys;
use crate::network::ModelHub;

pub use port::{HttpSettings, TlsSettings};
pub use traces::TraceSettings;

/// The most directories of `network.files`: each is looked at for each file that a client names.
const MAX_NETWORK_ITEMS: usize = 64;

/// The longest `log.level`: a directive for each module of the daemon fits.
const MAX_FILTER_CHARS: usize = 4096;

/// The values of `engines`.
const ISOLATIONS: [(&str, EngineIsolation); 2] =
    [("processes", EngineIsolation::Process), ("inside", EngineIsolation::InProcess)];

/// The values of a settings file; the daemon has a default for each that is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// `listen`: the address and port of the server, such as `127.0.0.1:7430`.
    pub listen: Option<SocketAddr>,
    /// `socket`: the Unix socket of the server.
    pub socket: Option<PathBuf>,
    /// `tls`: what encrypts connections over TCP.
    pub tls: Option<TlsSettings>,
    /// `http`: which requests are answered.
    pub http: HttpSettings,
    /// `data`: the directory of the journal.
    pub data: Option<PathBuf>,
    /// `catalog`: the directory of the user's roles, graphs and models.
    pub catalog: Option<PathBuf>,
    /// `models`: the directory of GGUF files that are not beside the YAML that names them.
    pub models: Option<PathBuf>,
    /// `graph`: the graph of a task for which a client names neither graph nor role.
    pub graph: Option<GraphName>,
    /// `tasks`: the most tasks that are open at once.
    pub tasks: Option<u32>,
    /// `threads`: CPU threads for all engines together.
    pub threads: Option<u32>,
    /// `engines`: where engines run.
    pub engines: Option<EngineIsolation>,
    /// `hang_timeout`: how long an engine may show no sign of life.
    pub hang_timeout: Option<Duration>,
    /// `rpc`: addresses, `host:port`, of llama.cpp RPC servers whose devices may be used.
    pub rpc: Vec<String>,
    /// `memory`: the most memory that engines may take of a device, in MiB, by the name of the device.
    pub memory_mib: BTreeMap<String, u32>,
    /// `watch`: whether the catalog is read again when its directory changes.
    pub watch: Option<bool>,
    /// `offline`: nothing is downloaded.
    pub offline: bool,
    /// `target_itl`: the inter-token latency of running answers to keep while prompts are prefilled.
    pub target_itl: Option<Duration>,
    /// `prefix_cache.memory`: host memory of the prefix cache of each model, in MiB.
    pub prefix_cache_memory_mib: Option<u32>,
    /// `prefix_cache.disk`: the same on disk, for all models together.
    pub prefix_cache_disk_mib: Option<u32>,
    /// `grace`: how long running tasks may go on after the daemon was asked to stop.
    pub grace: Option<Duration>,
    /// `retention.tasks`: the most ended tasks to keep.
    pub retention_tasks: Option<u32>,
    /// `retention.age`: how long ended tasks are kept.
    pub retention_age: Option<Duration>,
    /// `retention.size`: the most that the journal may have, in MiB; ended tasks are removed first.
    pub retention_mib: Option<u32>,
    /// `network.files`: directories whose files documents from clients may name.
    pub network_files: Vec<PathBuf>,
    /// `network.hubs`: hubs from which documents from clients may have files downloaded.
    pub network_hubs: Vec<ModelHub>,
    /// `connections.max`: the most connections that are open at once.
    pub max_connections: Option<u32>,
    /// `connections.per_peer`: the most connections of one peer.
    pub max_connections_per_peer: Option<u32>,
    /// `connections.handshake`: how long a new connection may be without a call.
    pub connection_handshake: Option<Duration>,
    /// `connections.idle`: how long a connection may be without a call afterwards.
    pub connection_idle: Option<Duration>,
    /// `log.format`: what a line of the log looks like.
    pub log_format: Option<LogFormat>,
    /// `log.level`: the filter of the log, which the daemon parses.
    pub log_level: Option<String>,
    /// `traces`: where spans are sent, and of which tasks.
    pub traces: TraceSettings,
    /// `hf_token_file`: the file with the token of the hub. The token itself is never part of the settings.
    pub hf_token_file: Option<PathBuf>,
    /// `trainer_python`: an interpreter that has the packages of the trainer.
    pub trainer_python: Option<PathBuf>,
    /// `core_dumps`: whether the daemon and its engines may be debugged and leave core dumps.
    pub core_dumps: bool,
    /// What to look at in the file, such as former names of keys.
    pub warnings: Problems,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text with the time.
    Text,
    /// A JSON object.
    Json,
    /// Text with the priorities that systemd reads.
    Journald,
}

impl LogFormat {
    /// The words of the settings file and of the command line.
    pub const WORDS: [(&str, Self); 3] = [("text", Self::Text), ("json", Self::Json), ("journald", Self::Journald)];

    /// The format of a word.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, format)| *format)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        let word = Self::WORDS.iter().find(|(_, format)| *format == self);
        word.expect("every format has a word").0
    }
}

/// Where engines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineIsolation {
    /// Each in a process of its own: an engine that crashes takes nothing else down.
    #[default]
    Process,
    /// All in the daemon's own process.
    InProcess,
}

impl Settings {
    /// Reads a settings file; paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let dir = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        Self::parse(&YamlSource::read(path, dir)?)
    }

    /// Reads settings; an empty file has none.
    pub fn parse(source: &YamlSource) -> Result<Self, Problems> {
        let mut report = Diagnostics::new(source);
        let documents = artel_yaml::parse(&mut report).documents;
        let settings = documents.first().map(|node| Self::decode(node, &mut report)).unwrap_or_default();
        if let Some(second) = documents.get(1) {
            report.error(second.span, "a settings file is one document");
        }
        Problems::warnings([report]).map(|warnings| Self { warnings, ..settings })
    }

    fn decode(node: &YamlNode, report: &mut Diagnostics<'_>) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        let Some(mut f) = MapReader::open(node, "the settings file", &keys::SETTINGS, report) else {
            return Self::default();
        };
        let dir = report.source.dir.clone();
        let mut path = |key: &'static str, report: &mut Diagnostics<'_>| {
            let path = f.get(key).and_then(|n| text(n, &format!("`{key}`"), 1..=4096, report));
            path.map(|path| dir.as_deref().unwrap_or(Path::new("")).join(path))
        };
        let (data, catalog, models) = (path("data", report), path("catalog", report), path("models", report));
        let hf_token_file = path("hf_token_file", report);
        let trainer_python = path("trainer_python", report);
        let socket = path("socket", report);
        let settings = Self {
            listen: f.get("listen").and_then(|n| listen(n, report)),
            socket,
            tls: f.get("tls").and_then(|n| TlsSettings::decode(n, report)),
            http: f.get("http").and_then(|n| HttpSettings::decode(n, report)).unwrap_or_default(),
            data,
            catalog,
            models,
            graph: f.get("graph").and_then(|n| name(n, "a graph", GraphName::parse, report)),
            tasks: f.get("tasks").and_then(|n| integer(n, "`tasks`", 1..=1_000_000, report)),
            threads: f.get("threads").and_then(|n| integer(n, "`threads`", 1..=1024, report)),
            engines: f.get("engines").and_then(|n| choice(n, "`engines`", &ISOLATIONS, report)),
            hang_timeout: f
                .get("hang_timeout")
                .and_then(|n| duration(n, "`hang_timeout`", Duration::from_secs(1)..=DAY, report)),
            rpc: f.get("rpc").map(|n| servers(n, report)).unwrap_or_default(),
            memory_mib: f.get("memory").map(|n| budgets(n, report)).unwrap_or_default(),
            watch: f.get("watch").and_then(|n| boolean(n, "`watch`", report)),
            offline: f.get("offline").and_then(|n| boolean(n, "`offline`", report)).unwrap_or_default(),
            target_itl: f
                .get("target_itl")
                .and_then(|n| duration(n, "`target_itl`", Duration::from_millis(1)..=DAY, report)),
            grace: f.get("grace").and_then(|n| duration(n, "`grace`", Duration::ZERO..=DAY, report)),
            core_dumps: f.get("core_dumps").and_then(|n| boolean(n, "`core_dumps`", report)).unwrap_or_default(),
            hf_token_file,
            trainer_python,
            traces: f.get("traces").and_then(|n| TraceSettings::decode(n, report)).unwrap_or_default(),
            log_format: None,
            log_level: None,
            prefix_cache_memory_mib: None,
            prefix_cache_disk_mib: None,
            retention_tasks: None,
            retention_age: None,
            retention_mib: None,
            network_files: Vec::new(),
            network_hubs: Vec::new(),
            max_connections: None,
            max_connections_per_peer: None,
            connection_handshake: None,
            connection_idle: None,
            warnings: Problems::default(),
        };
        let settings =
            match f.get("prefix_cache").and_then(|n| MapReader::open(n, "`prefix_cache`", &keys::PREFIX_CACHE, report))
            {
                Some(mut f) => {
                    let mut mib = |key: &'static str, report: &mut Diagnostics<'_>| {
                        f.get(key).and_then(|n| integer(n, &format!("`{key}` in MiB"), 0..=1_048_576, report))
                    };
                    let (prefix_cache_memory_mib, prefix_cache_disk_mib) = (mib("memory", report), mib("disk", report));
                    f.finish(&[], report);
                    Self { prefix_cache_memory_mib, prefix_cache_disk_mib, ..settings }
                }
                None => settings,
            };
        let network = f.get("network").and_then(|n| MapReader::open(n, "`network`", &keys::NETWORK, report));
        let (network_files, network_hubs) = network.map(|f| network_rules(f, report)).unwrap_or_default();
        let settings = Self { network_files, network_hubs, ..settings };
        let connections = f.get("connections");
        let connections = connections.and_then(|n| MapReader::open(n, "`connections`", &keys::CONNECTIONS, report));
        let settings = match connections {
            Some(f) => settings.with_connections(f, report),
            None => settings,
        };
        let log = f.get("log").and_then(|n| MapReader::open(n, "`log`", &keys::LOG, report));
        let settings = match log {
            Some(f) => settings.with_log(f, report),
            None => settings,
        };
        let retention = f.get("retention").and_then(|n| MapReader::open(n, "`retention`", &keys::RETENTION, report));
        f.finish(&[("age", "retention"), ("files", "network"), ("hubs", "network"), ("level", "log")], report);
        let Some(mut f) = retention else { return settings };
        let retention_tasks = f.get("tasks").and_then(|n| integer(n, "`tasks`", 0..=100_000_000, report));
        let retention_age = f.get("age").and_then(|n| duration(n, "`age`", Duration::ZERO..=DAY * 3650, report));
        let retention_mib = f.get("size").and_then(|n| integer(n, "`size` in MiB", 1..=1_048_576, report));
        f.finish(&[], report);
        Self { retention_tasks, retention_age, retention_mib, ..settings }
    }

    /// With `connections`: limits and timeouts.
    fn with_connections(self, fields: MapReader<'_>, report: &mut Diagnostics<'_>) -> Self {
        let mut f = fields;
        let mut limit = |key: &'static str, report: &mut Diagnostics<'_>| {
            f.get(key).and_then(|n| integer(n, &format!("`{key}`"), 1..=1_000_000, report))
        };
        let (max_connections, max_connections_per_peer) = (limit("max", report), limit("per_peer", report));
        let mut timeout = |key: &'static str, report: &mut Diagnostics<'_>| {
            let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
            f.get(key).and_then(|n| duration(n, &format!("`{key}`"), range, report))
        };
        let (connection_handshake, connection_idle) = (timeout("handshake", report), timeout("idle", report));
        f.finish(&[], report);
        Self { max_connections, max_connections_per_peer, connection_handshake, connection_idle, ..self }
    }

    /// With `log`: format and filter.
    fn with_log(self, fields: MapReader<'_>, report: &mut Diagnostics<'_>) -> Self {
        let mut f = fields;
        let log_format = f.get("format").and_then(|n| choice(n, "`format`", &LogFormat::WORDS, report));
        let log_level = f.get("level").and_then(|n| text(n, "`level`", 1..=MAX_FILTER_CHARS, report));
        f.finish(&[], report);
        Self { log_format, log_level, ..self }
    }
}

/// `network`: directories of files, and hubs.
fn network_rules(fields: MapReader<'_>, report: &mut Diagnostics<'_>) -> (Vec<PathBuf>, Vec<ModelHub>) {
    let mut f = fields;
    let dir = report.source.dir.clone();
    let dirs = f.get("files").map(|n| texts(n, "`files`", MAX_NETWORK_ITEMS, 4096, report)).unwrap_or_default();
    let hubs = f.get("hubs").and_then(|n| items(n, "`hubs`", ModelHub::WORDS.len(), report)).unwrap_or_default();
    let hubs = hubs.iter().filter_map(|n| choice(n, "a hub", &ModelHub::WORDS, report)).collect();
    f.finish(&[], report);
    (dirs.into_iter().map(|path| dir.as_deref().unwrap_or(Path::new("")).join(path)).collect(), hubs)
}

fn listen(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<SocketAddr> {
    let address = text(node, "`listen`", 1..=200, report)?;
    let parsed = address.parse().ok();
    if parsed.is_none() {
        let message = format!("`listen` is an address and a port, not `{}`", shown(&address));
        report.error_with_hint(
            node.span,
            message,
            "write `127.0.0.1:7430`, or with `tls` `0.0.0.0:7430` for every network",
        );
    }
    parsed
}

/// The addresses of RPC servers.
fn servers(node: &YamlNode, report: &mut Diagnostics<'_>) -> Vec<String> {
    // The limit of llama.cpp.
    let nodes = items(node, "`rpc`", 16, report).unwrap_or_default();
    let address = |node: &YamlNode, report: &mut Diagnostics<'_>| {
        let address = text(node, "an RPC server", 1..=260, report)?;
        let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if parts.and_then(|(_, port)| port.parse::<u16>().ok()).is_some_and(|port| port > 0) {
            return Some(address);
        }
        report.error_with_hint(
            node.span,
            format!("an RPC server is a host and a port, not `{}`", shown(&address)),
            "write `192.168.1.20:50052`",
        );
        None
    };
    nodes.iter().filter_map(|node| address(node, report)).collect()
}

/// Memory budgets in MiB, by device.
fn budgets(node: &YamlNode, report: &mut Diagnostics<'_>) -> BTreeMap<String, u32> {
    let artel_yaml::YamlValue::Map(entries) = &node.value else {
        wrong(node, "`memory` is a map from devices to MiB", report);
        return BTreeMap::new();
    };
    let budget = |entry: &artel_yaml::YamlEntry, report: &mut Diagnostics<'_>| {
        let mib = integer(&entry.value, "`memory` of a device in MiB", 1..=16_777_216, report)?;
        Some((entry.key.clone(), mib))
    };
    entries.iter().filter_map(|entry| budget(entry, report)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Problems> {
        let source =
            YamlSource { path: "artel.yaml".to_owned(), dir: Some("/etc/artel".into()), text: text.to_owned() };
        Settings::parse(&source)
    }

    #[test]
    fn settings_are_read_as_written() {
        let settings = parse(
            "listen: 127.0.0.1:7430\ndata: /var/lib/artel\ncatalog: catalog\ngraph: mentor\ntasks: 5\ngrace: 30s\n\
             hang_timeout: 2m\n\
             retention: {tasks: 10, age: 30d, size: 64}\nprefix_cache: {memory: 64, disk: 0}\n\
             network: {files: [gguf, /srv/gguf], hubs: [hf]}\n\
             connections: {max: 100, per_peer: 10, handshake: 5s, idle: 1h}\n\
             log: {format: journald, level: 'info,artel=debug'}\nhf_token_file: token\ntrainer_python: venv/bin/python\n\
             core_dumps: true\n\
             traces: {endpoint: 'https://collector.example:4317', sample: 0.25, headers_file: headers, ca: /srv/ca.pem}\n",
        );
        let settings = settings.unwrap();
        assert_eq!(settings.catalog.as_deref(), Some(Path::new("/etc/artel/catalog")));
        assert_eq!(settings.data.as_deref(), Some(Path::new("/var/lib/artel")));
        assert_eq!((settings.tasks, settings.grace), (Some(5), Some(Duration::from_secs(30))));
        assert_eq!(settings.hang_timeout, Some(Duration::from_secs(120)));
        assert_eq!(
            (settings.retention_tasks, settings.retention_age),
            (Some(10), Some(Duration::from_secs(30 * 86_400)))
        );
        assert_eq!(settings.retention_mib, Some(64));
        assert_eq!((settings.prefix_cache_memory_mib, settings.prefix_cache_disk_mib), (Some(64), Some(0)));
        assert_eq!(settings.network_files, [Path::new("/etc/artel/gguf"), Path::new("/srv/gguf")]);
        assert_eq!(settings.network_hubs, [ModelHub::HuggingFace]);
        assert_eq!((settings.max_connections, settings.max_connections_per_peer), (Some(100), Some(10)));
        let (handshake, idle) = (settings.connection_handshake, settings.connection_idle);
        assert_eq!((handshake, idle), (Some(Duration::from_secs(5)), Some(Duration::from_secs(3600))));
        let log = (settings.log_format, settings.log_level.as_deref());
        assert_eq!(log, (Some(LogFormat::Journald), Some("info,artel=debug")));
        let token = settings.hf_token_file.as_deref();
        assert_eq!((token, settings.core_dumps), (Some(Path::new("/etc/artel/token")), true));
        assert_eq!(settings.trainer_python.as_deref(), Some(Path::new("/etc/artel/venv/bin/python")));
        let [headers_file, ca] = ["/etc/artel/headers", "/srv/ca.pem"].map(|path| Some(PathBuf::from(path)));
        let endpoint = Some("https://collector.example:4317".to_owned());
        assert_eq!(settings.traces, TraceSettings { endpoint, sample: Some(0.25), headers_file, ca });
        assert_eq!(parse("# nothing\n").unwrap(), Settings::default());
    }

    #[test]
    fn the_rules_of_the_port_are_read_as_written() {
        let settings = parse(
            "socket: run/artel.sock\ntls: {certificate: tls/cert.pem, key: /srv/key.pem}\n\
             http: {hosts: [artel.home], origins: ['https://desk.example'], requests: 100}\n",
        );
        let Settings { socket, tls, http, .. } = settings.unwrap();
        assert_eq!(socket.as_deref(), Some(Path::new("/etc/artel/run/artel.sock")));
        let [certificate, key] = ["/etc/artel/tls/cert.pem", "/srv/key.pem"].map(PathBuf::from);
        assert_eq!(tls, Some(TlsSettings::Files { certificate, key, client_ca: None }));
        let (hosts, origins) = (vec!["artel.home".to_owned()], vec!["https://desk.example".to_owned()]);
        assert_eq!(http, HttpSettings { hosts, origins, requests: Some(100) });
        assert_eq!(parse("tls: proxy\n").unwrap().tls, Some(TlsSettings::Proxy));
        for (text, problem) in [
            ("tls: off\n", "`tls` is `proxy`, or a map of files"),
            ("tls: {certificate: a.pem}\n", "key"),
            ("http: {hosts: ['artel.home:1']}\n", "without a scheme, a port and a path"),
            ("http: {origins: ['*']}\n", "as a browser sends it"),
        ] {
            let problems = parse(text).unwrap_err().to_string();
            assert!(problems.contains(problem), "{text}: {problems}");
        }
    }

    #[test]
    fn problems_name_line_and_column() {
        let text = "listen: here\ngrac: 30s\nretention: {tasks: -1}\ntraces: {sample: 1.5}\n";
        let problems = parse(text).unwrap_err().to_string();
        for part in ["artel.yaml:1:9", "artel.yaml:2:1", "grace", "artel.yaml:3:20", "`sample` is a number from 0 to 1"]
        {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }
}
