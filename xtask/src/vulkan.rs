//! `cargo xtask vulkan`: the tests of Vulkan devices, on Mesa's lavapipe where there is no GPU.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{models, setup, shell};

/// Where there is a file whose name begins so, and the Debian package that brings it.
const NEEDED: [(&str, &str, &str); 3] = [
    ("/usr/bin", "glslc", "glslc"),
    ("/usr/include/vulkan", "vulkan.hpp", "libvulkan-dev"),
    ("/usr/share/cmake/SPIRV-Headers", "SPIRV-HeadersConfig.cmake", "spirv-headers"),
];
/// The same of lavapipe, which only tests need.
const DRIVER: (&str, &str, &str) = ("/usr/share/vulkan/icd.d", "lvp_icd", "mesa-vulkan-drivers");

/// Installs what is missing, builds `artel` for Vulkan and runs the tests, in a target directory of their own: the shaders
/// alone take ten minutes on two cores, and the ordinary binary stays as it is.
pub(crate) fn run(cache: &Path) -> Result<()> {
    install(&[&NEEDED[..], &[DRIVER]].concat())?;
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
    install(&NEEDED)?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--release", "-p", "artel", "-p", "artel-bench", "--features", "artel/vulkan"]);
    cargo.arg("--target-dir").arg(cache.join("target-vulkan-release"));
    shell::built(&mut cargo, "artel")
}

/// Installs lavapipe if it is missing, and gives the variables that show it, and no other device of Vulkan, to llama.cpp, which
/// ignores devices that compute on the CPU unless they are named.
pub(crate) fn show_lavapipe() -> Result<Vec<(String, String)>> {
    let (dir, name, package) = DRIVER;
    install(&[DRIVER])?;
    let driver = find(dir, name).with_context(|| format!("{package} brought no {dir}/{name}*"))?.display().to_string();
    // Vulkan loaders before 1.3.207 read the first name, later ones both.
    let variables = [
        ("VK_ICD_FILENAMES", driver.clone()),
        ("VK_DRIVER_FILES", driver),
        ("GGML_VK_VISIBLE_DEVICES", "0".to_owned()),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Installs those of the packages whose file is missing.
fn install(packages: &[(&str, &str, &str)]) -> Result<()> {
    let missing = packages.iter().filter(|(dir, name, _)| find(dir, name).is_none()).map(|(.., package)| *package);
    setup::install(&missing.collect::<Vec<_>>())
}

/// A file whose name begins so.
fn find(dir: &str, name: &str) -> Option<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.map(|file| file.path()).find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name)))
}
