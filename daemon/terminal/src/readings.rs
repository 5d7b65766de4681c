//! The readings of a device's monitor as text.

use std::fmt;

use artel_model::format_bytes as bytes;

/// What a monitor reads from a device, as far as it is known. Shown as
/// `3.0 GB in use, 12 % busy, 43 °C, 61 W, driver 550.54`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DeviceReadings<'a> {
    /// Bytes of its memory in use by all programs.
    pub used_bytes: Option<u64>,
    /// The fraction of the last sample period in which it was computing, from 0 to 1.
    pub utilization: Option<f64>,
    /// Its temperature.
    pub temperature_celsius: Option<f64>,
    /// The power that it draws.
    pub power_watts: Option<f64>,
    /// The version of its driver; empty if unknown.
    pub driver_version: &'a str,
}

impl fmt::Display for DeviceReadings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = Some(self.driver_version).filter(|version| !version.is_empty());
        let readings = [
            self.used_bytes.map(|used| format!("{} in use", bytes(used))),
            self.utilization.map(|fraction| format!("{:.0} % busy", fraction * 100.0)),
            self.temperature_celsius.map(|celsius| format!("{celsius:.0} °C")),
            self.power_watts.map(|watts| format!("{watts:.0} W")),
            driver.map(|version| format!("driver {version}")),
        ];
        f.write_str(&readings.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_readings_are_left_out() {
        let all = DeviceReadings {
            used_bytes: Some(3_000_000_000),
            utilization: Some(0.12),
            temperature_celsius: Some(43.0),
            power_watts: Some(61.2),
            driver_version: "550.54",
        };
        assert_eq!(all.to_string(), "3.0 GB in use, 12 % busy, 43 °C, 61 W, driver 550.54");
        let some = DeviceReadings { power_watts: Some(61.2), ..DeviceReadings::default() };
        assert_eq!(some.to_string(), "61 W");
    }
}
