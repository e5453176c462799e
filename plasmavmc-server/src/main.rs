//! The program `plasmavmc-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    plasmavmc_server::program::main()
}
