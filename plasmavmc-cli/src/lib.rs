//! The `plasmavmc` command.
//!
//! Owns: arguments, tables, JSON output and exit statuses. They come with the issue that brings the public
//! API; there is no code here before.
//!
//! Must never: know more than the public API tells, read a server's files, or hold a rule of its own about
//! what is allowed: the server says no, the command repeats the reason.

#![forbid(unsafe_code)]
