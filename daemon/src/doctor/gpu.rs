//! The GPUs that the kernel shows, whether this program can use them or not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Maker {
    Nvidia,
    Amd,
    Intel,
    Apple,
}

/// The GPUs of one maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    pub(super) maker: Maker,
    /// Files through which programs reach them and which this user may not open.
    pub(super) shut: Vec<String>,
}

impl Maker {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
            Self::Apple => "Apple",
        }
    }

    /// The cargo features that make use of them, the best first.
    pub(super) fn features(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => &["cuda", "vulkan"],
            Self::Amd => &["rocm", "vulkan"],
            Self::Intel => &["vulkan"],
            Self::Apple => &["metal"],
        }
    }

    /// What shows whether their driver works.
    pub(super) fn tool(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia-smi",
            Self::Amd => "rocminfo",
            Self::Intel | Self::Apple => "vulkaninfo --summary",
        }
    }

    /// From the vendor's number on the PCI bus.
    fn of(number: &str) -> Option<Self> {
        match number.trim() {
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

/// Looks below the root of a file system.
pub(super) fn look(root: &Path) -> Vec<Gpu> {
    let mut found: BTreeMap<Maker, Vec<PathBuf>> = BTreeMap::new();
    for node in nodes(&root.join("dev"), "nvidia") {
        found.entry(Maker::Nvidia).or_default().push(node);
    }
    let kfd = root.join("dev/kfd");
    // It is there on machines without such a GPU too.
    let mut amd = false;
    for node in nodes(&root.join("dev/dri"), "renderD") {
        let name = node.file_name().unwrap_or_default();
        let vendor = root.join("sys/class/drm").join(name).join("device/vendor");
        let Some(maker) = fs::read_to_string(vendor).ok().as_deref().and_then(Maker::of) else { continue };
        amd |= maker == Maker::Amd;
        found.entry(maker).or_default().push(node);
    }
    if amd && kfd.exists() {
        found.entry(Maker::Amd).or_default().push(kfd);
    }
    if cfg!(target_os = "macos") {
        found.entry(Maker::Apple).or_default();
    }
    let shut = |node: &PathBuf| access(node, AccessFlags::R_OK | AccessFlags::W_OK).is_err();
    let shown = |node: PathBuf| node.display().to_string();
    let gpu = |(maker, nodes): (Maker, Vec<PathBuf>)| Gpu {
        maker,
        shut: nodes.into_iter().filter(shut).map(shown).collect(),
    };
    found.into_iter().map(gpu).collect()
}

/// The files of a directory that have this name and a number.
fn nodes(dir: &Path, name: &str) -> Vec<PathBuf> {
    let numbered = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.strip_prefix(name));
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
    fn gpus_are_found_by_what_the_kernel_shows() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(look(root.path()).iter().all(|gpu| gpu.maker == Maker::Apple));
        make("dev/kfd", "");
        make("dev/nvidia0", "");
        make("dev/nvidiactl", "");
        make("dev/dri/renderD128", "");
        make("sys/class/drm/renderD128/device/vendor", "0x10de\n");
        make("dev/dri/renderD129", "");
        make("sys/class/drm/renderD129/device/vendor", "0x8086\n");
        make("dev/dri/renderD130", "");
        make("sys/class/drm/renderD130/device/vendor", "0x1af4\n");
        let makers: Vec<Maker> = look(root.path()).into_iter().map(|gpu| gpu.maker).collect();
        assert!(makers.starts_with(&[Maker::Nvidia, Maker::Intel]), "{makers:?}");
        assert!(!makers.contains(&Maker::Amd), "{makers:?}");
        make("sys/class/drm/renderD130/device/vendor", "0x1002\n");
        assert!(look(root.path()).iter().any(|gpu| gpu.maker == Maker::Amd && gpu.shut.is_empty()));
    }
}
