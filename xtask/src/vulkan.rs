//! `cargo xtask vulkan`: the tests of Vulkan devices, on Mesa's lavapipe where there is no GPU.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{models, setup, shell};

/// Where there is a file whose name begins so, and the Debian package that brings it.
const NEEDED: [(&str, &str, &str); 4] = [
    ("/usr/bin", "glslc", "glslc"),
    ("/usr/include/vulkan", "vulkan.hpp", "libvulkan-dev"),
    ("/usr/share/cmake/SPIRV-Headers", "SPIRV-HeadersConfig.cmake", "spirv-headers"),
    ("/usr/share/vulkan/icd.d", "lvp_icd", "mesa-vulkan-drivers"),
];

/// Installs what is missing, builds `artel` for Vulkan and runs the tests, in a target directory of their own: the shaders
/// alone take ten minutes on two cores, and the ordinary binary stays as it is.
pub(crate) fn run(cache: &Path) -> Result<()> {
    let missing = NEEDED.iter().filter(|(dir, name, _)| !has(dir, name)).map(|(.., package)| *package);
    setup::install(&missing.collect::<Vec<_>>())?;
    let target = cache.join("target-vulkan");
    eprintln!("xtask: building artel with its feature `vulkan` in {}", target.display());
    let cargo = |verb: &str| {
        let mut cargo = shell::cargo();
        // The whole workspace both times: another choice of packages has other features, and would be built anew.
        cargo.args([verb, "--locked", "--workspace", "--features", "artel/vulkan,artel-tests/vulkan"]);
        cargo.arg("--target-dir").arg(&target);
        cargo
    };
    shell::run(cargo("build").args(["--bin", "artel"]))?;
    shell::run(cargo("test").args(["--test", "all", "vulkan::"]).env("ARTEL_TEST_MODELS", models::dir(cache)))
}

/// Builds `artel` and `artel-bench` for Vulkan as people run them, for the driver that the machine has.
pub(crate) fn build_release(cache: &Path) -> Result<PathBuf> {
    let is_driver = |package: &str| package == "mesa-vulkan-drivers";
    let missing = NEEDED.iter().filter(|(dir, name, package)| !is_driver(package) && !has(dir, name));
    setup::install(&missing.map(|(.., package)| *package).collect::<Vec<_>>())?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--release", "-p", "artel", "-p", "artel-bench", "--features", "artel/vulkan"]);
    cargo.arg("--target-dir").arg(cache.join("target-vulkan-release"));
    shell::built(&mut cargo, "artel")
}

fn has(dir: &str, name: &str) -> bool {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with(name))
}
