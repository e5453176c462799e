//! What goes to standard output and standard error.
//!
//! Standard output carries the answer and nothing else, so that it can be piped; everything that accompanies it
//! (progress, notes, questions, failures) goes to standard error.

mod age;
mod cluster;
mod detail;
mod event;
mod host;
mod operation;
mod table;
mod vm;

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::{Form, Global};
use crate::failure::Failure;
use crate::fields::{Described, Node, node_of};

pub use age::{age, clock_time, milliseconds};
pub use cluster::{members_table, status_text, timings_table};
pub use event::event_line;
pub use host::{host_text, hosts_table};
pub use operation::{operation_text, operations_table};
pub use table::{Cell, Table, Tone};
pub use vm::{explain_text, state_word, vm_line, vm_text, vms_table};

/// How this command prints.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub form: Form,
    pub quiet: bool,
    pub colours: bool,
    /// Standard error is a terminal: there may be a line that changes.
    pub is_live: bool,
    pub now_ms: u64,
}

impl Screen {
    pub fn of(global: &Global) -> Self {
        let no_colour_wanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            form: global.output,
            quiet: global.quiet,
            colours: !global.no_color && !no_colour_wanted && io::stdout().is_terminal(),
            is_live: io::stderr().is_terminal(),
            now_ms: now_ms(),
        }
    }

    /// One answer: as text for people, else as it is.
    pub fn one<M: Described>(&self, message: &M, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.form {
            Form::Table => print(&text()),
            form => print(&written(form, &node_of(message))),
        }
    }

    /// A list of answers.
    pub fn list<M: Described>(&self, messages: &[M], text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.form {
            Form::Table => print(&text()),
            form => print(&written(form, &Node::List(messages.iter().map(node_of).collect()))),
        }
    }

    /// One of many answers without an end: a line, or a document of its own.
    pub fn streamed(&self, node: impl FnOnce() -> Node, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.form {
            Form::Table => print(&text()),
            Form::Json => print(&serde_json::to_string(&node()).unwrap_or_default()),
            Form::Yaml => print(&format!("---\n{}", written(Form::Yaml, &node()))),
        }
    }

    pub fn node(&self, node: &Node, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.form {
            Form::Table => print(&text()),
            form => print(&written(form, node)),
        }
    }

    /// What a person may want to know besides. Programs and the quiet get none.
    pub fn note(&self, text: &str) {
        if !self.quiet && self.form == Form::Table {
            // Nobody is there to tell that standard error is closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    pub fn failure(&self, failure: &Failure) {
        let text = match self.form {
            Form::Table => failure.for_people(),
            Form::Json | Form::Yaml => failure.for_programs().to_string(),
        };
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn written(form: Form, node: &Node) -> String {
    // A tree of plain values has a form in both.
    match form {
        Form::Yaml => serde_yaml_ng::to_string(node).unwrap_or_default().trim_end().to_owned(),
        Form::Table | Form::Json => serde_json::to_string_pretty(node).unwrap_or_default(),
    }
}

/// Prints a text and ends the line. That nobody reads any more ends the command without a word.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut write = || {
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') && !text.is_empty() {
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|error| Failure::io("write to standard output", error))
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
