//! Diagnoses of made-up machines.

use std::path::PathBuf;
use std::time::Duration;

use artel_check::files::FileProblem;
use artel_grpc::GpuReading;
use artel_http::CertificateValidity;
use artel_journal::{DirExposure, JournalStats, Retention, SetAsideTask};
use artel_placement::{
    CacheSize, Device, DeviceChoice, DeviceKind, ExpertPlacement, GpuLayers, KvCacheType, LayerFootprint,
    ModelFootprint, PlacementPlan, SplitMode, plan,
};
use artel_roles::hf_uri::HfUri;
use artel_task::TaskId;
use artel_task::event::Timestamp;
use artel_terminal::StyledText;
use nix::errno::Errno;

use super::advice::{diagnose, json, render};
use super::diagnosis::is_ok;
use super::findings::{DataDirError, Findings};
use super::gpu::{GpuVendor, SystemGpu};
use crate::engine::probe::{self, ProbedDevice};
use crate::log_config::LogConfig;
use crate::serve::port::ExposedPort;

const DAY_MS: u64 = 86_400_000;

fn cpu() -> ProbedDevice {
    let (name, backend) = ("CPU".to_owned(), "CPU".to_owned());
    ProbedDevice {
        name,
        description: "Some CPU".to_owned(),
        backend,
        kind: DeviceKind::Cpu,
        total: 16 << 30,
        free: 8 << 30,
        monitor: None,
    }
}

fn gpu() -> ProbedDevice {
    let (name, backend, kind) = ("CUDA0".to_owned(), "CUDA".to_owned(), DeviceKind::Gpu);
    let monitor = GpuReading {
        name: "NVIDIA Card".to_owned(),
        driver: "550.54".to_owned(),
        used: Some(3 << 30),
        load: Some(0.125),
        celsius: Some(43.0),
        ..GpuReading::default()
    };
    let description = "NVIDIA Card".to_owned();
    ProbedDevice { name, description, backend, kind, total: 24 << 30, free: 20 << 30, monitor: Some(monitor) }
}

/// A machine without problems.
fn healthy() -> Findings {
    Findings {
        now: Timestamp(100 * DAY_MS),
        data: (PathBuf::from("/data"), Ok(())),
        journal: Ok(Some(JournalStats {
            path: PathBuf::from("/data/journal.sqlite"),
            format: 4,
            database_bytes: 4_100_000,
            free_bytes: 12_000,
            log_bytes: 320_000,
            running: 2,
            completed: 40,
            failed: 1,
            cancelled: 0,
            oldest: Some(Timestamp(DAY_MS)),
            newest: Some(Timestamp(99 * DAY_MS)),
            oldest_running: Some(Timestamp(97 * DAY_MS)),
        })),
        set_aside: Vec::new(),
        exposure: None,
        log: LogConfig { format: None, filter: artel_log::LogFilter::default() },
        settings: Vec::new(),
        exposed_port: None,
        traces: None,
        certificate: None,
        retention: Retention { tasks: 10_000, age: Duration::from_secs(30 * 86_400), bytes: 4 << 30 },
        disk: Some(80_000_000_000),
        threads: 8,
        cores: 8,
        memory: Some((16 << 30, 8 << 30)),
        features: vec!["cuda"],
        gpus: vec![SystemGpu { vendor: GpuVendor::Nvidia, inaccessible: Vec::new() }],
        local: Ok(vec![gpu(), cpu()]),
        monitor_error: None,
        servers: Vec::new(),
        offline: false,
        catalog: None,
        models: vec![("smollm2".to_owned(), Ok(()))],
        adapters: vec![("of role poet".to_owned(), Ok(()))],
        plan: planned(&[("smollm2", 300 << 20)], 8 << 30),
    }
}

/// A plan of models of these sizes on a CPU with this much free memory.
fn planned(models: &[(&str, u64)], free: u64) -> PlacementPlan {
    let need = |(name, weights): &(&str, u64)| ModelFootprint {
        model: (*name).to_owned(),
        layers: vec![LayerFootprint {
            weight_bytes: *weights,
            file_bytes: *weights,
            expert_bytes: 0,
            adapter_bytes: 0,
            kv_elements: 0,
            window_tokens: None,
        }],
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        written_kv_type: None,
        context_tokens: 4096,
        min_context_tokens: 4096,
        sequences: 8,
        min_sequences: 8,
        role_tokens: 0,
        cache_size: CacheSize::Fitting,
        compute_bytes: 0,
        cpu_compute_bytes: 0,
        mixed_compute_bytes: 0,
        beside_compute_bytes: 0,
        process_bytes: 0,
        devices: DeviceChoice::Auto,
        split: SplitMode::None,
        tensor_split: None,
        gpu_layers: GpuLayers::Auto,
        experts: ExpertPlacement::Auto,
        is_kept: false,
        weight_elements: 0,
    };
    let needs: Vec<ModelFootprint> = models.iter().map(need).collect();
    plan(&needs, &[Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: 16 << 30, free }], &[])
}

fn not_fetched() -> FileProblem {
    let address = HfUri::parse("hf:org/phi/phi.gguf").unwrap();
    FileProblem::NotFetched { path: PathBuf::from("/models").join(address.path()), address }
}

fn rendered(findings: &Findings) -> String {
    let mut out = StyledText::new(false);
    render(&diagnose(findings), &mut out);
    out.take()
}

#[test]
fn a_machine_without_problems() {
    insta::assert_snapshot!(rendered(&healthy()));
    assert!(is_ok(&diagnose(&healthy())));
}

#[test]
fn a_new_machine_with_gpus_that_the_build_does_not_support() {
    let findings = Findings {
        journal: Ok(None),
        features: Vec::new(),
        gpus: vec![
            SystemGpu { vendor: GpuVendor::Nvidia, inaccessible: Vec::new() },
            SystemGpu { vendor: GpuVendor::Intel, inaccessible: Vec::new() },
        ],
        local: Ok(vec![cpu()]),
        monitor_error: Some("NVIDIA's driver is installed and not loaded".to_owned()),
        models: vec![("phi".to_owned(), Err(not_fetched()))],
        plan: PlacementPlan::default(),
        ..healthy()
    };
    insta::assert_snapshot!(rendered(&findings));
    assert!(is_ok(&diagnose(&findings)), "it runs, slower than it could");
}

#[test]
fn broken_drivers_and_missing_permissions() {
    let inaccessible = vec!["/dev/kfd".to_owned(), "/dev/dri/renderD128".to_owned()];
    let findings = Findings {
        features: vec!["cuda", "rocm"],
        gpus: vec![
            SystemGpu { vendor: GpuVendor::Nvidia, inaccessible: Vec::new() },
            SystemGpu { vendor: GpuVendor::Amd, inaccessible },
        ],
        local: Err(probe::Error::Failed("the probe ended with signal 11".to_owned())),
        servers: vec![("box:50052".to_owned(), Err(probe::Error::Failed("connection refused".to_owned())))],
        ..healthy()
    };
    insta::assert_snapshot!(rendered(&findings));
}

#[test]
fn a_machine_that_is_too_small_and_misconfigured() {
    let mut findings = Findings {
        data: (
            PathBuf::from("/data"),
            Err(DataDirError::NotWritable { dir: PathBuf::from("/data"), cause: Errno::EACCES }),
        ),
        disk: Some(200 << 20),
        threads: 16,
        gpus: Vec::new(),
        local: Ok(vec![cpu()]),
        offline: true,
        models: vec![
            ("gone".to_owned(), Err(FileProblem::Missing(vec!["/etc/m.gguf".into(), "/models/m.gguf".into()]))),
            ("phi".to_owned(), Err(not_fetched())),
            ("torn".to_owned(), Err(FileProblem::Invalid("/models/torn.gguf: the file is truncated".to_owned()))),
        ],
        adapters: vec![("of role poet".to_owned(), Err(FileProblem::Missing(vec!["/models/poet.gguf".into()])))],
        plan: planned(&[("huge", 9 << 30), ("large", 5 << 30), ("other", 4 << 30)], 8 << 30),
        ..healthy()
    };
    findings.journal.as_mut().unwrap().as_mut().unwrap().oldest_running = Some(Timestamp(60 * DAY_MS));
    insta::assert_snapshot!(rendered(&findings));
    assert!(!is_ok(&diagnose(&findings)));
    let report = json(&findings, &diagnose(&findings));
    assert_eq!((&report["ok"], report["advice"][0]["severity"].as_str()), (&false.into(), Some("error")));
    assert_eq!(report["models"][1]["error"], serde_json::Value::Null);
}

#[test]
fn errors_of_the_journal_and_the_catalog_are_shown() {
    let findings = Findings {
        journal: Err(artel_journal::Error::NewerFormat {
            path: PathBuf::from("/data/journal.sqlite"),
            found: 9,
            known: 4,
        }),
        catalog: Some("own.yaml:3:8: there is no model `phy`".to_owned()),
        ..healthy()
    };
    let text = rendered(&findings);
    assert!(text.contains("its format is 9") && text.contains("there is no model `phy`"), "{text}");
    assert!(!is_ok(&diagnose(&findings)));
}

#[test]
fn tasks_that_are_set_aside_are_listed_with_what_to_do() {
    let set_aside = |n: u8| SetAsideTask { task: TaskId::from_bytes([n; 16]), reason: format!("it\nstalls {n}") };
    let findings = Findings { set_aside: (0..25).map(set_aside).collect(), ..healthy() };
    let text = rendered(&findings);
    let [first, task] = [set_aside(0), set_aside(3)].map(|task| task.task);
    assert!(text.contains(&format!("\nset aside {first}: it stalls 0\n          ")), "{text}");
    assert!(text.contains(&format!("{task}: it stalls 3\n")) && text.contains("and 5 more\n"), "{text}");
    assert!(text.contains("help: take a task up again with `artel task resume ID`"), "{text}");
    assert!(is_ok(&diagnose(&findings)), "a daemon can run");
    let report = json(&findings, &diagnose(&findings));
    assert_eq!(report["set_aside"][3], serde_json::json!({"task": task.to_string(), "reason": "it\nstalls 3"}));
}

#[test]
fn the_log_and_what_may_be_a_mistake_in_the_settings_are_shown() {
    let warning = "the environment variable ARTEL_MODLES is unknown and has no effect; did you mean ARTEL_MODELS?";
    let log = LogConfig { format: Some(artel_roles::LogFormat::Json), filter: "debug".parse().unwrap() };
    let findings = Findings { settings: vec![warning.to_owned()], log, ..healthy() };
    let text = rendered(&findings);
    assert!(text.contains(warning) && text.contains("help: `artel config show`"), "{text}");
    assert!(text.contains("\nlog       standard error, as json; debug\n"), "{text}");
    assert!(is_ok(&diagnose(&findings)));
}

#[test]
fn where_spans_go_is_shown_and_a_collector_that_cannot_be_used_is_an_error() {
    let seen = |traces| {
        let findings = Findings { traces: Some(traces), ..healthy() };
        (is_ok(&diagnose(&findings)), rendered(&findings))
    };
    let (can_run, text) = seen(Ok("to http://127.0.0.1:4317, sample 1".to_owned()));
    assert!(can_run && text.contains("\ntraces    to http://127.0.0.1:4317, sample 1\n"), "{text}");
    let (can_run, text) = seen(Err(artel_otlp::Error::ExposedHeaders("http://10.0.0.7:4317".parse().unwrap())));
    assert!(!can_run && text.contains("in the clear") && text.contains("help: correct `traces`"), "{text}");
}

#[test]
fn a_data_directory_that_others_can_read_or_own_is_named() {
    let seen = |exposure| {
        let findings = Findings { exposure: Some(exposure), ..healthy() };
        (is_ok(&diagnose(&findings)), rendered(&findings))
    };
    let (can_run, text) = seen(DirExposure::Mode(0o755));
    assert!(can_run && text.contains("mode 0755") && text.contains("chmod 700 /data"), "{text}");
    let (can_run, text) = seen(DirExposure::Owner { owner: 1001, user: 1000 });
    assert!(!can_run && text.contains("belongs to user 1001"), "{text}");
}

#[test]
fn a_port_that_others_can_read_and_a_certificate_that_ends_are_named() {
    let exposed = Findings { exposed_port: Some(ExposedPort("0.0.0.0:7430".parse().unwrap())), ..healthy() };
    let text = rendered(&exposed);
    assert!(text.contains("0.0.0.0:7430 can be reached from other machines"), "{text}");
    assert!(text.contains("tls: {certificate: cert.pem, key: key.pem}"), "{text}");
    assert!(!is_ok(&diagnose(&exposed)));
    let until = || "2026".to_owned();
    for (validity, starts) in [
        (CertificateValidity::Valid { until: until() }, true),
        (CertificateValidity::EndsSoon { until: until() }, true),
        (CertificateValidity::Expired { since: until() }, false),
    ] {
        let findings = Findings { certificate: Some(Ok(validity)), ..healthy() };
        let text = rendered(&findings);
        assert!(text.contains("the certificate"), "{text}");
        assert_eq!(is_ok(&diagnose(&findings)), starts, "{text}");
    }
}
