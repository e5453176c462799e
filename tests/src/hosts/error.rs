//! Why a lab could not do what a test asked.

use std::path::PathBuf;
use std::time::Duration;

/// What failed, with the words of the tool or the kernel that refused.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("hosts are made of namespaces, which needs root: run the tests as root or with sudo (this is uid {uid})")]
    NotRoot { uid: u32 },
    #[error("`{program}` is missing; `cargo xtask test` installs it (Debian package {package})")]
    MissingTool {
        program: &'static str,
        package: &'static str,
    },
    #[error("cannot start `{program}`")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{command}` failed: {stderr}")]
    Refused { command: String, stderr: String },
    #[error("{what} did not answer within {waited:?}")]
    Late { what: String, waited: Duration },
    #[error("{what} ended before it was ready")]
    EndedEarly { what: String },
    #[error("host {host} has no power")]
    NoPower { host: usize },
    #[error("host {host} has no disk of limited size")]
    NoLimit { host: usize },
    #[error("cannot use {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot enter a namespace")]
    Enter(#[source] std::io::Error),
}

impl LabError {
    /// For `map_err` on calls about one path.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
