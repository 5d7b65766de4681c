//! NVIDIA's compiler and libraries out of Python's packages, put together as CMake and the linker expect a toolkit.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// The packages of one toolkit: another version of one of them may not fit the rest. CUDA 13.0 is the oldest whose packages have a
/// whole compiler, and so runs with the most drivers.
const PACKAGES: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cublas==13.1.0.3",
];
/// Their directory, as the packages name it.
const ROOT: &str = "nvidia/cu13";
/// What the packages have by the name that a program asks for when it runs, and the linker by another.
const SHARED: [(&str, &str); 3] =
    [("libcudart.so", "libcudart.so.13"), ("libcublas.so", "libcublas.so.13"), ("libcublasLt.so", "libcublasLt.so.13")];
/// Archives that `llama-cpp-sys-2` names to the linker. The packages have their content as shared libraries alone, or in
/// `libcudart_static.a`.
const EMPTY_ARCHIVES: [&str; 3] = ["libcublas_static.a", "libcublasLt_static.a", "libculibos.a"];
/// How an archive begins; one without members has nothing more.
const ARCHIVE_MAGIC: &str = "!<arch>\n";
/// The functions of the driver, without the driver.
const DRIVER: &str = include_str!("../../cuda/driver.c");

/// A toolkit that was put together here.
pub(crate) struct Toolkit {
    root: PathBuf,
}

/// Puts the toolkit together in the cache, unless it is there.
pub(crate) fn prepare(cache: &Path) -> Result<Toolkit> {
    let dir = cache.join("cuda-13.0");
    let toolkit = Toolkit { root: dir.join(ROOT) };
    let stamp = dir.join("made-of.txt");
    let wanted = format!("{}\n{DRIVER}", PACKAGES.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(toolkit);
    }
    eprintln!("xtask: fetching CUDA 13.0 from Python's registry into {} (0.9 GB there)", dir.display());
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"];
    shell::run(Command::new(shell::python(cache)).args(pip).arg("--target").arg(&dir).args(PACKAGES))?;
    toolkit.complete(&dir)?;
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(toolkit)
}

impl Toolkit {
    /// Adds what an installed toolkit has and the packages lack.
    fn complete(&self, dir: &Path) -> Result<()> {
        let libraries = self.libraries();
        symlink("lib", self.root.join("lib64")).context("failed to link lib64")?;
        for (name, target) in SHARED {
            symlink(target, libraries.join(name)).with_context(|| format!("failed to link {name}"))?;
        }
        for name in EMPTY_ARCHIVES {
            fs::write(libraries.join(name), ARCHIVE_MAGIC).with_context(|| format!("failed to write {name}"))?;
        }
        let (source, object) = (dir.join("driver.c"), dir.join("driver.o"));
        fs::write(&source, DRIVER).with_context(|| format!("failed to write {}", source.display()))?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-fPIC", "-c"])
            .arg("-I")
            .arg(self.root.join("include"))
            .arg(&source)
            .arg("-o")
            .arg(&object);
        shell::run(&mut compile)?;
        shell::run(Command::new("ar").arg("rcs").arg(libraries.join("libcuda.a")).arg(&object))
    }

    /// The directory of its libraries, from which a program loads cuBLAS when it starts.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.root.join("lib")
    }

    /// Tells cargo, the build of `llama-cpp-sys-2`, CMake and the linker of it.
    pub(crate) fn set(&self, cargo: &mut Command) {
        for variable in ["CUDAToolkit_ROOT", "CUDA_PATH", "CUDA_LIBRARY_PATH"] {
            cargo.env(variable, &self.root);
        }
        cargo.env("CMAKE_CUDA_COMPILER", self.root.join("bin/nvcc"));
        let libraries = self.libraries();
        let libraries = libraries.display();
        let flags = format!(
            "build.rustflags=['-L','native={libraries}','-C','link-arg=-lcublas','-C','link-arg=-Wl,-rpath,{libraries}']"
        );
        // Beside those of the repository's configuration, which the variable RUSTFLAGS would replace.
        cargo.arg("--config").arg(flags).env_remove("RUSTFLAGS");
    }
}
