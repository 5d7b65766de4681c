//! Programs as another user, which only root can start.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::prerequisites::artel;

/// A user that every system has, and that no daemon of a test runs as.
pub const OTHER_USER_ID: u32 = 65_534;

/// The program `artel` in this directory, where every user can run it; `None`, with words, if this process cannot become another
/// user.
pub fn program_for_other_user(dir: &Path) -> Option<PathBuf> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can start a program as another user");
        return None;
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    let program = dir.join("artel");
    fs::copy(artel(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    Some(program)
}
