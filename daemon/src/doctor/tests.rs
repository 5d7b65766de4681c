//! What the doctor says of made-up machines.

use std::path::PathBuf;
use std::time::Duration;

use artel_journal::{Figures, Retention};
use artel_placement::{KvCacheType, Device, DeviceChoice, DeviceKind, LayerFootprint, ModelFootprint, PlacementPlan, SplitMode, plan};
use artel_roles::hf_uri::HfUri;
use artel_task::event::Timestamp;

use super::advice::{is_well, json, lines, render};
use super::findings::Findings;
use super::gpu::{Gpu, Maker};
use crate::client::render::page::Page;
use crate::engine::monitor::Reading;
use crate::engine::probe::{self, Found};
use crate::serve::files::Fault;

const DAY: u64 = 86_400_000;

fn processor() -> Found {
    let (name, backend) = ("CPU".to_owned(), "CPU".to_owned());
    Found {
        name,
        description: "Some processor".to_owned(),
        backend,
        kind: probe::Kind::Cpu,
        total: 16 << 30,
        free: 8 << 30,
        monitor: None,
    }
}

fn card() -> Found {
    let (name, backend, kind) = ("CUDA0".to_owned(), "CUDA".to_owned(), probe::Kind::Gpu);
    let monitor = Reading {
        name: "NVIDIA Card".to_owned(),
        driver: "550.54".to_owned(),
        used: Some(3 << 30),
        load: Some(0.125),
        celsius: Some(43.0),
        ..Reading::default()
    };
    let description = "NVIDIA Card".to_owned();
    Found { name, description, backend, kind, total: 24 << 30, free: 20 << 30, monitor: Some(monitor) }
}

/// A machine on which all is well.
fn well() -> Findings {
    Findings {
        now: Timestamp(100 * DAY),
        data: (PathBuf::from("/data"), Ok(())),
        journal: Ok(Some(Figures {
            path: PathBuf::from("/data/journal.sqlite"),
            format: 4,
            bytes: 4_100_000,
            free: 12_000,
            log: 320_000,
            running: 2,
            completed: 40,
            failed: 1,
            cancelled: 0,
            oldest: Some(Timestamp(DAY)),
            newest: Some(Timestamp(99 * DAY)),
            oldest_running: Some(Timestamp(97 * DAY)),
        })),
        retention: Retention { tasks: 10_000, age: Duration::from_secs(30 * 86_400), bytes: 4 << 30 },
        disk: Some(80_000_000_000),
        threads: 8,
        cores: 8,
        memory: Some((16 << 30, 8 << 30)),
        features: vec!["cuda"],
        gpus: vec![Gpu { maker: Maker::Nvidia, shut: Vec::new() }],
        local: Ok(vec![card(), processor()]),
        unmonitored: None,
        servers: Vec::new(),
        offline: false,
        catalog: None,
        models: vec![("smollm2".to_owned(), Ok(()))],
        adapters: vec![("poet".to_owned(), Ok(()))],
        plan: placed(&[("smollm2", 300 << 20)], 8 << 30),
    }
}

/// Models of so many bytes on a processor with so many.
fn placed(models: &[(&str, u64)], free: u64) -> PlacementPlan {
    let need = |(name, weights): &(&str, u64)| ModelFootprint {
        model: (*name).to_owned(),
        layers: vec![LayerFootprint { weight_bytes: *weights, file_bytes: *weights, kv_elements: 0, window_tokens: None }],
        input_bytes: 0,
        output_bytes: 0,
        tied_bytes: 0,
        kv_type: KvCacheType::F16,
        context_tokens: 4096,
        sequences: 8,
        contexts: 1,
        compute_bytes: 0,
        process_bytes: 0,
        devices: DeviceChoice::Auto,
        split: SplitMode::None,
        tensor_split: None,
    };
    let needs: Vec<ModelFootprint> = models.iter().map(need).collect();
    plan(&needs, &[Device { name: "CPU".to_owned(), kind: DeviceKind::Cpu, total: 16 << 30, free }])
}

fn awaited() -> Fault {
    let address = HfUri::parse("hf:org/phi/phi.gguf").unwrap();
    Fault::Awaited { place: PathBuf::from("/models").join(address.path()), address }
}

fn said(found: &Findings) -> String {
    let mut page = Page::new(false);
    render(&lines(found), &mut page);
    page.take()
}

#[test]
fn a_machine_on_which_all_is_well() {
    insta::assert_snapshot!(said(&well()));
    assert!(is_well(&lines(&well())));
}

#[test]
fn a_new_machine_with_a_card_that_nobody_uses() {
    let found = Findings {
        journal: Ok(None),
        features: Vec::new(),
        gpus: vec![Gpu { maker: Maker::Nvidia, shut: Vec::new() }, Gpu { maker: Maker::Intel, shut: Vec::new() }],
        local: Ok(vec![processor()]),
        unmonitored: Some("NVIDIA's driver is installed and not loaded".to_owned()),
        models: vec![("phi".to_owned(), Err(awaited()))],
        plan: PlacementPlan::default(),
        ..well()
    };
    insta::assert_snapshot!(said(&found));
    assert!(is_well(&lines(&found)), "it runs, slower than it could");
}

#[test]
fn drivers_and_permissions_that_are_wrong() {
    let shut = vec!["/dev/kfd".to_owned(), "/dev/dri/renderD128".to_owned()];
    let found = Findings {
        features: vec!["cuda", "rocm"],
        gpus: vec![Gpu { maker: Maker::Nvidia, shut: Vec::new() }, Gpu { maker: Maker::Amd, shut }],
        local: Err("the probe ended with signal 11".to_owned()),
        servers: vec![("box:50052".to_owned(), Err("connection refused".to_owned()))],
        ..well()
    };
    insta::assert_snapshot!(said(&found));
}

#[test]
fn a_machine_that_is_too_small_and_badly_kept() {
    let mut found = Findings {
        data: (PathBuf::from("/data"), Err("/data cannot be written: Permission denied".to_owned())),
        disk: Some(200 << 20),
        threads: 16,
        gpus: Vec::new(),
        local: Ok(vec![processor()]),
        offline: true,
        models: vec![
            ("gone".to_owned(), Err(Fault::Missing(vec!["/etc/m.gguf".into(), "/models/m.gguf".into()]))),
            ("phi".to_owned(), Err(awaited())),
            ("torn".to_owned(), Err(Fault::Wrong("/models/torn.gguf: the file is truncated".to_owned()))),
        ],
        adapters: vec![("poet".to_owned(), Err(Fault::Missing(vec!["/models/poet.gguf".into()])))],
        plan: placed(&[("huge", 9 << 30), ("large", 5 << 30), ("other", 4 << 30)], 8 << 30),
        ..well()
    };
    found.journal.as_mut().unwrap().as_mut().unwrap().oldest_running = Some(Timestamp(60 * DAY));
    insta::assert_snapshot!(said(&found));
    assert!(!is_well(&lines(&found)));
    let told = json(&found, &lines(&found));
    assert_eq!((&told["well"], told["advice"][0]["standing"].as_str()), (&false.into(), Some("bad")));
    assert_eq!(told["models"][1]["error"], serde_json::Value::Null);
}

#[test]
fn what_cannot_be_read_is_said_as_it_is() {
    let found = Findings {
        journal: Err("the journal is of a newer program".to_owned()),
        catalog: Some("own.yaml:3:8: there is no model `phy`".to_owned()),
        ..well()
    };
    let text = said(&found);
    assert!(text.contains("the journal is of a newer program") && text.contains("there is no model `phy`"), "{text}");
    assert!(!is_well(&lines(&found)));
}
