//! Devices, as a sample of them shows.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::label::LabelBound;

/// Devices with figures of their own, those of RPC servers included. Of the others only the memory is added up.
pub const MAX_DEVICE_VALUES: usize = 64;

/// The label of devices.
const DEVICE: LabelName = LabelName::of_names("device");

/// A device at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSample {
    /// Its name.
    pub name: String,
    /// Whether models can be placed on it.
    pub is_available: bool,
    /// Bytes that engines may use.
    pub size_bytes: u64,
    /// Bytes of these that nothing uses.
    pub free_bytes: u64,
    /// Bytes of these that our engines use.
    pub used_bytes: u64,
    /// The fraction of time in which it computed, if it tells.
    pub utilization: Option<f64>,
    /// Its temperature, if it tells.
    pub celsius: Option<f64>,
    /// Its power draw, if it tells.
    pub watts: Option<f64>,
}

/// A gauge of measured values.
type MeasuredGauge = Gauge<f64, AtomicU64>;

/// The metrics of devices.
#[derive(Debug)]
pub struct DeviceMetrics {
    bound: LabelBound,
    available: MetricFamily<Gauge, 1>,
    size: MetricFamily<Gauge, 1>,
    free: MetricFamily<Gauge, 1>,
    used: MetricFamily<Gauge, 1>,
    utilization: MetricFamily<MeasuredGauge, 1>,
    temperature: MetricFamily<MeasuredGauge, 1>,
    power: MetricFamily<MeasuredGauge, 1>,
}

impl DeviceMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        let mut memory = |name, help| register.family(name, Some(Unit::Bytes), help, [DEVICE], Gauge::default);
        let size = memory("device_memory_size", "Memory of the device that engines may use");
        let free = memory("device_memory_free", "Memory of these that nothing uses");
        let used = memory("device_memory_used", "Memory of these that engines of this daemon use");
        let help = "Whether models can be placed on the device: 1, or 0";
        let available = register.family("device_available", None, help, [DEVICE], Gauge::default);
        let mut measured = |name, unit, help| register.family(name, Some(unit), help, [DEVICE], MeasuredGauge::default);
        Self {
            bound: LabelBound::new(MAX_DEVICE_VALUES),
            available,
            size,
            free,
            used,
            utilization: measured(
                "device_utilization",
                Unit::Other("ratio".to_owned()),
                "Fraction of time in which the device computed, for any program",
            ),
            temperature: measured("device_temperature", Unit::Celsius, "Temperature of the device"),
            power: measured("device_power", Unit::Other("watts".to_owned()), "Power that the device draws"),
        }
    }

    /// Takes a sample of all devices.
    pub(crate) fn sampled(&self, samples: &[DeviceSample]) {
        for family in [&self.available, &self.size, &self.free, &self.used] {
            family.clear();
        }
        for family in [&self.utilization, &self.temperature, &self.power] {
            family.clear();
        }
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for sample in samples {
            let device = self.bound.value(&sample.name);
            self.available.with([&device]).inc_by(i64::from(sample.is_available));
            self.size.with([&device]).inc_by(gauge(sample.size_bytes));
            self.free.with([&device]).inc_by(gauge(sample.free_bytes));
            self.used.with([&device]).inc_by(gauge(sample.used_bytes));
            let measured = [
                (&self.utilization, sample.utilization),
                (&self.temperature, sample.celsius),
                (&self.power, sample.watts),
            ];
            for (family, value) in measured {
                if let Some(value) = value.filter(|_| *device == *sample.name) {
                    family.with([&device]).set(value);
                }
            }
        }
    }
}
