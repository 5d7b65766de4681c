//! What there is to put models on.

use std::collections::BTreeMap;

/// Bytes by the name of the device that they lie on.
pub type Bytes = BTreeMap<String, u64>;

/// One backend device of ggml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name, as pins write it: `CUDA0`, `RPC[host:port]`, `CPU`.
    pub name: String,
    /// What sort it is.
    pub kind: Kind,
    /// Bytes of its memory; for the CPU, the machine's.
    pub total: u64,
    /// Bytes that would be free if none of our engines ran there.
    pub free: u64,
}

/// What sort a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The processor and the machine's own memory.
    Cpu,
    /// A graphics processor with memory of its own.
    Gpu,
    /// A graphics processor that shares the machine's memory: what lies there is taken from the CPU too.
    IntegratedGpu,
    /// Another accelerator; used where it is pinned, never by itself.
    Accelerator,
    /// A device of another machine, behind llama.cpp's RPC.
    Rpc,
}

/// The device whose memory is the machine's.
pub(crate) fn host(devices: &[Device]) -> Option<&Device> {
    devices.iter().find(|device| device.kind == Kind::Cpu)
}

/// What `bytes` take of each device, in the order of `devices`; what a GPU shares with the machine is taken from both.
pub(crate) fn demand(bytes: &Bytes, devices: &[Device]) -> Vec<u64> {
    let of = |device: &Device| bytes.get(&device.name).copied().unwrap_or(0);
    let shared =
        devices.iter().filter(|device| device.kind == Kind::IntegratedGpu).map(of).fold(0, u64::saturating_add);
    let host = host(devices).map(|device| device.name.as_str());
    let all = |device: &Device| match host == Some(device.name.as_str()) {
        true => of(device).saturating_add(shared),
        false => of(device),
    };
    devices.iter().map(all).collect()
}

/// The devices as they are once `bytes` lie on them.
pub(crate) fn less(devices: &[Device], bytes: &Bytes) -> Vec<Device> {
    let taken = demand(bytes, devices);
    let rest = |(device, taken): (&Device, u64)| Device { free: device.free.saturating_sub(taken), ..device.clone() };
    devices.iter().zip(taken).map(rest).collect()
}
