//! The commands that our documentation prints, run as they are printed.
//!
//! ```text
//!   README.md, runbooks/*.md ── blocks ──> what to type, and on which machine
//!                                              │
//!                                            Home    alpha, beta, gamma: network, processes and files of their own
//! ```
//! A fenced block of `sh` is run; its first line may say where: `# on alpha`, `# on every host`, `# in a terminal of
//! its own`. What a reader has to fetch by other means (the packages, a guest) lies in the home folder beforehand.
//! Nothing in a command is replaced: what a reader would have to replace does not belong into the documentation.

mod blocks;
mod home;

pub use blocks::{Block, Place, blocks};
pub use home::{Home, NAMES, Terminal};
