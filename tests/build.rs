//! Compiles the part of etcd's interface that the benchmark speaks, without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    println!("cargo:rerun-if-changed={}", root.join("etcd.proto").display());
    let descriptors = protox::compile(["etcd.proto"], [&root])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
