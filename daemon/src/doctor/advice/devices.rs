//! The devices, and GPUs of the machine that no device uses.

use artel_grpc::GpuReading;
use artel_model::DeviceKind;
use artel_terminal::{DeviceReadings, bytes};

use crate::doctor::diagnosis::Diagnosis;
use crate::doctor::findings::Findings;
use crate::doctor::gpu::{GpuVendor, SystemGpu};
use crate::engine::probe::ProbedDevice;

pub(super) fn diagnose(findings: &Findings) -> Vec<Diagnosis> {
    let mut diagnoses = match &findings.local {
        Ok(devices) => devices.iter().map(device).collect(),
        Err(reason) => vec![Diagnosis::warning(
            "devices",
            format!("cannot be listed: {reason}"),
            "models run on the CPU until this is fixed; `artel engine --probe` shows the error of the driver",
        )],
    };
    for (server, devices) in &findings.servers {
        match devices {
            Ok(devices) => diagnoses.extend(devices.iter().map(device)),
            Err(reason) => diagnoses.push(Diagnosis::warning(
                "device",
                format!("RPC server {server} is unavailable: {reason}"),
                format!(
                    "on that machine, run `artel rpc-serve --listen {server}` of the same version and open its firewall for \
                     this machine; or remove the server from `rpc` in the settings"
                ),
            )),
        }
    }
    let local = findings.local.as_deref().unwrap_or_default();
    diagnoses.extend(findings.gpus.iter().filter_map(|gpu| unused_gpu(gpu, local, &findings.features)));
    let nvidia = findings.gpus.iter().any(|gpu| gpu.vendor == GpuVendor::Nvidia);
    if let Some(reason) = findings.monitor_error.as_ref().filter(|_| nvidia) {
        diagnoses
            .push(Diagnosis::ok("monitor", format!("no readings of GPU utilization, temperature and power: {reason}")));
    }
    if findings.gpus.is_empty() && !local.iter().any(is_gpu) {
        diagnoses.push(Diagnosis::ok("gpu", "none; models run on the CPU, which suits small ones"));
    }
    diagnoses
}

pub(super) fn names(findings: &Findings) -> Vec<&str> {
    let servers = findings.servers.iter().filter_map(|(_, devices)| devices.as_ref().ok());
    let all = findings.local.iter().chain(servers).flatten();
    all.map(|device| device.name.as_str()).collect()
}

fn device(device: &ProbedDevice) -> Diagnosis {
    let ProbedDevice { name, description, total, free, .. } = device;
    let memory = match device.kind {
        // Shown as the machine's memory already.
        DeviceKind::Cpu => String::new(),
        _ => format!(", {} free of {}", bytes(*free), bytes(*total)),
    };
    let monitor = device.monitor.as_ref().map(|reading| format!("; {}", readings(reading)));
    Diagnosis::ok("device", format!("{name}: {description}{memory}{}", monitor.unwrap_or_default()))
}

fn readings(reading: &GpuReading) -> DeviceReadings<'_> {
    DeviceReadings {
        used_bytes: reading.used,
        utilization: reading.load,
        temperature_celsius: reading.celsius,
        power_watts: reading.watts,
        driver_version: &reading.driver,
    }
}

fn is_gpu(device: &ProbedDevice) -> bool {
    matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu)
}

/// A diagnosis of a GPU of the machine that no device uses.
fn unused_gpu(gpu: &SystemGpu, devices: &[ProbedDevice], features: &[&str]) -> Option<Diagnosis> {
    let (vendor, supported) = (gpu.vendor.name(), gpu.vendor.features());
    let backend = |feature: &str| match feature {
        "cuda" => "CUDA",
        "rocm" => "ROCm",
        "metal" => "Metal",
        _ => "Vulkan",
    };
    let is_used_by = |device: &ProbedDevice| {
        let is_supported = supported.iter().any(|feature| device.backend.eq_ignore_ascii_case(backend(feature)));
        // Vulkan lists the GPUs of all vendors.
        let is_of_vendor = !device.backend.eq_ignore_ascii_case("Vulkan")
            || device.description.to_lowercase().contains(&vendor.to_lowercase());
        is_gpu(device) && is_supported && is_of_vendor
    };
    // An integrated GPU is not worth a warning beside a better one that is used.
    let is_minor = gpu.vendor == GpuVendor::Intel && devices.iter().any(is_gpu);
    if is_minor || devices.iter().any(is_used_by) {
        return None;
    }
    let built: Vec<&&str> = supported.iter().filter(|feature| features.contains(feature)).collect();
    if built.is_empty() {
        let all: Vec<String> =
            supported.iter().map(|feature| format!("`cargo build --release -p artel --features {feature}`")).collect();
        return Some(Diagnosis::warning(
            "gpu",
            format!("a GPU from {vendor} is present, but this program was built without support for it"),
            format!("rebuild with {}; this needs the development kit of the vendor", all.join(" or ")),
        ));
    }
    if !gpu.inaccessible.is_empty() {
        return Some(Diagnosis::warning(
            "gpu",
            format!("a GPU from {vendor} is present, but this user may not open {}", gpu.inaccessible.join(", ")),
            "run `sudo usermod -aG render,video \"$USER\"`, then log out and in again; in a container, pass the device through",
        ));
    }
    let tool = gpu.vendor.diagnostic_tool();
    Some(Diagnosis::warning(
        "gpu",
        format!("a GPU from {vendor} is present, but its driver does not expose it to this program"),
        format!(
            "install or update the driver of the vendor until `{tool}` lists the GPU; `artel engine --probe` then lists it too"
        ),
    ))
}
