//! What NVIDIA's library for monitoring (NVML) says of GPUs. The driver brings it; without it, nothing is missing but figures.

use artel_proto::v1;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

/// What it says of one GPU. What a GPU does not tell is not there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// Where it sits on the PCI bus.
    pub(crate) bus: String,
    /// The driver's version.
    pub(crate) driver: String,
    /// Bytes of its memory that are in use, by whomever.
    pub(crate) used: Option<u64>,
    /// The share of the last sample in which it computed, from 0 to 1.
    pub(crate) load: Option<f64>,
    pub(crate) celsius: Option<f64>,
    pub(crate) watts: Option<f64>,
}

impl Reading {
    pub(crate) fn as_proto(&self) -> v1::DeviceMonitor {
        v1::DeviceMonitor {
            uuid: self.uuid.clone(),
            bus_id: self.bus.clone(),
            driver_version: self.driver.clone(),
            utilization: self.load,
            temperature_celsius: self.celsius,
            power_watts: self.watts,
            name: self.name.clone(),
            used_bytes: self.used,
        }
    }
}

/// Reads every GPU that there is; or says in words why that cannot be.
pub(super) fn read() -> Result<Vec<Reading>, String> {
    let nvml = Nvml::init().map_err(|error| words(&error))?;
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let count = nvml.device_count().map_err(|error| words(&error))?;
    // One GPU that cannot be asked does not hide the others.
    let read =
        |index| reading(&nvml, index, &driver).inspect_err(|error| tracing::debug!(index, %error, "a GPU is mute"));
    Ok((0..count).filter_map(|index| read(index).ok()).collect())
}

fn reading(nvml: &Nvml, index: u32, driver: &str) -> Result<Reading, NvmlError> {
    let gpu = nvml.device_by_index(index)?;
    Ok(Reading {
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

/// What is said of the device at this place of the PCI bus.
pub(super) fn at<'r>(readings: &'r [Reading], bus: &str) -> Option<&'r Reading> {
    let place = place(bus)?;
    readings.iter().find(|reading| self::place(&reading.bus) == Some(place))
}

/// Domain, bus, device and function, however they are spelt: NVML pads the domain to eight digits, ggml to four, and either may
/// write letters large or leave out a domain of 0.
fn place(bus: &str) -> Option<(u32, u32, u32, u32)> {
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let (rest, function) = bus.trim().rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next());
    let whole = parts.next().is_none();
    let place = (number(domain.unwrap_or("0"))?, number(bus)?, number(device)?, number(function)?);
    whole.then_some(place)
}

fn words(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => {
            "NVML, NVIDIA's library for monitoring, is not installed here; it comes with NVIDIA's driver".to_owned()
        }
        NvmlError::DriverNotLoaded => "NVIDIA's driver is installed and not loaded".to_owned(),
        NvmlError::LibRmVersionMismatch => {
            "NVIDIA's driver was updated and the old one still runs: start the machine anew".to_owned()
        }
        NvmlError::NoPermission => "you may not ask NVIDIA's driver".to_owned(),
        other => format!("NVIDIA's driver does not answer: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_their_bus_however_it_is_spelt() {
        let reading = |bus: &str| Reading { bus: bus.to_owned(), ..Reading::default() };
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
            assert_eq!(at(&readings, asked), found.map(|index: usize| &readings[index]), "{asked}");
        }
        assert_eq!(at(&[reading("")], ""), None, "nowhere is not the same place");
    }
}
