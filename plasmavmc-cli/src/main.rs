//! The program `plasmavmc`. It only wires: everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    // One command has little to do at once, and starts the sooner.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(plasmavmc_cli::run(std::env::args_os()));
    // A thread that reads standard input cannot be waited for.
    runtime.shutdown_background();
    Ok(ExitCode::from(exit as u8))
}
