//! The `plasmavmc` command.
//!
//! Owns: arguments, tables, JSON output, the terminal of a console, and exit statuses.
//!
//! Must never: know more than the public API tells, read a server's files, or hold a rule of its own about what is
//! allowed: the server says no, the command repeats the reason.
//!
//! A command goes: [`args`] reads it, [`run`] gives it to the module of its subject, which asks through [`reach`]
//! and prints through [`show`]; what took longer than a call is followed by [`progress`]; what went wrong ends as a
//! [`failure`].

#![forbid(unsafe_code)]

mod args;
mod bundle;
mod cluster;
mod context;
mod doctor;
mod events;
mod failure;
#[cfg(test)]
mod fake;
mod fields;
mod first_steps;
mod host;
mod kv;
mod manual;
mod ops;
mod progress;
mod reach;
mod resume;
mod run;
mod show;
mod vm;
mod words;

pub use failure::Exit;
pub use run::run;
