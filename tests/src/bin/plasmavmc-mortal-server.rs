//! `plasmavmc-server`, with a place where it dies: `PLASMAVMC_FAILPOINT=claim-after:3`.
//!
//! Only a program of the tests can be told to: what is installed has nothing that arms a place.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use plasmavmc_server::{failpoint, program};
use plasmavmc_tests::cluster::FAILPOINT_ENV;

fn main() -> ExitCode {
    if let Ok(place) = std::env::var(FAILPOINT_ENV)
        && !failpoint::arm(&place)
    {
        eprintln!("there is no place {place:?} to die at");
        return ExitCode::from(2);
    }
    program::main()
}
