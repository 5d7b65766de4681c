//! The keys of the settings.

use super::KeyDefault::{Described, Required, Value};
use super::{KeySet, key};

pub static SETTINGS: KeySet = KeySet {
    name: "settings",
    page: "settings",
    keys: &[
        key("data", Described("~/.local/share/artel"), "The directory of the journal."),
        key("catalog", Described("~/.config/artel/catalog"), "The directory of the user's roles, models and graphs."),
        key("models", Described("`models` in the data directory"), "The directory of GGUF files."),
        key("listen", Described("127.0.0.1:7430"), "The address and port of the server."),
        key("socket", Described("`artel.sock` in the data directory"), "The Unix socket of the server."),
        key("tls", Described("none"), "What encrypts connections over TCP: files of the daemon, or `proxy`."),
        key("http", Value("{}"), "The hosts and the origins of requests, and how many are answered at once."),
        key("graph", Described("mentor"), "The graph of a task that names neither graph nor role; `auto` chooses one."),
        key("tasks", Described("1000"), "The most tasks that are open at once.").in_unit("tasks"),
        key("threads", Described("one for each core"), "CPU threads for all engines together.").in_unit("threads"),
        key("engines", Described("processes"), "Where engines run: `processes`, or `inside` the daemon's own process."),
        key("hang_timeout", Described("20s"), "How long an engine may show no sign of life before it is ended."),
        key("rpc", Value("[]"), "Addresses, `host:port`, of llama.cpp RPC servers."),
        key("memory", Value("{}"), "The most memory that engines may take of a device, in MiB, by device.")
            .in_unit("MiB"),
        key("watch", Described("true"), "Whether the catalog is read again when its directory changes."),
        key("offline", Value("false"), "Whether downloads are refused."),
        key("target_itl", Described("100ms"), "The inter-token latency to keep while prompts are prefilled.")
            .formerly("gap"),
        key("grace", Described("30s"), "How long running tasks may go on after the daemon was asked to stop."),
        key("prefix_cache", Value("{}"), "The size of the prefix cache.").formerly("prefixes"),
        key("retention", Value("{}"), "How many ended tasks are kept, and how long."),
        key("network", Value("{}"), "What documents from clients may name."),
        key("connections", Value("{}"), "How many connections are open at once, and how long they may idle."),
        key("log", Value("{}"), "What the log looks like, and what is in it."),
        key("traces", Value("{}"), "Where spans of tasks are sent, and of which tasks."),
        key(
            "hf_token_file",
            Described("the credential `hf_token` of systemd, if there is one"),
            "The file with the token for gated and private files of the Hugging Face Hub.",
        ),
        key(
            "trainer_python",
            Described("that of `artel train setup`"),
            "A Python interpreter that has the packages of the trainer already.",
        ),
        key("core_dumps", Value("false"), "Whether the daemon and its engines may be debugged and leave core dumps."),
    ],
};

pub static PREFIX_CACHE: KeySet = KeySet {
    name: "settings.prefix_cache",
    page: "settings",
    keys: &[
        key("memory", Described("1024"), "Host memory for each model, in MiB.").in_unit("MiB"),
        key("disk", Described("4096"), "Disk for all models together, in MiB; 0 turns it off.").in_unit("MiB"),
    ],
};

pub static RETENTION: KeySet = KeySet {
    name: "settings.retention",
    page: "settings",
    keys: &[
        key("tasks", Described("10000"), "The most ended tasks to keep.").in_unit("tasks"),
        key("age", Described("30d"), "How long ended tasks are kept."),
        key("size", Described("4096"), "The most that the journal may have, in MiB.").in_unit("MiB"),
    ],
};

pub static NETWORK: KeySet = KeySet {
    name: "settings.network",
    page: "settings",
    keys: &[
        key(
            "files",
            Value("[]"),
            "Directories, beside those of models and of the catalog, whose files a client may name.",
        ),
        key("hubs", Value("[]"), "Hubs from which a client may have files downloaded: `hf`."),
    ],
};

pub static CONNECTIONS: KeySet = KeySet {
    name: "settings.connections",
    page: "settings",
    keys: &[
        key("max", Described("1024"), "The most connections that are open at once.").in_unit("connections"),
        key("per_peer", Described("half of `max`"), "The most connections of one peer.").in_unit("connections"),
        key("handshake", Described("10s"), "How long a new connection may be without a call."),
        key("idle", Described("10m"), "How long a connection may be without a call afterwards."),
    ],
};

pub static LOG: KeySet = KeySet {
    name: "settings.log",
    page: "settings",
    keys: &[
        key(
            "format",
            Described("json with `--json`, journald if systemd reads it, or else text"),
            "What a line looks like: `text`, `json` or `journald`.",
        ),
        key("level", Described("info,llama_cpp=warn"), "What is logged: a level, or a filter of `tracing`."),
    ],
};

pub static TRACES: KeySet = KeySet {
    name: "settings.traces",
    page: "settings",
    keys: &[
        key(
            "endpoint",
            Described("no traces"),
            "The collector: `http://HOST:PORT` or `https://HOST:PORT`, for OTLP over gRPC.",
        ),
        key("sample", Described("1"), "The fraction of tasks that are traced without a word of their caller."),
        key("headers_file", Described("no headers"), "The file with the headers for the collector, such as a token."),
        key("ca", Described("those of the system"), "The file of the certificates to trust, in PEM."),
    ],
};

pub static HTTP: KeySet = KeySet {
    name: "settings.http",
    page: "settings",
    keys: &[
        key("hosts", Value("[]"), "Names by which the daemon is called."),
        key("origins", Value("[]"), "The origins of pages that may call from a browser."),
        key("requests", Described("4096"), "The most requests that are answered at once."),
    ],
};

pub static TLS: KeySet = KeySet {
    name: "settings.tls",
    page: "settings",
    keys: &[
        key("certificate", Required, "The file of the certificate and its chain, in PEM."),
        key("key", Required, "The file of its private key, in PEM."),
        key("client_ca", Described("no certificates of clients"), "The file of the authorities of clients, in PEM."),
    ],
};
