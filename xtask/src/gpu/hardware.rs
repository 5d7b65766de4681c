//! The GPUs of this machine, by the tools of their drivers.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shell;

/// A GPU of NVIDIA's, as `nvidia-smi` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NvidiaGpu {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) memory: String,
    /// Its compute capability without the dot, as the compiler wants it.
    pub(crate) architecture: String,
}

/// What was found, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Hardware {
    pub(crate) nvidia: Vec<NvidiaGpu>,
    /// GPUs of any maker that Vulkan's loader finds. Drivers that compute on the CPU are left out.
    pub(crate) vulkan: Vec<String>,
    /// What is missing for more, in sentences.
    pub(crate) missing: Vec<String>,
}

/// Asks the tools of the drivers.
pub(crate) fn inspect() -> Hardware {
    let mut missing = Vec::new();
    let query = ["--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"];
    let nvidia = ask(Command::new("nvidia-smi").args(query)).map_or_else(
        |reason| {
            missing.push(format!("nvidia-smi {reason}: the driver of an NVIDIA GPU brings it"));
            Vec::new()
        },
        |text| nvidia_gpus(&text),
    );
    let vulkan = ask(Command::new("vulkaninfo").arg("--summary")).map_or_else(
        |reason| {
            missing.push(format!("vulkaninfo {reason}: the Debian package vulkan-tools brings it"));
            Vec::new()
        },
        |text| vulkan_gpus(&text),
    );
    if device_files(Path::new("/dev")).is_empty() {
        missing.push("the kernel shows no GPU: there is neither /dev/nvidia0 nor /dev/dri/renderD128".to_owned());
    }
    if shell::in_path("nvcc").is_none() {
        missing.push("nvcc is not installed: `cargo xtask cuda` builds with the one of Python's packages".to_owned());
    }
    Hardware { nvidia, vulkan, missing }
}

impl Hardware {
    pub(crate) fn has_gpu(&self) -> bool {
        !self.nvidia.is_empty() || !self.vulkan.is_empty()
    }

    /// The compute capabilities of all of NVIDIA's GPUs, each once, as the compiler wants them.
    pub(crate) fn architectures(&self) -> String {
        let mut all: Vec<&str> = self.nvidia.iter().map(|gpu| gpu.architecture.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        all.join(";")
    }
}

/// The output of a tool, or why there is none.
fn ask(command: &mut Command) -> Result<String, AskError> {
    let output = command.output().map_err(|_| AskError::Missing)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let words = [text(&output.stderr), text(&output.stdout)].concat();
    Err(AskError::Failed(words.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a word").to_owned()))
}

/// Why a tool of a driver says nothing.
#[derive(Debug)]
enum AskError {
    Missing,
    Failed(String),
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is not installed"),
            Self::Failed(words) => write!(f, "failed ({words})"),
        }
    }
}

/// The lines of `nvidia-smi`: name, driver, memory and compute capability.
fn nvidia_gpus(text: &str) -> Vec<NvidiaGpu> {
    let gpu = |line: &str| {
        let mut fields = line.split(',').map(|field| field.trim().to_owned());
        let (name, driver, memory) = (fields.next()?, fields.next()?, fields.next()?);
        Some(NvidiaGpu { name, driver, memory, architecture: fields.next()?.replace('.', "") })
    };
    text.lines().filter_map(gpu).collect()
}

/// The names in the summary of `vulkaninfo`: each device has its type before its name.
fn vulkan_gpus(text: &str) -> Vec<String> {
    let value = |line: &str, key: &str| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == key).then(|| value.trim().to_owned())
    };
    let (mut names, mut is_gpu) = (Vec::new(), false);
    for line in text.lines() {
        if let Some(kind) = value(line, "deviceType") {
            is_gpu = kind.ends_with("_GPU");
        }
        if let Some(name) = value(line, "deviceName").filter(|_| is_gpu) {
            names.push(name);
        }
    }
    names
}

/// The files by which the kernel offers GPUs.
fn device_files(dev: &Path) -> Vec<String> {
    let of = |dir: &Path, prefix: &str| -> Vec<String> {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let is_numbered = |name: &String| {
            let number = name.strip_prefix(prefix);
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        names.filter(is_numbered).collect()
    };
    [of(dev, "nvidia"), of(&dev.join("dri"), "renderD")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_of_nvidia_are_read_with_their_architecture() {
        let text = "NVIDIA GeForce RTX 3060, 580.82.07, 12288 MiB, 8.6\nNVIDIA H200, 580.82.07, 143771 MiB, 9.0\n";
        let nvidia = nvidia_gpus(text);
        assert_eq!((nvidia[0].name.as_str(), nvidia[0].memory.as_str()), ("NVIDIA GeForce RTX 3060", "12288 MiB"));
        assert_eq!(nvidia[1].driver, "580.82.07");
        let hardware = Hardware { nvidia: [&nvidia[..], &nvidia[..1]].concat(), ..Hardware::default() };
        assert_eq!(hardware.architectures(), "86;90");
        assert!(nvidia_gpus("No devices were found\n").is_empty());
    }

    #[test]
    fn drivers_of_vulkan_that_compute_on_the_cpu_are_no_gpus() {
        let text = "GPU0:\n\tdeviceType         = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU\n\tdeviceName         = Intel(R) Iris\n\
                    GPU1:\n\tdeviceType         = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName         = llvmpipe (LLVM 15)\n\
                    GPU2:\n\tdeviceType         = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n\tdeviceName         = AMD Radeon\n";
        assert_eq!(vulkan_gpus(text), ["Intel(R) Iris", "AMD Radeon"]);
    }

    #[test]
    fn files_that_are_no_devices_do_not_count() {
        let dir = std::env::temp_dir().join(format!("artel-gpu-{}", std::process::id()));
        fs::create_dir_all(dir.join("dri")).unwrap();
        for name in ["nvidia0", "nvidiactl", "nvidia-uvm", "dri/renderD128", "dri/card0"] {
            fs::write(dir.join(name), "").unwrap();
        }
        assert_eq!(device_files(&dir), ["nvidia0", "renderD128"]);
        fs::remove_dir_all(dir).unwrap();
    }
}
