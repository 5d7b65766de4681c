//! `cargo xtask gpu`: what no machine of the tests has. Models on the GPUs of this machine, placed in every way, and the benches,
//! in one report.

mod hardware;
mod models;
mod report;
mod run;
mod speed;
mod trials;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cuda::CudaCompiler;
use crate::{cuda, vulkan};
use hardware::Hardware;
use models::TrialModel;
use report::Report;
use run::Bed;

/// `cargo xtask gpu`.
#[derive(Debug, Args)]
pub(crate) struct GpuArgs {
    /// A program `artel` for these GPUs, with `artel-bench` beside it; by default it is built
    #[arg(long, value_name = "FILE")]
    artel: Option<PathBuf>,
    /// Build for Vulkan, also for GPUs of NVIDIA's
    #[arg(long, conflicts_with = "artel")]
    vulkan: bool,
    /// Take the devices of these RPC servers in place of GPUs, to see what the runs do; without the benches, which know no servers
    #[arg(long, value_name = "HOST:PORT", requires = "artel")]
    rpc: Vec<String>,
    /// Take lavapipe, Mesa's Vulkan driver that computes on the CPU, in place of GPUs, to see what the runs do; without the benches
    #[arg(long, conflicts_with = "rpc")]
    lavapipe: bool,
    /// Only measure the demo model while its layers move from the CPU to the devices, and print the table
    #[arg(long)]
    speed: bool,
    /// Repeats of each workload of `artel bench`
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: u32,
    /// Where the report goes [default: `gpu/report.md` in the cache]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The workloads of `artel bench`.
const WORKLOADS: [&str; 3] = ["decode", "adapters", "stall"];

/// Whether there is something to run on; says what is missing if not.
pub(crate) fn has_devices(args: &GpuArgs) -> bool {
    let hardware = hardware::inspect();
    if hardware.has_gpu() || !args.rpc.is_empty() || args.lavapipe {
        return true;
    }
    println!("there is no GPU here, so nothing was run");
    for missing in hardware.missing {
        println!("- {missing}");
    }
    println!(
        "with a GPU and its driver, this verb builds artel for it, runs models on it in every way, and writes a report"
    );
    false
}

/// Builds, runs everything and writes the report. Fails if anything failed.
pub(crate) fn run(cache: &Path, args: GpuArgs) -> Result<()> {
    let hardware = hardware::inspect();
    let dir = cache.join("gpu");
    let (artel, built) = match args.artel {
        Some(artel) => (artel, "as it was given".to_owned()),
        None => build(cache, &hardware, args.vulkan || args.lavapipe)?,
    };
    let env = if args.lavapipe { vulkan::show_lavapipe()? } else { Vec::new() };
    let bed = Bed { artel, dir: dir.clone(), models: crate::models::dir(cache), rpc: args.rpc, env };
    let devices = bed.devices()?;
    let names: Vec<String> = devices.iter().filter(|device| is_tried(device, &bed)).filter_map(name).collect();
    if names.is_empty() {
        bail!("{} lists none of the GPUs: {devices:?}", bed.artel.display());
    }
    let facts = [
        ("Program", version(&bed.artel)),
        ("Built", built),
        ("Kernel", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()),
        ("Devices", devices.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    ];
    let mut report = Report::new(&hardware, &facts);
    if !args.speed {
        place(&bed, &models::prepare(cache, &dir.join("models"))?, &names, &mut report);
    }
    let trials = speed::plan(&models::demo(cache), &names);
    eprintln!("xtask: speed as layers move ({} runs)", trials.len());
    let speed = report.add_speed(&trials, bed.measure(&trials));
    if args.speed {
        println!("{speed}");
    } else if bed.rpc.is_empty() && !args.lavapipe {
        bench(&bed, &crate::models::chat(cache), args.repeats, &mut report);
    } else {
        report.add_words("The benches were not run: these devices are no GPUs.");
    }
    let (path, failures) = (args.report.unwrap_or_else(|| dir.join("report.md")), report.failures());
    fs::write(&path, report.finish()).with_context(|| format!("failed to write {}", path.display()))?;
    println!("the report is {}", path.display());
    if failures > 0 {
        bail!("{failures} runs failed; the end of the report says which");
    }
    Ok(())
}

/// Runs the models, placed in every way.
fn place(bed: &Bed, models: &[TrialModel], names: &[String], report: &mut Report) {
    for group in trials::plan(models, names) {
        eprintln!("xtask: {} ({} runs)", group.title, group.trials.len());
        report.add_group(&group, bed.run(&group));
    }
    if names.len() < 2 {
        report.add_words("There is one device, so nothing was split.");
    }
}

/// Builds for the GPUs that are there, and says with what.
fn build(cache: &Path, hardware: &Hardware, for_vulkan: bool) -> Result<(PathBuf, String)> {
    if hardware.nvidia.is_empty() || for_vulkan {
        return Ok((vulkan::build_release(cache)?, "for Vulkan".to_owned()));
    }
    let build = cuda::build(cache, &hardware.architectures(), None, CudaCompiler::Installed)?;
    Ok((build.artel, format!("for CUDA with {}", build.compiler)))
}

/// Whether a device is one of those that are tried.
fn is_tried(device: &serde_json::Value, bed: &Bed) -> bool {
    let is = |key: &str, part: &str| device[key].as_str().is_some_and(|text| text.contains(part));
    if bed.rpc.is_empty() { is("kind", "gpu") } else { is("name", "RPC[") }
}

fn name(device: &serde_json::Value) -> Option<String> {
    device["name"].as_str().map(str::to_owned)
}

fn bench(bed: &Bed, model: &Path, repeats: u32, report: &mut Report) {
    let adapters = models::adapters();
    for workload in WORKLOADS {
        eprintln!("xtask: artel bench {workload}");
        let adapters: &[&OsStr] =
            if workload == "adapters" { &[OsStr::new("--adapters"), adapters.as_os_str()] } else { &[] };
        report.add_bench(workload, bed.bench(workload, model, repeats, adapters));
    }
}

fn version(artel: &Path) -> String {
    let output = Command::new(artel).arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
