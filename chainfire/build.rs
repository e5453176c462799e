//! Compiles `proto/chainfire/*.proto` without protoc and keeps the descriptors for reflection.

use std::path::Path;

use prost::Message;

const FILES: [&str; 3] = ["chainfire/kv.proto", "chainfire/cluster.proto", "chainfire/raft.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&root])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
