//! `cargo xtask test`.

use std::path::Path;

use anyhow::Result;

use crate::{demo, models, setup, shell};

pub(crate) fn run(cache: &Path, args: &[String]) -> Result<()> {
    // The black-box tests start this binary.
    demo::build()?;
    let nextest = shell::cargo().args(["nextest", "--version"]).output().is_ok_and(|out| out.status.success());
    let mut command = shell::cargo();
    command.args(if nextest { &["nextest", "run"][..] } else { &["test"][..] });
    command.args(["--locked", "--workspace"]).args(args);
    command.env("ARTEL_TEST_MODELS", models::dir(cache)).env("ARTEL_TEST_PYTHON", setup::python(cache));
    shell::run(&mut command)
}
