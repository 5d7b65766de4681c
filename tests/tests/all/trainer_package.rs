//! The Python package of the trainer passes its own tests.

use std::process::Stdio;

use artel_tests::{repository, trainer_python};
use tempfile::TempDir;
use tokio::process::Command;

#[tokio::test]
async fn the_trainer_passes_its_own_tests() {
    let scratch = TempDir::new().unwrap();
    let package = repository().join("agents/training/trainer");
    // What Python compiles would lie in the source, which is a part of the binary.
    let run = Command::new(trainer_python())
        .args(["-B", "-m", "pytest", "-p", "no:cacheprovider", "--basetemp"])
        .arg(scratch.path().join("pytest"))
        .current_dir(&package)
        .env("PYTHONPATH", &package)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains(" passed"), "{told}{}", String::from_utf8_lossy(&run.stderr));
    assert!(!told.contains("skipped"), "{told}");
}
