//! How much memory a model takes on each device.

use std::collections::BTreeMap;

use artel_model::DeviceMemory;

use crate::raw::device;
use crate::raw::log::{BufferPurpose, LoggedBuffer};

/// Sums the buffers that llama.cpp logged, by device. A compute buffer is logged again when it grows, so its last size counts.
pub(crate) fn buffers_by_device(buffers: Vec<LoggedBuffer>) -> Vec<DeviceMemory> {
    let mut by_type: BTreeMap<(String, u8), u64> = BTreeMap::new();
    for LoggedBuffer { buffer_type, purpose, bytes } in buffers {
        match purpose {
            // A model may have several buffers of one type.
            BufferPurpose::Weights | BufferPurpose::KvCache => {
                *by_type.entry((buffer_type, purpose as u8)).or_default() += bytes;
            }
            BufferPurpose::Compute => drop(by_type.insert((buffer_type, purpose as u8), bytes)),
        }
    }
    let mut devices: Vec<DeviceMemory> = Vec::new();
    for ((buffer_type, purpose), bytes) in by_type {
        let name = device::device_of(&buffer_type);
        let at = devices.iter().position(|buffers| buffers.device == name).unwrap_or_else(|| {
            devices.push(DeviceMemory { device: name, ..DeviceMemory::default() });
            devices.len() - 1
        });
        let buffers = &mut devices[at];
        match purpose {
            0 => buffers.weights += bytes,
            1 => buffers.kv_cache += bytes,
            _ => buffers.compute += bytes,
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_summed_except_for_compute_buffers_that_grow() {
        let logged = |buffer_type: &str, purpose, bytes| {
            let buffer_type = buffer_type.to_owned();
            LoggedBuffer { buffer_type, purpose, bytes }
        };
        let found = buffers_by_device(vec![
            logged("CPU_Mapped", BufferPurpose::Weights, 10),
            logged("CPU", BufferPurpose::Weights, 5),
            logged("CPU", BufferPurpose::KvCache, 7),
            logged("CPU", BufferPurpose::Compute, 3),
            logged("CPU", BufferPurpose::Compute, 4),
            logged("CUDA0", BufferPurpose::KvCache, 8),
        ]);
        let cpu = DeviceMemory { device: "CPU".to_owned(), weights: 15, kv_cache: 7, compute: 4 };
        assert_eq!(found, [cpu, DeviceMemory { device: "CUDA0".to_owned(), kv_cache: 8, ..DeviceMemory::default() }]);
    }
}
