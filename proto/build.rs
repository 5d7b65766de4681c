//! Compiles the protos without a system `protoc`.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const FILES: [&str; 11] = [
    "artel/v1/tasks.proto",
    "artel/v1/events.proto",
    "artel/v1/catalog.proto",
    "artel/v1/router.proto",
    "artel/v1/engines.proto",
    "artel/v1/admin.proto",
    "artel/v1/access.proto",
    "artel/v1/sampling.proto",
    "artel/v1/models.proto",
    "artel/v1/knowledge.proto",
    "artel/v1/training.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("artel.v1.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // Programs find the descriptor of a message by its name.
    config.enable_type_names();
    tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds_with_config(descriptors, config)?;
    Ok(())
}
