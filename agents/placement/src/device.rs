//! Devices and their memory.

use std::collections::BTreeMap;

use artel_model::DeviceKind;

/// Bytes by device name.
pub type DeviceBytes = BTreeMap<String, u64>;

/// A backend device of ggml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, as in a model's `devices`: `CUDA0`, `RPC[host:port]`, `CPU`.
    pub name: String,
    /// Its kind. An accelerator is used only if a model is pinned to it.
    pub kind: DeviceKind,
    /// Bytes of its memory; for the CPU, of the machine's.
    pub total: u64,
    /// Bytes that would be free if none of our engines ran there.
    pub free: u64,
}

/// The device whose memory is the machine's.
pub(crate) fn host(devices: &[Device]) -> Option<&Device> {
    devices.iter().find(|device| device.kind == DeviceKind::Cpu)
}

/// The bytes taken of each device, in the order of `devices`; those on an integrated GPU are also taken of the CPU.
pub(crate) fn demand(bytes: &DeviceBytes, devices: &[Device]) -> Vec<u64> {
    let of = |device: &Device| bytes.get(&device.name).copied().unwrap_or(0);
    let shared =
        devices.iter().filter(|device| device.kind == DeviceKind::IntegratedGpu).map(of).fold(0, u64::saturating_add);
    let host = host(devices).map(|device| device.name.as_str());
    let all = |device: &Device| match host == Some(device.name.as_str()) {
        true => of(device).saturating_add(shared),
        false => of(device),
    };
    devices.iter().map(all).collect()
}

/// The devices after an allocation of `bytes`.
pub(crate) fn allocated(devices: &[Device], bytes: &DeviceBytes) -> Vec<Device> {
    let taken = demand(bytes, devices);
    let rest = |(device, taken): (&Device, u64)| Device { free: device.free.saturating_sub(taken), ..device.clone() };
    devices.iter().zip(taken).map(rest).collect()
}
