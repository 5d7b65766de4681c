//! The GPUs that the kernel lists, whether or not this program can use them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The vendor of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GpuVendor {
    Nvidia,
    Amd,
    Intel,
    Apple,
}

/// The GPUs of one vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemGpu {
    pub(super) vendor: GpuVendor,
    /// Their device files that this user may not open.
    pub(super) inaccessible: Vec<String>,
}

impl GpuVendor {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
            Self::Apple => "Apple",
        }
    }

    /// The cargo features that support them, the best first.
    pub(super) fn features(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => &["cuda", "vulkan"],
            Self::Amd => &["rocm", "vulkan"],
            Self::Intel => &["vulkan"],
            Self::Apple => &["metal"],
        }
    }

    /// The tool that shows whether their driver works.
    pub(super) fn diagnostic_tool(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia-smi",
            Self::Amd => "rocminfo",
            Self::Intel | Self::Apple => "vulkaninfo --summary",
        }
    }

    /// From the PCI vendor id.
    fn from_pci_id(id: &str) -> Option<Self> {
        match id.trim() {
            "0x10de" => Some(Self::Nvidia),
            "0x1002" => Some(Self::Amd),
            "0x8086" => Some(Self::Intel),
            _ => None,
        }
    }
}

/// The features for GPUs that this program was built with.
pub(super) fn features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("rocm", cfg!(feature = "rocm")),
    ];
    all.into_iter().filter_map(|(name, built)| built.then_some(name)).collect()
}

/// Lists the GPUs below the root of a file system.
pub(super) fn list(root: &Path) -> Vec<SystemGpu> {
    let mut nodes_by_vendor: BTreeMap<GpuVendor, Vec<PathBuf>> = BTreeMap::new();
    for node in nodes(&root.join("dev"), "nvidia") {
        nodes_by_vendor.entry(GpuVendor::Nvidia).or_default().push(node);
    }
    let kfd = root.join("dev/kfd");
    // It exists on machines without an AMD GPU too.
    let mut has_amd = false;
    for node in nodes(&root.join("dev/dri"), "renderD") {
        let name = node.file_name().unwrap_or_default();
        let id = root.join("sys/class/drm").join(name).join("device/vendor");
        let Some(vendor) = fs::read_to_string(id).ok().as_deref().and_then(GpuVendor::from_pci_id) else { continue };
        has_amd |= vendor == GpuVendor::Amd;
        nodes_by_vendor.entry(vendor).or_default().push(node);
    }
    if has_amd && kfd.exists() {
        nodes_by_vendor.entry(GpuVendor::Amd).or_default().push(kfd);
    }
    if cfg!(target_os = "macos") {
        nodes_by_vendor.entry(GpuVendor::Apple).or_default();
    }
    let is_inaccessible = |node: &PathBuf| access(node, AccessFlags::R_OK | AccessFlags::W_OK).is_err();
    let display = |node: PathBuf| node.display().to_string();
    let gpu = |(vendor, nodes): (GpuVendor, Vec<PathBuf>)| SystemGpu {
        vendor,
        inaccessible: nodes.into_iter().filter(is_inaccessible).map(display).collect(),
    };
    nodes_by_vendor.into_iter().map(gpu).collect()
}

/// The files of a directory whose name is this prefix and a number.
fn nodes(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let numbered = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.strip_prefix(prefix));
        file.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut nodes: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(numbered).collect();
    nodes.sort();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_by_the_device_files_of_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(list(root.path()).iter().all(|gpu| gpu.vendor == GpuVendor::Apple));
        make("dev/kfd", "");
        make("dev/nvidia0", "");
        make("dev/nvidiactl", "");
        make("dev/dri/renderD128", "");
        make("sys/class/drm/renderD128/device/vendor", "0x10de\n");
        make("dev/dri/renderD129", "");
        make("sys/class/drm/renderD129/device/vendor", "0x8086\n");
        make("dev/dri/renderD130", "");
        make("sys/class/drm/renderD130/device/vendor", "0x1af4\n");
        let vendors: Vec<GpuVendor> = list(root.path()).into_iter().map(|gpu| gpu.vendor).collect();
        assert!(vendors.starts_with(&[GpuVendor::Nvidia, GpuVendor::Intel]), "{vendors:?}");
        assert!(!vendors.contains(&GpuVendor::Amd), "{vendors:?}");
        make("sys/class/drm/renderD130/device/vendor", "0x1002\n");
        assert!(list(root.path()).iter().any(|gpu| gpu.vendor == GpuVendor::Amd && gpu.inaccessible.is_empty()));
    }
}
