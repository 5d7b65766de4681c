//! Engines see their own devices and no others: a driver gives a process a context, and takes memory for it, on every GPU
//! that the process can see.

use std::collections::BTreeMap;

/// ggml's names of devices, by backend, the variable that hides the others from a process, and what hides all.
const BACKENDS: [(&str, &str, &str); 3] = [
    ("CUDA", "CUDA_VISIBLE_DEVICES", "-1"),
    ("ROCm", "HIP_VISIBLE_DEVICES", "-1"),
    ("Vulkan", "GGML_VK_VISIBLE_DEVICES", ""),
];

/// What a process is to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Visible {
    /// Variables of its environment.
    pub(super) variables: Vec<(String, String)>,
    /// What its devices are called inside of it, in their order.
    pub(super) inside: Vec<String>,
    /// What we call them, by what it calls them.
    pub(super) outside: BTreeMap<String, String>,
}

/// What a process that is to use these devices may see, given our own environment: the variables may hide some from us already.
pub(super) fn visible(devices: &[String], ours: impl Fn(&str) -> Option<String>) -> Visible {
    let mut visible = Visible { variables: Vec::new(), inside: devices.to_vec(), outside: BTreeMap::new() };
    for (backend, variable, nothing) in BACKENDS {
        let mut shown: Vec<String> = Vec::new();
        for (at, name) in devices.iter().enumerate() {
            let Some(index) = name.strip_prefix(backend).and_then(|index| index.parse::<usize>().ok()) else {
                continue;
            };
            let given = ours(variable);
            let physical = given.as_deref().and_then(|given| given.split(',').nth(index)).map(str::trim);
            visible.inside[at] = format!("{backend}{}", shown.len());
            shown.push(physical.map_or_else(|| index.to_string(), str::to_owned));
            visible.outside.insert(visible.inside[at].clone(), name.clone());
        }
        let value = if shown.is_empty() { nothing.to_owned() } else { shown.join(",") };
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
        let Visible { variables, inside, outside } = visible(&devices, ours);
        for (inner, outer) in inside.iter().zip(&devices).filter(|(_, outer)| outer.starts_with("CUDA")) {
            assert_eq!(outside.get(inner), Some(outer));
        }
        (inside, variables[0].1.clone(), variables[2].1.clone())
    }

    #[test]
    fn a_process_sees_its_own_devices_alone() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(&["CPU"], None), (words(&["CPU"]), "-1".to_owned(), String::new()));
        assert_eq!(of(&["CUDA3", "CUDA1"], None), (words(&["CUDA0", "CUDA1"]), "3,1".to_owned(), String::new()));
        assert_eq!(of(&["CUDA1"], Some("5, 7")), (words(&["CUDA0"]), "7".to_owned(), String::new()));
        assert_eq!(of(&["Vulkan1"], None), (words(&["Vulkan0"]), "-1".to_owned(), "1".to_owned()));
        let rpc = ["RPC[box:1]", "CUDA0"];
        assert_eq!(of(&rpc, None), (words(&rpc), "0".to_owned(), String::new()));
    }
}
