//! Converts device statuses to messages.

use artel_placement::{DeviceBytes, DeviceKind};
use artel_proto::v1;

use crate::machine::{DeviceStatus, GpuReading};

/// `taken` is the memory that our engines use.
pub(super) fn device(status: DeviceStatus, taken: &DeviceBytes) -> v1::Device {
    let used_bytes = taken.get(&status.name).copied().unwrap_or(0);
    let kind = match status.kind {
        DeviceKind::Cpu => v1::DeviceKind::Cpu,
        DeviceKind::Accelerator => v1::DeviceKind::Accelerator,
        DeviceKind::IntegratedGpu => v1::DeviceKind::IntegratedGpu,
        DeviceKind::Gpu | DeviceKind::Rpc => v1::DeviceKind::Gpu,
    };
    v1::Device {
        name: status.name,
        description: status.description,
        backend: status.backend,
        kind: kind.into(),
        total_bytes: status.total,
        free_bytes: status.free.saturating_sub(used_bytes),
        used_bytes,
        available: status.problem.is_none(),
        problem: status.problem.unwrap_or_default(),
        rpc_address: status.rpc_address.unwrap_or_default(),
        monitor: status.reading.map(monitor),
    }
}

fn monitor(reading: GpuReading) -> v1::DeviceMonitor {
    v1::DeviceMonitor {
        uuid: reading.uuid,
        bus_id: reading.bus,
        driver_version: reading.driver,
        utilization: reading.load,
        temperature_celsius: reading.celsius,
        power_watts: reading.watts,
        name: reading.name,
        used_bytes: reading.used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> DeviceStatus {
        DeviceStatus {
            name: "CUDA0".to_owned(),
            kind: DeviceKind::Gpu,
            description: "A card".to_owned(),
            backend: "CUDA".to_owned(),
            problem: None,
            rpc_address: None,
            total: 24,
            free: 20,
            reading: Some(GpuReading { celsius: Some(43.0), ..GpuReading::default() }),
        }
    }

    #[test]
    fn what_our_engines_take_is_used_and_not_free() {
        let message = device(gpu(), &DeviceBytes::from([("CUDA0".to_owned(), 6)]));
        assert_eq!((message.total_bytes, message.free_bytes, message.used_bytes), (24, 14, 6));
        assert_eq!(message.monitor.unwrap().temperature_celsius, Some(43.0));
        assert!(message.available);
    }

    #[test]
    fn a_server_that_does_not_answer_is_listed_with_its_problem() {
        let lost = DeviceStatus {
            name: "RPC[box:1]".to_owned(),
            kind: DeviceKind::Rpc,
            problem: Some("no answer".to_owned()),
            rpc_address: Some("box:1".to_owned()),
            reading: None,
            ..gpu()
        };
        assert_eq!(lost.to_placeable(), None);
        let message = device(lost, &DeviceBytes::new());
        assert_eq!((message.available, message.problem.as_str()), (false, "no answer"));
        assert_eq!((message.kind(), message.rpc_address.as_str()), (v1::DeviceKind::Gpu, "box:1"));
    }
}
