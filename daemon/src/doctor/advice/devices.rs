//! Devices, and GPUs that could be devices and are not.

use super::super::findings::Findings;
use super::super::gpu::{Gpu, Maker};
use super::Line;
use crate::client::render::fleet::monitored;
use crate::client::render::time::bytes;
use crate::engine::probe::{Found, Kind};

pub(super) fn lines(found: &Findings) -> Vec<Line> {
    let mut lines = match &found.local {
        Ok(devices) => devices.iter().map(device).collect(),
        Err(reason) => vec![Line::doubtful(
            "devices",
            format!("they cannot be listed: {reason}"),
            "models run on the processor until that is mended; `artel engine --probe` shows what the driver says",
        )],
    };
    for (server, devices) in &found.servers {
        match devices {
            Ok(devices) => lines.extend(devices.iter().map(device)),
            Err(reason) => lines.push(Line::doubtful(
                "device",
                format!("RPC server {server} is lost: {reason}"),
                format!(
                    "there, run `artel rpc-serve --listen {server}` of this same version, and let this machine through its \
                     firewall; or take it out of `rpc` in the settings"
                ),
            )),
        }
    }
    let local = found.local.as_deref().unwrap_or_default();
    lines.extend(found.gpus.iter().filter_map(|gpu| unused(gpu, local, &found.features)));
    let nvidia = found.gpus.iter().any(|gpu| gpu.maker == Maker::Nvidia);
    if let Some(reason) = found.unmonitored.as_ref().filter(|_| nvidia) {
        lines.push(Line::good("monitor", format!("no figures of load, heat and power: {reason}")));
    }
    if found.gpus.is_empty() && !local.iter().any(is_gpu) {
        lines.push(Line::good("gpu", "none; models run on the processor, which small ones do well"));
    }
    lines
}

pub(super) fn names(found: &Findings) -> Vec<&str> {
    let servers = found.servers.iter().filter_map(|(_, devices)| devices.as_ref().ok());
    let all = found.local.iter().chain(servers).flatten();
    all.map(|device| device.name.as_str()).collect()
}

fn device(found: &Found) -> Line {
    let Found { name, description, total, free, .. } = found;
    let memory = match found.kind {
        // The machine's, which is told already.
        Kind::Cpu => String::new(),
        _ => format!(", {} free of {}", bytes(*free), bytes(*total)),
    };
    let monitor = found.monitor.as_ref().map(|reading| format!("; {}", monitored(&reading.as_proto())));
    Line::good("device", format!("{name}: {description}{memory}{}", monitor.unwrap_or_default()))
}

fn is_gpu(found: &Found) -> bool {
    matches!(found.kind, Kind::Gpu | Kind::IntegratedGpu)
}

/// A GPU that is there and that no device stands for.
fn unused(gpu: &Gpu, devices: &[Found], features: &[&str]) -> Option<Line> {
    let (maker, useful) = (gpu.maker.name(), gpu.maker.features());
    let backend = |feature: &str| match feature {
        "cuda" => "CUDA",
        "rocm" => "ROCm",
        "metal" => "Metal",
        _ => "Vulkan",
    };
    let used = |found: &Found| {
        let known = useful.iter().any(|feature| found.backend.eq_ignore_ascii_case(backend(feature)));
        // Vulkan has the GPUs of all makers.
        let its = !found.backend.eq_ignore_ascii_case("Vulkan")
            || found.description.to_lowercase().contains(&maker.to_lowercase());
        is_gpu(found) && known && its
    };
    // The one in the processor is not worth a word beside a better one that is used.
    let minor = gpu.maker == Maker::Intel && devices.iter().any(is_gpu);
    if minor || devices.iter().any(used) {
        return None;
    }
    let built: Vec<&&str> = useful.iter().filter(|feature| features.contains(feature)).collect();
    if built.is_empty() {
        let all: Vec<String> =
            useful.iter().map(|feature| format!("`cargo build --release -p artel --features {feature}`")).collect();
        return Some(Line::doubtful(
            "gpu",
            format!("there is a GPU by {maker}, and this program was built without support for it"),
            format!("build it with {}; that needs the maker's development kit", all.join(" or ")),
        ));
    }
    if !gpu.shut.is_empty() {
        return Some(Line::doubtful(
            "gpu",
            format!("there is a GPU by {maker}, and you may not open {}", gpu.shut.join(", ")),
            "`sudo usermod -aG render,video \"$USER\"`, then log out and in again; in a container, pass the device through",
        ));
    }
    let tool = gpu.maker.tool();
    Some(Line::doubtful(
        "gpu",
        format!("there is a GPU by {maker}, and its driver does not show it to this program"),
        format!(
            "install the maker's driver, or update it; `{tool}` should list the GPU, and `artel engine --probe` then does"
        ),
    ))
}
