//! Restricts an engine process to its own devices: a driver creates a context, and allocates memory for it, on every GPU that a
//! process can see.

use std::collections::BTreeMap;

/// For each backend: the prefix of ggml's device names, the variable that selects visible devices, and its value for none.
const BACKENDS: [(&str, &str, &str); 3] = [
    ("CUDA", "CUDA_VISIBLE_DEVICES", "-1"),
    ("ROCm", "HIP_VISIBLE_DEVICES", "-1"),
    ("Vulkan", "GGML_VK_VISIBLE_DEVICES", ""),
];

/// The devices that a process can see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VisibleDevices {
    /// Environment variables of the process.
    pub(super) variables: Vec<(String, String)>,
    /// The names of its devices within the process, in order.
    pub(super) inner_names: Vec<String>,
    /// The names of its devices in the daemon, by their names within the process.
    pub(super) outer_names: BTreeMap<String, String>,
}

/// The visible devices of a process that uses `devices`. `own_env` reads the environment of the daemon, whose variables may
/// already hide some devices.
pub(super) fn visible_devices(devices: &[String], own_env: impl Fn(&str) -> Option<String>) -> VisibleDevices {
    let mut visible =
        VisibleDevices { variables: Vec::new(), inner_names: devices.to_vec(), outer_names: BTreeMap::new() };
    for (backend, variable, none) in BACKENDS {
        let mut shown: Vec<String> = Vec::new();
        for (at, name) in devices.iter().enumerate() {
            let Some(index) = name.strip_prefix(backend).and_then(|index| index.parse::<usize>().ok()) else {
                continue;
            };
            let own_value = own_env(variable);
            let physical = own_value.as_deref().and_then(|value| value.split(',').nth(index)).map(str::trim);
            visible.inner_names[at] = format!("{backend}{}", shown.len());
            shown.push(physical.map_or_else(|| index.to_string(), str::to_owned));
            visible.outer_names.insert(visible.inner_names[at].clone(), name.clone());
        }
        let value = if shown.is_empty() { none.to_owned() } else { shown.join(",") };
        visible.variables.push((variable.to_owned(), value));
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: &[&str], ours: Option<&str>) -> (Vec<String>, String, String) {
        let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
        let ours = |name: &str| ours.filter(|_| name.starts_with("CUDA")).map(str::to_owned);
        let VisibleDevices { variables, inner_names, outer_names } = visible_devices(&devices, ours);
        for (inner, outer) in inner_names.iter().zip(&devices).filter(|(_, outer)| outer.starts_with("CUDA")) {
            assert_eq!(outer_names.get(inner), Some(outer));
        }
        (inner_names, variables[0].1.clone(), variables[2].1.clone())
    }

    #[test]
    fn a_process_sees_only_its_own_devices() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(&["CPU"], None), (names(&["CPU"]), "-1".to_owned(), String::new()));
        assert_eq!(of(&["CUDA3", "CUDA1"], None), (names(&["CUDA0", "CUDA1"]), "3,1".to_owned(), String::new()));
        assert_eq!(of(&["CUDA1"], Some("5, 7")), (names(&["CUDA0"]), "7".to_owned(), String::new()));
        assert_eq!(of(&["Vulkan1"], None), (names(&["Vulkan0"]), "-1".to_owned(), "1".to_owned()));
        let rpc = ["RPC[box:1]", "CUDA0"];
        assert_eq!(of(&rpc, None), (names(&rpc), "0".to_owned(), String::new()));
    }
}
