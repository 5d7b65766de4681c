//! Readings of GPUs from NVML, NVIDIA's monitoring library, which comes with the driver. Without it, only these readings are
//! missing.

use artel_grpc::GpuReading;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

/// Why no GPU can be read.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
pub(super) struct MonitorError(#[from] NvmlError);

/// Reads all GPUs.
///
/// # Errors
/// NVML or the driver is missing or does not answer.
pub(super) fn read() -> Result<Vec<GpuReading>, MonitorError> {
    let nvml = Nvml::init()?;
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let count = nvml.device_count()?;
    // A GPU that fails does not hide the others.
    let read = |index| {
        reading(&nvml, index, &driver).inspect_err(|error| tracing::debug!(index, %error, "failed to read a GPU"))
    };
    Ok((0..count).filter_map(|index| read(index).ok()).collect())
}

fn reading(nvml: &Nvml, index: u32, driver: &str) -> Result<GpuReading, NvmlError> {
    let gpu = nvml.device_by_index(index)?;
    Ok(GpuReading {
        bus: gpu.pci_info()?.bus_id,
        name: gpu.name().unwrap_or_default(),
        uuid: gpu.uuid().unwrap_or_default(),
        driver: driver.to_owned(),
        used: gpu.memory_info().ok().map(|memory| memory.used),
        load: gpu.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        celsius: gpu.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        watts: gpu.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
    })
}

/// The reading of the device at a PCI address.
pub(super) fn reading_at<'r>(readings: &'r [GpuReading], bus: &str) -> Option<&'r GpuReading> {
    let address = pci_address(bus)?;
    readings.iter().find(|reading| pci_address(&reading.bus) == Some(address))
}

/// Parses domain, bus, device and function. NVML pads the domain to eight digits, ggml to four; both may use upper case or omit
/// a domain of 0.
fn pci_address(bus: &str) -> Option<(u32, u32, u32, u32)> {
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let (rest, function) = bus.trim().rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next());
    let is_complete = parts.next().is_none();
    let address = (number(domain.unwrap_or("0"))?, number(bus)?, number(device)?, number(function)?);
    is_complete.then_some(address)
}

fn describe(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => {
            "NVML, NVIDIA's monitoring library, is not installed; it comes with NVIDIA's driver".to_owned()
        }
        NvmlError::DriverNotLoaded => "NVIDIA's driver is installed but not loaded".to_owned(),
        NvmlError::LibRmVersionMismatch => {
            "NVIDIA's driver was updated but the old one is still loaded; reboot the machine".to_owned()
        }
        NvmlError::NoPermission => "no permission to query NVIDIA's driver".to_owned(),
        other => format!("failed to query NVIDIA's driver: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_pci_address_in_any_notation() {
        let reading = |bus: &str| GpuReading { bus: bus.to_owned(), ..GpuReading::default() };
        let readings = ["00000000:01:00.0", "00000000:C1:00.0", "00010000:01:00.0"].map(reading);
        for (asked, found) in [
            ("0000:01:00.0", Some(0)),
            ("01:00.0", Some(0)),
            ("00000000:01:00.0", Some(0)),
            ("0000:c1:00.0", Some(1)),
            ("0000:C1:00.0\n", Some(1)),
            ("10000:01:00.0", Some(2)),
            ("0000:01:00.1", None),
            ("0000:02:00.0", None),
            ("", None),
            ("01", None),
            ("0:0000:01:00.0", None),
            ("0000:0g:00.0", None),
        ] {
            assert_eq!(reading_at(&readings, asked), found.map(|index: usize| &readings[index]), "{asked}");
        }
        assert_eq!(reading_at(&[reading("")], ""), None, "an empty address matches nothing");
    }
}
