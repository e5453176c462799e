//! Compiles `proto/plasmavmc/*.proto` without protoc and keeps the descriptors for reflection.

use std::path::Path;

use prost::Message;

const FILES: [&str; 8] = [
    "plasmavmc/spec.proto",
    "plasmavmc/vm.proto",
    "plasmavmc/operation.proto",
    "plasmavmc/host.proto",
    "plasmavmc/cluster.proto",
    "plasmavmc/event.proto",
    "plasmavmc/node.proto",
    "plasmavmc/store.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [root])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
