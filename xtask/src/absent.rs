//! Commands that are named in the plan but whose subject is not in the tree yet.
//!
//! They answer with exit status 2, like a command that does not exist: nobody may take silence or a
//! zero for a passed check.

use std::process::ExitCode;

pub const GUESTS: &str = "the part that talks to guests (plasmavmc-agent)";
pub const DECLARATIVE: &str = "declarative creation (`plasmavmc apply`)";

/// Says what is missing and which part of the project brings it.
pub fn refuse(command: &str, brought_by: &str) -> ExitCode {
    eprintln!("error: `cargo xtask {command}` is not there yet: it comes with {brought_by}");
    ExitCode::from(2)
}
