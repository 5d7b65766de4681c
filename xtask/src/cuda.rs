//! `cargo xtask cuda`: `artel` for NVIDIA's GPUs, compiled on any machine, by hand: it takes longer than all the rest together.

mod toolkit;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use crate::local_daemon::{LocalDaemon, message};
use crate::shell;

/// Where NVIDIA's own installer puts the compiler.
const INSTALLED_COMPILER: &str = "/usr/local/cuda/bin/nvcc";

/// Which CUDA compiler a build takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CudaCompiler {
    /// The one of Python's packages, whatever the machine has.
    Packaged,
    /// The machine's own, if it has one.
    Installed,
}

/// What was built.
pub(crate) struct CudaBuild {
    /// The binary, with `artel-bench` beside it.
    pub(crate) artel: PathBuf,
    /// The compiler, in words.
    pub(crate) compiler: String,
    /// From start to end.
    wall: Duration,
    /// On all cores together.
    cpu: Duration,
}

/// Builds, prints what it took, and starts the result.
pub(crate) fn run(cache: &Path, architectures: &str, jobs: Option<usize>) -> Result<()> {
    let build = build(cache, architectures, jobs, CudaCompiler::Packaged)?;
    let bytes = fs::metadata(&build.artel).with_context(|| format!("failed to read {}", build.artel.display()))?.len();
    println!("built:    {} with {}, for {architectures}", build.artel.display(), build.compiler);
    println!("time:     {:.1} min, {:.1} min of CPU time", minutes(build.wall), minutes(build.cpu));
    println!(
        "size:     {:.0} MB; cuBLAS is loaded from {}",
        bytes as f64 / 1e6,
        toolkit::prepare(cache)?.libraries().display()
    );
    start(cache, &build.artel)
}

/// Builds `artel` and `artel-bench` for these architectures, in a target directory of their own: what was compiled once stays.
pub(crate) fn build(cache: &Path, architectures: &str, jobs: Option<usize>, wanted: CudaCompiler) -> Result<CudaBuild> {
    let architectures = self::architectures(architectures)?;
    let target = cache.join(format!("target-cuda-{}", architectures.replace(';', "-")));
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--release", "-p", "artel", "-p", "artel-bench", "--features", "artel/cuda"]);
    cargo.arg("--target-dir").arg(&target);
    // Kernels are compiled once, also when a build is interrupted.
    cargo.env("CMAKE_CUDA_COMPILER_LAUNCHER", "ccache").env("CMAKE_CUDA_ARCHITECTURES", architectures);
    if let Some(jobs) = jobs {
        cargo.env("CMAKE_BUILD_PARALLEL_LEVEL", jobs.to_string()).arg("--jobs").arg(jobs.to_string());
    }
    let installed = installed_compiler().filter(|_| wanted == CudaCompiler::Installed);
    let compiler = if let Some(path) = installed {
        cargo.env("CMAKE_CUDA_COMPILER", &path);
        format!("{} ({})", path.display(), version(&path))
    } else {
        toolkit::prepare(cache)?.set(&mut cargo);
        "CUDA 13.0 of Python's packages".to_owned()
    };
    eprintln!("xtask: building artel with its feature `cuda` in {}; this takes long", target.display());
    let (started, used) = (Instant::now(), cpu_of_children()?);
    let artel = shell::built(&mut cargo, "artel")?;
    Ok(CudaBuild { artel, compiler, wall: started.elapsed(), cpu: cpu_of_children()?.saturating_sub(used) })
}

/// Starts the program, as far as that goes without a GPU: it loads its libraries, and lists the devices that it finds.
fn start(cache: &Path, artel: &Path) -> Result<()> {
    let data = cache.join("cuda-start");
    let models = cache.join("models");
    let mut daemon = LocalDaemon::start(artel, &data, &[OsStr::new("--models"), models.as_os_str()], &[])?;
    let devices = output(&mut daemon.command("devices"))?;
    daemon.stop()?;
    println!("starts:   yes, and lists these devices\n\n{}\n", devices.trim_end());
    // The daemon keeps to itself what a driver says that has no device.
    let probe = Command::new(artel).args(["engine", "--probe"]).output();
    let probe = probe.with_context(|| format!("failed to start {}", artel.display()))?;
    for line in String::from_utf8_lossy(&probe.stderr).lines() {
        println!("driver:   {}", message(line));
    }
    if !devices.contains("CUDA") {
        println!("there is no GPU of NVIDIA's, so nothing was computed with this program");
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compute capabilities without their dot, such as `86` or `86;89`. CMake would take another text for several flags.
pub(crate) fn architectures(text: &str) -> Result<String> {
    let is_one = |part: &str| (2..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !text.split(';').all(is_one) {
        bail!(
            "`{text}` is no compute capability: name it without its dot, such as 86 for 8.6, several with `;` between"
        );
    }
    Ok(text.to_owned())
}

/// The machine's own compiler.
pub(crate) fn installed_compiler() -> Option<PathBuf> {
    let installed = Some(PathBuf::from(INSTALLED_COMPILER)).filter(|path| path.is_file());
    shell::in_path("nvcc").or(installed)
}

/// The line of `nvcc --version` that has its release.
fn version(compiler: &Path) -> String {
    let output = Command::new(compiler).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().find(|line| line.contains("release")).unwrap_or("unknown version").trim().to_owned()
}

/// CPU time of all ended children of this process and of theirs.
fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("failed to read the CPU time of child processes")?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

fn minutes(duration: Duration) -> f64 {
    duration.as_secs_f64() / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_compute_capabilities_without_a_dot() {
        for text in ["86", "120", "75;86;120"] {
            assert_eq!(architectures(text).unwrap(), text);
        }
        for text in ["", "8.6", "86;", "86,89", "native", "86 -DX=1"] {
            let error = architectures(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("such as 86"), "{error}");
        }
    }
}
